/** Transport mode: who may have it, between whom, and with NATs between (RFC 7296 §1.3.1, §2.23.1). */
import { describe, expect, it } from 'vitest';
import { formatAddress, type IpAddress, parseAddress } from '../../src/base/address.ts';
import type { ChildConfig, ConnectionConfig } from '../../src/ike/config.ts';
import type { ChildSa } from '../../src/ike/events.ts';
import { makeSelector } from '../../src/policy/selector.ts';
import { at, child, connection, type Host, mirrored, Pair } from '../support/ike-pair.ts';

const ip = (text: string): IpAddress => parseAddress(text)!;
const only = (text: string, protocol = 0): ReturnType<typeof makeSelector>[] => [
  makeSelector({ start: ip(text), end: ip(text) }, protocol),
];

function transport(local = '192.0.2.1', remote = '192.0.2.2', change: Partial<ChildConfig> = {}): ChildConfig {
  return { ...child('c'), mode: 'transport', selectors: { local: only(local), remote: only(remote) }, ...change };
}

const between = (change: Partial<ConnectionConfig> = {}): ConnectionConfig =>
  connection({ children: [transport()], ...change });

const hosts = ({ transport: found }: ChildSa): string[] | undefined =>
  found && [found.local, found.remote, found.asPeerHasThem.local, found.asPeerHasThem.remote].map(formatAddress);

describe('transport mode', () => {
  it.each([
    ['in UDP', {}],
    ['straight over IP', { aOptions: { rawEsp: true }, bOptions: { rawEsp: true } }],
  ])('is agreed on between the ends themselves, %s, and kept when they rekey', (_how, options) => {
    const pair = new Pair({ ...options, a: between() });
    pair.up();
    for (let round = 0; round < 3; round++) {
      expect(hosts(pair.a.child)).toEqual(['192.0.2.1', '192.0.2.2', '192.0.2.1', '192.0.2.2']);
      expect(hosts(pair.b.child)).toEqual(['192.0.2.2', '192.0.2.1', '192.0.2.2', '192.0.2.1']);
      expect([pair.a.child.mode, pair.b.child.mode]).toEqual(['transport', 'transport']);
      const host = round === 0 ? pair.a : pair.b;
      pair.act(host, (endpoint, now) => endpoint.rekeyChild(now, host.child.id));
      pair.run(10_000);
    }
  });

  it('has none but its ends for selectors, narrowed by protocol at most', () => {
    const b = mirrored(between());
    const narrow = transport('192.0.2.2', '192.0.2.1', {
      selectors: { local: only('192.0.2.2', 17), remote: only('192.0.2.1', 17) },
    });
    const pair = new Pair({ a: between(), b: { ...b, children: [narrow] } });
    pair.up();
    expect(pair.a.child.selectors.local).toEqual(only('192.0.2.1', 17));
    expect(hosts(pair.a.child)).toBeDefined();
  });

  it.each<[string, Partial<ConnectionConfig>, string]>([
    [
      'of networks',
      { children: [{ ...child('c'), mode: 'transport' }] },
      'which needs selectors of one host on each side',
    ],
    ['of another local host', { children: [transport('10.0.0.1')] }, 'of 10.0.0.1, not of the end at 192.0.2.1'],
    ['of another remote host', { children: [transport('192.0.2.1', '10.0.0.1')] }, 'not of the end at 192.0.2.2'],
  ])('is not configured for selectors %s', (_what, change, why) => {
    expect(() => new Pair({ a: connection(change) })).toThrow(why);
  });

  it('is not given up for tunnel mode by either side', () => {
    const tunnel = { ...transport(), mode: 'tunnel' as const };
    const asks = new Pair({ a: between(), b: mirrored(between({ children: [tunnel] })) });
    asks.up();
    // The peer may decline (RFC 7296 §1.3.1): then there is an SA that is not what was wanted, and it is deleted.
    expect(asks.a.of('failed')[0]).toMatchObject({
      reason: 'NO_PROPOSAL_CHOSEN',
      detail: 'transport mode was requested, the peer answered with tunnel',
    });
    expect([asks.a.children.size, asks.b.children.size]).toEqual([0, 0]);
    const asked = new Pair({ a: between({ children: [tunnel] }), b: mirrored(between()) });
    asked.up();
    expect(asked.b.of('failed')[0]?.detail).toBe('the peer offers tunnel mode, transport is configured');
    expect([asked.a.children.size, asked.b.children.size]).toEqual([0, 0]);
  });

  it('is refused to a peer whose address is not the one of the selectors', () => {
    // It may come from anywhere, but transport mode is for 192.0.2.1 alone.
    const b = mirrored(between());
    const anywhere = { ...b, remote: { ...b.remote, address: undefined } };
    const a = between({ local: { ...between().local, address: undefined } });
    const pair = new Pair({ a, b: anywhere, aOptions: { rawEsp: true }, bOptions: { rawEsp: true } });
    pair.filter = (datagram) => {
      const { local, remote } = datagram.path;
      const [from, to] = datagram.from === pair.a ? [at('192.0.2.7', 500), local] : [remote, at('192.0.2.1', 500)];
      datagram.path = { local: to, remote: from };
      return 'deliver';
    };
    pair.act(pair.a, (endpoint, now) => endpoint.initiate(now, 'net', { local: at('192.0.2.7', 500) }));
    pair.run();
    const refused = [...pair.a.of('failed'), ...pair.b.of('failed')].map(({ detail }) => detail);
    expect(refused.join()).toContain('child c is in transport mode, so its selectors must be the two end points');
    expect(pair.a.children.size + pair.b.children.size).toBe(0);
  });
});

