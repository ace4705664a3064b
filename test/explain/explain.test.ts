import { describe, expect, it, onTestFinished } from 'vitest';
import type { ExplainQuestion, Explanation } from '../../src/explain/explanation.ts';
import { PASS_MARK } from '../../src/hostnet/fence/fence.ts';
import { MemoryFence } from '../../src/hostnet/fence/memory.ts';
import { MAIN_TABLE, type Prefix } from '../../src/hostnet/routes/routes.ts';
import { MemoryNetwork } from '../../src/tun/udp/memory.ts';
import { range } from '../policy/helpers.ts';
import {
  address,
  type DocumentWords,
  eventually,
  oppositeDocument,
  SECRET_UUID,
  TestDaemon,
  tunnelDocument,
} from '../support/daemon.ts';

/** Of a packet that the tunnel of `tunnelDocument` protects. */
const PACKET = { name: 'net', src: '10.1.0.1:4000', dst: '10.2.0.9:53', proto: 'udp' } as const;

function prefix(text: string): Prefix {
  const [first, length] = text.split('/');
  return { address: address(first!), prefixLength: Number(length) };
}

/** A host at 192.0.2.1 and 10.1.0.1 with the networks behind its links, and the tunnel's route where it is wanted. */
async function host(
  words: DocumentWords & { readonly led?: boolean; readonly inactive?: boolean; readonly fenced?: boolean } = {},
): Promise<TestDaemon> {
  const test = new TestDaemon(new MemoryNetwork().host([address('192.0.2.1')]));
  if (words.fenced === true) test.fence = new MemoryFence();
  await test.open();
  onTestFinished(() => test.close());
  prepare(test, words.led ?? true);
  await test.giveSecret();
  await test.client.call(words.inactive === true ? 'define' : 'create', { xml: tunnelDocument(words) });
  return test;
}

function prepare({ hostNetwork }: TestDaemon, led: boolean): void {
  const [eth0, lan, device] = ['eth0', 'lan0', 'stun-net'].map((name) => hostNetwork.addLink(name, 1500));
  hostNetwork.addAddress({ linkIndex: eth0!, ...prefix('192.0.2.1/24') });
  hostNetwork.addAddress({ linkIndex: lan!, ...prefix('10.1.0.1/24') });
  hostNetwork.addRoutes([{ type: 'unicast', destination: prefix('0.0.0.0/0'), gateway: address('192.0.2.254') }]);
  if (led)
    hostNetwork.addRoutes([{ type: 'unicast', destination: prefix('10.2.0.0/24'), linkIndex: device!, table: 7001 }]);
  const action = { type: 'table', table: 7001 } as const;
  if (led) hostNetwork.addRule({ family: 4, priority: 7000, to: prefix('10.2.0.0/24'), action });
}

function explain(test: TestDaemon, change: Partial<ExplainQuestion> = {}): Promise<Explanation> {
  return test.client.call('explain', { ...PACKET, ...change });
}

/** Between BGP in the clear and the tunnel; one that is discarded; and one that is never reached. */
const EXTRA = `
  <sp name='bgp' priority='10'>
    <src_range address='10.1.0.1' prefixlen='32'/><dst_range address='10.2.0.1' prefixlen='32' port='179'/>
    <upperspec protocol='tcp'/><policy direction='both' action='none'/>
  </sp>
  <sp name='no-telnet' priority='5'>
    <src_range address='10.1.0.0' prefixlen='24'/><dst_range address='10.2.0.0' prefixlen='24' port='23'/>
    <upperspec protocol='tcp'/><policy direction='both' action='discard'/>
  </sp>
  <sp name='late' priority='-5'>
    <src_range address='10.1.0.1' prefixlen='32'/><dst_range address='10.2.0.9' prefixlen='32'/>
    <upperspec protocol='udp'/><policy direction='both' action='discard'/>
  </sp>`;

function withExtra(words: DocumentWords = {}): string {
  return tunnelDocument(words).replace('</sectunnel>', `${EXTRA}</sectunnel>`);
}

