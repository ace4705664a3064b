/**
 * A pair of selector lists compiled into 32-bit words, to be matched against the flow of each packet
 * (RFC 4301 §4.4.1.1, §5.1 and §5.2).
 *
 * How ports match:
 * - ANY matches every packet: ports seen, hidden or not there at all.
 * - A range matches only a packet that shows its port: never a later fragment whose first fragment is not known.
 * - OPAQUE matches only a packet that has no port to show.
 * - ICMP, ICMPv6 and the Mobility Header have one "port" (type × 256 + code), which belongs to the sender of the packet;
 *   the receiver's side has none (RFC 4301 §4.4.1.3). A range on the sender's side must hold the type and code;
 *   the receiver's side fits when it is ANY, OPAQUE or a range that holds them too. So `type 8` here and ANY
 *   there means type 8 both ways, as strongSwan and Linux read it, and `type 8` here and OPAQUE there means that
 *   type 8 may be sent but not received, as RFC 4301 has it.
 */
import type { IpFamily } from '../base/address.ts';
import { DESTINATION, type Flow, PORT_HIDDEN, SOURCE } from './flow.ts';
import { hasSinglePort, Protocol } from './protocols.ts';
import type { SelectorPair, TrafficSelector } from './selector.ts';
import { addressWords, compareWords } from './words.ts';

/** A record: protocol, start port, end port, first address, last address; addresses of 1 or 4 words. */
const V4_STRIDE = 5;
const V6_STRIDE = 11;

/*
 * The ends of the four groups of records come first, in this order. Everything is one array: with thousands of SAs in
 * turn nothing is in the processor's cache, and each further array would cost another cache miss.
 */
const LOCAL_V4 = 0;
const LOCAL_V6 = 1;
const REMOTE_V4 = 2;
const REMOTE_V6 = 3;
const GROUPS = 4;

/** Matches packets against the selectors of one SA or policy entry. Immutable; matching allocates nothing. */
export class CompiledSelectors {
  /** What was compiled. */
  readonly selectors: SelectorPair;
  readonly #words: Uint32Array;

  constructor(selectors: SelectorPair) {
    this.selectors = selectors;
    this.#words = compile(selectors);
  }

  /**
   * Whether a selector of each side fits. Outbound the local side is the packet's source, inbound its destination.
   */
  matchesFlow(flow: Flow, outbound: boolean): boolean {
    const local = flow.family === 4 ? LOCAL_V4 : LOCAL_V6;
    const remote = flow.family === 4 ? REMOTE_V4 : REMOTE_V6;
    const words = this.#words;
    // Only the sender of an ICMP message has its type and code for a port: see above.
    const receiverHidden = hasSinglePort(flow.protocol);
    return (
      groupFits(words, outbound ? local : remote, flow, SOURCE, flow.srcPort, false) &&
      groupFits(words, outbound ? remote : local, flow, DESTINATION, flow.dstPort, receiverHidden)
    );
  }
}

function compile({ local, remote }: SelectorPair): Uint32Array {
  const words: number[] = [0, 0, 0, 0];
  const add = (group: number, selectors: readonly TrafficSelector[], family: IpFamily): void => {
    for (const { protocol, startPort, endPort, range } of selectors) {
      if (range.start.family !== family) continue;
      words.push(protocol, startPort, endPort, ...addressWords(range.start), ...addressWords(range.end));
    }
    words[group] = words.length;
  };
  add(LOCAL_V4, local, 4);
  add(LOCAL_V6, local, 6);
  add(REMOTE_V4, remote, 4);
  add(REMOTE_V6, remote, 6);
  return Uint32Array.from(words);
}

function groupFits(
  words: Uint32Array,
  group: number,
  flow: Flow,
  at: number,
  port: number,
  hiddenToo: boolean,
): boolean {
  const start = group === LOCAL_V4 ? GROUPS : words[group - 1]!;
  const end = words[group]!;
  return flow.family === 4
    ? groupFitsV4(words, start, end, flow, at, port, hiddenToo)
    : groupFitsV6(words, start, end, flow, at, port, hiddenToo);
}

function groupFitsV4(
  words: Uint32Array,
  start: number,
  end: number,
  flow: Flow,
  at: number,
  port: number,
  hiddenToo: boolean,
): boolean {
  const address = flow.words[at]!;
  const protocol = flow.protocol;
  for (let i = start; i < end; i += V4_STRIDE) {
    if (
      address >= words[i + 3]! &&
      address <= words[i + 4]! &&
      protocolFits(words[i]!, protocol) &&
      portFits(words[i + 1]!, words[i + 2]!, port, hiddenToo)
    ) {
      return true;
    }
  }
  return false;
}

function groupFitsV6(
  words: Uint32Array,
  start: number,
  end: number,
  flow: Flow,
  at: number,
  port: number,
  hiddenToo: boolean,
): boolean {
  const protocol = flow.protocol;
  for (let i = start; i < end; i += V6_STRIDE) {
    if (
      protocolFits(words[i]!, protocol) &&
      compareWords(flow.words, at, words, i + 3) >= 0 &&
      compareWords(flow.words, at, words, i + 7) <= 0 &&
      portFits(words[i + 1]!, words[i + 2]!, port, hiddenToo)
    ) {
      return true;
    }
  }
  return false;
}

function protocolFits(wanted: number, protocol: number): boolean {
  return wanted === Protocol.any || wanted === protocol;
}

function portFits(start: number, end: number, port: number, hiddenToo: boolean): boolean {
  if (start === 0 && end === 0xffff) return true;
  if (start > end) return hiddenToo || port === PORT_HIDDEN;
  return port >= start && port <= end;
}
