/** What other programs' nftables rules do with a packet on its way, in words. */
import { formatAddress, type IpAddress } from '../base/address.ts';
import { type Hook, parseTable, type Table } from '../hostnet/filters/listing.ts';
import type { HookPacket } from '../hostnet/filters/packet.ts';
import { type Finding, type HookQuestion, type Passage, passHook } from '../hostnet/filters/walk.ts';
import type { ForeignTables } from '../hostnet/foreign/tables.ts';
import { isIcmp } from '../policy/protocols.ts';
import type { FilterExplanation } from './explanation.ts';
import type { Obstacle } from './obstacle.ts';
import type { AskedPacket } from './packet.ts';

const WHEN: Readonly<Record<Hook, string>> = {
  prerouting: 'before it is routed',
  input: 'when it is delivered',
  forward: 'when it is forwarded',
  output: 'when it is sent',
  postrouting: 'when it leaves',
};

/** Rules that are listed: the first ones. */
const MAX_LISTED = 8;

/** Follows a packet from hook to hook. */
export class FilterPath {
  readonly #tables: readonly Table[];
  readonly #unread: string[];
  readonly #found: { readonly hook: Hook; readonly finding: Finding }[] = [];
  #asked = 0;

  constructor({ texts, unread }: ForeignTables) {
    this.#tables = texts.flatMap((text) => parseTable(text) ?? []);
    this.#unread = [...unread];
  }

  pass(question: HookQuestion, packet: HookPacket): Passage {
    const passage = passHook(this.#tables, question, packet);
    this.#asked += passage.asked;
    this.#found.push(...passage.findings.map((finding) => ({ hook: question.hook, finding })));
    if (passage.cut) this.#unread.push(`nftables rules that apply ${WHEN[question.hook]}, of which there are too many`);
    return passage;
  }

  /** What was not looked at, and might stop the packet. */
  get unread(): readonly string[] {
    return this.#unread;
  }

  explain(): FilterExplanation {
    const found = this.#found.slice(0, MAX_LISTED).map(({ hook, finding }) => {
      const { effect, certain, table, chain, rule, unless, to } = finding;
      return { hook, effect, certain, table, chain, rule, unless, to: to && formatAddress(to) };
    });
    return { asked: this.#asked, found, foundCount: this.#found.length, unread: this.#unread };
  }
}

/** `undefined` for a mark, which stops nothing by itself. */
export function obstacleOf(hook: Hook, finding: Finding): Obstacle | undefined {
  const { effect, certain, how, to } = finding;
  const place = placeOf(finding);
  switch (effect) {
    case 'mark':
      return undefined;
    case 'drop': {
      const verb = how === 'reject' ? 'rejects' : 'drops';
      const verdict = certain
        ? `another program's firewall ${verb} it ${WHEN[hook]}`
        : `another program's firewall may stop it ${WHEN[hook]}`;
      return { effect: 'stop', certain, verdict, warning: `${verdict}: ${place}` };
    }
    case 'source':
    case 'destination': {
      const becomes = to === undefined ? '' : ` with ${formatAddress(to)}`;
      const verdict = `another program ${certain ? 'replaces' : 'may replace'} its ${effect}${becomes} ${WHEN[hook]} (${how})`;
      return { effect: 'readdress', certain, verdict, warning: `${verdict}: ${place}` };
    }
  }
}

/** `table ip filter, chain FORWARD: policy drop` */
function placeOf({ table, chain, rule, unless }: Finding): string {
  return `table ${table}, chain ${chain}: ${rule}${unless === undefined ? '' : `, unless this rule accepts it first: ${unless}`}`;
}

interface HookLinks {
  readonly inputLink: string;
  readonly outputLink: string;
  readonly mark: number | undefined;
  readonly redirected: boolean | undefined;
  readonly toHost: boolean;
}

export function hookPacket(packet: AskedPacket, links: HookLinks): HookPacket {
  const { source, destination, protocol, sourcePort, destinationPort, flow } = packet;
  const icmp = isIcmp(protocol) ? flow.srcPort : undefined;
  return {
    ...links,
    source,
    destination,
    protocol,
    sourcePort,
    destinationPort,
    icmpType: icmp === undefined ? undefined : icmp >> 8,
    icmpCode: icmp === undefined ? undefined : icmp & 0xff,
  };
}

/** The sources that a packet may get: the one that the rule names, or, for masquerading, those of the link or of the host. */
export function newSources(
  to: IpAddress | undefined,
  ofLink: readonly IpAddress[],
  ofHost: readonly IpAddress[],
): readonly IpAddress[] {
  if (to !== undefined) return [to];
  return ofLink.length > 0 ? ofLink.slice(0, 1) : ofHost;
}