/** RFC 7296 §2.23.1: IP1 behind NAT IPN1, IP2 behind NAT IPN2. */
describe('transport mode through NATs', () => {
  const IP1 = '10.0.0.1';
  const IPN1 = '198.51.100.1';
  const IPN2 = '203.0.113.2';
  const IP2 = '10.9.9.2';

  function ends(local: string, remote: string): ConnectionConfig {
    const base = connection();
    return {
      ...base,
      local: { ...base.local, address: ip(local) },
      remote: { ...base.remote, address: ip(remote) },
      children: [transport(local, remote)],
    };
  }

  /** `b` speaks for the other identity. */
  function other(config: ConnectionConfig): ConnectionConfig {
    const base = mirrored(connection());
    return {
      ...config,
      local: { ...config.local, id: base.local.id },
      remote: { ...config.remote, id: base.remote.id },
    };
  }

  function translated(
    first: string,
    firstOutside: string,
    second: string,
    secondOutside: string,
    from: 'a' | 'b',
  ): Pair {
    const pair = new Pair({ a: ends(first, secondOutside), b: other(ends(second, firstOutside)) });
    const [shift1, shift2] = [first === firstOutside ? 0 : 1000, second === secondOutside ? 0 : 2000];
    pair.filter = (datagram) => {
      const toB = datagram.from === pair.a;
      const port = (value: number, shift: number): number => (value > shift ? value - shift : value);
      const { local, remote } = datagram.path;
      // As the sender sees them: `remote` is its own end, `local` the outside of the other's NAT.
      datagram.path = toB
        ? { local: at(second, port(local.port, shift2)), remote: at(firstOutside, remote.port + shift1) }
        : { local: at(first, port(local.port, shift1)), remote: at(secondOutside, remote.port + shift2) };
      return 'deliver';
    };
    const host: Host = from === 'a' ? pair.a : pair.b;
    pair.up(host);
    return pair;
  }

  it.each([
    ['before the initiator', IP1, IPN1, IPN2, IPN2, 'a'],
    ['before the responder', IPN1, IPN1, IP2, IPN2, 'a'],
    ['before both', IP1, IPN1, IP2, IPN2, 'a'],
    ['before both, the other way', IP1, IPN1, IP2, IPN2, 'b'],
  ] as const)(
    '%s each says its selectors as it sees them, and learns what the other has',
    (_where, first, firstOut, second, secondOut, from) => {
      const pair = translated(first, firstOut, second, secondOut, from);
      expect([...pair.a.of('failed'), ...pair.b.of('failed')]).toEqual([]);
      for (let round = 0; round < 2; round++) {
        expect(hosts(pair.a.child)).toEqual([first, secondOut, firstOut, second]);
        expect(hosts(pair.b.child)).toEqual([second, firstOut, secondOut, first]);
        expect(pair.a.child.selectors).toEqual({ local: only(first), remote: only(secondOut) });
        expect(pair.b.child.selectors).toEqual({ local: only(second), remote: only(firstOut) });
        pair.act(pair.b, (endpoint, now) => endpoint.rekeyChild(now, pair.b.child.id));
        pair.run(10_000);
      }
    },
  );
});
