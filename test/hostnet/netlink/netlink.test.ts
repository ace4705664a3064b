import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type IpAddress, parseAddress } from '../../../src/base/address.ts';
import { DecodeError, fromHex, toHex } from '../../../src/base/bytes.ts';
import { NetlinkRequest, parseAttributes, parseMessages } from '../../../src/hostnet/netlink/netlink.ts';
import * as message from '../../../src/hostnet/netlink/rtnetlink.ts';
import { addRuleRequest, parseRule } from '../../../src/hostnet/netlink/rtnetlink-rules.ts';
import type { Prefix, Route, Rule } from '../../../src/hostnet/routes/routes.ts';

const ip = (text: string): IpAddress => parseAddress(text)!;
const prefix = (text: string): Prefix => {
  const [address, length] = text.split('/');
  return { address: ip(address!), prefixLength: Number(length) };
};
const hex = (...parts: readonly string[]): string => parts.join('').replaceAll(' ', '');
const bytes = (...parts: readonly string[]): Uint8Array => fromHex(hex(...parts));
/** The structure and attributes of a request, without the header. */
const bodyOf = (request: NetlinkRequest): Uint8Array => request.finish(1).subarray(16);

// Expected bytes follow linux/netlink.h, rtnetlink.h, if_addr.h and fib_rules.h, in little-endian order.
describe('netlink messages', () => {
  it('are a header, a structure and padded attributes', () => {
    const request = new NetlinkRequest(0x12, 0x300, Uint8Array.of(1, 2, 3, 4))
      .attribute(3, Uint8Array.of(0x61, 0))
      .attributeU8(7, 9)
      .attributeU32(4, 0x01020304);
    expect(toHex(request.finish(0x11223344))).toBe(
      hex(
        '2c000000 1200 0503 44332211 00000000',
        '01020304',
        '0600 0300 6100 0000',
        '0500 0700 09 000000',
        '0800 0400 04030201',
      ),
    );
  });

  it('are split into data, acknowledgement and refusal with its reason', () => {
    const data = '18000000 1800 0200 07000000 00000000 aabbccdd eeff0011';
    const acknowledged = '24000000 0200 0001 07000000 00000000 00000000 14000000 1800 0506 07000000 00000000';
    // EEXIST (17), flags CAPPED | ACK_TLVS, NLMSGERR_ATTR_MSG "gone".
    const refused =
      '30000000 0200 0003 08000000 00000000 efffffff 14000000 1800 0506 08000000 00000000 0900 0100 676f6e65 00 000000';
    const done = '14000000 0300 0200 09000000 00000000 00000000';
    const behindChange = '14000000 1800 1200 0a000000 00000000 aabbccdd';
    const interrupted = '14000000 0300 1200 0a000000 00000000 00000000';
    expect(parseMessages(bytes(data, acknowledged, refused, done, behindChange, interrupted))).toEqual([
      { kind: 'data', type: 0x18, sequence: 7, body: bytes('aabbccdd eeff0011') },
      { kind: 'end', sequence: 7, errno: 0, text: undefined },
      { kind: 'end', sequence: 8, errno: 17, text: 'gone' },
      { kind: 'end', sequence: 9, errno: 0, text: undefined },
      { kind: 'data', type: 0x18, sequence: 10, body: bytes('aabbccdd'), isInterrupted: true },
      { kind: 'end', sequence: 10, errno: 4, text: 'the table changed while it was read' },
    ]);
  });

  it('with wrong lengths are refused', () => {
    expect(() => parseMessages(bytes('0c000000 1800 0200 07000000'))).toThrow(DecodeError);
    expect(() => parseMessages(bytes('0f000000 1800 0200 07000000 00000000'))).toThrow(DecodeError);
    expect(() => parseMessages(bytes('14000000 1800 0200 07000000 00000000'))).toThrow(DecodeError);
    expect(() => parseAttributes(bytes('0300 0100'), 0)).toThrow(DecodeError);
    expect(() => parseAttributes(bytes('0900 0100 00000000'), 0)).toThrow(DecodeError);
  });

  it('never throw anything but DecodeError, whatever the bytes', () => {
    const parsers = [
      parseMessages,
      message.parseLink,
      message.parseInterfaceAddress,
      message.parseRoute,
      message.parseRouteReply,
      parseRule,
    ];
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 80 }), fc.constantFrom(...parsers), (input, parse) => {
        try {
          parse(input);
        } catch (error) {
          expect(error).toBeInstanceOf(DecodeError);
        }
      }),
    );
  });
});

