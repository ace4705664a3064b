/** What the fence of a gateway does with packets that are translated on their way, and with fragments that it has to take. */
import { afterEach, expect, it } from 'vitest';
import { formatAddress, type IpAddress, parseAddress } from '../../src/base/address.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { useLab } from '../support/lab/use-lab.ts';
import { Judge } from './differential/judge.ts';
import { inTwo, plainPacket } from './differential/packets.ts';
import { policy, type Words } from './differential/policies.ts';
import { DEVICE, OTHER_LOCAL, OTHER_REMOTE, PEER, Range } from './differential/range.ts';

const PORT = 7007;
/** In the clear, where no policy speaks of it; the gateway itself; a host that the policy protects. */
const HOSTS = {
  4: { gateway: '10.1.0.1', host: '10.1.0.7', public: '192.0.2.7', elsewhere: OTHER_REMOTE[4], stranger: '10.2.0.10' },
  6: { gateway: 'fd01::1', host: 'fd01::7', public: '2001:db8::7', elsewhere: OTHER_REMOTE[6], stranger: 'fd02::a' },
} as const;
const FAMILIES = [4, 6] as const;

function at(text: string): IpAddress {
  return parseAddress(text)!;
}

describeInterop('a gateway with a fence', ['namespaces', 'nftables'], () => {
  let range: Range;
  useLab(async (lab) => {
    range = await Range.build(lab);
  });
  afterEach(async () => {
    await range.fence.set('tunnel:t', undefined);
  });

  const translate = async (hook: 'prerouting' | 'output' | 'postrouting', rules: readonly string[]): Promise<void> => {
    const priority = hook === 'postrouting' ? 'srcnat' : -100;
    const chain = `add chain inet nat c { type nat hook ${hook} priority ${priority}; }`;
    const all = ['add table inet nat', 'delete table inet nat', 'add table inet nat', chain];
    await range.gateway.exec(['nft', [...all, ...rules.map((rule) => `add rule inet nat c ${rule}`)].join('; ')]);
  };
  const guard = async (device = DEVICE, peer: IpAddress = PEER[4], words: Words = {}): Promise<void> => {
    const judge = new Judge(policy(words), { peer, ports: [500], peerPorts: [500] }, device);
    await range.fence.set('tunnel:t', judge.fence);
  };
  const dropped = async (): Promise<unknown> => (await range.fence.counters()).get('tunnel:t');
  /** Source and destination of what comes out for one that is sent; none when it does not. */
  const relayed = async (outbound: boolean, from: IpAddress, to: IpAddress, host = false): Promise<string[]> => {
    const { line: packets } = await range.send({ outbound, host }, [plainPacket(0, [from, to], PORT)], to);
    const [at, size] = from.family === 4 ? [12, 4] : [8, 16];
    return packets.map((packet) => {
      const text = (offset: number): string => {
        const hex = packet.toString('hex', offset, offset + size);
        return formatAddress({ family: from.family, value: BigInt(`0x${hex}`) });
      };
      return `${text(at)} > ${text(at + size)}`;
    });
  };

  it('lets nothing leave in the clear that gets a source which the policy protects', async () => {
    await translate(
      'postrouting',
      FAMILIES.map((family) => {
        const [word, gateway] = family === 4 ? ['ip', HOSTS[4].gateway] : ['ip6', HOSTS[6].gateway];
        return `${word} saddr ${OTHER_LOCAL[family]} udp dport ${PORT} snat ${word} to ${gateway}`;
      }),
    );
    for (const family of FAMILIES) {
      const { gateway, elsewhere } = HOSTS[family];
      const [from, peer] = [at(OTHER_LOCAL[family]), PEER[family]];
      const through = [`${gateway} > ${formatAddress(peer)}`];
      // What is forwarded, and the gateway's own of an address that the policy does not speak of.
      for (const own of [false, true]) {
        expect(await relayed(true, from, peer, own)).toEqual(through);
        await guard();
        expect(await relayed(true, from, peer, own)).toEqual([]);
        expect(await dropped()).toMatchObject({ 'clear-out': 1 });
        expect(await relayed(true, from, at(elsewhere), own)).toEqual([`${gateway} > ${elsewhere}`]);
        // Into the tunnel they go.
        await guard('out0');
        expect(await relayed(true, from, peer, own)).toEqual(through);
        await range.fence.set('tunnel:t', undefined);
      }
    }
  });

  it('lets nothing come in in the clear that gets a destination which the policy protects', async () => {
    await translate(
      'prerouting',
      FAMILIES.map((family) => {
        const [word, { host }] = family === 4 ? ['ip', HOSTS[4]] : ['ip6', HOSTS[6]];
        return `${word} daddr ${HOSTS[family].public} udp dport ${PORT} dnat ${word} to ${host}`;
      }),
    );
    for (const family of FAMILIES) {
      const { host, public: outside } = HOSTS[family];
      expect(await relayed(false, PEER[family], at(outside))).toEqual([`${formatAddress(PEER[family])} > ${host}`]);
      await guard();
      expect(await relayed(false, PEER[family], at(outside))).toEqual([]);
      expect(await dropped()).toMatchObject({ 'clear-in': 1 });
      await range.fence.set('tunnel:t', undefined);
    }
  });

  it('lets its own IKE leave, whatever port it gets by translation, and nothing else to the peer', async () => {
    await translate('postrouting', [`udp dport { ${PORT}, 500 } masquerade random`]);
    for (const family of FAMILIES) {
      await guard(DEVICE, PEER[family]);
      const ends = [at(HOSTS[family].gateway), PEER[family]] as const;
      const sent = async (port: number): Promise<number> => {
        const { line } = await range.send({ outbound: true, host: true }, [plainPacket(0, ends, port)], ends[1]);
        return line.length;
      };
      expect([await sent(500), await sent(PORT)]).toEqual([1, 0]);
    }
  });

  it('judges its own packets by the link that they leave by, whatever their first route was', async () => {
    await translate(
      'output',
      FAMILIES.map((family) => {
        const word = family === 4 ? 'ip' : 'ip6';
        const { gateway, host } = HOSTS[family];
        return `${word} daddr { ${gateway}, ${host} } udp dport ${PORT} dnat ${word} to ${formatAddress(PEER[family])}`;
      }),
    );
    for (const family of FAMILIES) {
      const { gateway, host } = HOSTS[family];
      const left = async (first: string): Promise<number> => {
        const packet = plainPacket(0, [at(gateway), at(first)], PORT);
        return (await range.send({ outbound: true, host: true }, [packet], at(first))).line.length;
      };
      // The first route is by lo, or by lan0; the packets leave by out0.
      const both = async (): Promise<number[]> => [await left(gateway), await left(host)];
      expect(await both()).toEqual([1, 1]);
      await guard();
      expect(await both()).toEqual([0, 0]);
      await guard('lan0');
      expect(await both()).toEqual([0, 0]);
      expect(await dropped()).toMatchObject({ 'clear-out': 4 });
      await guard('out0');
      expect(await both()).toEqual([1, 1]);
      await range.fence.set('tunnel:t', undefined);
    }
  });

  it('accepts IKE in fragments from its peer, and from no other host', async () => {
    await translate('postrouting', []);
    let id = 1;
    for (const family of FAMILIES) {
      await guard(DEVICE, PEER[family]);
      const gateway = at(HOSTS[family].gateway);
      const taken = async (from: IpAddress, port: number): Promise<number> => {
        const packets = inTwo(plainPacket(0, [from, gateway], port), id++);
        return (await range.send({ outbound: false, host: true }, packets, gateway)).delivered.length;
      };
      const other = at(HOSTS[family].stranger);
      expect([await taken(PEER[family], 500), await taken(PEER[family], PORT), await taken(other, 500)]).toEqual([
        1, 0, 0,
      ]);
    }
  });

  it('leads fragments into the tunnel between addresses that are on either side of it', async () => {
    const sides = ['10.1.0.0/24', '10.2.0.0/24', 'fd01::/64', 'fd02::/64'];
    const both = { local: sides, remote: sides };
    for (const family of FAMILIES) {
      const [host, peer] = [at(HOSTS[family].host), PEER[family]];
      const packets = inTwo(plainPacket(0, [host, peer], PORT), 1);
      const through = async (): Promise<number> =>
        (await range.send({ outbound: true, host: false }, packets, peer)).line.length;
      await guard('out0', at('192.0.2.1'), both);
      expect(await through()).toBe(2);
      await guard(DEVICE, at('192.0.2.1'), both);
      expect(await through()).toBe(0);
    }
  });
});
