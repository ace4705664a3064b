/**
 * The policy language against strongSwan: what a document says of packets is what is negotiated, and what is carried.
 * Each document stands here as its `<sp>` elements, and strongSwan's selectors as swanctl has them.
 */
import { expect, it } from 'vitest';
import type { ChildStatus } from '../../src/host/status.ts';
import type { Lab } from '../support/lab/lab.ts';
import { cable, type Namespace } from '../support/lab/namespace.ts';
import { Ours, sectunnelDocument } from '../support/lab/ours.ts';
import { waitFor } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { StrongSwan } from '../support/lab/strongswan.ts';
import { burst, ping, startEcho } from '../support/lab/traffic.ts';
import type { Tunnel } from '../support/lab/tunnel.ts';
import { useLab } from '../support/lab/use-lab.ts';
import { LINE } from './rig.ts';
import { PSK } from './suites.ts';

const SECRET = '11111111-2222-3333-4444-555555555502';
const PORTS = [7007, 7008, 7009] as const;
const [HERE, HERE_TOO] = ['10.1.0.1', '10.1.0.2'];
const [THERE, THERE_TOO] = ['10.2.0.1', '10.2.0.200'];

const RULE = `<rule protocol='esp' mode='tunnel' level='require'/>`;
const IPSEC = `<policy direction='both' action='ipsec'>${RULE}</policy>`;

function sp(ranges: string, upperspec: string, policies: string = IPSEC, attributes = ''): string {
  return `<sp ${attributes}>${ranges}<upperspec ${upperspec}/>${policies}</sp>`;
}

/** What strongSwan is configured with; ours comes from the document. */
function tunnel(name: string, local: readonly string[], remote: readonly string[]): Tunnel {
  const end = (address: string, inner: readonly string[]): Tunnel['left'] => ({
    address,
    id: { type: 'address', value: address },
    inner,
    psk: PSK,
  });
  return {
    name,
    left: end('192.0.2.1', local),
    right: end('192.0.2.2', remote),
    ike: { encryption: 'aes128gcm16', prf: 'sha256', dh: 'x25519' },
    esp: { encryption: 'aes128gcm16', esn: 'no' },
  };
}

const LAN = "<src_range address='10.1.0.0' prefixlen='24'/><dst_range address='10.2.0.0' prefixlen='24'/>";

