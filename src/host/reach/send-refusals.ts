/**
 * Datagrams of IKE and ESP that the system refuses, or that do not arrive as ICMP says. The first one shows it, long before
 * the peer counts as silent. The report says what to look at, and the status shows it until the peer is heard or nothing is
 * refused any more. The peer of an IKE SA that is up is asked whether it is alive (RFC 7296 §2.4).
 *
 * Firewalls treat ESP over IP apart from IKE, so hearing IKE says nothing about it. Nor does a packet of the peer show that
 * this host's firewall lets anything out.
 *
 * Any host can forge ICMP, so nothing is closed because of it, and all of it costs one check in a quarter of a second.
 */
import { formatAddress, formatSocketAddress, NO_PORT, type SocketAddress } from '../../base/address.ts';
import type { UdpSendError } from '../../tun/udp/udp.ts';
import { ByTunnel } from './by-tunnel.ts';
import type { PeerRouteReport } from './peer-routes.ts';

/** An IKE SA, or an attempt at one. */
export interface SendTarget {
  readonly ikeSa: number;
  readonly tunnel: string;
  readonly local: SocketAddress;
  readonly remote: SocketAddress;
  /** The request that waits for its answer. */
  readonly unanswered: { readonly since: number } | undefined;
  /** On the host's clock; `undefined` while nothing authentic came. */
  readonly lastHeardAt: number | undefined;
  readonly established: boolean;
}

export interface SendRefusalsOptions {
  readonly targets: () => readonly SendTarget[];
  readonly now: () => number;
  readonly probe: (ikeSa: number) => void;
  readonly report: (report: PeerRouteReport) => void;
}

/** Milliseconds until refusals are checked, and between checks while something is shown. */
const PAUSE = 250;
const SHOWN_PAUSE = 1_000;
/** Milliseconds after the last refusal, when a peer that was heard since counts as reached. */
const SETTLED = 2_000;
/** Milliseconds that a refusal is shown when no other follows: more than the longest pause between two attempts. */
const KEEP = 75_000;
/** Milliseconds between two probes of a peer. */
const PROBE_PAUSE = 10_000;
/** Peers with refusals that wait for the next check. More than this can only be forged. */
const MAX_PENDING = 256;

interface Pending {
  readonly remote: SocketAddress;
  readonly error: UdpSendError;
  readonly at: number;
}

interface Shown extends Pending {
  readonly tunnel: string;
  readonly text: string;
}

export class SendRefusals {
  readonly #options: SendRefusalsOptions;
  /** By remote end. BOUNDED: `MAX_PENDING`. */
  #pending = new Map<string, Pending>();
  /** By tunnel and remote end. BOUNDED: by the IKE SAs. */
  readonly #shown = new ByTunnel<string, Shown>(({ tunnel }) => tunnel);
  /** When peers were asked, by IKE SA. BOUNDED: those of the last `PROBE_PAUSE`. */
  readonly #probed = new Map<number, number>();
  #timer: NodeJS.Timeout | undefined;
  #timerAt = 0;
  #closed = false;

  constructor(options: SendRefusalsOptions) {
    this.#options = options;
  }

