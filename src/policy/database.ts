/**
 * The security policy database (RFC 4301 §4.4.1): ordered entries of one direction, compiled so that the entry which
 * decides a packet is found without looking at the others. Hot path: a look-up allocates nothing.
 */

import { type BoxTree, buildBoxTree, DIMENSIONS, Dimension } from './box-tree.ts';
import type { Direction } from './direction.ts';
import { type Flow, Fragment, PORT_HIDDEN, PROTOCOL_HIDDEN } from './flow.ts';
import { canPair } from './narrow.ts';
import type { PacketFlags } from './populate.ts';
import { hasSinglePort, Protocol } from './protocols.ts';
import { AddressRanks } from './ranks.ts';
import {
  isAnyPorts,
  isOpaquePorts,
  MAX_PORT,
  type SelectorPair,
  simplifySelectors,
  type TrafficSelector,
} from './selector.ts';

/** RFC 4301's PROTECT, BYPASS and DISCARD. */
export type PolicyAction = 'protect' | 'bypass' | 'discard';

/** How strictly a protect entry is meant: see the documents' `level`. */
export type PolicyLevel = 'use' | 'require' | 'unique';

/** One entry of the security policy database (RFC 4301 §4.4.1). */
export interface PolicyEntry {
  /** For people: stands in status, logs and explanations. */
  readonly name: string;
  readonly direction: Direction;
  readonly action: PolicyAction;
  /** Higher comes first; of equals the one that was given first. */
  readonly priority: number;
  /** As seen from here, in both directions. */
  readonly selectors: SelectorPair;
  /** The child SA configuration that protects; only for `protect`. */
  readonly child?: string | undefined;
  /** Only for `protect`. */
  readonly level: PolicyLevel;
  /** Each SA is for the values of these that a packet has; only for `protect`. */
  readonly pfp?: PacketFlags | undefined;
  /** Line of the document that the entry comes from. */
  readonly line?: number | undefined;
}

/** What `lookup` returns when no entry matches: the packet is dropped (RFC 4301 §5.1). */
export const NO_ENTRY = -1;

/**
 * What `lookup` returns for a later fragment whose first was not seen, which would be bypassed although an earlier
 * entry may match its ports: the packet is dropped (RFC 4301 §7.3: no bypass by fragments).
 */
export const FRAGMENT_UNDECIDED = -2;

/** BOUNDED: the pairs of selectors that all entries of a direction may make together. */
export const MAX_COMPILED_PAIRS = 1_000_000;

/** The entries of one direction, in the order in which they are asked. */
export function orderPolicy(entries: readonly PolicyEntry[], direction: Direction): PolicyEntry[] {
  return entries.filter((entry) => entry.direction === direction).sort((a, b) => b.priority - a.priority);
}

/**
 * Compiles the entries of one direction.
 *
 * @throws RangeError when they have more than `MAX_COMPILED_PAIRS` pairs of selectors of a family
 */
export function compilePolicy(entries: readonly PolicyEntry[], direction: Direction): CompiledPolicy {
  return new CompiledPolicy(orderPolicy(entries, direction), direction);
}

/** An ordered database of one direction. Immutable, but for the scratch of its look-ups. */
export class CompiledPolicy {
  readonly direction: Direction;
  /** In the order in which they are asked; `lookup` returns an index into them. */
  readonly entries: readonly PolicyEntry[];
  readonly #v4: FamilyIndex;
  readonly #v6: FamilyIndex;
  /** 1 for an entry that does not bypass: one that a fragment of unknown ports may not slip past. */
  readonly #guards: Uint8Array;

  constructor(ordered: readonly PolicyEntry[], direction: Direction) {
    this.direction = direction;
    this.entries = ordered;
    this.#v4 = indexFamily(ordered, 4);
    this.#v6 = indexFamily(ordered, 6);
    this.#guards = Uint8Array.from(ordered, ({ action }) => (action === 'bypass' ? 0 : 1));
  }

