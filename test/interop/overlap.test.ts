/**
 * One gateway with tunnels to two others whose policies meet: each packet goes by the one that is to carry it, nothing of
 * them passes in the clear, and of two to the same net one is a reserve for the other.
 */
import { afterEach, expect, it } from 'vitest';
import { cable, type Namespace } from '../support/lab/namespace.ts';
import { Ours } from '../support/lab/ours.ts';
import { waitFor } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { ping } from '../support/lab/traffic.ts';
import { useLab } from '../support/lab/use-lab.ts';

const KEY = '11111111-2222-3333-4444-555555555503';
const HOST = '10.1.0.1';
/** Of the peers: their ends of the lines, and ours. Both have all inner addresses of the far side. */
const LINES = {
  one: { here: '192.0.2.1', there: '192.0.2.2' },
  two: { here: '198.51.100.1', there: '198.51.100.2' },
} as const;
type Peer = keyof typeof LINES;
const PEERS: readonly Peer[] = ['one', 'two'];
/** Far hosts, in 10.2.0.0/24 and in no net that is named. */
const NAMED = '10.2.0.9';
const ELSEWHERE = '10.9.0.9';
/** Seconds of silence before a peer is asked, and until it counts as dead when it says nothing. */
const DPD = 2;
const RETRANSMISSIONS = 75;

interface Words {
  /** Attributes of `<device>`. */
  readonly device?: string;
  readonly remote?: string;
  readonly priority?: number;
  /** In the group, with this preference. */
  readonly preference?: number;
}

function xml(
  name: string,
  peer: Peer,
  here: boolean,
  { remote = '10.2.0.0/24', priority = 0, preference, device }: Words,
): string {
  const { here: local, there } = LINES[peer];
  const [address, length] = remote.split('/');
  const ends = [
    { address: local, id: 'gate.example', range: "address='10.1.0.0' prefixlen='24'" },
    { address: there, id: `${peer}.example`, range: `address='${address}' prefixlen='${length}'` },
  ] as const;
  const [own, other] = here ? ends : [ends[1], ends[0]];
  // At the other ends each has a device of its own.
  const shared = device === undefined || !here ? '' : `<device ${device}/>`;
  const redundancy = preference === undefined ? '' : `<redundancy group='far' preference='${preference}'/>`;
  return `<sectunnel type='ipsec'>
  <name>${name}</name>
  ${shared}
  <sa>
    <local address='${own.address}'><id type='fqdn'>${own.id}</id></local>
    <remote address='${other.address}'><id type='fqdn'>${other.id}</id></remote>
    <auth type='psk'><secret uuid='${KEY}'/></auth>
    <ike start='${here ? 'initiate' : 'respond'}'><dpd interval='${here ? DPD : 0}'/></ike>
    ${redundancy}
  </sa>
  <sp name='${name}' priority='${priority}'>
    <src_range ${own.range}/><dst_range ${other.range}/><upperspec protocol='any'/>
    <policy direction='both' action='ipsec'><rule protocol='esp' mode='tunnel' level='require'/></policy>
  </sp>
</sectunnel>`;
}

