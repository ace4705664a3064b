/** Lines of the fence as messages of the kernel; `test/interop/fence-nft.test.ts` compares all of them with nft(8)'s. */
import { describe, expect, it } from 'vitest';
import { toHex } from '../../../src/base/bytes.ts';
import { parseMessages, readName } from '../../../src/hostnet/netlink/netlink.ts';
import { parseRule } from '../../../src/hostnet/netlink/nftables.ts';
import type { NetlinkData } from '../../../src/hostnet/netlink/socket.ts';
import { BatchCompiler, type CompiledBatch } from '../../../src/hostnet/nft/batch.ts';

const HEADER_SIZE = 16;
const [BEGIN, END] = ['140000001000010000000000000000000000000a', '140000001100010000000000000000000000000a'];
/** NFT_MSG_… with the subsystem's number. */
const TYPE = { NEWRULE: 0xa06, NEWSET: 0xa09, NEWSETELEM: 0xa0c } as const;

function compileBatch(lines: string): CompiledBatch {
  const batch = new BatchCompiler();
  for (const line of lines.split('\n')) batch.add(line);
  return batch.end();
}

/** The messages, hexadecimal. */
function messagesOf(lines: string): string[] {
  const { bytes } = compileBatch(lines);
  return dataOf(bytes).map(({ body }) =>
    toHex(bytes.subarray(body.byteOffset - HEADER_SIZE, body.byteOffset + body.length)),
  );
}

function dataOf(bytes: Uint8Array): NetlinkData[] {
  return parseMessages(bytes).flatMap((message) => (message.kind === 'data' ? [message] : []));
}

const types = (lines: string): number[] =>
  dataOf(compileBatch(lines).bytes)
    .slice(1, -1)
    .map(({ type }) => type);

/** What a rule compares with, and where it leads. */
const facts = (rule: string): ReturnType<typeof parseRule> =>
  parseRule(dataOf(compileBatch(`add rule inet t c ${rule}`).bytes).at(-2)!.body);

describe('a batch', () => {
  it('begins and ends, and says of each message which line it is of', () => {
    expect(messagesOf('')).toEqual([BEGIN, END]);
    const lines = ['add chain inet t c', 'add rule inet t c iifname { "a", "b" } return'];
    const { NEWRULE, NEWSET, NEWSETELEM } = TYPE;
    expect(types(lines[1]!)).toEqual([NEWSET, NEWSETELEM, NEWRULE]);
    expect(compileBatch(lines.join('\n\n')).lines).toEqual([lines[0], lines[1], lines[1], lines[1]]);
  });

  it.each([
    // nla_len, nla_type, value; padded: name "t", flags 0, the comment as nft keeps it (type 0, length, text).
    [
      'add table inet t { comment "kept"; }',
      '30000000000a0104000000000000000001000000' +
        '0600010074000000' +
        '0800020000000000' +
        '0b0006000005' +
        '6b65707400' +
        '00',
    ],
    ['delete table inet t', '1c000000020a01000000000000000000' + '01000000' + '0600010074000000'],
    ['flush chain inet t c', '24000000080a01000000000000000000' + '01000000' + '0600010074000000' + '0600020063000000'],
    [
      'add chain inet t c { type filter hook input priority -10; policy accept; }',
      '4c000000030a01040000000000000000' +
        '01000000' +
        '0600010074000000' +
        '0600030063000000' +
        '0b00070066696c7465720000' +
        '0800050000000001' +
        '14000480' +
        '0800010000000001' +
        '08000200fffffff6',
    ],
    [
      'add element inet t m { 10.9.0.0/24 . 10.9.0.3 : jump c }',
      '640000000c0a01040000000000000000' +
        '01000000' +
        '0600010074000000' +
        '060002006d000000' +
        '40000380' +
        '3c000180' +
        '100001800c0001000a0900000a090003' +
        '10000a800c0001000a0900ff0a090003' +
        '18000280140002800800' +
        '0100fffffffd' +
        '0600020063000000',
    ],
  ])('%s', (line, bytes) => {
    expect(messagesOf(line)).toEqual([BEGIN, bytes, END]);
  });

  it('splits elements that are too many for one attribute, and leaves none out', () => {
    const ranges = Array.from({ length: 1000 }, (_, at) => `10.${at >> 7}.${2 * (at & 127)}.0/24`);
    const { bytes, lines } = compileBatch(`add element inet t s { ${ranges.join(', ')} }`);
    expect(lines).toHaveLength(8);
    // A start and an end each, of which the end has flags.
    expect(toHex(bytes).match(/18000[0-9a-f]80080003000000000[01]0c000180/g)).toHaveLength(1000);
  });
});

