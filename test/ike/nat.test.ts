/** NAT detection, the move of ports, encapsulation, keepalives, peers that move (RFC 7296 §2.23, RFC 3948 §4). */
import { describe, expect, it } from 'vitest';
import type { SocketAddress } from '../../src/base/address.ts';
import { formatSocketAddress } from '../../src/base/address.ts';
import type { ConnectionConfig } from '../../src/ike/config.ts';
import { NotifyType } from '../../src/ike/wire/iana.ts';
import { decodeMessage } from '../../src/ike/wire/message.ts';
import { findNotifies } from '../../src/ike/wire/payload.ts';
import { expectClosed, expectSame } from '../support/ike-expect.ts';
import { at, connection, type Datagram, type Host, mirrored, Pair } from '../support/ike-pair.ts';

const RAW = { aOptions: { rawEsp: true }, bOptions: { rawEsp: true } };

/** A NAT in front of one side: its port 500 becomes 1500 + shift, 4500 becomes 5500 + shift, at another address. */
class Nat {
  readonly inside: Host;
  shift = 0;
  readonly #pair: Pair;

  constructor(pair: Pair, inside: Host) {
    this.inside = inside;
    this.#pair = pair;
    pair.filter = (datagram) => this.pass(datagram);
  }

  #outside(end: SocketAddress): SocketAddress {
    return at('203.0.113.9', end.port + 1_000 + this.shift);
  }

  pass(datagram: Datagram): 'deliver' | 'drop' {
    const { local, remote } = datagram.path;
    if (datagram.from === this.inside) {
      datagram.path = { local, remote: this.#outside(remote) };
      return 'deliver';
    }
    // Only what the binding is for gets in.
    const own = [500, 4500].map((port) => at(this.#pair.a === this.inside ? '192.0.2.1' : '192.0.2.2', port));
    const bound = own.find((end) => formatSocketAddress(this.#outside(end)) === formatSocketAddress(local));
    if (bound === undefined) return 'drop';
    datagram.path = { local: bound, remote };
    return 'deliver';
  }
}

/** A connection whose remote address is not known, for the side that is in front of a NAT. */
function fromAnywhere(config: ConnectionConfig): ConnectionConfig {
  return { ...config, remote: { ...config.remote, address: undefined } };
}

const ports = (host: Host): string => {
  const { local, remote } = host.ikeSa.path;
  return `${local.port} ${remote.port}`;
};

describe('without a NAT', () => {
  it('stays on port 500 and does not encapsulate, where ESP can be sent as it is', () => {
    const pair = new Pair(RAW);
    pair.up();
    expectSame(pair, 1);
    for (const host of [pair.a, pair.b]) {
      expect(host.child.encapsulated).toBe(false);
      expect(host.ikeSa.nat).toEqual({ local: false, remote: false });
      expect(ports(host)).toBe('500 500');
    }
  });

  it.each([
    ['neither side can send ESP', {}, connection()],
    ['one side cannot', { aOptions: { rawEsp: true } }, connection()],
    ['the other cannot', { bOptions: { rawEsp: true } }, connection()],
    ['it is forced', RAW, connection({ nat: { mode: 'force', keepalive: 0 } })],
  ] as const)('moves to port 4500 on both sides when %s', (_why, options, a) => {
    const pair = new Pair({ ...options, a, b: mirrored(connection()) });
    pair.up();
    expectSame(pair, 1);
    for (const host of [pair.a, pair.b]) {
      expect(host.child.encapsulated).toBe(true);
      expect(ports(host)).toBe('4500 4500');
      expect(host.child.path).toEqual(host.ikeSa.path);
      expect(host.keepalives).toBe(0);
    }
    pair.run(100_000);
    expect(pair.a.keepalives + pair.b.keepalives).toBe(0);
  });

  it.each([
    ['neither side asks', 'off', 'off'],
    ['we do not ask', 'off', 'auto'],
    ['the peer does not answer', 'auto', 'off'],
  ] as const)('stays on port 500 and does not encapsulate when %s', (_why, a, b) => {
    const nat = (mode: 'auto' | 'force' | 'off'): ConnectionConfig => connection({ nat: { mode, keepalive: 0 } });
    const pair = new Pair({ ...RAW, a: nat(a), b: mirrored(nat(b)) });
    pair.up();
    for (const host of [pair.a, pair.b]) {
      expect(host.child.encapsulated).toBe(false);
      expect(ports(host)).toBe('500 500');
      expect(host.ikeSa.nat).toEqual({ local: false, remote: false });
    }
    const init = decodeMessage(pair.sent[0]!.data);
    const tells = findNotifies(init.payloads, NotifyType.NAT_DETECTION_SOURCE_IP).length > 0;
    expect(tells).toBe(a !== 'off');
  });

  it.each([
    ['the peer', 'force', 'off'],
    ['its initiator', 'off', 'force'],
  ] as const)('says what stands in the way when ESP must go in UDP and %s cannot', (_who, a, b) => {
    const nat = (mode: 'force' | 'off'): ConnectionConfig => connection({ nat: { mode, keepalive: 0 } });
    const pair = new Pair({ ...RAW, a: nat(a), b: mirrored(nat(b)) });
    pair.up();
    pair.run(60_000);
    const forced = a === 'force' ? pair.a : pair.b;
    expect(forced.of('failed')[0]).toMatchObject({
      reason: 'no-esp-path',
      detail: expect.stringContaining('the peer does not support NAT traversal'),
    });
    expect(pair.a.children.size + pair.b.children.size).toBe(0);
  });

  it('says that ESP may go straight over IP too, where the peer stays on port 500 for no NAT', () => {
    const forced = connection({ nat: { mode: 'force', keepalive: 0 } });
    const pair = new Pair({ ...RAW, a: forced, b: mirrored(connection()) });
    // As of a peer that does not float.
    pair.filter = (datagram) => {
      const { local, remote } = datagram.path;
      if (datagram.from === pair.b) datagram.path = { local: { ...local, port: 500 }, remote };
      return 'deliver';
    };
    pair.act(pair.b, (endpoint, now) => endpoint.initiate(now, 'net'));
    pair.run();
    expect(pair.a.of('failed')).toMatchObject([
      { reason: 'no-esp-path', detail: expect.stringContaining("encapsulation 'needed' here") },
    ]);
  });

  it('is required where ESP cannot be sent directly over IP', () => {
    const config = connection({ nat: { mode: 'off', keepalive: 0 } });
    expect(() => new Pair({ a: config })).toThrow('connection net: without NAT traversal ESP is sent directly over IP');
  });

  it('of peers that may be of several connections is looked for when one of these wants it', () => {
    const config = connection({ nat: { mode: 'off', keepalive: 0 } });
    const forced = { ...fromAnywhere(mirrored(connection({ nat: { mode: 'force', keepalive: 0 } }))), name: 'forced' };
    const b = [{ ...mirrored(config), remote: { ...config.local, address: undefined } }, forced];
    const pair = new Pair({ ...RAW, a: connection(), b });
    pair.up();
    expectSame(pair, 1);
    for (const host of [pair.a, pair.b]) {
      expect(host.child.encapsulated).toBe(true);
      expect(ports(host)).toBe('4500 4500');
    }
  });

  it('stays on its own port, which carries both IKE and ESP', () => {
    const config = connection();
    const own = { port: 55055, natPort: 55055 };
    const pair = new Pair({
      a: { ...config, local: { ...config.local, ...own }, remote: { ...config.remote, ...own } },
    });
    pair.up();
    expectSame(pair, 1);
    expect(ports(pair.a)).toBe('55055 55055');
    expect(pair.b.child.encapsulated).toBe(true);
  });
});

describe.each(['a', 'b'] as const)('a NAT in front of %s', (side) => {
  function behindNat(): { pair: Pair; nat: Nat; inside: Host; outside: Host } {
    const config = connection();
    const pair = new Pair(
      side === 'a'
        ? { ...RAW, a: config, b: fromAnywhere(mirrored(config)) }
        : { ...RAW, a: fromAnywhere(config), b: mirrored(config) },
    );
    const inside = pair[side];
    const nat = new Nat(pair, inside);
    pair.up(inside);
    return { pair, nat, inside, outside: pair.peer(inside) };
  }

  it('is found by both, and makes them encapsulate', () => {
    const { pair, inside, outside } = behindNat();
    expectSame(pair, 1);
    expect(inside.ikeSa.nat).toEqual({ local: true, remote: false });
    expect(outside.ikeSa.nat).toEqual({ local: false, remote: true });
    expect(ports(inside)).toBe('4500 4500');
    expect(ports(outside)).toBe('4500 5500');
    expect(inside.child.encapsulated && outside.child.encapsulated).toBe(true);
  });

  it('is kept open by the side behind it', () => {
    const { pair, inside, outside } = behindNat();
    pair.run(100_000);
    expect(inside.keepalives).toBe(5);
    expect(outside.keepalives).toBe(0);
  });

  it('may change its mapping: the other follows an authentic message, and only that', () => {
    const { pair, nat, inside, outside } = behindNat();
    const before = outside.ikeSa.path;
    nat.shift = 7;
    // Somebody sends garbage with the right SPIs from elsewhere, and an old message once more.
    const replay = pair.sent.filter((datagram) => datagram.from === inside).at(-1)!;
    const elsewhere = { ...replay, path: { local: before.local, remote: at('198.51.100.66', 4500) } };
    pair.deliver(elsewhere);
    const garbled = elsewhere.data.slice();
    garbled[23] = 2;
    pair.deliver({ ...elsewhere, data: garbled });
    expect(outside.ikeSa.path).toEqual(before);
    pair.act(inside, (endpoint, now) => endpoint.rekeyChild(now, inside.child.id));
    pair.run();
    expectSame(pair, 1);
    expect(ports(outside)).toBe('4500 5507');
    expect(outside.of('path-changed')).toMatchObject([{ path: { remote: { port: 5507 } } }]);
    expect(outside.child.path.remote.port).toBe(5507);
    expect(inside.of('path-changed')).toEqual([]);
  });

  it('may change its mapping, which ESP may notice first', () => {
    const { pair, inside, outside } = behindNat();
    const moved = { ...outside.child.path, remote: at('203.0.113.9', 5_999) };
    pair.act(outside, (endpoint, now) => endpoint.childReceived(now, outside.child.spiIn, moved));
    expect(outside.of('path-changed')).toMatchObject([{ path: moved }]);
    const elsewhere = { ...inside.child.path, remote: at('198.51.100.66', 4500) };
    pair.act(inside, (endpoint, now) => endpoint.childReceived(now, inside.child.spiIn, elsewhere));
    expect(inside.of('path-changed')).toEqual([]);
  });

  it('may change its mapping in the midst of the set-up', () => {
    const config = connection();
    const a = side === 'a' ? config : fromAnywhere(config);
    const b = side === 'b' ? mirrored(config) : fromAnywhere(mirrored(config));
    const pair = new Pair({ ...RAW, a, b });
    const inside = pair[side];
    const nat = new Nat(pair, inside);
    let messages = 0;
    pair.filter = (datagram) => {
      if (datagram.from === inside && ++messages === 2) nat.shift = 3;
      return nat.pass(datagram);
    };
    pair.up(inside);
    expectSame(pair, 1);
    expect(ports(pair.peer(inside))).toBe('4500 5503');
    expectClosed(pair);
  });

  const REKEY: Record<string, (pair: Pair, host: Host) => void> = {
    'a CHILD SA': (pair, host) => pair.act(host, (endpoint, now) => endpoint.rekeyChild(now, host.child.id)),
    'the IKE SA': (pair, host) => pair.act(host, (endpoint, now) => endpoint.rekeyIkeSa(now, host.ikeSa.id)),
  };

  //   inside           NAT               outside
  //   │── request ──────┼─5500────────────▶│
  //   │                 ┼ ✕──── response ──│   to the old mapping
  //   │── request ──────┼─5507────────────▶│   the same bytes: answered again, to where they came from
  //   │◀────────────────┼─────── response ─│
  it.each(Object.keys(REKEY))('may change its mapping in the midst of the rekeying of %s', (what) => {
    const { pair, nat, inside, outside } = behindNat();
    pair.filter = (datagram) => {
      if (datagram.from === outside) nat.shift = 7;
      return nat.pass(datagram);
    };
    REKEY[what]!(pair, inside);
    pair.run(10_000);
    expectSame(pair, 1);
    expect(ports(outside)).toBe('4500 5507');
    expect(outside.of('path-changed').map(({ ikeSaId }) => ikeSaId)).toContain(outside.ikeSa.id);
    expect(inside.endpoint.counters().retransmissions).toBe(1);
    for (const host of [inside, outside]) {
      expect([...host.of('ike-up'), ...host.of('child-up')]).toHaveLength(3);
      expect(host.of('failed')).toEqual([]);
    }
    expectClosed(pair);
  });

  //   inside           NAT               outside
  //   │── rekey IKE ────┼─5500────────────▶│
  //   │── DELETE(old) ──┼─5503──┐          │   delayed
  //   │── on the new ───┼─5507──┼─────────▶│   there it is now
  //   │                 ┼       └─────────▶│   authentic, and older
  it('may change its mapping after the last message on an old IKE SA, which does not lead back', () => {
    const { pair, nat, inside, outside } = behindNat();
    const late: Datagram[] = [];
    pair.filter = (datagram) => {
      const requests = pair.sent.filter(({ from }) => from === inside).length;
      if (datagram.from !== inside || requests !== 4) return nat.pass(datagram);
      nat.shift = 3;
      nat.pass(datagram);
      late.push(datagram);
      nat.shift = 7;
      return 'drop';
    };
    REKEY['the IKE SA']!(pair, inside);
    pair.run(100);
    REKEY['a CHILD SA']!(pair, inside);
    pair.run(100);
    expect(ports(outside)).toBe('4500 5507');
    expect(late).toHaveLength(1);
    pair.deliver(late[0]!);
    pair.run(10_000);
    expectSame(pair, 1);
    expect(ports(outside)).toBe('4500 5507');
    expectClosed(pair);
  });

  //   inside           NAT               outside
  //   │                 ┼ ✕───── request ──│   to the old mapping
  //   │── ESP ──────────┼─5507────────────▶│   authentic, newer than all before: there it is now
  //   │◀────────────────┼──────── request ─│   retransmitted
  it.each(Object.keys(REKEY))('may change its mapping while the other side is rekeying %s', (what) => {
    const { pair, nat, inside, outside } = behindNat();
    const { spiIn, path } = outside.child;
    nat.shift = 7;
    REKEY[what]!(pair, outside);
    const moved = { ...path, remote: at('203.0.113.9', 5_507) };
    pair.act(outside, (endpoint, now) => endpoint.childReceived(now, spiIn, moved));
    pair.run(10_000);
    expectSame(pair, 1);
    expect(ports(outside)).toBe('4500 5507');
    for (const host of [inside, outside]) {
      expect([...host.of('ike-up'), ...host.of('child-up')]).toHaveLength(3);
      expect(host.of('failed')).toEqual([]);
    }
    expectClosed(pair);
  });

  /** From now on what the side behind the NAT sends comes to port 500, as of a peer that does not float. */
  function toIkePort(pair: Pair, nat: Nat): void {
    pair.filter = (datagram) => {
      const passed = nat.pass(datagram);
      if (datagram.from !== nat.inside) return passed;
      const { local, remote } = datagram.path;
      datagram.path = { local: { ...local, port: 500 }, remote };
      return passed;
    };
  }

  it('does not move ESP to port 500, where there is none in UDP: the path is refused, counted, and reported once', () => {
    const { pair, nat, inside, outside } = behindNat();
    const before = outside.ikeSa.path;
    toIkePort(pair, nat);
    for (let i = 0; i < 2; i++) {
      pair.act(inside, (endpoint, now) => endpoint.rekeyChild(now, inside.child.id));
      pair.run();
    }
    expect(outside.of('path-changed')).toEqual([]);
    expect(outside.ikeSa.path).toEqual(before);
    expect(outside.child.path).toEqual(before);
    // Its requests are answered there all the same.
    expectSame(pair, 1);
    expect(outside.endpoint.counters()['path-refused']).toBeGreaterThanOrEqual(2);
    expect(outside.of('note').filter(({ level }) => level === 'warn')).toMatchObject([
      { text: expect.stringMatching(/to port 500, which carries no ESP in UDP: packets still go to .*:5500$/) },
    ]);
  });

  it('of a peer that does not leave port 500 gets no CHILD SA, which could send nothing', () => {
    const config = connection();
    const a = side === 'a' ? config : fromAnywhere(config);
    const b = side === 'b' ? mirrored(config) : fromAnywhere(mirrored(config));
    const pair = new Pair({ ...RAW, a, b });
    const inside = pair[side];
    const outside = pair.peer(inside);
    toIkePort(pair, new Nat(pair, inside));
    pair.act(inside, (endpoint, now) => endpoint.initiate(now, 'net'));
    pair.run();
    expect(outside.children.size + inside.children.size).toBe(0);
    expect(outside.of('failed')).toMatchObject([
      {
        reason: 'no-esp-path',
        detail: expect.stringMatching(/must move to the port for NAT traversal, 4500$/),
      },
    ]);
    // What the peer is told is a notify of RFC 7296 §3.10.1.
    expect(inside.of('failed')).toMatchObject([{ reason: 'NO_PROPOSAL_CHOSEN' }]);
    expect(outside.endpoint.counters()['path-refused']).toBe(1);
    pair.act(outside, (endpoint, now) => {
      endpoint.initiate(now, 'net', { remote: outside.ikeSa.path.remote });
    });
    pair.run();
    expect(outside.of('failed')[1]).toMatchObject({ reason: 'no-esp-path', child: 'c' });
    expect(outside.children.size).toBe(0);
  });
});
