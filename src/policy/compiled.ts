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
import { DESTINATION, type Flow, PORT_HIDDEN, SOURCE } from './flow.ts';
import { hasSinglePort, Protocol } from './protocols.ts';
import type { SelectorPair, TrafficSelector } from './selector.ts';
import { addressWords, compareWords } from './words.ts';

/** One side: records of protocol, start port, end port, first address, last address; addresses of 1 or 4 words. */
interface CompiledSide {
  readonly v4: Uint32Array;
  readonly v6: Uint32Array;
}

const V4_STRIDE = 5;
const V6_STRIDE = 11;

/** Matches packets against the selectors of one SA or policy entry. Immutable; matching allocates nothing. */
export class CompiledSelectors {
  /** What was compiled. */
  readonly selectors: SelectorPair;
  readonly #local: CompiledSide;
  readonly #remote: CompiledSide;

  constructor(selectors: SelectorPair) {
    this.selectors = selectors;
    this.#local = compileSide(selectors.local);
    this.#remote = compileSide(selectors.remote);
  }

  /**
   * Whether a selector of each side fits. Outbound the local side is the packet's source, inbound its destination.
   */
  matchesFlow(flow: Flow, outbound: boolean): boolean {
    const source = outbound ? this.#local : this.#remote;
    const destination = outbound ? this.#remote : this.#local;
    // Only the sender of an ICMP message has its type and code for a port: see above.
    const receiverHidden = hasSinglePort(flow.protocol);
    return (
      sideFits(source, flow, SOURCE, flow.srcPort, false) &&
      sideFits(destination, flow, DESTINATION, flow.dstPort, receiverHidden)
    );
  }
}

function compileSide(selectors: readonly TrafficSelector[]): CompiledSide {
  const words: { 4: number[]; 6: number[] } = { 4: [], 6: [] };
  for (const { protocol, startPort, endPort, range } of selectors) {
    words[range.start.family].push(
      protocol,
      startPort,
      endPort,
      ...addressWords(range.start),
      ...addressWords(range.end),
    );
  }
  return { v4: Uint32Array.from(words[4]), v6: Uint32Array.from(words[6]) };
}

function sideFits(side: CompiledSide, flow: Flow, at: number, port: number, hiddenToo: boolean): boolean {
  return flow.family === 4
    ? sideFitsV4(side.v4, flow, at, port, hiddenToo)
    : sideFitsV6(side.v6, flow, at, port, hiddenToo);
}

function sideFitsV4(records: Uint32Array, flow: Flow, at: number, port: number, hiddenToo: boolean): boolean {
  const address = flow.words[at]!;
  const protocol = flow.protocol;
  for (let i = 0; i < records.length; i += V4_STRIDE) {
    if (
      address >= records[i + 3]! &&
      address <= records[i + 4]! &&
      protocolFits(records[i]!, protocol) &&
      portFits(records[i + 1]!, records[i + 2]!, port, hiddenToo)
    ) {
      return true;
    }
  }
  return false;
}

function sideFitsV6(records: Uint32Array, flow: Flow, at: number, port: number, hiddenToo: boolean): boolean {
  const protocol = flow.protocol;
  for (let i = 0; i < records.length; i += V6_STRIDE) {
    if (
      protocolFits(records[i]!, protocol) &&
      compareWords(flow.words, at, records, i + 3) >= 0 &&
      compareWords(flow.words, at, records, i + 7) <= 0 &&
      portFits(records[i + 1]!, records[i + 2]!, port, hiddenToo)
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