  refused(remote: SocketAddress, error: UdpSendError): void {
    if (adviceOn(error, remote) === undefined) return;
    const key = formatSocketAddress(remote);
    const known = this.#pending.get(key);
    if (known === undefined ? this.#pending.size >= MAX_PENDING : isExplained(error, known)) return;
    this.#pending.set(key, { remote, error, at: this.#options.now() });
    this.#plan(PAUSE);
  }

  forget(tunnel: string): void {
    this.#shown.forget(tunnel);
  }

  /** Refusals of a tunnel's datagrams, a sentence each. */
  degraded(tunnel: string): string[] {
    return this.#shown.of(tunnel).map(({ text }) => text);
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  #plan(pause: number): void {
    const at = performance.now() + pause;
    if (this.#closed || (this.#timer !== undefined && this.#timerAt <= at)) return;
    clearTimeout(this.#timer);
    this.#timerAt = at;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#check();
      if (this.#shown.size > 0) this.#plan(SHOWN_PAUSE);
    }, pause).unref();
  }

  #check(): void {
    const { now, report } = this.#options;
    const pending = this.#pending;
    this.#pending = new Map();
    // A peer that moved to another port is heard from there. BOUNDED: by the IKE SAs.
    const heard = new Map<string, number>();
    for (const target of this.#options.targets()) {
      const { tunnel, remote, lastHeardAt = Number.NEGATIVE_INFINITY } = target;
      const host = hostKey(tunnel, remote);
      heard.set(host, Math.max(heard.get(host) ?? Number.NEGATIVE_INFINITY, lastHeardAt));
      if (pending.size === 0) continue;
      for (const end of [remote, { ...remote, port: NO_PORT }].map(formatSocketAddress)) {
        const refusal = pending.get(end);
        if (refusal !== undefined) this.#take(`${tunnel} ${end}`, target, refusal);
      }
    }
    for (const [key, shown] of this.#shown) {
      const lastHeard = heard.get(hostKey(shown.tunnel, shown.remote)) ?? Number.NEGATIVE_INFINITY;
      const quiet = now() - shown.at;
      const reached = lastHeard > shown.at && (provesReach(shown) || quiet > SETTLED);
      if (!reached && quiet <= KEEP) continue;
      this.#shown.delete(key);
      const text = `${datagramsTo(shown.remote)} are no longer refused`;
      report({ tunnel: shown.tunnel, level: 'info', text, event: 'restored' });
    }
    for (const [ikeSa, at] of this.#probed) if (now() - at > PROBE_PAUSE) this.#probed.delete(ikeSa);
  }

  #take(key: string, { ikeSa, tunnel, established, lastHeardAt }: SendTarget, refusal: Pending): void {
    // The peer was heard since.
    if (provesReach(refusal) && lastHeardAt !== undefined && lastHeardAt > refusal.at) return;
    const text = adviceOn(refusal.error, refusal.remote)!;
    const before = this.#shown.get(key);
    if (before !== undefined && refusal.at - before.at <= SETTLED && isExplained(refusal.error, before)) return;
    this.#shown.set(key, { ...refusal, tunnel, text });
    if (before?.error !== refusal.error)
      this.#options.report({ tunnel, level: 'warn', text, event: before === undefined ? 'degraded' : undefined });
    if (!established || this.#probed.has(ikeSa)) return;
    this.#probed.set(ikeSa, this.#options.now());
    this.#options.probe(ikeSa);
  }
}

function hostKey(tunnel: string, { address }: SocketAddress): string {
  return `${tunnel} ${formatAddress(address)}`;
}

/** Whether the call that sends was refused, not ICMP received. */
function isOwn(error: UdpSendError): boolean {
  return error === 'EPERM' || error === 'EACCES';
}

/** A firewall of this host that rejects a datagram refuses the call, and sends this host ICMP as if from elsewhere. */
function isExplained(error: UdpSendError, { error: known }: Pending): boolean {
  return isOwn(known) && !isOwn(error);
}

/** Whether a packet of the peer afterwards shows that the refusal was forged, or is over. */
function provesReach({ error, remote }: Pending): boolean {
  return !isOwn(error) && remote.port !== NO_PORT;
}

function datagramsTo(remote: SocketAddress): string {
  return remote.port === NO_PORT ? `ESP packets to ${endName(remote)}` : `datagrams to ${endName(remote)}`;
}

function endName(remote: SocketAddress): string {
  return remote.port === NO_PORT ? formatAddress(remote.address) : formatSocketAddress(remote);
}

/** What a person should look at; `undefined` where the next datagram may fare better. */
function adviceOn(error: UdpSendError, remote: SocketAddress): string | undefined {
  const end = endName(remote);
  const address = formatAddress(remote.address);
  switch (error) {
    case 'EPERM':
      return `the system refuses ${datagramsTo(remote)} (EPERM): a firewall of this host drops or rejects them; see: nft list ruleset`;
    case 'EACCES':
      return `the system refuses ${datagramsTo(remote)} (EACCES): a route prohibits them, or a security module; see: ip route get ${address}; dmesg`;
    case 'ENOPROTOOPT':
      return `${address} takes no ESP (ENOPROTOOPT): that host does not accept ESP over IP, or a firewall rejects it; see, on that host: nft list ruleset; or encapsulate ESP in UDP: <nat encapsulation='always'/>`;
    case 'EHOSTUNREACH':
      return `${end} is not reached (EHOSTUNREACH): no host has that address, a router has no route to it, or a firewall rejects it; see: ip route get ${address}; ip neigh show ${address}`;
    case 'ENETUNREACH':
      return `${end} is not reached (ENETUNREACH): this host, or a router, has no route there, or a firewall rejects it; see: ip route get ${address}`;
    case 'ECONNREFUSED':
      return `UDP port ${remote.port} of ${address} is closed (ECONNREFUSED): no IKE daemon listens there, or a firewall rejects it; see, on that host: ss -ulpn sport = :${remote.port}`;
    case 'EADDRNOTAVAIL':
      return `${datagramsTo(remote)} have no local address to leave from (EADDRNOTAVAIL); see: ip address`;
    default:
      return undefined;
  }
}
