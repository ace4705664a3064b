import { describe, expect, it } from 'vitest';
import type { HookPacket } from '../../../src/hostnet/filters/packet.ts';
import { type Done, doneBy as doneWithin } from '../../../src/hostnet/filters/rule.ts';
import { at, packet, ping, table, V6 } from './packets.ts';

const TABLE = table(`table inet fw {
	set blocked {
		type ipv4_addr
		flags interval
		elements = { 10.0.0.0/8, 192.168.0.1-192.168.0.9 }
	}

	set pairs {
		type ipv4_addr . inet_service
		elements = { 10.1.0.9 . 443 }
	}

	map verdicts {
		type ipv4_addr : verdict
		elements = { 10.2.0.1 : drop }
	}
}
`);

function doneBy(rule: string, seen: HookPacket = packet(), left = 1000): readonly Done[] {
  return doneWithin(rule, seen, TABLE, { left });
}

/** `drop`, `maybe drop`, or nothing: what a rule does, a word for each. */
function done(rule: string, seen: HookPacket = packet()): string {
  return doneBy(rule, seen)
    .map(
      ({ fit, action }) =>
        `${fit === 'maybe' ? 'maybe ' : ''}${'chain' in action ? `${action.type} ${action.chain}` : action.type}`,
    )
    .join(', ');
}

