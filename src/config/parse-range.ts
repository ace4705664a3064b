/**
 * Which packets a policy is for: `<src_range>`, `<dst_range>` and `<upperspec>`.
 */

import {
  type AddressRange,
  anyRange,
  type IpAddress,
  type IpFamily,
  parseAddress,
  prefixRange,
} from '../base/address.ts';
import { suggestion } from '../base/similar.ts';
import { hasPorts, isIcmp, Protocol, protocolByName, protocolName, protocolNames } from '../policy/protocols.ts';
import { ANY_PORTS, isAnyPorts, type PortRange } from '../policy/selector.ts';
import type { Issues } from './issues.ts';
import type { PacketRange, SecurityPolicy, UpperSpec } from './model.ts';
import { attributeOf, notAnAddress, parsePort, readFlag, readInteger } from './values.ts';
import type { XmlNode } from './xml.ts';

export type PacketSettings = Pick<SecurityPolicy, 'srcRanges' | 'dstRanges' | 'upperspec'>;

/** `undefined` when something is missing or wrong; that has been reported. */
export function readPackets(
  issues: Issues,
  srcNodes: readonly XmlNode[],
  dstNodes: readonly XmlNode[],
  upperNode: XmlNode | undefined,
): PacketSettings | undefined {
  const upperspec = upperNode && readUpperSpec(issues, upperNode);
  const src = readRanges(issues, srcNodes, upperspec);
  const dst = readRanges(issues, dstNodes, upperspec);
  if (upperNode === undefined || upperspec === undefined || src.length === 0 || dst.length === 0) return undefined;
  const { srcRanges, dstRanges } = resolveAny(src, dst, upperspec);
  if (!familiesMeet(issues, src, dst) || !icmpFits(issues, upperNode, upperspec, srcRanges)) return undefined;
  return { srcRanges, dstRanges, upperspec };
}

/** A range whose address may still be `any`. */
interface RangeDraft {
  readonly node: XmlNode;
  readonly range: PacketRange['range'] | 'any';
  readonly ports: PortRange;
  readonly pfp: boolean;
}

function readRanges(issues: Issues, nodes: readonly XmlNode[], upperspec: UpperSpec | undefined): RangeDraft[] {
  return nodes.flatMap((node) => {
    const range = readAddressRange(issues, node);
    const ports = readPortRange(issues, node);
    if (range === undefined || ports === undefined) return [];
    if (upperspec !== undefined && isPortless(upperspec.protocol) && !isAnyPorts(ports)) {
      const found = attributeOf(node, 'port') ?? '';
      const protocol = protocolName(upperspec.protocol);
      const instead = isIcmp(upperspec.protocol) ? '; type and code stand in <upperspec>' : '';
      issues.badValue(node, 'port', found, 'any', `the protocol ${protocol} has no ports${instead}. Leave port out`);
      return [];
    }
    return [{ node, range, ports, pfp: readFlag(node, 'pfp') }];
  });
}

function isPortless(protocol: number): boolean {
  return protocol !== Protocol.any && !hasPorts(protocol);
}

const RANGE_WANTED = "an IP address, or 'any'";

function readAddressRange(issues: Issues, node: XmlNode): RangeDraft['range'] | undefined {
  const found = attributeOf(node, 'address');
  const prefix = attributeOf(node, 'prefixlen');
  const end = attributeOf(node, 'end');
  if (found === undefined) return undefined;
  if (found === '') {
    const why = 'the address of a range must not be empty: it would mean every packet. Write the address, or any';
    issues.badValue(node, 'address', found, RANGE_WANTED, why);
    return undefined;
  }
  if (prefix !== undefined && end !== undefined) {
    issues.add(node, 'both prefixlen and end are given; a range is a prefix or has an end. Remove one of them');
    return undefined;
  }
  if (found === 'any') {
    if (prefix === undefined && end === undefined) return 'any';
    const name = prefix === undefined ? 'end' : 'prefixlen';
    issues.badValue(node, name, prefix ?? end ?? '', 'nothing', "address='any' is every address; leave it out");
    return undefined;
  }
  const address = parseAddress(found);
  if (address === undefined) {
    issues.badValue(node, 'address', found, RANGE_WANTED, `${notAnAddress(found)}; ${RANGE_WANTED} is required`);
    return undefined;
  }
  if (end !== undefined) {
    const last = parseAddress(end);
    if (last !== undefined) return makeRange(issues, node, address, last, end);
    issues.badValue(
      node,
      'end',
      end,
      'an IP address',
      `${notAnAddress(end)}; the last address of the range is required`,
    );
    return undefined;
  }
  const bits = address.family === 4 ? 32 : 128;
  if (prefix === undefined) return prefixRange(address, bits);
  if (!/^[0-9]{1,3}$/.test(prefix) || Number(prefix) > bits) {
    const allowed = `a whole number from 0 to ${bits}`;
    issues.badValue(
      node,
      'prefixlen',
      prefix,
      allowed,
      `${allowed} is required, as ${found} is an IPv${address.family} address`,
    );
    return undefined;
  }
  return prefixRange(address, Number(prefix));
}

/**
 * `any` is every address of the families that the ranges of its policy name; where they name none, of the one that the
 * protocol belongs to, or of both.
 */
function resolveAny(
  src: readonly RangeDraft[],
  dst: readonly RangeDraft[],
  { protocol }: UpperSpec,
): { srcRanges: PacketRange[]; dstRanges: PacketRange[] } {
  const named = familiesOf([...src, ...dst]);
  const ofProtocol = icmpFamily(protocol);
  const families = named.length > 0 ? named : ofProtocol === undefined ? FAMILIES : [ofProtocol];
  const resolve = (ranges: readonly RangeDraft[]): PacketRange[] =>
    ranges.flatMap(({ range, ports, pfp }) =>
      (range === 'any' ? families.map(anyRange) : [range]).map((one) => ({ range: one, ports, pfp })),
    );
  return { srcRanges: resolve(src), dstRanges: resolve(dst) };
}

