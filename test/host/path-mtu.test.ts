import { describe, expect, it } from 'vitest';
import { dumpDocument } from '../../src/config/dump.ts';
import { parseDocument } from '../../src/config/parse.ts';
import { parseEspProposalString } from '../../src/crypto/proposal-text.ts';
import { espLength } from '../../src/esp/packet.ts';
import { PathMtus } from '../../src/host/path-mtu.ts';
import type { Path } from '../../src/ike/events.ts';
import { deviceMtu } from '../../src/plan/device-mtu.ts';
import { planTunnel } from '../../src/plan/plan.ts';
import { MemoryNetwork } from '../../src/tun/udp/memory.ts';
import { address, eventually, oppositeDocument, TestDaemon, tunnelDocument } from '../support/daemon.ts';
import { enginePair, opposite, packet, tunnel } from '../support/engine-net.ts';

const proposals = (...texts: readonly string[]): ReturnType<typeof parseEspProposalString>[] =>
  texts.map((text) => parseEspProposalString(text));

const GCM = proposals('aes128gcm16');
const path = { pathMtu: 1500, outer: 4, encapsulated: true, proposals: GCM, ipv6: false } as const;

describe('the MTU of a device', () => {
  it.each<[string, Parameters<typeof deviceMtu>[0], number]>([
    ['AES-GCM over IPv4', path, 1436],
    ['AES-GCM over IPv6', { ...path, outer: 6 }, 1416],
    ['ESP straight over IPv4', { ...path, encapsulated: false }, 1444],
    ['ESP straight over IPv6', { ...path, outer: 6, encapsulated: false }, 1424],
    ['the widest of several suites', { ...path, proposals: proposals('aes128gcm16', 'aes256-sha512') }, 1404],
    ['the widest of one proposal', { ...path, proposals: proposals('aes256-sha512-sha1') }, 1404],
    ['a short ICV', { ...path, proposals: proposals('aes128gcm8') }, 1444],
    ['a path that is not known', { ...path, pathMtu: undefined }, 1436],
    ['PPPoE', { ...path, pathMtu: 1492 }, 1428],
    ['jumbo frames', { ...path, pathMtu: 9000 }, 8936],
    ['a loopback interface', { ...path, pathMtu: 65_536 }, 8936],
    ['a path too narrow for IPv6 inside', { ...path, pathMtu: 1280, ipv6: true }, 1280],
    ['a path that is narrow, for IPv4', { ...path, pathMtu: 1280 }, 1216],
    ['a path too narrow for anything', { ...path, pathMtu: 100 }, 576],
    ['a document without proposals', { ...path, proposals: [] }, 1472],
  ])('for %s', (_, needs, mtu) => {
    expect(deviceMtu(needs)).toBe(mtu);
  });

  it('leaves no room for another step', () => {
    const cipher = { ivLength: 16, icvLength: 24, blockSize: 16 };
    for (let pathMtu = 1400; pathMtu < 1440; pathMtu++) {
      const mtu = deviceMtu({ ...path, pathMtu, proposals: proposals('aes256-sha384') });
      expect(espLength(mtu, cipher) + 28).toBeLessThanOrEqual(pathMtu);
      expect(espLength(mtu + 4, cipher) + 28).toBeGreaterThan(pathMtu);
    }
  });
});

describe('a plan', () => {
  const mtuOf = async (xml: string, known?: number): Promise<number> =>
    (await planTunnel(parseDocument(xml), { pathMtuFor: () => known })).device.mtu;
  const device = (mtu: number): string => tunnelDocument({ extra: `<device mtu='${mtu}'/>` });

  it('has the MTU of the document, or else that of the path', async () => {
    expect(await mtuOf(device(1234), 1300)).toBe(1234);
    // The default proposals hold AES-CBC with an ICV of 32 bytes.
    expect(await mtuOf(tunnelDocument(), 1300)).toBe(1212);
    expect(await mtuOf(tunnelDocument())).toBe(1404);
    expect(await mtuOf(tunnelDocument({ esp: "<proposal encryption='aes128gcm16'/>" }))).toBe(1436);
  });

  it('asks for the way from one end to the other', async () => {
    const asked: unknown[] = [];
    await planTunnel(parseDocument(tunnelDocument()), {
      pathMtuFor: (remote, local) => {
        asked.push(remote, local);
        return undefined;
      },
    });
    expect(asked).toEqual([address('192.0.2.2'), address('192.0.2.1')]);
  });

  it('reserves for IPv6 what is not known to be IPv4', async () => {
    const anyone = tunnelDocument({ local: 'any', remote: 'any', start: 'respond' }).replace(
      "<local address='any'/>",
      "<local address='any'><id type='fqdn'>here.example</id></local>",
    );
    expect(await mtuOf(anyone, 9000)).toBe(1388);
  });

  it('and its document stays without one', () => {
    expect(dumpDocument(parseDocument(tunnelDocument()))).not.toContain('mtu=');
    expect(dumpDocument(parseDocument(device(1300)))).toContain("mtu='1300'");
  });
});