  /** The index of the entry that decides the packet, or `NO_ENTRY` or `FRAGMENT_UNDECIDED`: negative is a drop. */
  lookup(flow: Flow): number {
    const index = flow.family === 4 ? this.#v4 : this.#v6;
    const none = this.entries.length;
    const outbound = this.direction === 'out';
    setQuery(index, flow, outbound);
    let found = index.tree.search(index.query, none, undefined);
    if (hasSinglePort(flow.protocol) && flow.srcPort !== PORT_HIDDEN) {
      // The receiver of an ICMP message has no port of its own: OPAQUE fits it too (see compiled.ts).
      setRange(index.query, outbound ? Dimension.remotePort : Dimension.localPort, PORT_HIDDEN, PORT_HIDDEN);
      found = index.tree.search(index.query, found, undefined);
    }
    if (found === none) return NO_ENTRY;
    if (flow.fragment === Fragment.later && !flow.firstSeen && this.#guards[found] === 0) {
      widenQuery(index.query, flow);
      if (index.tree.search(index.query, found, this.#guards) < found) return FRAGMENT_UNDECIDED;
    }
    return found;
  }
}

/** What is compiled for one address family. */
interface FamilyIndex {
  readonly local: AddressRanks;
  readonly remote: AddressRanks;
  readonly tree: BoxTree;
  /** Scratch: the lowest and highest coordinate wanted in each dimension. */
  readonly query: Int32Array;
}

function indexFamily(entries: readonly PolicyEntry[], family: 4 | 6): FamilyIndex {
  const ofFamily = (list: readonly TrafficSelector[]): readonly TrafficSelector[] =>
    simplifySelectors(list.filter(({ range }) => range.start.family === family));
  const sides = entries.map(({ selectors }) => ({
    local: ofFamily(selectors.local),
    remote: ofFamily(selectors.remote),
  }));
  const local = new AddressRanks(
    family,
    sides.flatMap((side) => side.local.map(({ range }) => range)),
  );
  const remote = new AddressRanks(
    family,
    sides.flatMap((side) => side.remote.map(({ range }) => range)),
  );
  const pairs = sides.reduce((sum, side) => sum + side.local.length * side.remote.length, 0);
  if (pairs > MAX_COMPILED_PAIRS) {
    throw new RangeError(
      `the policy has ${pairs} pairs of local and remote selectors, more than ${MAX_COMPILED_PAIRS}`,
    );
  }
  const boxes: number[] = [];
  for (const [entry, side] of sides.entries()) {
    for (const mine of side.local) {
      for (const theirs of side.remote) {
        if (canPair(mine, theirs)) pushBox(boxes, { mine, theirs }, { local, remote }, entry);
      }
    }
  }
  return { local, remote, tree: buildBoxTree(Int32Array.from(boxes)), query: new Int32Array(2 * DIMENSIONS) };
}

/** Appends the box of a pair of selectors: lowest and highest coordinate in each dimension, then the entry. */
function pushBox(
  boxes: number[],
  { mine, theirs }: { readonly mine: TrafficSelector; readonly theirs: TrafficSelector },
  { local, remote }: { readonly local: AddressRanks; readonly remote: AddressRanks },
  entry: number,
): void {
  const localAddress = local.ofRange(mine.range);
  const remoteAddress = remote.ofRange(theirs.range);
  const localPort = portSpan(mine);
  const remotePort = portSpan(theirs);
  const protocol = mine.protocol === Protocol.any ? theirs.protocol : mine.protocol;
  const [firstProtocol, lastProtocol] = protocol === Protocol.any ? [PROTOCOL_HIDDEN, 255] : [protocol, protocol];
  // In the order of `Dimension`, each low before high.
  boxes.push(localAddress[0], localAddress[1], remoteAddress[0], remoteAddress[1]);
  boxes.push(localPort[0], localPort[1], remotePort[0], remotePort[1], firstProtocol, lastProtocol, entry);
}

/** A hidden port has the coordinate -1: ANY holds it, OPAQUE is nothing else, a range never has it. */
function portSpan(selector: TrafficSelector): readonly [low: number, high: number] {
  if (isAnyPorts(selector)) return [PORT_HIDDEN, MAX_PORT];
  if (isOpaquePorts(selector)) return [PORT_HIDDEN, PORT_HIDDEN];
  return [selector.startPort, selector.endPort];
}

function setQuery(index: FamilyIndex, flow: Flow, outbound: boolean): void {
  const { query, local, remote } = index;
  const localAddress = local.ofFlow(flow, outbound);
  const remoteAddress = remote.ofFlow(flow, !outbound);
  const localPort = outbound ? flow.srcPort : flow.dstPort;
  const remotePort = outbound ? flow.dstPort : flow.srcPort;
  setRange(query, Dimension.localAddress, localAddress, localAddress);
  setRange(query, Dimension.remoteAddress, remoteAddress, remoteAddress);
  setRange(query, Dimension.localPort, localPort, localPort);
  setRange(query, Dimension.remotePort, remotePort, remotePort);
  setRange(query, Dimension.protocol, flow.protocol, flow.protocol);
}

/**
 * Looks up everything that a later fragment may belong to: any port; and for IPv6 any protocol, since only the first
 * fragment's next header counts (RFC 8200 §4.5).
 */
function widenQuery(query: Int32Array, flow: Flow): void {
  setRange(query, Dimension.localPort, PORT_HIDDEN, MAX_PORT);
  setRange(query, Dimension.remotePort, PORT_HIDDEN, MAX_PORT);
  if (flow.family === 6) setRange(query, Dimension.protocol, PROTOCOL_HIDDEN, 255);
}

function setRange(query: Int32Array, dimension: number, low: number, high: number): void {
  query[2 * dimension] = low;
  query[2 * dimension + 1] = high;
}
