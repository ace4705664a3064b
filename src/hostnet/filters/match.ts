/**
 * Whether a packet has what a rule of nftables asks for: addresses, links, protocols, ports, types of ICMP, the state of the
 * connection, marks. What is not known here is not guessed: `maybe`.
 */
import { type AddressRange, parseAddress, prefixRange, rangeContains } from '../../base/address.ts';
import { hasPorts, isIcmp, Protocol, protocolByName } from '../../policy/protocols.ts';
import { namedSet, splitElement, type Table } from './listing.ts';
import type { HookPacket } from './packet.ts';
import { elementsOf, unquoted } from './words.ts';

export type Fit = 'yes' | 'no' | 'maybe';

/** Whether a value of nft's is that of the packet. */
export type Test = (value: string) => Fit;

/** What is asked for by these words; `undefined` when they are not known here. */
export function testOf(words: string, packet: HookPacket): Test | undefined {
  const make = TESTS[words];
  return make?.(packet);
}

const TESTS: Readonly<Record<string, (packet: HookPacket) => Test>> = {
  iif: ({ inputLink }) => linkTest(inputLink),
  iifname: ({ inputLink }) => linkTest(inputLink),
  oif: ({ outputLink }) => linkTest(outputLink),
  oifname: ({ outputLink }) => linkTest(outputLink),
  'ip saddr': ({ source }) => addressTest(4, source),
  'ip daddr': ({ destination }) => addressTest(4, destination),
  'ip6 saddr': ({ source }) => addressTest(6, source),
  'ip6 daddr': ({ destination }) => addressTest(6, destination),
  'ip protocol': (packet) => (packet.source.family === 4 ? protocolTest(packet) : never),
  'ip6 nexthdr': (packet) => (packet.source.family === 6 ? protocolTest(packet) : never),
  'meta l4proto': protocolTest,
  'meta nfproto': ({ source }) => wordTest(`ipv${source.family}`, ['ipv4', 'ipv6']),
  'meta mark': ({ mark }) => numberTest(mark),
  'ct state': () => wordTest('new', ['new', 'established', 'related', 'invalid', 'untracked']),
  'ct status': ({ redirected }) => statusTest(redirected),
  'ct direction': () => wordTest('original', ['original', 'reply']),
  'fib daddr type': ({ toHost }) => (toHost ? wordTest('local', ['local', 'unicast']) : notLocal),
  'tcp sport': (packet) => portTest(packet, packet.sourcePort, Protocol.tcp),
  'tcp dport': (packet) => portTest(packet, packet.destinationPort, Protocol.tcp),
  'udp sport': (packet) => portTest(packet, packet.sourcePort, Protocol.udp),
  'udp dport': (packet) => portTest(packet, packet.destinationPort, Protocol.udp),
  'sctp sport': (packet) => portTest(packet, packet.sourcePort, Protocol.sctp),
  'sctp dport': (packet) => portTest(packet, packet.destinationPort, Protocol.sctp),
  'th sport': (packet) => portTest(packet, packet.sourcePort, undefined),
  'th dport': (packet) => portTest(packet, packet.destinationPort, undefined),
  'icmp type': (packet) => icmpTest(packet, Protocol.icmp, packet.icmpType),
  'icmp code': (packet) => icmpTest(packet, Protocol.icmp, packet.icmpCode),
  'icmpv6 type': (packet) => icmpTest(packet, Protocol.icmpv6, packet.icmpType),
  'icmpv6 code': (packet) => icmpTest(packet, Protocol.icmpv6, packet.icmpCode),
};

/** Of a header that the packet does not have: then the rule does not fit, also where it asks for the contrary. */
const never: Test = () => 'no';

/** @param values of which it has to be one */
export function fits(test: Test, values: readonly string[]): Fit {
  if (test === never) return 'no';
  return anyOf(values.map(test));
}

/** The same where `!=` stands before the values. */
export function fitsNot(test: Test, values: readonly string[]): Fit {
  return test === never ? 'no' : opposite(fits(test, values));
}

/**
 * @param value one, several between commas, `{ … }`, or `@name`
 * @returns `undefined` for a set that is not in the listing
 */
export function valuesOf(value: string, table: Table): readonly string[] | undefined {
  if (value.startsWith('{')) return elementsOf(value).map((element) => splitElement(element).key);
  if (value.startsWith('@')) return namedSet(table, value)?.map((element) => splitElement(element).key);
  return value.startsWith('"') ? [value] : value.split(',');
}