describe('links and addresses', () => {
  it('bring a link up and set its MTU', () => {
    expect(toHex(message.setLinkRequest(7, { up: true, mtu: 1400 }).finish(1))).toBe(
      hex('28000000 1000 0500 01000000 00000000', '00000000 07000000 01000000 01000000', '0800 0400 78050000'),
    );
    expect(toHex(bodyOf(message.setLinkRequest(7, { up: false })))).toBe(hex('00000000 07000000 00000000 01000000'));
  });

  it('read a link', () => {
    const body = bytes('0000 feff 05000000 51000100 00000000', '0900 0300 73656330 00 000000', '0800 0400 78050000');
    expect(message.parseLink(body)).toEqual({ index: 5, name: 'sec0', mtu: 1400, up: true, group: 0 });
  });

  it('read the local end of a point-to-point address', () => {
    const body = bytes('02 20 80 00 05000000', '0800 0100 0a000002', '0800 0200 0a000001');
    expect(message.parseInterfaceAddress(body)).toEqual({ linkIndex: 5, ...prefix('10.0.0.1/32') });
    expect(message.parseInterfaceAddress(bytes('11 20 80 00 05000000'))).toBeUndefined();
  });
});

describe('routes', () => {
  it('add a route with everything', () => {
    const route: Route = {
      type: 'unicast',
      destination: prefix('10.2.0.0/16'),
      table: 1000,
      linkIndex: 5,
      source: ip('10.1.2.3'),
      metric: 50,
      mtu: 1300,
    };
    expect(toHex(message.addRouteRequest(route, { replace: false }).finish(3))).toBe(
      hex(
        '50000000 1800 0506 03000000 00000000',
        // AF_INET, /16, no source, no TOS, table in the attribute, protocol 83, scope link, unicast
        '02 10 00 00 00 53 fd 01 00000000',
        '0800 0f00 e8030000',
        '0800 0100 0a020000',
        '0800 0400 05000000',
        '0800 0700 0a010203',
        '0800 0600 32000000',
        '0c00 0800 0800 0200 14050000',
      ),
    );
  });

  it('add a default route by a gateway, and one that leads nowhere', () => {
    const gateway: Route = { type: 'unicast', destination: prefix('0.0.0.0/0'), gateway: ip('192.0.2.1') };
    expect(toHex(bodyOf(message.addRouteRequest(gateway, { replace: true })))).toBe(
      hex('02 00 00 00 fe 53 00 01 00000000', '0800 0f00 fe000000', '0800 0500 c0000201', '0800 0600 00000000'),
    );
    const unreachable: Route = { type: 'unreachable', destination: prefix('2001:db8::/32'), table: 100 };
    expect(toHex(bodyOf(message.addRouteRequest(unreachable, { replace: false })))).toBe(
      hex(
        '0a 20 00 00 64 53 00 07 00000000',
        '0800 0f00 64000000',
        '1400 0100 20010db8000000000000000000000000',
        '0800 0600 00040000',
      ),
    );
  });

  it('replace and delete only what bears our protocol', () => {
    const route: Route = { type: 'blackhole', destination: prefix('10.2.0.0/16'), source: ip('10.1.2.3'), mtu: 1300 };
    const replaced = message.addRouteRequest(route, { replace: true }).finish(1);
    expect(toHex(replaced.subarray(4, 8))).toBe('18000505');
    const deleted = message.deleteRouteRequest(route).finish(1);
    expect(toHex(deleted.subarray(4, 8))).toBe('19000500');
    expect(toHex(deleted.subarray(16))).toBe(
      hex('02 10 00 00 fe 53 ff 06 00000000', '0800 0f00 fe000000', '0800 0100 0a020000', '0800 0600 00000000'),
    );
  });

  it('read back what they were built from', () => {
    const routes: Route[] = [
      { type: 'unicast', destination: prefix('10.2.0.0/16'), table: 1000, linkIndex: 5, metric: 50, mtu: 1300 },
      { type: 'unicast', destination: prefix('::/0'), gateway: ip('fe80::1'), linkIndex: 2, source: ip('2001:db8::1') },
      { type: 'unreachable', destination: prefix('2001:db8::/32'), table: 100 },
      { type: 'blackhole', destination: prefix('10.0.0.0/8'), metric: 7 },
    ];
    for (const route of routes) {
      expect(message.parseRoute(bodyOf(message.addRouteRequest(route, { replace: false })))).toEqual({
        linkIndex: undefined,
        gateway: undefined,
        source: undefined,
        mtu: undefined,
        metric: route.destination.address.family === 4 ? 0 : 1024,
        table: 254,
        ...route,
        protocol: 83,
      });
    }
  });

  it('pass over kinds that are not described', () => {
    expect(message.parseRoute(bytes('02 20 00 00 ff 02 fe 02 00000000', '0800 0100 0a000001'))).toBeUndefined();
  });

  it('ask which way a packet would take, and read the answer', () => {
    const query = { destination: ip('198.51.100.1'), ipProtocol: 17, sourcePort: 500, destinationPort: 4500 };
    expect(toHex(message.routeQueryRequest(query).finish(4))).toBe(
      hex(
        '3c000000 1a00 0500 04000000 00000000',
        '02 20 00 00 00 00 00 00 00100000',
        '0800 0100 c6336401',
        '0500 1b00 11 000000',
        '0600 1c00 01f4 0000',
        '0600 1d00 1194 0000',
      ),
    );
    const answer = bytes(
      '02 20 00 00 fe 00 00 01 00000000',
      '0800 0100 c6336401',
      '0800 0400 02000000',
      '0800 0500 c0000201',
      '0800 0700 c0000202',
      '0c00 0800 0800 0200 14050000',
      '0800 0f00 e8030000',
    );
    expect(message.parseRouteReply(answer)).toEqual({
      linkIndex: 2,
      source: ip('192.0.2.2'),
      gateway: ip('192.0.2.1'),
      mtu: 1300,
      learnt: false,
      local: false,
      table: 1000,
    });
    // What runs out the kernel has learnt from ICMP; what the route says itself is asked for by another flag.
    const cache = '2400 0c00 00000000 00000000 60ea0000 00000000 00000000 00000000 00000000 00000000';
    const learnt = bytes(
      '02 20 00 00 fe 00 00 01 00000000',
      '0800 0400 02000000',
      '0c00 0800 0800 0200 28020000',
      cache,
    );
    expect(message.parseRouteReply(learnt)).toMatchObject({ mtu: 552, learnt: true });
    expect(toHex(message.routeQueryRequest(query, { configured: true }).finish(4))).toContain('02200000000000000030');
    expect(message.parseConfiguredMtu(answer)).toBe(1300);
    expect(message.parseRouteReply(bytes('02 20 00 00 ff 00 00 02 00000000', '0800 0400 01000000'))?.local).toBe(true);
    expect(message.parseRouteReply(bytes('0a 80 00 00 fe 00 00 07 00000000', '0800 0400 01000000'))).toBeUndefined();
  });
});

