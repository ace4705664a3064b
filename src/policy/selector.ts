/**
 * Traffic selectors (RFC 4301 §4.4.1.1, RFC 7296 §3.13): the packets that a policy or an SA covers, as values: how to
 * make, compare, check and print them.
 */
import { type AddressRange, anyRange, formatRange, type IpFamily, intersectRanges } from '../base/address.ts';
import { hasPorts, hasSinglePort, isIcmp, Protocol, protocolName } from './protocols.ts';

/**
 * One range of addresses with one protocol and one range of ports.
 *
 * Ports are those of TCP, UDP, SCTP and the like. For ICMP and ICMPv6 they hold type × 256 + code, as on the wire
 * (RFC 7296 §3.13.1). 0–65535 is ANY; 65535–0 is OPAQUE (matches only packets whose ports cannot be seen).
 * Protocol 0 is any protocol and then has all ports.
 */
export interface TrafficSelector {
  readonly protocol: number;
  readonly startPort: number;
  readonly endPort: number;
  readonly range: AddressRange;
}

/** The two sides of an SA or a policy entry, as seen from here. A packet fits when one selector of each side fits. */
export interface SelectorPair {
  readonly local: readonly TrafficSelector[];
  readonly remote: readonly TrafficSelector[];
}

/** The `startPort` and `endPort` of a selector. */
export type PortRange = Pick<TrafficSelector, 'startPort' | 'endPort'>;

export const MAX_PORT = 0xffff;
export const ANY_PORTS: PortRange = { startPort: 0, endPort: MAX_PORT };
export const OPAQUE_PORTS: PortRange = { startPort: MAX_PORT, endPort: 0 };

/** The most selectors that one side can have: a TS payload counts them in one octet (RFC 7296 §3.13). */
export const MAX_SELECTORS = 255;

/** Addresses with a protocol (any when left out) and ports (ANY when left out). */
export function makeSelector(
  range: AddressRange,
  protocol: number = Protocol.any,
  ports: PortRange = ANY_PORTS,
): TrafficSelector {
  return { protocol, startPort: ports.startPort, endPort: ports.endPort, range };
}

/** Everything of a family: `0.0.0.0/0` or `::/0`. */
export function anySelector(family: IpFamily): TrafficSelector {
  return makeSelector(anyRange(family));
}

export function isAnyPorts({ startPort, endPort }: PortRange): boolean {
  return startPort === 0 && endPort === MAX_PORT;
}

/** Any range that ends before it starts is read as OPAQUE; only 65535–0 is ever made. */
export function isOpaquePorts({ startPort, endPort }: PortRange): boolean {
  return startPort > endPort;
}

/** The ports of an ICMP type, or of one code of it (RFC 4301 §4.4.1.1). */
export function icmpPorts(type: number, code?: number): PortRange {
  return icmpPortRange(type, type, code ?? 0, code ?? 0xff);
}

/** From `startType`/`startCode` to `endType`/`endCode`, compared as one 16-bit number (RFC 4301 §4.4.1.1). */
export function icmpPortRange(startType: number, endType: number, startCode = 0, endCode = 0xff): PortRange {
  return { startPort: startType * 256 + startCode, endPort: endType * 256 + endCode };
}

/** The type and code in a port of an ICMP selector. */
export function icmpTypeCode(port: number): { readonly type: number; readonly code: number } {
  return { type: port >>> 8, code: port & 0xff };
}

/** Whether the two are the same value. */
export function sameSelector(a: TrafficSelector, b: TrafficSelector): boolean {
  return (
    a.protocol === b.protocol &&
    a.startPort === b.startPort &&
    a.endPort === b.endPort &&
    a.range.start.family === b.range.start.family &&
    a.range.start.value === b.range.start.value &&
    a.range.end.value === b.range.end.value
  );
}

/** Whether every packet that `inner` matches is matched by `outer` too. ANY contains OPAQUE (RFC 4301 §4.4.1.1). */
export function containsSelector(outer: TrafficSelector, inner: TrafficSelector): boolean {
  return (
    (outer.protocol === Protocol.any || outer.protocol === inner.protocol) &&
    containsPorts(outer, inner) &&
    outer.range.start.family === inner.range.start.family &&
    outer.range.start.value <= inner.range.start.value &&
    inner.range.end.value <= outer.range.end.value
  );
}

/** The same for both sides: each selector of a side is contained in one of that side. */
export function containsPair(outer: SelectorPair, inner: SelectorPair): boolean {
  const holds = (list: readonly TrafficSelector[], wanted: readonly TrafficSelector[]): boolean =>
    wanted.every((one) => list.some((other) => containsSelector(other, one)));
  return holds(outer.local, inner.local) && holds(outer.remote, inner.remote);
}

/** Whether both match the same packets, each selector of one being one of the other. */
export function samePair(a: SelectorPair, b: SelectorPair): boolean {
  return containsPair(a, b) && containsPair(b, a);
}

/** The same text for pairs that are the same: what pairs are looked up by. Of lists in which none contains another. */
export function pairKey({ local, remote }: SelectorPair): string {
  return [local, remote].map((side) => side.map(selectorKey).sort().join(',')).join('=');
}

function selectorKey({ protocol, startPort, endPort, range: { start, end } }: TrafficSelector): string {
  return [start.family, start.value, end.value, protocol, startPort, endPort].join(' ');
}

function containsPorts(outer: PortRange, inner: PortRange): boolean {
  if (isAnyPorts(outer)) return true;
  if (isOpaquePorts(outer) || isOpaquePorts(inner)) return isOpaquePorts(outer) && isOpaquePorts(inner);
  return outer.startPort <= inner.startPort && inner.endPort <= outer.endPort;
}