function anyOf(found: readonly Fit[]): Fit {
  return found.includes('yes') ? 'yes' : found.includes('maybe') ? 'maybe' : 'no';
}

function opposite(found: Fit): Fit {
  return found === 'maybe' ? found : found === 'yes' ? 'no' : 'yes';
}

function known(is: boolean): Fit {
  return is ? 'yes' : 'no';
}

/** A link of which the kernel has no name any more is printed by its number. */
function linkTest(link: string): Test {
  return (value) => {
    const name = unquoted(value);
    if (/^[0-9]+$/.test(name)) return 'maybe';
    return known(name.endsWith('*') ? link.startsWith(name.slice(0, -1)) : link === name);
  };
}

function addressTest(family: 4 | 6, address: HookPacket['source']): Test {
  if (address.family !== family) return never;
  return (value) => {
    const range = readRange(value);
    return range === undefined ? 'maybe' : known(rangeContains(range, address));
  };
}

/** One address, a prefix or a range. */
function readRange(text: string): AddressRange | undefined {
  const [address, length] = text.split('/');
  if (length !== undefined) {
    const start = parseAddress(address!);
    return start === undefined || !/^[0-9]{1,3}$/.test(length) ? undefined : prefixRange(start, Number(length));
  }
  const [first, last = first] = text.split('-');
  const [start, end] = [parseAddress(first!), parseAddress(last!)];
  return start === undefined || end === undefined ? undefined : { start, end };
}

function protocolTest({ protocol }: HookPacket): Test {
  return (value) => {
    const number = /^[0-9]+$/.test(value) ? Number(value) : protocolByName(value);
    return number === undefined ? 'maybe' : known(number === protocol);
  };
}

function wordTest(word: string, all: readonly string[]): Test {
  return (value) => (value === word ? 'yes' : all.includes(value) ? 'no' : 'maybe');
}

/** Of a connection that is new, and was redirected or not. What else it may be comes later. */
function statusTest(redirected: boolean | undefined): Test {
  return (value) => {
    if (value !== 'dnat')
      return ['assured', 'confirmed', 'seen-reply', 'dying', 'expected'].includes(value) ? 'no' : 'maybe';
    return redirected === undefined ? 'maybe' : known(redirected);
  };
}

/** An address that is not the host's may be one host's, or all hosts' of a network. */
const notLocal: Test = (value) => (value === 'local' ? 'no' : 'maybe');

/** Words for numbers, such as names of services, are not looked up. */
function numberTest(number: number | undefined): Test {
  return (value) => {
    const [first, last = first] = value
      .split('-')
      .map((text) => (/^(0x[0-9a-f]+|[0-9]+)$/i.test(text) ? Number(text) : undefined));
    if (number === undefined || first === undefined || last === undefined) return 'maybe';
    return known(first <= number && number <= last);
  };
}

function portTest({ protocol }: HookPacket, port: number | undefined, wanted: number | undefined): Test {
  if (wanted !== undefined && wanted !== protocol) return never;
  return hasPorts(protocol) ? numberTest(port) : () => 'maybe';
}

/** By nft's names: those of RFC 792 and RFC 4443 that rules name. */
const ICMP_NAMES: Readonly<Record<number, Readonly<Record<string, number>>>> = {
  [Protocol.icmp]: {
    'echo-reply': 0,
    'destination-unreachable': 3,
    redirect: 5,
    'echo-request': 8,
    'time-exceeded': 11,
    'parameter-problem': 12,
    'timestamp-request': 13,
    'timestamp-reply': 14,
  },
  [Protocol.icmpv6]: {
    'destination-unreachable': 1,
    'packet-too-big': 2,
    'time-exceeded': 3,
    'parameter-problem': 4,
    'echo-request': 128,
    'echo-reply': 129,
    'nd-router-solicit': 133,
    'nd-router-advert': 134,
    'nd-neighbor-solicit': 135,
    'nd-neighbor-advert': 136,
    'nd-redirect': 137,
  },
};

function icmpTest({ protocol }: HookPacket, wanted: number, number: number | undefined): Test {
  if (protocol !== wanted || !isIcmp(protocol)) return never;
  const test = numberTest(number);
  return (value) => test(String(ICMP_NAMES[wanted]?.[value] ?? value));
}