describe('the engine is told', () => {
  const tunnels = (): string[] => ['t'];

  /** A tunnel that is up, what was asked of the system so far, and what it says. */
  function setUp(): {
    pathMtus: PathMtus;
    asked: () => number;
    system: { mtu: number | undefined; tooLarge: number };
    known: () => unknown;
    path: () => Path;
  } {
    const config = tunnel({ mtu: 1400 });
    const { net, a } = enginePair({ a: config, b: opposite(config) });
    net.send(a, [packet('10.1.0.1', '10.2.0.1', 'up')]);
    net.run();
    const system: { mtu: number | undefined; tooLarge: number } = { mtu: 1500, tooLarge: 0 };
    let asked = 0;
    const mtuFor = (): number | undefined => {
      asked++;
      return system.mtu;
    };
    const pathMtus = new PathMtus({ engine: a.engine, mtuFor, tooLarge: () => system.tooLarge });
    return { pathMtus, asked: () => asked, system, known: () => a.child().pathMtu, path: () => a.child().path };
  }

  it('with the first packet, and now and then', () => {
    const { pathMtus, asked, system, known } = setUp();
    pathMtus.check(1_000, tunnels);
    expect([known(), asked()]).toEqual([1500, 1]);
    system.mtu = 1300;
    pathMtus.check(10_999, tunnels);
    expect([known(), asked()]).toEqual([1500, 1]);
    pathMtus.check(11_000, tunnels);
    expect([known(), asked()]).toEqual([1300, 2]);
  });

  it('nothing of the path of an SA that sends nothing', () => {
    const { pathMtus, asked } = setUp();
    pathMtus.check(15_000, tunnels);
    expect(asked()).toBe(1);
    pathMtus.check(30_000, tunnels);
    expect(asked()).toBe(1);
  });

  it('of what a router reported, for ten minutes, and not of more than the route has', () => {
    const { pathMtus, system, known, path } = setUp();
    pathMtus.check(1_000, tunnels);
    pathMtus.learn(2_000, { path: path(), mtu: 1400 });
    expect(known()).toBe(1400);
    pathMtus.check(601_999, tunnels);
    expect(known()).toBe(1400);
    system.mtu = 1350;
    pathMtus.refresh(601_999, 't');
    expect(known()).toBe(1350);
    system.mtu = 1500;
    pathMtus.refresh(602_000, 't');
    expect(known()).toBe(1500);
  });

  it('soon after a datagram was too large, and not for each', () => {
    const { pathMtus, asked, system, known } = setUp();
    pathMtus.check(1_000, tunnels);
    system.mtu = 1300;
    system.tooLarge = 3;
    pathMtus.check(1_099, tunnels);
    expect([known(), asked()]).toEqual([1500, 1]);
    pathMtus.check(1_100, tunnels);
    expect([known(), asked()]).toEqual([1300, 2]);
    pathMtus.check(1_300, tunnels);
    expect(asked()).toBe(2);
    system.tooLarge = 4;
    pathMtus.check(1_301, tunnels);
    expect(asked()).toBe(3);
  });

  it('at once of a new path, and what it knew stays while there is no route', () => {
    const { pathMtus, asked, system, known } = setUp();
    pathMtus.refresh(1_000, 't');
    system.mtu = undefined;
    pathMtus.refresh(1_001, 't');
    expect([known(), asked()]).toEqual([1500, 2]);
    system.mtu = 1400;
    pathMtus.check(1_002, tunnels);
    expect(known()).toBe(1400);
    pathMtus.refresh(1_003, 'no such tunnel');
    expect(asked()).toBe(3);
  });
});

describe('a daemon', () => {
  it('shows the MTU that was chosen, and answers what does not fit the path any more', async () => {
    const network = new MemoryNetwork();
    const left = await TestDaemon.start(network.host([address('192.0.2.1')]));
    const right = await TestDaemon.start(network.host([address('192.0.2.2')]));
    await left.giveSecret();
    await right.giveSecret();
    left.pathMtu = 1492;
    right.pathMtu = 1492;
    const esp = "<proposal encryption='aes128gcm16'/>";
    await right.client.call('create', { xml: oppositeDocument({ esp }) });
    // The path narrows before the SA comes up: the device has its MTU already.
    await left.client.call('create', { xml: tunnelDocument({ esp }) });
    left.pathMtu = 1300;
    const device = left.devices.get('stun-net')!;
    expect((await left.client.call('status', {})).tunnels).toMatchObject([{ device: { mtu: 1428 } }]);
    const large = packet('10.1.0.1', '10.2.0.1', 'x'.repeat(1300));
    large[6] = 0x40;
    device.inject(packet('10.1.0.1', '10.2.0.1', 'up'));
    await eventually('the tunnel', () => right.devices.get('stun-net')!.takeDelivered().length > 0);
    device.inject(large);
    let answers: Uint8Array[] = [];
    await eventually('the answer', () => {
      answers = device.takeDelivered();
      return answers.length > 0;
    });
    expect([...answers[0]!.slice(20, 22), ...answers[0]!.slice(24, 28)]).toEqual([3, 4, 0, 0, 0x04, 0xd6]);
    expect((await left.client.call('status', {})).tunnels).toMatchObject([{ drops: { 'too-big': 1 } }]);
  });
});