describe('a rule of nftables', () => {
  it.each([
    'drop',
    'counter packets 3 bytes 180 drop',
    'counter name "cc" log prefix "accept drop" level info drop',
    'iifname "lan0" oifname "tun0" drop',
    'iifname "lan*" oif "tun0" drop',
    'iifname { "lan0", "lan1" } drop',
    'iifname != "docker0" drop',
    'ip saddr 10.1.0.0/16 ip daddr 10.2.0.1 drop',
    'ip saddr 10.1.0.1-10.1.0.9 drop',
    'ip saddr @blocked drop',
    'ip saddr != { 1.1.1.1, 2.2.2.2 } drop',
    'meta l4proto { tcp, udp } th dport 443 drop',
    'ip protocol tcp tcp dport { 22, 80-90, 443 } drop',
    'tcp sport != 80 drop',
    'meta nfproto ipv4 drop',
    'ct state new,untracked drop',
    'ct state { invalid, new } drop',
    'ct state != established drop',
    'meta mark != 0x00000010 drop',
    'meta mark & 0x000000ff == 0x00000000 drop',
    'ip daddr vmap @verdicts',
    'ip saddr vmap { 10.0.0.0/8 : drop, 11.0.0.0/8 : accept }',
    'ip saddr 10.1.0.9 comment "return accept" drop',
  ])('drops the packet that it is for: %s', (rule) => {
    expect(done(rule)).toBe('drop');
  });

  it.each([
    'iifname "lan1" drop',
    'iifname "docker*" drop',
    'oifname != "tun0" drop',
    'ip saddr 10.2.0.0/16 drop',
    'ip6 saddr fd00::/8 drop',
    'ip6 saddr != fd00::/8 drop',
    'udp dport 443 drop',
    'udp dport != 53 drop',
    'tcp dport 22 xt match "string" drop',
    'meta l4proto ah drop',
    'icmp type echo-request drop',
    'meta nfproto ipv6 drop',
    'ct state established,related drop',
    'ct state vmap { established : accept, invalid : drop }',
    'ip saddr vmap { 11.0.0.0/8 : drop }',
    'fib daddr type local drop',
    'meta mark { 0x00000001, 0x00000002 } drop',
    'ct state new counter log prefix "drop"',
    'ct mark set 0x00000001',
    'ct status dnat accept',
    'ct direction reply accept',
    'tcp flags syn tcp option maxseg size set rt mtu',
  ])('does nothing to a packet that it is not for, nor where it only counts or logs: %s', (rule) => {
    expect(done(rule)).toBe('');
  });

  it.each([
    ['meta skuid 1000 drop', 'maybe drop'],
    ['iifgroup 4 drop', 'maybe drop'],
    ['limit rate 5/second burst 3 packets drop', 'maybe drop'],
    ['xt match "physdev" counter drop', 'maybe drop'],
    ['ip saddr . tcp dport @pairs drop', 'maybe drop'],
    ['ip saddr & 255.0.255.0 == 10.0.1.0 drop', 'maybe drop'],
    ['tcp flags syn / syn,ack drop', 'maybe drop'],
    ['tcp dport 443 ip dscp cs1 drop', 'maybe drop'],
    ['ct original ip saddr 1.2.3.4 drop', 'maybe drop'],
    ['ct status snat accept', 'maybe accept'],
    ['ct direction original ct mark 0x00000003 drop', 'maybe drop'],
    ['ip saddr @unlisted drop', 'maybe drop'],
    ['update @blocked { ip saddr limit rate 10/second } drop', 'maybe drop'],
    ['meta cgroup vmap { 1 : drop, 2 : jump other }', 'maybe drop, maybe jump other'],
    ['queue flags bypass to 3', 'drop'],
    ['counter xt target "NEW"', 'drop'],
    ['tcp dport https drop', 'maybe drop'],
  ])('does not guess: %s', (rule, expected) => {
    expect(done(rule)).toBe(expected);
    const [first] = doneBy(rule);
    const isSure = first?.fit === 'yes' && (first.action.type !== 'drop' || first.action.certain);
    expect(isSure).toBe(false);
  });

  it('knows types of ICMP, and IPv6', () => {
    expect(done('icmp type echo-request accept', ping())).toBe('accept');
    expect(done('icmp type { echo-reply, destination-unreachable } drop', ping())).toBe('');
    const v6 = packet(V6);
    expect(done('ip saddr 10.0.0.0/8 drop', v6)).toBe('');
    expect(done('ip6 daddr fd02::/16 ip6 nexthdr tcp drop', v6)).toBe('drop');
    expect(
      done('icmpv6 type { nd-router-advert, echo-request } drop', ping({ ...V6, protocol: 58, icmpType: 128 })),
    ).toBe('drop');
  });

  it('sees no link of what the host sends itself', () => {
    const own = packet({ inputLink: '' });
    expect(done('iifname "lan0" drop', own)).toBe('');
    expect(done('iifname != "docker0" drop', own)).toBe('drop');
    expect(done('fib daddr type local accept', packet({ toHost: true }))).toBe('accept');
    expect(done('ct status dnat accept', packet({ redirected: true }))).toBe('accept');
    expect(done('ct status dnat accept', packet({ redirected: undefined }))).toBe('maybe accept');
  });

  it('tells new addresses, where the rule says which', () => {
    const to = (rule: string): unknown =>
      doneBy(rule).map(({ action }) => ('to' in action ? [action.type, action.to] : action.type));
    expect(to('oifname "tun0" counter masquerade fully-random')).toEqual([['source', undefined]]);
    expect(to('snat to 10.1.0.1')).toEqual([['source', at('10.1.0.1')]]);
    expect(to('snat ip to 1.1.1.1-1.1.1.5')).toEqual([['source', undefined]]);
    expect(to('snat ip to ip saddr map { 1.1.1.1 : 2.2.2.2 }')).toEqual([['source', undefined]]);
    expect(to('dnat ip to 10.1.1.1:80')).toEqual([['destination', at('10.1.1.1')]]);
    expect(to('dnat ip6 to [fd00::2]:80')).toEqual([['destination', at('fd00::2')]]);
    expect(to('redirect to :80')).toEqual([['destination', undefined]]);
    expect(to('counter xt target "MASQUERADE"')).toEqual([['source', undefined]]);
  });

  it('looks at no more elements than it may', () => {
    const hastily = (rule: string): unknown => doneBy(rule, packet(), 1).map(({ fit }) => fit);
    expect(hastily('ip saddr @blocked drop')).toEqual(['maybe']);
    expect(hastily('ip saddr vmap { 10.0.0.0/8 : drop, 11.0.0.0/8 : accept }')).toEqual([]);
    expect(hastily('ip saddr 10.0.0.0/8 drop')).toEqual(['yes']);
  });

  it('computes marks', () => {
    const mark = (rule: string, seen: HookPacket = packet({ mark: 0x5 })): unknown =>
      doneBy(rule, seen).map(({ action }) => (action.type === 'mark' ? action.mark : action.type));
    expect(mark('meta mark set 0x00000010')).toEqual([0x10]);
    expect(mark('meta mark set meta mark | 0x00000010 accept')).toEqual([0x15, 'accept']);
    expect(mark('counter meta mark set mark and 0xfffffff0 xor 0x1')).toEqual([0x1]);
    expect(mark('meta mark set ct mark & 0xff accept')).toEqual([undefined, 'accept']);
    expect(mark('meta mark set meta mark | 0x1', packet({ mark: undefined }))).toEqual([undefined]);
    expect(mark('counter xt target "CONNMARK"')).toEqual([undefined]);
    expect(done('meta mark 0x5 drop', packet({ mark: undefined }))).toBe('maybe drop');
  });
});