const FAMILIES: readonly IpFamily[] = [4, 6];

function icmpFamily(protocol: number): IpFamily | undefined {
  if (protocol === Protocol.icmp) return 4;
  return protocol === Protocol.icmpv6 ? 6 : undefined;
}

function familiesOf(ranges: readonly RangeDraft[]): IpFamily[] {
  return FAMILIES.filter((family) => ranges.some(({ range }) => range !== 'any' && range.start.family === family));
}

/** Each range needs one of its own family on the other side, or no packet ever fits it. */
function familiesMeet(issues: Issues, src: readonly RangeDraft[], dst: readonly RangeDraft[]): boolean {
  const lonely = (ranges: readonly RangeDraft[], others: readonly RangeDraft[]): RangeDraft | undefined => {
    if (others.some(({ range }) => range === 'any')) return undefined;
    const families = familiesOf(others);
    return ranges.find(({ range }) => range !== 'any' && !families.includes(range.start.family));
  };
  const odd = lonely(src, dst) ?? lonely(dst, src);
  if (odd === undefined || odd.range === 'any') return true;
  const family = odd.range.start.family;
  const [other] = odd.node.name === 'src_range' ? dst : src;
  const found = attributeOf(odd.node, 'address') ?? '';
  const why = `this is IPv${family}, but no <${other?.node.name}> is (line ${other?.node.line}): no packet has one end in each family. Give both sides addresses of the same family`;
  issues.badValue(odd.node, 'address', found, `an IPv${family === 4 ? 6 : 4} address`, why);
  return false;
}

function icmpFits(issues: Issues, node: XmlNode, { protocol }: UpperSpec, ranges: readonly PacketRange[]): boolean {
  const family = icmpFamily(protocol);
  if (family === undefined || ranges.some(({ range }) => range.start.family === family)) return true;
  const right = family === 4 ? 'icmpv6' : 'icmp';
  const why = `${protocolName(protocol)} is of IPv${family}, but the ranges are of IPv${family === 4 ? 6 : 4}; write ${right}`;
  issues.badValue(node, 'protocol', attributeOf(node, 'protocol') ?? '', right, why);
  return false;
}

function readUpperSpec(issues: Issues, node: XmlNode): UpperSpec | undefined {
  const found = attributeOf(node, 'protocol');
  if (found === undefined) return undefined;
  const protocol = protocolByName(found);
  if (protocol === undefined) {
    const names = protocolNames();
    const allowed = `any, a number from 0 to 255, or one of ${names.filter((name) => name !== 'any').join(', ')}`;
    issues.badValue(
      node,
      'protocol',
      found,
      allowed,
      `no such protocol is known${suggestion(found, names)}; allowed: ${allowed}`,
    );
    return undefined;
  }
  const icmpType = readInteger(issues, node, 'type', { min: 0, max: 255 });
  const icmpCode = readInteger(issues, node, 'code', { min: 0, max: 255 });
  const extra = icmpType === undefined ? (icmpCode === undefined ? undefined : 'code') : 'type';
  if (extra !== undefined && !isIcmp(protocol)) {
    const why = `only icmp and icmpv6 have types and codes, not ${protocolName(protocol)}; leave ${extra} out`;
    issues.badValue(node, extra, attributeOf(node, extra) ?? '', 'nothing', why);
    return undefined;
  }
  if (icmpCode !== undefined && icmpType === undefined) {
    issues.badValue(
      node,
      'code',
      String(icmpCode),
      'a code beside a type',
      'a code says nothing without its type; add type',
    );
    return undefined;
  }
  return { protocol, icmpType, icmpCode, pfp: readFlag(node, 'pfp') };
}

/** @returns the ends in order, or `undefined` with an issue */
function makeRange(
  issues: Issues,
  node: XmlNode,
  start: IpAddress,
  end: IpAddress,
  text: string,
): AddressRange | undefined {
  if (start.family !== end.family) {
    const why = `address is IPv${start.family} and end is IPv${end.family}; a range lies within one family`;
    issues.badValue(node, 'end', text, `an IPv${start.family} address`, why);
    return undefined;
  }
  if (start.value > end.value) {
    const why = 'the range ends before it starts; exchange address and end';
    issues.badValue(node, 'end', text, 'an address that is not before the first', why);
    return undefined;
  }
  return { start, end };
}

const PORT_RANGE_WANTED = "'any', a port from 1 to 65535, or a range of them such as 5000-5010";

/** `any`, `5000` or `5000-5010`; any where it is left out. */
function readPortRange(issues: Issues, node: XmlNode): PortRange | undefined {
  const found = attributeOf(node, 'port');
  if (found === undefined || found === 'any') return ANY_PORTS;
  const [first = '', last = first, ...more] = found.split('-');
  const start = parsePort(first);
  const end = parsePort(last);
  if (start === undefined || end === undefined || more.length > 0 || (start === 0 && end === 0)) {
    issues.badValue(node, 'port', found, PORT_RANGE_WANTED);
    return undefined;
  }
  if (start > end) {
    const why = `the range starts at ${start} and ends before, at ${end}; write ${end}-${start}`;
    issues.badValue(node, 'port', found, PORT_RANGE_WANTED, why);
    return undefined;
  }
  return { startPort: start, endPort: end };
}