describeInterop('the policy language', ['namespaces', 'strongswan', 'build'], () => {
  let left: Namespace;
  let right: Namespace;
  let peer: StrongSwan;
  let ours: Ours;

  useLab(async (lab: Lab) => {
    [left, right] = [await lab.namespace('left'), await lab.namespace('right')];
    await cable(
      { namespace: left, device: LINE, addresses: ['192.0.2.1/24'] },
      { namespace: right, device: LINE, addresses: ['192.0.2.2/24'] },
    );
    await left.ip([`addr add ${HERE}/24 dev lo`, `addr add ${HERE_TOO}/24 dev lo`]);
    await right.ip([`addr add ${THERE}/24 dev lo`, `addr add ${THERE_TOO}/24 dev lo`]);
    // At one address each: answers then come from it, whatever source a route prefers.
    const servers = [
      ...PORTS.map((port) => [right, THERE, port] as const),
      ...PORTS.map((port) => [left, HERE, port] as const),
      [right, THERE_TOO, 7009] as const,
    ];
    await Promise.all(servers.map(([namespace, address, port]) => startEcho(lab, namespace, address, port)));
    peer = await StrongSwan.start(lab, right);
    ours = await Ours.start(lab, left);
    await ours.secret(PSK, SECRET);
  });

  /** Both ends as they are configured, ours waiting for packets. */
  async function begin(configuration: Tunnel, sps: string): Promise<void> {
    await ours.reset();
    await peer.reset();
    await peer.load(configuration, 'right');
    const document = sectunnelDocument(configuration, 'left', { start: 'trap' }, SECRET);
    await ours.defineDocument(configuration.name, document.replace(/<sp name='inner'>[\s\S]*<\/sp>/, sps));
    await ours.command(['start', configuration.name]);
  }

  async function children(name: string): Promise<readonly ChildStatus[]> {
    return (await ours.tunnel(name)).ikeSas.flatMap((sa) => sa.children);
  }

  /** What was dropped of ours; the kernel may send multicast of its own into any device. */
  async function drops(name: string): Promise<Readonly<Record<string, number>>> {
    const { 'no-policy': _, ...ofTraffic } = (await ours.tunnel(name)).drops;
    return ofTraffic;
  }

  const echoes = async (from: string, port: number, count = 3, to = THERE): Promise<number> =>
    (await burst(left, { source: from, destination: to, port, count })).received;

  it('ICMP types of two policies share one SA by number, and no other message passes', async () => {
    const shared = IPSEC.replace("level='require'", "level='unique:1'");
    const name = 'icmp';
    await begin(
      tunnel(name, ['10.1.0.0/24[icmp/8]', '10.1.0.0/24[icmp/0]'], ['10.2.0.0/24[icmp/8]', '10.2.0.0/24[icmp/0]']),
      sp(LAN, "protocol='icmp' type='8' code='0'", shared, "name='request'") +
        sp(LAN, "protocol='1' type='0' code='0'", shared, "name='reply'"),
    );
    expect(await ping(left, { source: HERE, destination: THERE, count: 3 })).toBe(3);
    const [child, ...more] = await children(name);
    expect(more).toEqual([]);
    expect(child).toMatchObject({ name: 'request', narrowedAway: [] });
    expect(child!.localSelectors).toEqual(['10.1.0.0/24 icmp type 8 code 0', '10.1.0.0/24 icmp type 0 code 0']);
    expect(await echoes(HERE, 7007)).toBe(0);
    expect((await children(name))[0]!.packetsOut).toBe(child!.packetsOut);
  });

  it('several ranges, ranges that are no prefix, and ranges of ports, from either side', async () => {
    const name = 'ranges';
    const configuration = tunnel(
      name,
      ['10.1.0.1/32[udp]', '10.1.0.2-10.1.0.6[udp]'],
      ['10.2.0.1-10.2.0.6[udp/7007-7008]', '10.2.0.200/32[udp/7009]'],
    );
    const ranges =
      "<src_range address='10.1.0.1'/><src_range address='10.1.0.2' end='10.1.0.6'/>" +
      "<dst_range address='10.2.0.1' end='10.2.0.6' port='7007-7008'/><dst_range address='10.2.0.200' port='7009'/>";
    for (const role of ['initiator', 'responder']) {
      await begin(configuration, sp(ranges, "protocol='17'"));
      if (role === 'responder') await peer.initiate(name);
      const carried = [echoes(HERE, 7007), echoes(HERE_TOO, 7008), echoes(HERE, 7009, 3, THERE_TOO)];
      expect(await Promise.all(carried)).toEqual([3, 3, 3]);
      const { ike, child } = await ours.single(name);
      expect(ike.initiator).toBe(role === 'initiator');
      expect([...child.remoteSelectors].sort()).toEqual(['10.2.0.1-10.2.0.6 udp 7007-7008', '10.2.0.200 udp 7009']);
      expect(await Promise.all([echoes(HERE, 7009), echoes(HERE, 7007, 3, THERE_TOO)])).toEqual([0, 0]);
      expect((await ours.single(name)).child.packetsOut).toBe(child.packetsOut);
    }
  });

  it('a pair of policies for out and in, of which others of higher priority take parts away', async () => {
    const name = 'priorities';
    const back = "<src_range address='10.2.0.0' prefixlen='24'/><dst_range address='10.1.0.0' prefixlen='24'/>";
    const one = (direction: string): string => IPSEC.replace('both', direction);
    const never = (direction: string): string => `<policy direction='${direction}' action='discard'/>`;
    const port = (ranges: string, number: number): string =>
      ranges.replace(/(<dst_range.*prefixlen='24')/, `$1 port='${number}'`);
    await begin(
      tunnel(name, ['10.1.0.0/24'], ['10.2.0.0/24']),
      [
        sp(LAN, "protocol='any'", one('out'), "name='there'"),
        sp(back, "protocol='any'", one('in'), "name='back'"),
        sp(port(LAN, 7009), "protocol='udp'", never('out'), "name='never-out' priority='10'"),
        sp(port(back, 7008), "protocol='udp'", never('in'), "name='never-in' priority='10'"),
      ].join(''),
    );
    expect(await Promise.all([echoes(HERE, 7007), echoes(HERE, 7009)])).toEqual([3, 0]);
    const { child } = await peer.single();
    expect(child.packetsIn).toBe(3);
    const from = async (port: number): Promise<number> =>
      (await burst(right, { source: THERE, destination: HERE, port, count: 3 })).received;
    // strongSwan sends all that the SA holds.
    expect(await Promise.all([from(7007), from(7008)])).toEqual([3, 0]);
    expect((await drops(name))['policy-mismatch']).toBe(3);
  });

  it('what strongSwan narrows away is dropped here, its sender told, and shown', async () => {
    const name = 'narrowed';
    await begin(tunnel(name, ['10.1.0.0/24'], ['10.2.0.0/25']), sp(LAN, "protocol='any'"));
    expect(await ping(left, { source: HERE, destination: THERE, count: 2 })).toBe(2);
    const { child } = await ours.single(name);
    expect(child).toMatchObject({ narrowed: true, narrowedAway: ['remote 10.2.0.128/25'] });
    const refused = await left.exec(['ping', '-n', '-c', '1', '-W', '5', '-I', HERE, THERE_TOO], { check: false });
    expect(refused.stdout).toContain('Packet filtered');
    expect((await drops(name))['narrowed-by-peer']).toBe(1);
    expect((await ours.single(name)).child.packetsOut).toBe(child.packetsOut);
    expect((await ours.command(['status', name])).stdout).toContain('(narrowed: without remote 10.2.0.128/25)');
    expect(ours.log().split('the peer has narrowed').length - 1).toBe(1);
  });

  it('pfp has an SA for each host, which rekeying keeps', async () => {
    const name = 'pfp';
    const flows = LAN.replace("prefixlen='24'/>", "prefixlen='24' pfp='yes'/>");
    await begin(tunnel(name, ['10.1.0.0/24'], ['10.2.0.0/24']), sp(flows, "protocol='any'"));
    expect((await ours.tunnel(name)).state).toBe('waiting');
    const hosts = async (): Promise<string[]> =>
      (await children(name)).map(({ localSelectors }) => localSelectors.join()).sort();
    expect([await echoes(HERE, 7007, 10), await echoes(HERE_TOO, 7008, 10)]).toEqual([10, 10]);
    expect(await hosts()).toEqual([HERE, HERE_TOO]);
    const before = new Set((await children(name)).map(({ id }) => id));
    await peer.rekeyChild(name);
    await waitFor('other SAs for the same hosts', async () => {
      const now = await children(name);
      return now.length === 2 && now.every(({ id }) => !before.has(id)) ? true : undefined;
    });
    expect(await hosts()).toEqual([HERE, HERE_TOO]);
    expect([await echoes(HERE, 7007, 10), await echoes(HERE_TOO, 7008, 10)]).toEqual([10, 10]);
    expect(await drops(name)).toEqual({});
  });
});
