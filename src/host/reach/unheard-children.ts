/**
 * CHILD SAs by which packets are sent and none has ever come, although IKE works. IKE says nothing about the way of ESP:
 * firewalls treat it apart, and peers may send it directly over IP where it was to go in UDP, or drop what does. Traffic in
 * one direction is legitimate (syslog, for example), so this is reported and shown, and nothing is closed.
 */
import { formatAddress, formatSocketAddress } from '../../base/address.ts';
import type { Path } from '../../ike/events.ts';
import type { PeerRouteReport } from './peer-routes.ts';

/**
 * Packets without a reply that count as unheard: one or two are lost on a bad line, or need no reply; three are the
 * shortest `ping` and the third SYN of a TCP connection.
 */
const PACKETS = 3;
/** Milliseconds since the first of them: as long as a peer that does not answer IKE is waited for. */
const SILENCE = 10_000;

/** A CHILD SA. */
export interface ChildTarget {
  readonly tunnel: string;
  readonly id: number;
  readonly name: string;
  /** Equal for SAs that carry the same packets, as when one replaces the other. */
  readonly traffic: string;
  readonly spiIn: number;
  readonly encapsulated: boolean;
  readonly path: Path;
  /** Packets that were sent, without dummies, which cause no reply. */
  readonly sent: number;
  /** Whether an authentic packet has come. */
  readonly heard: boolean;
  /** The latest of these came directly over IP instead of in UDP. */
  readonly receivesBare: boolean;
}

export interface UnheardChildrenOptions {
  /** CHILD SAs of a tunnel. */
  readonly targets: (tunnel: string) => readonly ChildTarget[];
  readonly report: (report: PeerRouteReport) => void;
  /** Whether something else is reported that explains a tunnel's silence. */
  readonly explained: (tunnel: string) => boolean;
}

interface Unheard {
  /** When a sent packet was first seen, on the host's clock. */
  readonly since: number;
  reported: boolean;
  /** ESP of its SA came directly over IP instead of in UDP. */
  bare: boolean;
}

export class UnheardChildren {
  readonly #options: UnheardChildrenOptions;
  /** By tunnel and traffic. BOUNDED: by the CHILD SAs. */
  #unheard = new Map<string, Unheard>();

  constructor(options: UnheardChildrenOptions) {
    this.#options = options;
  }

  /** To be called every few seconds. @param now the host's clock, milliseconds @param children all there are */
  check(now: number, children: NewestChildren): void {
    const { report, explained } = this.#options;
    const before = this.#unheard;
    this.#unheard = new Map();
    for (const [key, target] of children) {
      const { tunnel, name, heard, sent } = target;
      const known = before.get(key);
      if (heard) {
        const text = `CHILD SA #${target.id} ${name}: packets are received now`;
        if (known?.reported === true) report({ tunnel, level: 'info', text, event: 'received' });
        continue;
      }
      if (known === undefined && sent === 0) continue;
      const unheard = known ?? { since: now, reported: false, bare: false };
      this.#unheard.set(key, unheard);
      if (unheard.reported || !isSilent(now, target, unheard) || explained(tunnel)) continue;
      unheard.reported = true;
      report({ tunnel, level: 'warn', text: unheardText(target, unheard), event: 'nothing-received' });
    }
  }

  /** ESP in UDP that was not received: what may come directly over IP instead. */
  missing(children: NewestChildren): ChildTarget[] {
    return [...this.#unheard].flatMap(([key, unheard]) => {
      const target = children.get(key);
      if (target === undefined) return [];
      return target.encapsulated && !target.heard && !unheard.bare ? [target] : [];
    });
  }

  /** ESP of this SA came directly over IP. */
  cameBare(target: ChildTarget): void {
    const { tunnel } = target;
    const unheard = this.#unheard.get(keyOf(target));
    if (unheard === undefined || unheard.bare) return;
    const event = unheard.reported ? undefined : 'nothing-received';
    unheard.bare = true;
    unheard.reported = true;
    this.#options.report({ tunnel, level: 'warn', text: unheardText(target, unheard), event });
  }

  /** Of a tunnel, a sentence each. */
  of(tunnel: string): string[] {
    if (this.#options.explained(tunnel)) return [];
    return [...newest(this.#options.targets(tunnel))].flatMap(([key, target]) => {
      const unheard = this.#unheard.get(key);
      return unheard?.reported === true && !target.heard ? [unheardText(target, unheard)] : [];
    });
  }
}

function isSilent(now: number, { sent }: ChildTarget, { since }: Unheard): boolean {
  return sent >= PACKETS && now - since >= SILENCE;
}

/** By tunnel and traffic. */
export type NewestChildren = ReadonlyMap<string, ChildTarget>;

/** Of SAs that carry the same packets the newest, which is heard when any of them is: the peer may send by another one. */
export function newest(targets: readonly ChildTarget[]): NewestChildren {
  const found = new Map<string, ChildTarget>();
  for (const target of targets) {
    const key = keyOf(target);
    const other = found.get(key);
    const newer = other === undefined || other.id < target.id ? target : other;
    const speaks = newer.heard || other === undefined ? newer : newer === target ? other : target;
    const { receivesBare } = speaks;
    found.set(key, { ...newer, heard: target.heard || other?.heard === true, receivesBare });
  }
  return found;
}

function keyOf({ tunnel, traffic }: ChildTarget): string {
  return `${tunnel} ${traffic}`;
}

function unheardText({ id, name, sent, encapsulated, path }: ChildTarget, { bare }: Unheard): string {
  if (bare) return bareText({ id, name, path });
  const peer = formatAddress(path.remote.address);
  const carried = encapsulated
    ? `${peer} sends and accepts ESP in UDP (its encapsulation setting), firewalls pass it ` +
      `(${formatSocketAddress(path.local)} to ${formatSocketAddress(path.remote)} and back)`
    : `firewalls pass ESP (IP protocol 50) from ${formatAddress(path.local.address)} to ${peer} and back, or encapsulation='always' in <nat> here`;
  const ports = encapsulated ? `esp or udp port ${path.remote.port}` : 'esp or udp port 4500';
  return (
    `CHILD SA #${id} ${name} has sent ${sent} packets and never received one, while IKE works; unless its traffic flows one way only, ` +
    `check that ${carried}, and that the peer forwards packets and replies; to see what arrives: tcpdump -ni any 'host ${peer} and (${ports})'`
  );
}

/** For people: of an SA whose ESP comes directly over IP. */
export function bareText({ id, name, path }: Pick<ChildTarget, 'id' | 'name' | 'path'>): string {
  return (
    `${formatAddress(path.remote.address)} sends the ESP of CHILD SA #${id} ${name} directly over IP (protocol 50), where it must go in UDP: ` +
    `the peer ignores that a NAT, or forced encapsulation, was detected (RFC 7296 §2.23); set its encapsulation to automatic, ` +
    `or, without a NAT on the path, encapsulation='needed' in <nat> here`
  );
}