describe('rules', () => {
  const full: Rule = {
    family: 4,
    priority: 7000,
    from: prefix('10.1.0.0/16'),
    to: prefix('10.2.0.0/16'),
    inputLink: 'lo',
    ipProtocol: 17,
    sourcePorts: { start: 5000, end: 5010 },
    destinationPorts: { start: 0, end: 65_535 },
    action: { type: 'table', table: 1000 },
  };

  it('add a rule with everything', () => {
    expect(toHex(addRuleRequest(full).finish(5))).toBe(
      hex(
        '64000000 2000 0506 05000000 00000000',
        '02 10 10 00 00 00 00 01 00000000',
        '0800 0600 581b0000',
        '0500 1500 53 000000',
        '0800 0f00 e8030000',
        '0800 0100 0a020000',
        '0800 0200 0a010000',
        '0700 0300 6c6f00 00',
        '0500 1600 11 000000',
        '0800 1700 8813 9213',
        '0800 1800 0000 ffff',
      ),
    );
  });

  it('read back what they were built from', () => {
    const rules: Rule[] = [
      full,
      { family: 6, priority: 1, to: prefix('2001:db8::/32'), action: { type: 'unreachable' } },
      { family: 6, priority: 2, from: prefix('2001:db8::1/128'), action: { type: 'blackhole' } },
      { family: 4, priority: 3, action: { type: 'table', table: 254 } },
      { family: 4, priority: 4, suppressedLength: 8, action: { type: 'table', table: 254 } },
    ];
    for (const rule of rules) {
      expect(parseRule(bodyOf(addRuleRequest(rule)))).toMatchObject({ ...rule, protocol: 83 });
    }
  });

  it('pass over rules whose parts are not all described', () => {
    const plain = '02 00 00 00 fe 00 00 01 00000000 0800 0f00 fe000000';
    expect(parseRule(bytes(plain, '0800 0e00 ffffffff'))).toBeDefined();
    // Whole ports, as kernels since 6.15 say; then a part of a port.
    expect(parseRule(bytes(plain, '0800 1700 0100 0200', '0600 1c00 ffff 0000'))).toBeDefined();
    expect(parseRule(bytes(plain, '0800 1700 0100 0200', '0600 1c00 ff00 0000'))).toBeUndefined();
    // A firewall mark; inverted; a TOS.
    expect(parseRule(bytes(plain, '0800 0a00 01000000'))).toBeUndefined();
    expect(parseRule(bytes('02 00 00 00 fe 00 00 01 02000000'))).toBeUndefined();
    expect(parseRule(bytes('02 00 00 10 fe 00 00 01 00000000'))).toBeUndefined();
  });
});
