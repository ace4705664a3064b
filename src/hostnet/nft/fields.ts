/** The fields of packets that rules of the fence name, in nft(8)'s words: where each is found, and what it presumes. */
import { NFPROTO, NFT_EXTHDR_F_PRESENT, NFT_META, NFT_PAYLOAD, NFTA_FIB_F } from '../netlink/nftables-layout.ts';
import type { Load } from './expressions.ts';
import { integerType, TYPES, type ValueType } from './values.ts';
import type { Words } from './words.ts';

export interface Field {
  readonly load: Load;
  readonly type: ValueType;
  /** Bits of the loaded bytes that are the field. */
  readonly mask?: Uint8Array;
  /** NFPROTO_… that packets must have to have it at all. */
  readonly family?: number;
  /** The protocol behind the IP headers that they must have. */
  readonly protocol?: number;
  /** Of bytes of a packet: how nft(8) remembers with a set what is looked up in it: the header, and its field. */
  readonly remembered?: readonly number[];
}

/** Of nft(8): the ports of any protocol, and the second one. */
const PORTS_HEADER = 11;
const DESTINATION_PORT = 2;

const { NETWORK_HEADER, TRANSPORT_HEADER } = NFT_PAYLOAD;
const [IPV4, IPV6] = [NFPROTO[4], NFPROTO[6]];
const ICMP = 1;
const UDP = 17;
const ICMPV6 = 58;
/** Extension headers of IPv6, RFC 8200 §4. */
const EXTENSION = { hbh: 0, frag: 44, dst: 60 } as const;

const BYTE = TYPES.inet_proto;
const PORT = TYPES.inet_service;

const FIELDS: Readonly<Record<string, Field>> = {
  iif: meta(NFT_META.IIF, TYPES.host32),
  oif: meta(NFT_META.OIF, TYPES.host32),
  oifgroup: meta(NFT_META.OIFGROUP, TYPES.host32),
  iifname: meta(NFT_META.IIFNAME, TYPES.ifname),
  oifname: meta(NFT_META.OIFNAME, TYPES.ifname),
  'meta iifkind': meta(NFT_META.IIFKIND, TYPES.ifname),
  'meta oifkind': meta(NFT_META.OIFKIND, TYPES.ifname),
  'meta sdifname': meta(NFT_META.SDIFNAME, TYPES.ifname),
  'meta nfproto': meta(NFT_META.NFPROTO, TYPES.nf_proto),
  'meta l4proto': meta(NFT_META.L4PROTO, BYTE),
  'ip hdrlength': { ...header(IPV4, 0, BYTE), mask: Uint8Array.of(0x0f) },
  'ip frag-off': header(IPV4, 6, integerType(2)),
  'ip protocol': header(IPV4, 9, BYTE),
  'ip saddr': header(IPV4, 12, TYPES.ipv4_addr),
  'ip daddr': header(IPV4, 16, TYPES.ipv4_addr),
  'ip6 nexthdr': header(IPV6, 6, BYTE),
  'ip6 hoplimit': header(IPV6, 7, BYTE),
  'ip6 saddr': header(IPV6, 8, TYPES.ipv6_addr),
  'ip6 daddr': header(IPV6, 24, TYPES.ipv6_addr),
  'hbh nexthdr': extension(EXTENSION.hbh, 0, BYTE),
  'dst nexthdr': extension(EXTENSION.dst, 0, BYTE),
  'frag nexthdr': extension(EXTENSION.frag, 0, BYTE),
  'frag frag-off': { ...extension(EXTENSION.frag, 2, integerType(2)), mask: Uint8Array.of(0xff, 0xf8) },
  'th sport': transport(0, PORT),
  'th dport': { ...transport(2, PORT), remembered: [PORTS_HEADER, DESTINATION_PORT] },
  'udp sport': { ...transport(0, PORT), protocol: UDP },
  'udp dport': { ...transport(2, PORT), protocol: UDP },
  'icmp type': { ...transport(0, BYTE), family: IPV4, protocol: ICMP },
  'icmpv6 type': { ...transport(0, BYTE), family: IPV6, protocol: ICMPV6 },
};

/** Whether the packet has a fragment header: its value is one bit, and its words are no comparison. */
export const FRAGMENT_HEADER: Field = {
  load: { kind: 'exthdr', header: EXTENSION.frag, offset: 0, length: 1, flags: NFT_EXTHDR_F_PRESENT },
  type: BYTE,
  family: IPV6,
};
export const MARK: Field = meta(NFT_META.MARK, TYPES.host32);
export const PACKET_FAMILY: Field = FIELDS['meta nfproto']!;
export const TRANSPORT_PROTOCOL: Field = FIELDS['meta l4proto']!;
/** Fields of which one value says which protocol is behind the IP headers. */
export const SHOWS_PROTOCOL: readonly Field[] = [TRANSPORT_PROTOCOL, FIELDS['ip protocol']!, FIELDS['ip6 nexthdr']!];
/** What the address is to this host: by all of its links, and by the one that the packet came by. */
const ADDRESS_TYPE: Field = fib(NFTA_FIB_F.DADDR);
const ADDRESS_TYPE_BY_LINK: Field = fib(NFTA_FIB_F.DADDR | NFTA_FIB_F.IIF);

/** The field that the next words name. @throws Error when they name none */
export function takeField(words: Words): Field {
  const word = words.next();
  if (word.startsWith('@th,')) return rawField(word) ?? refuse(words, word);
  if (word === 'fib') {
    words.expect('daddr');
    const byLink = words.takes('.');
    if (byLink) words.expect('iif');
    words.expect('type');
    return byLink ? ADDRESS_TYPE_BY_LINK : ADDRESS_TYPE;
  }
  if (words.atEnd) throw words.unknown(word);
  const name = Object.hasOwn(FIELDS, word) ? word : `${word} ${words.next()}`;
  return Object.hasOwn(FIELDS, name) ? FIELDS[name]! : refuse(words, name);
}

function refuse(words: Words, word: string): never {
  throw words.unknown(word);
}

/** `@th,64,8`: bits of the transport header, at whole bytes. */
function rawField(word: string): Field | undefined {
  const [, offset, length] = /^@th,(\d{1,4}),(\d{1,3})$/.exec(word)?.map(Number) ?? [];
  if (offset === undefined || length === undefined || length === 0 || offset % 8 !== 0 || length % 8 !== 0)
    return undefined;
  return transport(offset / 8, integerType(length / 8));
}

function meta(key: number, type: ValueType): Field {
  return { load: { kind: 'meta', key }, type };
}

function header(family: number, offset: number, type: ValueType): Field {
  return { load: { kind: 'payload', base: NETWORK_HEADER, offset, length: type.length }, type, family };
}

function transport(offset: number, type: ValueType): Field {
  return { load: { kind: 'payload', base: TRANSPORT_HEADER, offset, length: type.length }, type };
}

function extension(number: number, offset: number, type: ValueType): Field {
  return { load: { kind: 'exthdr', header: number, offset, length: type.length, flags: 0 }, type, family: IPV6 };
}

function fib(flags: number): Field {
  return { load: { kind: 'fib', flags }, type: TYPES.fib_addrtype };
}