describeInterop('tunnels whose policies meet', ['namespaces', 'build'], () => {
  let gate: Namespace;
  let ours: Ours;
  let peers: Readonly<Record<Peer, { readonly namespace: Namespace; readonly ours: Ours }>>;

  useLab(async (lab) => {
    gate = await lab.namespace('gate');
    await gate.ip([`addr add ${HOST}/24 dev lo`]);
    const made = PEERS.map(async (peer) => {
      const namespace = await lab.namespace(peer);
      await namespace.ip([NAMED, ELSEWHERE].map((address) => `addr add ${address} dev lo`));
      const { here, there } = LINES[peer];
      await cable(
        { namespace: gate, device: peer, addresses: [`${here}/24`] },
        { namespace, device: 'eth0', addresses: [`${there}/24`] },
      );
      // What passes in the clear would be answered.
      await namespace.ip([`route add 10.1.0.0/24 via ${here}`]);
      return { namespace, ours: await Ours.start(lab, namespace) };
    });
    const [one, two] = await Promise.all(made);
    peers = { one: one!, two: two! };
    await gate.ip([`route add default via ${LINES.one.there}`]);
    ours = await Ours.start(lab, gate);
    for (const end of [ours, one!.ours, two!.ours]) await end.secret('a pre-shared key of the lab', KEY);
  });

  afterEach(async () => {
    for (const end of [ours, peers.one.ours, peers.two.ours]) {
      await end.reset();
    }
    await peers.one.namespace.ip(['link set eth0 up']);
  });

  /** Defines it at both ends and starts it. @returns what was said */
  async function start(peer: Peer, words: Words): Promise<string> {
    await peers[peer].ours.defineDocument(peer, xml(peer, peer, false, words));
    await peers[peer].ours.command(['start', peer]);
    await ours.defineDocument(peer, xml(peer, peer, true, words));
    const { stderr } = await ours.command(['start', peer]);
    await ours.up(peer);
    return stderr;
  }

  const carried = async (): Promise<Record<Peer, bigint>> => {
    const sum = async (peer: Peer): Promise<bigint> =>
      (await ours.tunnel(peer)).ikeSas
        .flatMap(({ children }) => children)
        .reduce((total, { packetsOut }) => total + BigInt(packetsOut), 0n);
    return { one: await sum('one'), two: await sum('two') };
  };

  /** Which tunnel carries three pings, and how many of them were answered. */
  async function wayOf(destination: string): Promise<readonly [answered: number, by: string]> {
    const before = await carried();
    const answered = await ping(gate, { source: HOST, destination });
    const after = await carried();
    return [answered, PEERS.filter((peer) => after[peer] - before[peer] >= 3n).join(' and ')];
  }

  it.each<readonly [string, readonly Peer[]]>([
    ['first', ['one', 'two']],
    ['last', ['two', 'one']],
  ])(
    'have the more specific one carry what is its own, started %s',
    async (_, order) => {
      const words = { one: { remote: '10.2.0.0/24' }, two: { remote: '0.0.0.0/0' } } as const;
      const said = [];
      for (const peer of order) said.push(await start(peer, words[peer]));
      expect(said[1]).toContain(`they go by ${order[1] === 'one' ? 'this one' : 'one'}, which is more specific`);
      const both = async (): Promise<unknown> => ({ named: await wayOf(NAMED), elsewhere: await wayOf(ELSEWHERE) });
      expect(await both()).toEqual({ named: [3, 'one'], elsewhere: [3, 'two'] });
      // While it is not there its packets take no other way, until it is not to be there any more.
      await peers.one.ours.destroy('one');
      await waitFor('one to be down', async () => (await ours.tunnel('one')).state !== 'up' || undefined);
      expect(await both()).toEqual({ named: [0, ''], elsewhere: [3, 'two'] });
      await ours.command(['destroy', 'one']);
      expect(await wayOf(NAMED)).toEqual([3, 'two']);
    },
    120_000,
  );

  it('have the one of the higher priority carry what is of both', async () => {
    await start('one', { remote: '10.2.0.0/24' });
    expect(await start('two', { remote: '0.0.0.0/0', priority: 5 })).toContain('which has the higher priority');
    expect(await wayOf(NAMED)).toEqual([3, 'two']);
  });

  it('are refused where nothing says which of them carries', async () => {
    await start('one', {});
    await expect(ours.defineDocument('two', xml('two', 'two', true, {}))).rejects.toThrow(
      /line 13: <sp name='two'>: .* tunnel one protects the same packets \(line 13: .*<redundancy group=/,
    );
    expect(await ping(gate, { source: HOST, destination: NAMED })).toBe(3);
  });

  it('on one device have the one of the higher priority carry what is of both', async () => {
    const device = "name='hub'";
    const links = async (): Promise<string[]> =>
      [...(await gate.exec(['ip', '-o', 'link', 'show', 'type', 'tun'])).stdout.matchAll(/^\d+: (\S+):/gm)].map(
        ([, name]) => name!,
      );
    const both = async (): Promise<unknown> => [await wayOf(NAMED), await wayOf(ELSEWHERE)];
    await start('one', { remote: '10.2.0.0/24', priority: 5, device });
    await start('two', { remote: '0.0.0.0/0', device });
    expect([await links(), await both()]).toEqual([
      ['hub'],
      [
        [3, 'one'],
        [3, 'two'],
      ],
    ]);
    const { stdout } = await ours.command(['status', 'two']);
    expect(stdout).toMatch(/device hub \(MTU \d+\) of 2 tunnels/);
    const explained = await ours.command(['explain', 'two', '--src', HOST, '--dst', NAMED, '--proto', 'icmp']);
    expect(explained.stdout).toContain(
      "Tunnel 'one', which shares the device hub, gets it, not 'two': there it is encrypted",
    );
    // Its packets take the other way only when it is not to be there any more.
    await ours.command(['destroy', 'one']);
    expect([await links(), await both()]).toEqual([
      ['hub'],
      [
        [3, 'two'],
        [3, 'two'],
      ],
    ]);
    await ours.command(['start', 'one']);
    await ours.up('one');
    await gate.ip(['link del hub']);
    for (const peer of PEERS) {
      await waitFor(`${peer} on a new device`, async () => (await ours.tunnel(peer)).device !== undefined || undefined);
      await ours.up(peer);
    }
    expect([await links(), await wayOf(NAMED)]).toEqual([['hub'], [3, 'one']]);
    for (const peer of PEERS) await ours.command(['destroy', peer]);
    expect(await links()).toEqual([]);
  }, 120_000);

  it('are refused on one device where no priority orders them, or they say different things of it', async () => {
    await ours.defineDocument('one', xml('one', 'one', true, { device: "name='hub'" }));
    const two = (words: Words): Promise<string> => ours.defineDocument('two', xml('two', 'two', true, words));
    await expect(two({ remote: '0.0.0.0/0', device: "name='hub'" })).rejects.toThrow(
      /line 13: <sp name='two'>: .* tunnel one on the same device hub protects some of these packets too \(line 13: .* no priority decides/,
    );
    await expect(two({ remote: '10.3.0.0/24', device: "name='hub' mtu='1300'" })).rejects.toThrow(
      /device hub has mtu='1300' in the document of two and no mtu in that of one/,
    );
    await expect(two({ remote: '10.3.0.0/24', device: "name='stun-two'" })).resolves.toContain('two');
  });

  it('of a redundancy group carry one for the other, within the time in which a peer is found dead', async () => {
    // The reserve first: the preferred one takes over when it is there.
    await start('two', { preference: 10 });
    const carrier = async (): Promise<unknown> =>
      Promise.all(PEERS.map(async (peer) => (await ours.tunnel(peer)).redundancy?.carrier));
    await start('one', { preference: 20 });
    expect([await carrier(), await wayOf(NAMED)]).toEqual([
      ['one', 'one'],
      [3, 'one'],
    ]);
    const { stdout } = await ours.command(['status']);
    expect(stdout).toContain('redundancy group far, preference 20: carries its packets');
    expect(stdout).toContain('redundancy group far, preference 10: ready, one carries its packets');

    const gone = performance.now();
    await peers.one.namespace.ip(['link set eth0 down']);
    await waitFor('the reserve', async () => ((await carrier()) as string[])[0] === 'two' || undefined, 100_000, 100);
    expect((performance.now() - gone) / 1000).toBeLessThan(DPD + RETRANSMISSIONS + 5);
    expect(await wayOf(NAMED)).toEqual([3, 'two']);

    await peers.one.namespace.ip(['link set eth0 up']);
    await waitFor('the preferred', async () => ((await carrier()) as string[])[0] === 'one' || undefined, 90_000, 200);
    expect(await wayOf(NAMED)).toEqual([3, 'one']);
    await ours.command(['destroy', 'one']);
    expect(await wayOf(NAMED)).toEqual([3, 'two']);
  }, 200_000);
});
