/** Which packets go into a tunnel, of the host's own and of those that it forwards, and which do not. */
import { afterEach, expect, it } from 'vitest';
import type { Namespace } from '../support/lab/namespace.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { burst, ping, startEcho } from '../support/lab/traffic.ts';
import { useLab } from '../support/lab/use-lab.ts';
import {
  buildGateways,
  CLEAR,
  counted,
  documents,
  type Entry,
  FAMILIES,
  type Gateways,
  INNER,
  leftovers,
  NAME,
  OUTER,
  resetBoth,
  startBoth,
  stopBoth,
} from './gateways.ts';

const PROTECTED = 7007;
const OPEN = 7008;

/** For both families, as the left side sees it. */
function each(make: (family: 4 | 6) => Entry[]): Entry[] {
  return FAMILIES.flatMap(make);
}

const whole = (name: string, change: Partial<Entry> = {}): Entry[] =>
  each((family) => [{ name: `${name}${family}`, from: INNER[family].left, to: INNER[family].right, ...change }]);

function answered(from: Namespace, source: string, destination: string): Promise<number> {
  return ping(from, { source, destination });
}

describeInterop('packets of a gateway', ['namespaces', 'tcpdump', 'nftables', 'build'], () => {
  let gateways: Gateways;

  useLab(async (lab) => {
    gateways = await buildGateways(lab);
    for (const family of FAMILIES) {
      for (const address of [INNER[family].far, INNER[family].hole]) {
        for (const port of [PROTECTED, OPEN]) await startEcho(gateways.lab, gateways.right, address, port);
      }
    }
  });
  afterEach(() => resetBoth(gateways));

  const answers = async (own: boolean, family: 4 | 6, destination: string, port: number): Promise<number> => {
    const source = own ? INNER[family].gateway : INNER[family].client;
    const from = own ? gateways.left : gateways.client;
    return (await burst(from, { source, destination, port, count: 5 })).received;
  };

  it('go in by protocol and port, with a hole, its own and those of others, and leave nothing behind', async () => {
    const { left, right, client, ours } = gateways;
    await startBoth(gateways, [
      ...each((family) => [
        { name: `hole${family}`, from: INNER[family].left, to: INNER[family].hole, action: 'none', priority: 9 },
      ]),
      ...whole('port', { upper: "protocol='udp'", toMore: `port='${PROTECTED}'` }),
    ]);
    await ours.up(NAME);
    for (const family of FAMILIES) {
      const { far, hole } = INNER[family];
      for (const own of [true, false]) {
        const clear = async (destination: string, port: number): Promise<number> => {
          return await counted(gateways, CLEAR, async () => {
            expect(await answers(own, family, destination, port)).toBe(5);
          });
        };
        expect([await clear(far, PROTECTED), await clear(far, OPEN), await clear(hole, PROTECTED)]).toEqual([
          0, 10, 10,
        ]);
      }
    }
    // Fragments behind the first have no ports, and go in behind it.
    const large = (from: Namespace, source: string, destination: string): Promise<number> =>
      burst(from, { source, destination, port: PROTECTED, count: 2, size: 4000 }).then(({ received }) => received);
    const clear = await counted(gateways, CLEAR, async () => {
      const sizes = FAMILIES.flatMap((family) => {
        const { far, gateway, client: source } = INNER[family];
        return [large(left, gateway, far), large(client, source, far)];
      });
      // Over IPv6 the client has to learn from the first that the tunnel is narrower.
      expect(await Promise.all(sizes)).toEqual([2, 2, 2, expect.toSatisfy((count: number) => count > 0)]);
    });
    expect(clear).toBe(0);
    // The kernel itself says a few words of multicast into a device that comes up.
    const { 'no-policy': multicast = 0, ...dropped } = (await ours.tunnel(NAME)).drops;
    expect(dropped).toEqual({});
    expect(multicast).toBeLessThan(5);
    await stopBoth(gateways);
    expect(await leftovers(left)).toBe('');
    expect(await leftovers(right)).toBe('');
  });

  it('get a source that the policy is for, where they have none', async () => {
    const { left } = gateways;
    await startBoth(gateways, whole('net'), { outer: 6 });
    for (const family of FAMILIES) {
      const { far, gateway } = INNER[family];
      const { stdout } = await left.exec(['ip', 'route', 'get', far]);
      expect(stdout).toContain(`src ${gateway}`);
      expect((await left.exec(['ping', '-n', '-q', '-c', '1', '-W', '4', far])).stdout).toContain(' 1 received');
    }
    await stopBoth(gateways);
  });

  it('all go in by a tunnel for everything, on a port of its own, but for the tunnel’s', async () => {
    const { left, client, ours } = gateways;
    const everywhere = each((family) => [
      { name: `lan${family}`, from: INNER[family].left, to: INNER[family].left, action: 'none', priority: 9 },
      { name: `all${family}`, from: INNER[family].left, to: family === 4 ? '0.0.0.0/0' : '::/0' },
    ]);
    for (const outer of FAMILIES) {
      await startBoth(gateways, everywhere, { outer, port: 55_055, leftAddress: 'any' });
      await ours.up(NAME);
      const clear = await counted(gateways, `(${CLEAR}) and not port 55055`, async () => {
        for (const family of FAMILIES) {
          const { far, gateway, client: source } = INNER[family];
          expect(await answered(left, gateway, far)).toBe(3);
          expect(await answered(client, source, far)).toBe(3);
          expect(await answered(left, gateway, source)).toBe(3);
          expect(await answered(left, gateway, OUTER.right[family])).toBe(3);
        }
      });
      expect(clear).toBe(0);
      await stopBoth(gateways);
      expect(await leftovers(left)).toBe('');
    }
  });

  it('of ICMP pass in the clear by their type, while all others go in', async () => {
    const { left, right, client, ours } = gateways;
    // Echo requests and their answers; of IPv6 likewise.
    const types = { 4: ['8', '0'], 6: ['128', '129'] } as const;
    await startBoth(gateways, [
      ...each((family) =>
        types[family].map((type) => ({
          name: `ping${type}`,
          from: INNER[family].left,
          to: INNER[family].right,
          upper: `protocol='${family === 4 ? 'icmp' : 'icmpv6'}' type='${type}'`,
          action: 'none' as const,
          priority: 9,
        })),
      ),
      ...whole('net'),
    ]);
    await ours.up(NAME);
    for (const family of FAMILIES) {
      const { far, gateway, client: source } = INNER[family];
      const pings = await counted(gateways, CLEAR, async () => {
        expect(await answered(left, gateway, far)).toBe(3);
        expect(await answered(client, source, far)).toBe(3);
        expect(await answered(right, far, gateway)).toBe(3);
      });
      expect(pings).toBeGreaterThanOrEqual(12);
      const others = await counted(gateways, CLEAR, async () => {
        for (const own of [true, false]) expect(await answers(own, family, far, OPEN)).toBe(5);
      });
      expect(others).toBe(0);
    }
    expect((await ours.tunnel(NAME)).drops['bypass-in-tunnel']).toBeUndefined();
    await stopBoth(gateways);
    expect(await leftovers(left)).toBe('');
  });

  it('of level use are in the clear until there is an SA, and again when there is none', async () => {
    const { left, ours, theirs } = gateways;
    const { far, gateway } = INNER[4];
    const { left: mine, right: its } = documents([
      { name: 'use', from: '10.1.0.0/24', to: '10.2.0.0/24', level: 'use' },
    ]);
    await ours.defineDocument(NAME, mine);
    await ours.command(['start', NAME]);
    const carried = async (): Promise<number> => {
      return await counted(gateways, CLEAR, async () => expect(await answered(left, gateway, far)).toBe(3));
    };
    expect(await carried()).toBeGreaterThanOrEqual(3);
    await theirs.defineDocument(NAME, its);
    await theirs.command(['start', NAME]);
    await ours.up(NAME, 30_000);
    expect(await carried()).toBe(0);
    await theirs.command(['destroy', NAME]);
    await ours.down(NAME);
    expect(await carried()).toBeGreaterThanOrEqual(3);
    await ours.command(['destroy', NAME]);
    expect(await leftovers(left)).toBe('');
  });

  it('of another network namespace go through a device there, by sockets here; or nothing is routed at all', async () => {
    const { lab, left, ours } = gateways;
    const blue = await lab.namespace('blue');
    await blue.ip(['addr add 10.1.0.1/24 dev lo', 'addr add fd01::1/64 dev lo nodad']);
    await startBoth(gateways, whole('net'), { device: `<device netns='${blue.name}'/>` });
    expect(await leftovers(left)).toBe('');
    expect(await blue.interfaces()).toContain(`stun-${NAME}`);
    for (const family of FAMILIES) expect(await answered(blue, INNER[family].gateway, INNER[family].far)).toBe(3);
    // There, too, nothing leaves another way.
    expect((await blue.exec(['nft', 'list', 'ruleset'])).stdout).toContain('table inet sectunnel');
    await stopBoth(gateways);
    expect(await leftovers(blue)).toBe('');

    const missing = documents(whole('net'), { device: "<device netns='nowhere'/>" }).left;
    await ours.defineDocument(NAME, missing);
    const refused = await ours.command(['start', NAME], { check: false });
    expect(refused.stderr).toContain('There is none of that name: ip netns add nowhere');

    await startBoth(gateways, whole('net'), { device: "<device routes='none'/>" });
    await ours.up(NAME);
    expect(await leftovers(left)).toBe('');
    await stopBoth(gateways);
  });
});