describe('explain', () => {
  it('names the entry with its line in dumpxml, those before it, and those that are never asked', async () => {
    const test = await host({ inactive: true });
    await test.client.call('define', { xml: withExtra() });
    const { xml } = await test.client.call('dumpxml', { name: 'net', inactive: true });
    const lineOf = (name: string): number =>
      xml
        .split('\n')
        .findIndex((line, at, all) => line.includes('<policy') && at > all.findIndex((l) => l.includes(`'${name}'`))) +
      1;
    const { policy } = await explain(test);
    expect(policy.entry).toEqual({ name: 'lan', line: lineOf('lan'), priority: 0, level: 'require' });
    expect(policy.decision).toBe(`protected by 'lan' (line ${lineOf('lan')})`);
    expect(policy.before).toEqual([
      {
        name: 'bgp',
        line: lineOf('bgp'),
        why: ['local protocol udp is not tcp', 'remote address 10.2.0.9 is not 10.2.0.1'],
      },
      {
        name: 'no-telnet',
        line: lineOf('no-telnet'),
        why: ['protocol udp is not tcp'],
      },
    ]);
    expect(policy.shadowed).toEqual([{ name: 'late', line: lineOf('late') }]);
  });

  it('explains a tunnel that is not active by its document, and says so', async () => {
    const test = await host({ inactive: true });
    const found = await explain(test);
    expect(found).toMatchObject({ active: false, outcome: 'not-applied' });
    expect(found.sa).toBeUndefined();
    expect(found.packet).toBe('udp 10.1.0.1:4000 > 10.2.0.9:53');
    expect(found.warnings[0]).toContain("start it with 'sectunnel start net'");
  });

  it('says that the packet waits while an SA is negotiated, or is dropped where the peer is to begin', async () => {
    const waits = await explain(await host());
    expect(waits).toMatchObject({ active: true, outcome: 'held', warnings: [] });
    expect(waits.sa).toEqual({ text: expect.stringContaining("no SA for 'lan' yet") });
    const dropped = await explain(await host({ start: 'respond' }));
    expect(dropped.outcome).toBe('dropped');
    expect(dropped.sa?.text).toContain("with start='respond' only the peer");
  });

  it('names the SA, and what was agreed on', async () => {
    const network = new MemoryNetwork();
    const left = await TestDaemon.start(network.host([address('192.0.2.1')]));
    const right = await TestDaemon.start(network.host([address('192.0.2.2')]));
    prepare(left, true);
    for (const test of [left, right]) await test.giveSecret();
    const narrow = oppositeDocument().replace("'10.2.0.0' prefixlen='24'", "'10.2.0.0' prefixlen='28'");
    await right.client.call('create', { xml: narrow });
    await left.client.call('create', { xml: tunnelDocument({ start: 'initiate' }) });
    const up = async (): Promise<boolean> => (await explain(left)).sa?.carries !== undefined;
    await eventually('the SA', up);
    const found = await explain(left);
    const { ikeSas } = (await left.client.call('status', { name: 'net' })).tunnels[0]!;
    const child = ikeSas[0]!.children[0]!;
    expect(found.outcome).toBe('protected');
    expect(found.verdict).toBe('It is encrypted and sent to 192.0.2.2:4500.');
    expect(found.sa!.carries).toEqual({
      id: child.id,
      child: 'lan',
      mode: 'tunnel',
      spi: child.spiOut,
      suite: child.suite,
      esn: child.esn,
      selectors: '10.1.0.0/24 === 10.2.0.0/28',
      peer: '192.0.2.2:4500',
    });
    const inbound = await explain(left, { src: '10.2.0.9:53', dst: '10.1.0.1:4000', direction: 'in' });
    expect(inbound).toMatchObject({ outcome: 'protected', sa: { carries: { spi: child.spiIn } } });
    expect(inbound.route?.text).toBe('in by stun-net, 10.1.0.1 is this host');

    const outside = await explain(left, { dst: '10.2.0.200:53' });
    expect(outside.outcome).toBe('held');
    expect(outside.sa!.text).toBe(
      "the peer narrowed 'lan' to 10.1.0.0/24 === 10.2.0.0/28, which does not include the packet; another CHILD SA is requested; if the peer refuses it, the packet is dropped (counted as narrowed-by-peer): the packet waits; the negotiation starts now or is under way",
    );
  });

  it('finds the rule and the route, of own and of forwarded packets', async () => {
    const test = await host();
    const rule = '7000: from all to 10.2.0.0/24 lookup 7001';
    const route = {
      text: 'out by stun-net',
      link: 'stun-net',
      gateway: undefined,
      table: 7001,
      rule,
      reachesTunnel: true,
    };
    expect((await explain(test)).route).toEqual(route);
    const forwarded = await explain(test, { src: '10.1.0.77:4000' });
    expect(forwarded.route).toEqual({ ...route, text: 'in by lan0, out by stun-net' });
  });

  it('warns of a packet that goes past the tunnel', async () => {
    const found = await explain(await host({ led: false }));
    expect(found.outcome).toBe('not-applied');
    expect(found.route).toMatchObject({
      link: 'eth0',
      gateway: '192.0.2.254',
      table: MAIN_TABLE,
      reachesTunnel: false,
    });
    expect(found.verdict).toContain('it leaves in the clear');
    expect(found.warnings).toEqual([
      "this packet does not reach the tunnel: it leaves by eth0 (rule 32766: from all lookup main); the tunnel's device is stun-net",
    ]);
  });

  it('names a route that forbids the packet, and the rule that led there', async () => {
    const test = await host({ led: false });
    test.hostNetwork.addRoutes([{ type: 'unreachable', destination: prefix('10.2.0.0/16'), table: 7001 }]);
    test.hostNetwork.addRule({
      family: 4,
      priority: 100,
      ipProtocol: 17,
      destinationPorts: { start: 50, end: 60 },
      action: { type: 'table', table: 7001 },
    });
    expect((await explain(test)).route).toMatchObject({
      text: 'there is no route to 10.2.0.9, or a route forbids it',
      rule: '100: from all ipproto udp dport 50-60 lookup 7001',
    });
  });

  it('distinguishes bypass, discard and no entry', async () => {
    const test = await host({ inactive: true });
    await test.client.call('define', { xml: withExtra() });
    await test.client.call('start', { name: 'net' });
    const bgp = { src: '10.1.0.1:4000', dst: '10.2.0.1:179', proto: 'tcp' };
    const led = await explain(test, bgp);
    expect(led).toMatchObject({ outcome: 'not-applied', policy: { action: 'bypass' } });
    expect(led.warnings[0]).toContain('bypass-in-tunnel');
    const action = { type: 'table', table: MAIN_TABLE } as const;
    test.hostNetwork.addRule({ family: 4, priority: 10, ipProtocol: 6, action });
    expect((await explain(test, bgp)).outcome).toBe('bypassed');
    const telnet = await explain(test, { dst: '10.2.0.1:23', proto: 'tcp' });
    expect(telnet).toMatchObject({ outcome: 'not-applied', policy: { action: 'discard' } });
    const stranger = await explain(test, { dst: '203.0.113.1:53' });
    expect(stranger).toMatchObject({ outcome: 'dropped', policy: { action: 'none' } });
    expect(stranger.verdict).toContain('does not concern the tunnel');
    expect(stranger.policy.decision).toBe('no entry matches it');
    const error = await explain(test, { src: '10.9.9.9', dst: '10.2.0.9', proto: 'icmp', type: 3, code: 4 });
    expect(error.policy.decision).toContain('it is carried with the traffic that it reports on');
  });

  it('shows what the fence does with packets that go past the tunnel', async () => {
    const test = await host({ led: false, fenced: true, inactive: true });
    await test.client.call('define', { xml: withExtra() });
    expect((await explain(test)).fence).toBeUndefined();
    await test.client.call('start', { name: 'net' });
    const past = await explain(test);
    expect(past).toMatchObject({ outcome: 'not-applied', fence: { action: 'guard' } });
    expect(past.verdict).toBe('The policy protects it, but it does not reach the tunnel: the fence drops it.');
    const inward = await explain(test, { src: '10.2.0.9:53', dst: '10.1.0.1:4000', direction: 'in' });
    expect(inward.fence?.text).toContain('fence-clear-in');
    const telnet = await explain(test, { dst: '10.2.0.1:23', proto: 'tcp' });
    expect(telnet).toMatchObject({ outcome: 'dropped', fence: { action: 'discard' } });
    const bgp = await explain(test, { src: '10.1.0.1:4000', dst: '10.2.0.1:179', proto: 'tcp' });
    expect(bgp).toMatchObject({ outcome: 'bypassed', fence: { action: 'pass' } });
    const ike = await explain(test, { src: '192.0.2.1:4500', dst: '192.0.2.2:4500' });
    expect(ike).toMatchObject({ outcome: 'bypassed', fence: { action: 'own' } });
    expect(ike.verdict).toContain('IKE or ESP of the tunnel itself');
  });

  it('tells that the fence drops what the host itself sends to the other side, whatever the source', async () => {
    const test = await host({ led: false, fenced: true, inactive: true });
    await test.client.call('define', { xml: withExtra() });
    await test.client.call('start', { name: 'net' });
    const own = { src: '192.0.2.1:4000', dst: '10.2.0.9:53' };
    const found = await explain(test, own);
    expect(found).toMatchObject({ outcome: 'dropped', fence: { action: 'guard' }, route: { link: 'eth0' } });
    expect(found.verdict).toMatch(
      /^It is dropped: no policy entry matches it, and the policy protects its destination;/,
    );
    expect(found.fence?.text).toBe(
      'drops it: the policy protects its destination, and no entry is for its source (counted as fence-clear-out)',
    );
    expect(found.warnings).toEqual([
      expect.stringContaining("an <sp> with action='none' from 192.0.2.1 to 10.2.0.9 lets it pass"),
    ]);
    // IKE of any tunnel, packets of others, and what goes elsewhere.
    for (const passes of [
      { ...own, src: '192.0.2.1:4500', dst: '10.2.0.9:4500' },
      { ...own, src: '198.51.100.7:4000' },
      { ...own, dst: '10.3.0.9:53' },
    ]) {
      expect(await explain(test, passes)).toMatchObject({ fence: { action: 'pass' } });
    }
    // By a device of ours its policy decides, and so does an entry of the policy.
    const none = `<sp name='own'><src_range address='192.0.2.1' prefixlen='32'/><dst_range address='10.2.0.0' prefixlen='24'/>
      <upperspec protocol='any'/><policy direction='both' action='none'/></sp>`;
    await test.client.call('destroy', { name: 'net' });
    await test.client.call('define', { xml: tunnelDocument().replace('</sectunnel>', `${none}</sectunnel>`) });
    await test.client.call('start', { name: 'net' });
    expect(await explain(test, own)).toMatchObject({ outcome: 'bypassed', fence: { action: 'pass' } });
  });

  it('tells of the fence of another tunnel that drops what the host itself sends', async () => {
    const test = await host({ led: false, fenced: true });
    const other = tunnelDocument({ name: 'other', inner: ['10.8.0.0', '10.9.0.0'] });
    await test.client.call('create', { xml: other });
    const entry = { local: range('10.1.0.0/24'), remote: range('10.2.0.0/24'), action: 'guard' } as const;
    const all = range('0.0.0.0/0');
    await test.fence?.set('tunnel:net', {
      kind: 'tunnel',
      device: 'stun-net',
      beside: [],
      own: { peer: undefined, ports: [], peerPorts: [] },
      outbound: [entry],
      inbound: [],
      anySource: [{ ...entry, local: all }],
      marked: [],
    });
    const found = await explain(test, { name: 'other', src: '192.0.2.1:4000' });
    expect(found).toMatchObject({ outcome: 'dropped' });
    expect(found.otherFence).toBe("the fence of tunnel 'net' drops it (counted as fence-clear-out)");
  });

  it('shows that the fence drops fragments of packets that it lets pass, and why it drops a header that hides what follows', async () => {
    const test = await host({ led: false, fenced: true, inactive: true });
    const entry = (name: string, words: string): string => `<sp name='${name}'>
      <src_range address='fd01::' prefixlen='64'/><dst_range address='fd02::' prefixlen='64'/>
      <upperspec protocol='${name}'/>${words}</sp>`;
    const protect =
      "<policy direction='both' action='ipsec'><rule protocol='esp' mode='tunnel' level='require'/></policy>";
    const entries = entry('udp', protect) + entry('esp', "<policy direction='both' action='none'/>");
    await test.client.call('define', { xml: withExtra().replace('</sectunnel>', `${entries}</sectunnel>`) });
    await test.client.call('start', { name: 'net' });
    const bgp = await explain(test, { src: '10.1.0.1:4000', dst: '10.2.0.1:179', proto: 'tcp' });
    expect(bgp.fence?.text).toBe(
      'lets it pass, as the policy says; its later fragments, and other packets between these addresses without a readable transport header, are dropped',
    );
    const v6 = { src: 'fd01::1', dst: 'fd02::9' };
    const tcp = await explain(test, { src: '[fd01::1]:4000', dst: '[fd02::9]:80', proto: 'tcp' });
    expect(tcp.fence).toMatchObject({
      action: 'pass',
      text: expect.stringMatching(/none of its entries matches; its later frag/),
    });
    const ah = await explain(test, { ...v6, proto: 'ah' });
    expect(ah.fence).toMatchObject({
      action: 'guard',
      text: expect.stringContaining('follows a header of this protocol'),
    });
    const esp = await explain(test, { ...v6, proto: 'esp' });
    expect(esp.fence?.text).toContain('lets it pass, as the policy says; its later fragments');
    const elsewhere = await explain(test, { src: '[fd01::1]:4000', dst: '[fd03::9]:80', proto: 'tcp' });
    expect(elsewhere.fence?.text).toBe('lets it pass: none of its entries matches');
  });

  it('knows what the fence marks, and the rules that go by the mark', async () => {
    const test = await host({ fenced: true, inactive: true });
    const ping = `<sp name='ping' priority='9'><src_range address='10.1.0.0' prefixlen='24'/><dst_range address='10.2.0.0' prefixlen='24'/>
      <upperspec protocol='icmp' type='8'/><policy direction='both' action='none'/></sp>`;
    await test.client.call('define', { xml: tunnelDocument().replace('</sectunnel>', `${ping}</sectunnel>`) });
    await test.client.call('start', { name: 'net' });
    const action = { type: 'table', table: MAIN_TABLE } as const;
    test.hostNetwork.addRule({ family: 4, priority: 100, mark: PASS_MARK, action });
    const icmp = { src: '10.1.0.1', dst: '10.2.0.9', proto: 'icmp' };
    const passes = await explain(test, icmp);
    expect(passes).toMatchObject({ outcome: 'bypassed', route: { link: 'eth0' } });
    expect(passes.route?.rule).toBe('100: from all fwmark 0x200000/0x200000 lookup main');
    expect(await explain(test, { ...icmp, type: 13 })).toMatchObject({ outcome: 'held', route: { link: 'stun-net' } });
  });

  it('knows of the fence that stands while a tunnel waits to be started again', async () => {
    const test = await host({ fenced: true });
    await test.daemon.runner.stop('net', { retry: true });
    const waits = await explain(test);
    expect(waits).toMatchObject({ active: false, outcome: 'not-applied', fence: { action: 'guard' } });
    expect(waits.verdict).toContain('the fence drops it until the tunnel is started');
  });

  const chain = (hook: string, rule: string, type = 'filter'): string =>
    `table ip fw {\n\tchain c {\n\t\ttype ${type} hook ${hook} priority filter; policy accept;\n\t\t${rule}\n\t}\n}\n`;

  it("tells what other programs' rules do with it, and gives no better verdict than they allow", async () => {
    const test = await host();
    const forwarded = { src: '10.1.0.77:4000' };
    const told = async (text: string, change: Partial<ExplainQuestion> = forwarded): Promise<Explanation> => {
      test.foreign = { texts: [text], unread: [] };
      return await explain(test, change);
    };
    expect(await told(chain('forward', 'tcp dport 53 drop'))).toMatchObject({
      outcome: 'held',
      filters: { asked: 1, found: [] },
    });
    const dropped = await told(chain('forward', 'udp dport 53 drop'));
    expect(dropped).toMatchObject({
      outcome: 'not-applied',
      verdict: "The policy protects it, but another program's firewall drops it when it is forwarded.",
      warnings: ["another program's firewall drops it when it is forwarded: table ip fw, chain c: udp dport 53 drop"],
    });
    expect(dropped.filters?.found).toMatchObject([
      { hook: 'forward', effect: 'drop', certain: true, table: 'ip fw', chain: 'c' },
    ]);
    expect(await told(chain('forward', 'udp dport 53 drop'), {})).toMatchObject({ outcome: 'held' });
    const unsure = await told(chain('forward', 'meta skuid 7 drop'));
    expect(unsure).toMatchObject({ outcome: 'unsure', warnings: [expect.stringContaining('not sure:')] });
    expect(unsure.verdict).toMatch(/^Not sure: .* If not, it waits until an SA is negotiated/);
    const masqueraded = await told(chain('postrouting', 'masquerade', 'nat'));
    expect(masqueraded).toMatchObject({
      outcome: 'not-applied',
      verdict: expect.stringContaining('replaces its source'),
    });
    const alike = await told(chain('postrouting', 'snat to 10.1.0.1', 'nat'));
    expect(alike).toMatchObject({
      outcome: 'held',
      warnings: [expect.stringContaining('replaces its source with 10.1.0.1')],
    });
  });

  it('says what it did not look at', async () => {
    const test = await host();
    test.foreign = { texts: [], unread: ['tables of iptables-legacy: filter'] };
    expect(await explain(test)).toMatchObject({
      outcome: 'unsure',
      verdict: 'As far as could be checked, it waits until an SA is negotiated, and is then encrypted.',
      warnings: ['not checked: tables of iptables-legacy: filter'],
    });
    // What does not get through anyway is no better for it.
    expect(await explain(test, { dst: '203.0.113.1:53' })).toMatchObject({ outcome: 'dropped' });
  });

  it('knows that this host does not forward', async () => {
    const test = await host();
    test.sysctls.set('ipv4.conf.lan0.forwarding', '0');
    const found = await explain(test, { src: '10.1.0.77:4000' });
    expect(found).toMatchObject({
      outcome: 'not-applied',
      verdict: 'The policy protects it, but this host does not forward it.',
    });
    expect(found.warnings[0]).toContain('sysctl -w net.ipv4.ip_forward=1');
    expect(found.route?.reachesTunnel).toBe(false);
    expect(await explain(test)).toMatchObject({ outcome: 'held' });
  });

  it('asks the other tunnels too, and names the one that gets it', async () => {
    const test = await host({ fenced: true });
    const bgp = EXTRA.slice(0, EXTRA.indexOf("<sp name='no-telnet'"));
    const wide = tunnelDocument({ name: 'wide', remote: '192.0.2.3' })
      .replaceAll("'10.2.0.0' prefixlen='24'", "'10.2.0.0' prefixlen='16'")
      .replace('</sectunnel>', `${bgp}</sectunnel>`);
    await test.client.call('create', { xml: wide });
    const told = await explain(test, { name: 'wide' });
    expect(told).toMatchObject({
      outcome: 'not-applied',
      verdict: "Tunnel 'net' gets it, not 'wide': the fence of 'wide' drops it.",
      tunnels: [
        { name: 'net', decision: "protected by 'lan'", gets: true },
        { name: 'wide', decision: "protected by 'lan'", gets: false },
      ],
    });
    // What the one lets pass in the clear, the other one has.
    const open = await explain(test, { name: 'wide', src: '10.1.0.1:4000', dst: '10.2.0.1:179', proto: 'tcp' });
    expect(open.verdict).toBe(
      "The policy lets it pass in the clear, but tunnel 'net' gets it: there it waits until an SA is negotiated.",
    );
    // A fence may let pass what another tunnel carries for it.
    const part = {
      kind: 'tunnel',
      device: 'stun-wide',
      beside: ['stun-net'],
      own: { peer: undefined, ports: [], peerPorts: [] },
    } as const;
    const all = { start: address('0.0.0.0'), end: address('255.255.255.255') };
    const guarding = {
      ...part,
      outbound: [{ local: all, remote: all, action: 'guard' }],
      inbound: [],
      anySource: [],
      marked: [],
    } as const;
    await test.fence?.set('tunnel:wide', guarding);
    expect(await explain(test, { name: 'wide' })).toMatchObject({
      outcome: 'held',
      verdict: "Tunnel 'net' gets it, not 'wide': there it waits until an SA is negotiated.",
    });
    expect(await explain(test)).toMatchObject({ outcome: 'held' });
    await test.fence?.set('tunnel:wide', { ...guarding, beside: [] });
    expect(await explain(test)).toMatchObject({
      outcome: 'not-applied',
      verdict: "The policy protects it, but the fence of tunnel 'wide' drops it (counted as fence-clear-out).",
    });
  });

  it('takes an echo request and a client port for granted, and says so', async () => {
    const test = await host({ inactive: true });
    const ping = await explain(test, { src: '10.1.0.1', dst: '10.2.0.9', proto: 'icmp' });
    expect(ping.packet).toBe('icmp 10.1.0.1 > 10.2.0.9 type 8 code 0');
    expect(ping.assumed).toEqual(['an echo request, as ping sends it']);
    const six = await explain(test, { src: '[fd00::1]', dst: '[fd00::2]:53' });
    expect(six.packet).toBe('udp [fd00::1]:49152 > [fd00::2]:53');
    expect(six.assumed).toEqual(['source port 49152']);
    expect((await explain(test, { src: 'fd00::1', dst: 'fd00::2', proto: '47' })).packet).toBe('gre fd00::1 > fd00::2');
  });

  it.each([
    [{ src: 'nowhere' }, "--src 'nowhere': expected an address"],
    [{ dst: '10.2.0.9:70000' }, "--dst '10.2.0.9:70000': expected a port from 0 to 65535"],
    [{ dst: 'fd00::1' }, '--src is IPv4 and --dst is IPv6'],
    [{ dst: '10.2.0.9' }, '--dst has no port, which udp needs: write 10.2.0.9:PORT'],
    [{ proto: 'any' }, "--proto 'any': expected one protocol"],
    [{ proto: 'icmpv6' }, 'use icmp'],
    [{ proto: 'gre' }, 'gre has no ports'],
    [{ type: 8 }, 'udp has no --type and --code'],
    [{ direction: 'sideways' }, "--direction 'sideways': expected in or out"],
    [{ src: '10.1.0.1', dst: '10.2.0.9', proto: 'icmp', code: 1 }, '--code without --type'],
    [{ src: '10.1.0.1', dst: '10.2.0.9', proto: 'icmp', type: 256 }, 'from 0 to 255'],
  ] as const)('refuses %o', async (change, message) => {
    const test = await host({ inactive: true });
    await expect(explain(test, change)).rejects.toThrow(message);
  });

  it('does not know a tunnel that is not there', async () => {
    const test = await host({ inactive: true });
    await expect(explain(test, { name: SECRET_UUID })).rejects.toThrow('there is no tunnel');
  });
});