/** The selector of the packets that both match, or `undefined` when there are none. */
export function intersectSelector(a: TrafficSelector, b: TrafficSelector): TrafficSelector | undefined {
  const protocol = intersectProtocol(a.protocol, b.protocol);
  if (protocol === undefined) return undefined;
  const ports = intersectPorts(a, b);
  if (ports === undefined) return undefined;
  const range = intersectRanges(a.range, b.range);
  return range === undefined ? undefined : makeSelector(range, protocol, ports);
}

/** The protocol that both stand for, 0 being any; `undefined` when there is none. */
export function intersectProtocol(a: number, b: number): number | undefined {
  if (a === b || b === Protocol.any) return a;
  return a === Protocol.any ? b : undefined;
}

export function intersectPorts(a: PortRange, b: PortRange): PortRange | undefined {
  if (isAnyPorts(a)) return b;
  if (isAnyPorts(b)) return a;
  if (isOpaquePorts(a) || isOpaquePorts(b)) return isOpaquePorts(a) && isOpaquePorts(b) ? OPAQUE_PORTS : undefined;
  const startPort = Math.max(a.startPort, b.startPort);
  const endPort = Math.min(a.endPort, b.endPort);
  return startPort <= endPort ? { startPort, endPort } : undefined;
}

/** The list without selectors that another of it contains; of equal ones the first stays. The order is kept. */
export function simplifySelectors(selectors: readonly TrafficSelector[]): TrafficSelector[] {
  return selectors.filter(
    (inner, at) =>
      !selectors.some(
        (outer, other) =>
          other !== at && containsSelector(outer, inner) && (other < at || !containsSelector(inner, outer)),
      ),
  );
}

/**
 * What is wrong with a selector, for a person; `undefined` when nothing is. Stricter than matching: it allows only what
 * RFC 7296 §3.13.1 allows a sender.
 */
export function validateSelector(selector: TrafficSelector): string | undefined {
  const { protocol, startPort, endPort, range } = selector;
  if (!Number.isInteger(protocol) || protocol < 0 || protocol > 255) {
    return `protocol ${protocol}: a number from 0 to 255 is required`;
  }
  for (const port of [startPort, endPort]) {
    if (!Number.isInteger(port) || port < 0 || port > MAX_PORT) return `port ${port}: 0 to ${MAX_PORT} is required`;
  }
  if (range.start.family !== range.end.family) return 'the range starts and ends in different address families';
  if (range.start.value > range.end.value) return `the address range ${formatRange(range)} ends before it starts`;
  if (startPort > endPort && !(startPort === OPAQUE_PORTS.startPort && endPort === OPAQUE_PORTS.endPort)) {
    return `the port range ${startPort}-${endPort} ends before it starts`;
  }
  if (isAnyPorts(selector) || isOpaquePorts(selector)) return undefined;
  if (protocol === Protocol.any) {
    return `ports ${formatPorts(selector)} with any protocol: IKEv2 cannot say this, name the protocol (tcp, udp, sctp)`;
  }
  if (!hasPorts(protocol) && !hasSinglePort(protocol)) {
    return `ports ${formatPorts(selector)} with protocol ${protocolName(protocol)}, which has no ports`;
  }
  return undefined;
}

/** `10.1.0.0/30 udp 5000`, `10.1.0.0/30 tcp 80-90`, `fd00::/64 icmpv6 type 128`, `10.1.0.0/24` for any protocol. */
export function formatSelector(selector: TrafficSelector): string {
  const range = formatRange(selector.range);
  const ports = formatPorts(selector);
  if (selector.protocol === Protocol.any && ports === '') return range;
  return `${range} ${protocolName(selector.protocol)}${ports === '' ? '' : ` ${ports}`}`;
}

/** Comma-separated; `nothing` for an empty list; of a long one the first `limit` and how many more there are. */
export function formatSelectors(selectors: readonly TrafficSelector[], limit = 16): string {
  if (selectors.length === 0) return 'nothing';
  const shown = selectors.slice(0, limit).map(formatSelector).join(', ');
  return selectors.length > limit ? `${shown} and ${selectors.length - limit} more` : shown;
}

/** `LOCAL === REMOTE`, as other IPsec programs print it. */
export function formatSelectorPair({ local, remote }: SelectorPair): string {
  return `${formatSelectors(local)} === ${formatSelectors(remote)}`;
}

/** `5000`, `80-90`, `opaque`, `type 8`, `type 3 code 1-4`; empty for ANY. */
export function formatPorts(selector: PortRange & Pick<TrafficSelector, 'protocol'>): string {
  const { protocol, startPort, endPort } = selector;
  if (isAnyPorts(selector)) return '';
  if (isOpaquePorts(selector)) return 'opaque';
  if (isIcmp(protocol)) return formatIcmp(startPort, endPort);
  return span(startPort, endPort);
}

function formatIcmp(startPort: number, endPort: number): string {
  const start = icmpTypeCode(startPort);
  const end = icmpTypeCode(endPort);
  if (start.code === 0 && end.code === 0xff) return `type ${span(start.type, end.type)}`;
  if (start.type === end.type) return `type ${start.type} code ${span(start.code, end.code)}`;
  return `type ${start.type} code ${start.code} to type ${end.type} code ${end.code}`;
}

function span(start: number, end: number): string {
  return start === end ? String(start) : `${start}-${end}`;
}