describe('a rule', () => {
  it.each([
    ['iifname "lo" accept', [`6c6f${'00'.repeat(14)}`]],
    // The family first, and once.
    ['ip saddr 10.1.0.7 ip daddr 10.2.0.0/24 return', ['02', '0a010007', '0a0200']],
    ['meta nfproto ipv4 ip daddr 10.2.0.0/15 return', ['02', '0a020000']],
    ['ip daddr 10.2.0.3-10.2.0.9 return', ['02', '0a020003', '0a020009']],
    // The protocol, unless the header before it says so.
    ['icmp type 3 @th,136,8 50 return', ['02', '01', '03', '32']],
    ['ip6 nexthdr 58 ip6 hoplimit 255 icmpv6 type 133-137 return', ['0a', '3aff', '85', '89']],
    // Two ports are one comparison; a range of ports is one of its own.
    ['meta l4proto 17 th sport 500 th dport 53 return', ['11', '01f40035']],
    ['meta l4proto 17 th sport 500-501 th dport 53 return', ['11', '01f4', '01f5', '0035']],
    ['ip hdrlength 5 ip frag-off & 0x1fff == 0 @th,0,32 >= 0 return', ['02', '05', '0000', '00000000']],
    ['meta nfproto ipv6 exthdr frag missing accept', ['0a', '00']],
    ['meta mark and 8388608 == 0 accept', ['00000000']],
    ['iif 0 oifgroup != 83 return', ['00000000', '53000000']],
    ['fib daddr type != local return', ['02000000']],
  ])('%s', (rule, constants) => {
    expect(facts(rule)).toEqual({ constants, jump: undefined });
  });

  it('leads to another chain', () => {
    expect(facts('iifname . ip saddr . ip daddr vmap @m')).toEqual({ constants: ['02'], jump: undefined });
    expect(facts('goto t01_out')).toEqual({ constants: [], jump: 't01_out' });
  });
});

/** Each has one word that the fence does not use, or leaves one out. */
const UNKNOWN: readonly string[] = [
  'add rule inet t c',
  'add rule inet t c iif >= 3 accept',
  'add rule inet t c meta mark and 1-2 == 0 accept',
  'add rule inet t c meta mark and 4 == 0-4 accept',
  'add rule inet t c ip frag-off & 0x1-0x3 == 0 accept',
  'add rule inet t c ip frag-off & 0x1fff == 0-3 accept',
  'add rule inet t c ip hdrlength 5-6 accept',
  'add rule inet t c tcp dport 80 accept',
  'add rule inet t c ip ttl 4 accept',
  'add rule inet t c ip daddr fd00::1 accept',
  'add rule inet t c ip daddr 10.1.0.1/24 accept',
  'add rule inet t c ip daddr 10.1.0.0/33 accept',
  'add rule inet t c ip daddr != 10.1.0.0/24 accept',
  'add rule inet t c ip daddr { 10.1.0.0/24, 10.2.0.0/24 } accept',
  'add rule inet t c ip daddr . ip saddr @m accept',
  'add rule inet t c ip saddr 10.1.0.1 ip6 daddr fd00::1 accept',
  'add rule inet t c th dport 65536 accept',
  'add rule inet t c th dport 80-70 accept',
  'add rule inet t c ip daddr 10.1.0.9-10.1.0.3 accept',
  'add rule inet t c th dport -1 accept',
  'add rule inet t c @th,4,8 1 accept',
  'add rule inet t c @nh,0,8 1 accept',
  'add rule inet t c frag frag-off 8 accept',
  'add rule inet t c iifname "l*" accept',
  'add rule inet t c iifname accept',
  'add rule inet t c meta mark or 1 == 0 accept',
  'add rule inet t c meta mark set 1 accept',
  'add rule inet t c accept drop',
  'add rule inet t c jump',
  'add rule inet t c log accept',
  'add rule inet t c counter accept',
  'add rule inet t c reject',
  'add rule inet t c masquerade',
  'add rule inet t c snat ip to 10.1.0.1',
  'add rule inet t c accept comment "x"',
  'insert rule inet t c accept',
  'add rule ip t c accept',
  'add table inet t { flags dormant; }',
  'flush table inet t',
  'flush ruleset',
  'add chain inet t c { type filter hook input priority 0; policy drop; }',
  'add chain inet t c { type filter hook input priority filter; policy accept; }',
  'add chain inet t c { type filter hook ingress priority 0; policy accept; }',
  'delete chain inet t c d',
  'add counter inet t k { packets 1 bytes 1 }',
  'add set inet t s { type ipv4_addr; }',
  'add set inet t s { type mark; flags interval; }',
  'add set inet t s { type ipv4_addr; flags interval; timeout 1s; }',
  'add map inet t m { type ipv4_addr : verdict; flags interval; }',
  'add map inet t m { type ipv4_addr . ipv4_addr : mark; flags interval; }',
  'add element inet t s { 10.1.0.0/24, 10.1.0.7 }',
  'add element inet t s { 10.1.0.0/24, "a" }',
  'add element inet t s { 10.1.0.0/24 : accept }',
  'add element inet t m { 10.1.0.0/24 . 10.2.0.0/24 : jump }',
  'add element inet t m { 10.1.0.0/24 . 10.2.0.0/24 : mark }',
  'add element inet t m { 10.1.0.0/24 . 10.2.0.0/24 : accept : drop }',
  'add element inet t s { }',
];

describe('a line that the fence does not have', () => {
  it.each(UNKNOWN)('%s', (line) => {
    expect(() => compileBatch(`add table inet t\n${line}`)).toThrow(/^bug: .*line of a fence/);
  });
});

it('reads the names in what it writes', () => {
  const { body } = dataOf(compileBatch('add counter inet t t01_clear-out').bytes)[1]!;
  expect(readName(body.subarray(16))).toBe('t01_clear-out');
});
