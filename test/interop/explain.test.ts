/**
 * What `sectunnel explain` says of a packet against what becomes of it in the kernel: other programs' firewalls, translation
 * and rules, other tunnels, networks that a tunnel holds, and settings of the host.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { DaemonClient } from '../../src/control/client.ts';
import { TUNNEL_NAMESPACE } from '../../src/libvirt/namespace.ts';
import { cable, type Namespace } from '../support/lab/namespace.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { useLab } from '../support/lab/use-lab.ts';
import { buildGateways, documents, type Gateways, INNER, knock, NAME, resetBoth, startBoth } from './gateways.ts';

const { gateway: GATEWAY, client: CLIENT, far: FAR } = INNER[4];
const GUEST = '10.7.0.2';
const PROTECTED = [
  { name: 'lan4', from: INNER[4].left, to: INNER[4].right },
  { name: 'lan6', from: INNER[6].left, to: INNER[6].right },
];

interface Told {
  readonly code: number;
  /** Without the packet itself. */
  readonly verdict: string;
  readonly text: string;
}

function has(program: string): boolean {
  return spawnSync(program, ['--version']).status === 0;
}

describeInterop('an explanation', ['namespaces', 'nftables', 'build'], () => {
  let gateways: Gateways;
  let guest: Namespace;
  useLab(async (lab) => {
    gateways = await buildGateways(lab);
    guest = await lab.namespace('guest');
  });
  beforeEach(async () => {
    await startBoth(gateways, PROTECTED);
    await gateways.ours.up(NAME);
  });
  afterEach(async () => {
    const { left } = gateways;
    const { stdout } = await left.exec(['nft', 'list', 'tables']);
    const foreign = stdout.split('\n').filter((line) => line !== '' && line !== 'table inet sectunnel');
    for (const line of foreign) await left.exec(['nft', 'delete', ...line.split(' ')]);
    await resetBoth(gateways);
  });

  const explain = async (source: string, destination: string = FAR, name: string = NAME): Promise<Told> => {
    const proto = source.includes(':') ? 'icmpv6' : 'icmp';
    const words = ['explain', name, '--src', source, '--dst', destination, '--proto', proto];
    const { code, stdout, stderr } = await gateways.ours.command(words, { check: false });
    return { code, verdict: stdout.split('\n')[1] ?? '', text: stdout + stderr };
  };
  /** Whether an echo request of the client, or of the gateway itself, is answered. */
  const passes = async (own = false, family: 4 | 6 = 4): Promise<boolean> => {
    const { left, client } = gateways;
    const { gateway, client: behind, far } = INNER[family];
    return (await knock(own ? left : client, own ? gateway : behind, far)) > 0;
  };
  const nft = (text: string): Promise<unknown> => gateways.left.exec(['nft', '-f', '-'], { input: text });
  const ip = (...commands: string[]): Promise<void> => gateways.left.ip(commands);
  const encrypted = { code: 0, verdict: expect.stringMatching(/^It is encrypted and sent to 192\.0\.2\.2:/) };
  const chain = (hook: string, rules: string, type = 'filter', policy = 'accept'): string =>
    `table inet other { chain c { type ${type} hook ${hook} priority 0; policy ${policy}; ${rules}\n}\n}\n`;

  it('says that packets are encrypted where nothing prevents it, also behind rules that are not for them', async () => {
    await nft(
      chain(
        'forward',
        'ct state established,related accept; iifname "docker0" drop; ip6 saddr fd01::/64 accept; ip saddr != 10.1.0.0/24 drop',
      ),
    );
    for (const family of [4, 6] as const) {
      const { gateway, client, far } = INNER[family];
      expect(await passes(false, family)).toBe(true);
      const forwarded = await explain(client, far);
      expect(forwarded.code, forwarded.text).toBe(0);
      expect(forwarded.verdict).toMatch(/^It is encrypted and sent to/);
      expect(forwarded.text).toContain('no rule of another program stops or changes it (nftables, 1 chain asked');
      expect(await explain(gateway, far)).toMatchObject({ code: 0 });
    }
  });

  it('says what a firewall drops, and which rule of it', async () => {
    await nft(chain('forward', 'ip daddr 192.0.2.0/24 accept', 'filter', 'drop'));
    expect(await passes()).toBe(false);
    const dropped = await explain(CLIENT);
    expect(dropped).toMatchObject({
      code: 5,
      verdict: "The policy protects it, but another program's firewall drops it when it is forwarded.",
      text: expect.stringContaining('table inet other, chain c: policy drop'),
    });
    // Its own packets are not forwarded.
    expect(await passes(true)).toBe(true);
    expect(await explain(GATEWAY)).toMatchObject(encrypted);
    await nft(`delete table inet other\n${chain('output', 'icmp type echo-request oifname "stun-*" reject')}`);
    expect(await passes(true)).toBe(false);
    expect(await explain(GATEWAY)).toMatchObject({
      code: 5,
      verdict: expect.stringContaining('rejects it when it is sent'),
    });
  });

  it('says that the ESP packet which carries it does not get out', async () => {
    await nft(chain('output', 'udp dport 4500 drop'));
    expect(await passes()).toBe(false);
    expect(await explain(CLIENT)).toMatchObject({
      code: 5,
      verdict:
        "The policy protects it, but its ESP packet does not get out: another program's firewall drops it when it is sent.",
    });
  });

  it('says what comes out of the tunnel and is dropped', async () => {
    await nft(chain('input', 'iifname "stun-gate" drop'));
    expect(await passes(true)).toBe(false);
    const words = ['explain', NAME, '--src', FAR, '--dst', GATEWAY, '--proto', 'icmp', '--direction', 'in'];
    const { code, stdout } = await gateways.ours.command(words, { check: false });
    expect(code).toBe(5);
    expect(stdout).toContain(
      "It comes out of the tunnel, but another program's firewall drops it when it is delivered.",
    );
  });

  it.skipIf(!has('iptables-nft'))('reads the rules of iptables where it is the one of nftables', async () => {
    const { left } = gateways;
    const iptables = (...words: string[]): Promise<unknown> => left.exec(['iptables-nft', ...words]);
    await iptables('-P', 'FORWARD', 'DROP');
    await iptables('-A', 'FORWARD', '-m', 'conntrack', '--ctstate', 'RELATED,ESTABLISHED', '-j', 'ACCEPT');
    expect(await passes()).toBe(false);
    expect(await explain(CLIENT)).toMatchObject({
      code: 5,
      text: expect.stringContaining('table ip filter, chain FORWARD: policy drop'),
    });
    await iptables(
      '-A',
      'FORWARD',
      '-i',
      'lan0',
      '-o',
      'stun-+',
      '-m',
      'comment',
      '--comment',
      'into the tunnel',
      '-j',
      'ACCEPT',
    );
    expect(await passes()).toBe(true);
    expect(await explain(CLIENT)).toMatchObject(encrypted);
    await iptables('-t', 'nat', '-A', 'POSTROUTING', '-s', '10.1.0.0/24', '!', '-o', 'docker0', '-j', 'MASQUERADE');
    const masqueraded = await explain(CLIENT);
    expect(masqueraded).toMatchObject({ code: 5, text: expect.stringContaining('table ip nat, chain POSTROUTING') });
  });

  it('says whose source is replaced, and by what', async () => {
    const nat = (rule: string): string => chain('postrouting', rule, 'nat').replace('priority 0', 'priority srcnat');
    await nft(nat('oifname != "docker0" ip saddr 10.1.0.0/24 masquerade'));
    expect(await explain(CLIENT)).toMatchObject({
      code: 5,
      verdict: 'The policy protects it, but another program replaces its source when it leaves (masquerade).',
    });
    // The tunnel has another policy for that source: none.
    await nft(`delete table inet other\n${nat('ip saddr 10.1.0.0/24 snat ip to 192.0.2.1')}`);
    expect(await passes()).toBe(false);
    expect(await explain(CLIENT)).toMatchObject({
      code: 5,
      verdict: expect.stringContaining('its source with 192.0.2.1'),
    });
    // It is for this one too: what is encrypted is another packet, and is told.
    await nft(`delete table inet other\n${nat('ip saddr 10.1.0.0/24 snat ip to 10.1.0.1')}`);
    expect(await passes()).toBe(true);
    expect(await explain(CLIENT)).toMatchObject({
      ...encrypted,
      text: expect.stringContaining('WARNING: another program replaces its source with 10.1.0.1'),
    });
  });

  it('says whose destination is replaced before it is routed', async () => {
    await nft(chain('prerouting', 'ip daddr 10.2.0.0/24 dnat ip to 192.0.2.2', 'nat'));
    expect(await explain(CLIENT)).toMatchObject({
      code: 5,
      verdict:
        'The policy protects it, but another program replaces its destination with 192.0.2.2 before it is routed (dnat).',
    });
  });

  it('names the rule of another program that leads it elsewhere, by what it asks for', async () => {
    await ip('rule add pref 52 not fwmark 0xca6c lookup 51820', 'route add 10.2.0.0/16 via 192.0.2.2 table 51820');
    try {
      expect(await passes(true)).toBe(false);
      const led = await explain(GATEWAY);
      expect(led).toMatchObject({
        code: 5,
        verdict: 'The policy protects it, but it does not reach the tunnel: the fence drops it.',
      });
      expect(led.text).toContain(
        "it leaves by eth0 (another program's rule 52: not from all fwmark 0xca6c lookup 51820)",
      );
      // A mark that a rule of nftables sets keeps it from there.
      await nft(chain('output', 'meta mark set 0xca6c', 'route'));
      expect(await passes(true)).toBe(true);
      expect(await explain(GATEWAY)).toMatchObject(encrypted);
      await nft(`delete table inet other\n${chain('output', 'meta mark set ct mark', 'route')}`);
      expect(await explain(GATEWAY)).toMatchObject({ code: 5 });
    } finally {
      await ip('rule del pref 52', 'route flush table 51820');
    }
  });

  it('says that it is not sure of a rule of another program that asks for what is not known', async () => {
    await ip('rule add pref 52 uidrange 4711-4711 lookup 51820', 'route add 10.2.0.0/16 via 192.0.2.2 table 51820');
    try {
      expect(await passes(true)).toBe(true);
      expect(await explain(GATEWAY)).toMatchObject({
        code: 6,
        text: expect.stringContaining('52: from all uidrange 4711-4711 lookup 51820'),
      });
      await ip('route flush table 51820');
      expect(await explain(GATEWAY)).toMatchObject(encrypted);
    } finally {
      await ip('rule del pref 52', 'route flush table 51820');
    }
  });

  it('says that it is not sure of rules that it does not understand', async () => {
    await nft(chain('forward', 'ip ttl 1 drop'));
    expect(await explain(CLIENT)).toMatchObject({
      code: 6,
      verdict: expect.stringMatching(
        /^Not sure: another program's firewall may stop it when it is forwarded\. If not, it is encrypted/,
      ),
      text: expect.stringContaining('not sure whether it stops it: forward, table inet other, chain c: ip ttl 1 drop'),
    });
    await nft(`delete table inet other\n${chain('forward', 'ip ttl 64 accept', 'filter', 'drop')}`);
    expect(await explain(CLIENT)).toMatchObject({
      code: 6,
      text: expect.stringContaining('unless this rule accepts it first: ip ttl 64 accept'),
    });
  });

  it('says that this host does not forward, or that a reverse path filter drops it', async () => {
    const { left } = gateways;
    const set = (name: string, value: number): Promise<unknown> => left.exec(['sysctl', '-qw', `net.${name}=${value}`]);
    try {
      await set('ipv4.ip_forward', 0);
      expect(await passes()).toBe(false);
      expect(await explain(CLIENT)).toMatchObject({
        code: 5,
        verdict: 'The policy protects it, but this host does not forward it.',
      });
      expect(await explain(GATEWAY)).toMatchObject(encrypted);
      await set('ipv6.conf.all.forwarding', 0);
      expect(await passes(false, 6)).toBe(false);
      expect(await explain(INNER[6].client, INNER[6].far)).toMatchObject({
        code: 5,
        text: expect.stringContaining('net.ipv6.conf.all.forwarding = 0'),
      });
      await set('ipv4.ip_forward', 1);
      await set('ipv4.conf.lan0.rp_filter', 1);
      // For ICMP alone: the link that leads to the client is another one then.
      await ip('rule add pref 53 to 10.1.0.7 ipproto icmp lookup 77', 'route add 10.1.0.7 dev eth0 table 77');
      expect(await passes()).toBe(false);
      expect(await explain(CLIENT)).toMatchObject({
        code: 5,
        verdict: 'The policy protects it, but a reverse path filter drops it.',
      });
    } finally {
      await set('ipv4.ip_forward', 1);
      await set('ipv6.conf.all.forwarding', 1);
      await set('ipv4.conf.lan0.rp_filter', 0);
      await left.exec(['ip', 'rule', 'del', 'pref', '53'], { check: false });
      await left.exec(['ip', 'route', 'flush', 'table', '77'], { check: false });
    }
  });

  it('says which of two tunnels gets it, and whether it gets through', async () => {
    const wide = documents([{ name: 'wide', from: '10.1.0.0/16', to: '10.2.0.0/16' }], { start: 'respond' }).left;
    await gateways.ours.defineDocument(
      'wide',
      wide.replace(`<name>${NAME}<`, '<name>wide<').replace("address='192.0.2.2'", "address='192.0.2.99'"),
    );
    await gateways.ours.command(['start', 'wide']);
    const carried = await passes();
    const first = await explain(CLIENT);
    expect(first.code === 0, first.text).toBe(carried);
    expect(first.text).toContain("tunnels gate: protected by 'lan4', and gets it\n        wide: protected by 'wide'");
    // The more specific tunnel is asked first, and it is told whose packet it is.
    expect(await explain(CLIENT, FAR, 'wide')).toMatchObject({
      code: first.code,
      verdict: expect.stringMatching(
        /^Tunnel 'gate' gets it, not 'wide': there it is encrypted and sent to 192\.0\.2\.2:/,
      ),
    });
    expect(carried).toBe(true);
    // What the first one has no entry for is the second one's.
    expect(await explain(CLIENT, '10.2.7.7', 'wide')).toMatchObject({
      code: 4,
      verdict: 'It is dropped: no SA carries it.',
    });
    expect(await explain(CLIENT, '10.2.7.7')).toMatchObject({
      code: 4,
      verdict: expect.stringContaining("tunnel 'wide' gets it"),
    });
  });

  it('says what the fence of an exclusive network does with its packets', async () => {
    const { left, ours } = gateways;
    await ip('link add virbr9 type bridge', 'link set virbr9 up', 'addr add 10.7.0.1/24 dev virbr9');
    await cable(
      { namespace: guest, device: 'eth0', addresses: [`${GUEST}/24`] },
      { namespace: left, device: 'port9', addresses: [] },
    );
    await ip('link set port9 master virbr9');
    await guest.ip(['route add default via 10.7.0.1']);
    await gateways.right.ip(['route add 10.7.0.0/24 via 192.0.2.1']);
    const client = await DaemonClient.connect(join(ours.folder, 'run'));
    const tell = (operation: string): Promise<unknown> =>
      client.call('network-hook', {
        network: 'held',
        operation,
        xml: `<network><name>held</name><metadata><s:tunnel xmlns:s='${TUNNEL_NAMESPACE}' name='${NAME}' mode='exclusive'/></metadata>
<forward mode='route' dev='stun-gate'/><ip address='10.7.0.1' prefix='24'/><bridge name='virbr9'/></network>`,
      });
    const reaches = async (): Promise<boolean> => (await knock(guest, GUEST, '192.0.2.2')) > 0;
    try {
      expect(await reaches()).toBe(true);
      expect(await explain(GUEST, '192.0.2.2')).toMatchObject({
        code: 4,
        verdict: expect.stringContaining('does not concern the tunnel'),
      });
      await tell('start');
      expect(await reaches()).toBe(false);
      const outward = await explain(GUEST, '192.0.2.2');
      expect(outward.code).toBe(4);
      expect(outward.verdict).toBe('It is dropped: no policy entry matches it, and no route leads to it.');
      expect(outward.text).toContain(
        "fence   the fence of network 'held' rejects it: its guests may send only through the tunnel",
      );
      // Also where a route leads it past the tunnel.
      await ip('rule add pref 54 iif virbr9 lookup main');
      expect(await reaches()).toBe(false);
      expect(await explain(GUEST, '192.0.2.2')).toMatchObject({
        code: 4,
        verdict:
          "It is dropped: no policy entry matches it, and the fence of network 'held' rejects it: its guests may send only through the tunnel (counted as forward-out).",
      });
      // Nor do the clients of the gateway reach its guests.
      expect(await explain(CLIENT, GUEST)).toMatchObject({
        code: 4,
        verdict: expect.stringContaining("the fence of network 'held' drops it"),
      });
    } finally {
      await left.exec(['ip', 'rule', 'del', 'pref', '54'], { check: false });
      await tell('stopped');
      client.close();
      await ip('link del virbr9', 'link del port9');
    }
  });

  it('looks at the network namespace that the tunnel is in', async () => {
    const { ours, client } = gateways;
    await ours.command(['destroy', NAME]);
    const { left } = documents(PROTECTED, { device: `<device netns='${client.name}'/>` });
    await ours.defineDocument(NAME, left);
    expect(await explain(CLIENT)).toMatchObject({
      text: expect.stringContaining(
        `not checked: routes, fences and firewalls of the network namespace ${client.name}`,
      ),
    });
    await ours.command(['start', NAME]);
    await ours.up(NAME);
    expect(await explain(CLIENT)).toMatchObject(encrypted);
    await client.exec(['nft', '-f', '-'], { input: chain('output', 'ip daddr 10.2.0.0/24 drop') });
    try {
      expect(await explain(CLIENT)).toMatchObject({
        code: 5,
        verdict: expect.stringContaining('drops it when it is sent'),
      });
    } finally {
      await client.exec(['nft', 'delete', 'table', 'inet', 'other']);
    }
  });

  it.skipIf(!has('iptables-legacy'))('says that it does not look at tables of iptables before nftables', async () => {
    // From then on the kernel has the table in this namespace.
    await gateways.left.exec(['iptables-legacy', '-L', '-n']);
    expect(await explain(CLIENT)).toMatchObject({
      code: 6,
      verdict: expect.stringMatching(/^As far as could be checked, it is encrypted/),
      text: expect.stringContaining('not checked: tables of iptables-legacy: filter'),
    });
  });
});
