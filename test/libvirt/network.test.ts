import { describe, expect, it } from 'vitest';
import { parseAddress } from '../../src/base/address.ts';
import { DocumentError } from '../../src/config/errors.ts';
import { TUNNEL_NAMESPACE } from '../../src/libvirt/namespace.ts';
import { pinProblem, readNetwork } from '../../src/libvirt/network.ts';
import { importNetwork } from '../../src/libvirt/network-import.ts';

const PIN = `<metadata><t:tunnel xmlns:t='${TUNNEL_NAMESPACE}' name='sec-net' mode='selective'/></metadata>`;
const UUID = '35eac346-9e47-402c-a548-175ac5bc5565';

function refusal(attempt: () => unknown): string {
  try {
    attempt();
  } catch (error) {
    if (error instanceof DocumentError) return error.message;
    throw error;
  }
  throw new Error('it was not refused');
}

const prefix = (address: string, prefixLength: number) => ({ address: parseAddress(address), prefixLength });

describe('reading a network', () => {
  const inner = `<network><name>lan</name><uuid>${UUID}</uuid>${PIN}
    <forward dev='stun0' mode='route'><interface dev='stun0'/></forward><bridge name='virbr9' stp='on' delay='0'/>
    <dns enable='no'/><ip address='10.1.0.1' netmask='255.255.255.252'/></network>`;

  it.each([
    ['a definition', inner],
    ["a hook's input", `<hookData>${inner}</hookData>`],
    ['a file of the run folder', `<!-- made by libvirt --><networkstatus><floor sum='0'/>${inner}</networkstatus>`],
  ])('finds in %s what concerns a tunnel', (_what, xml) => {
    expect(readNetwork(xml)).toEqual({
      name: 'lan',
      uuid: UUID,
      bridge: 'virbr9',
      forward: { mode: 'route', device: 'stun0' },
      prefixes: [prefix('10.1.0.0', 30)],
      dns: false,
      pin: { tunnel: 'sec-net', mode: 'selective' },
    });
  });

  it("takes libvirt's defaults for what is not said", () => {
    expect(readNetwork('<network><name>n</name></network>')).toEqual({
      name: 'n',
      uuid: undefined,
      bridge: undefined,
      forward: { mode: 'none', device: undefined },
      prefixes: [],
      dns: true,
      pin: undefined,
    });
    expect(readNetwork('<network><name>n</name><forward/></network>').forward.mode).toBe('nat');
    expect(
      readNetwork("<network><name>n</name><forward mode='route'><interface dev='e1'/></forward></network>").forward,
    ).toEqual({ mode: 'route', device: 'e1' });
  });

  it('knows the networks that are reached by the bridge', () => {
    const xml = `<network><name>n</name><ip address='192.168.85.1' netmask='255.255.254.0'/><ip address='10.9.9.9'/>
      <ip family='ipv6' address='fd00:1::1' prefix='60'/><ip family='ipv6' address='fd00:2::1'/><ip address='172.16.0.1' prefix='0'/>
      <ip address='192.0.2.1'/><route family='ipv4' address='10.7.0.0' prefix='16' gateway='192.168.85.2'/></network>`;
    expect(readNetwork(xml).prefixes).toEqual([
      prefix('192.168.84.0', 23),
      prefix('10.0.0.0', 8),
      prefix('fd00:1::', 60),
      prefix('fd00:2::', 64),
      prefix('0.0.0.0', 0),
      prefix('192.0.2.0', 24),
      prefix('10.7.0.0', 16),
    ]);
  });

  it('holds a network exclusively where no mode is said', () => {
    const xml = `<network><name>n</name><metadata><x:y xmlns:x='urn:x'/><tunnel xmlns='${TUNNEL_NAMESPACE}' name='t'/></metadata></network>`;
    expect(readNetwork(xml).pin).toEqual({ tunnel: 't', mode: 'exclusive' });
  });

  it.each([
    ['<secret/>', 'line 1: <secret>: a libvirt <network> is required, this is <secret>'],
    ['<hookData><storagepool/></hookData>', 'a libvirt <network> is required, this is <hookData> without a network'],
    ['<network/>', 'line 1: <network>: it has no <name>'],
    [
      `<network><name>n</name>${PIN.replace('selective', 'most')}</network>`,
      "mode='most': allowed: exclusive or selective",
    ],
    [`<network><name>n</name>${PIN.replace("name='sec-net'", '')}</network>`, "the attribute name='…' is missing"],
    [
      `<network><name>n</name>${PIN.replace('sec-net', '../sec')}</network>`,
      "name='../sec': a name of 1 to 64 letters",
    ],
    [`<network><name>n</name>${PIN.replace('t:tunnel', 't:tunel')}</network>`, 'write <t:tunnel>'],
    [
      "<network><name>n</name><ip address='10.1.0.1' netmask='255.0.255.0'/></network>",
      "address='10.1.0.1': an IP address with",
    ],
    ["<network><name>n</name><ip address='10.1.0.1' prefix='33'/></network>", "address='10.1.0.1': an IP address with"],
    ['<network>', 'this is not well-formed XML'],
  ])('refuses %s', (xml, message) => {
    expect(refusal(() => readNetwork(xml))).toContain(message);
  });
});

describe('whether a tunnel can hold a network', () => {
  const network = (forward: string, mode: string) =>
    readNetwork(
      `<network><name>n</name><metadata><tunnel xmlns='${TUNNEL_NAMESPACE}' name='t' mode='${mode}'/></metadata>${forward}</network>`,
    );

  it.each([
    ["<forward mode='route'/>", 'exclusive'],
    ["<forward mode='route' dev='stun0'/>", 'exclusive'],
    ["<forward mode='open'/>", 'exclusive'],
    ["<forward mode='route'/>", 'selective'],
    ["<forward mode='open'/>", 'selective'],
    ['<forward/>', 'selective'],
  ])('%s %s: yes', (forward, mode) => {
    expect(pinProblem(network(forward, mode), 'stun0')).toBeUndefined();
  });

  it.each([
    ["<forward mode='bridge'/>", 'exclusive', "mode='bridge' hands frames to another device"],
    ["<forward mode='passthrough'/>", 'selective', "mode='passthrough' hands frames"],
    ['<forward/>', 'exclusive', "mode='nat' would hide the guests' addresses"],
    ["<forward mode='route' dev='eth0'/>", 'exclusive', "dev='eth0' has libvirt forward to that device alone"],
    ["<forward mode='nat' dev='eth0'/>", 'selective', "to the tunnel's (stun0) not; leave it out"],
    ['', 'exclusive', "write <forward mode='route' dev='stun0'/>"],
    ['', 'selective', "write mode='exclusive'"],
  ])('%s %s: no', (forward, mode, message) => {
    expect(pinProblem(network(forward, mode), 'stun0')).toContain(message);
  });

  it('does not care about networks without a tunnel', () => {
    expect(
      pinProblem(readNetwork("<network><name>n</name><forward mode='bridge'/></network>"), 'stun0'),
    ).toBeUndefined();
  });
});

describe('rewriting a network', () => {
  const rewrite = (xml: string) => importNetwork(xml, 'lan.xml', (tunnel) => `stun-${tunnel}`);

  it('turns <forward tunnel=…> into what libvirt keeps, and leaves all else as it is', () => {
    const { xml, pin, name, changes } = rewrite(`<?xml version='1.0'?>
<!-- of the list -->
<network xmlns:dnsmasq='http://libvirt.org/schemas/network/dnsmasq/1.0'>
  <name>lan</name>
  <bridge name="virbr9"/> <!-- ours -->
  <forward mode='route' tunnel='sec-net'/>
  <ip address='10.1.0.1' netmask='255.255.255.252'>
    <dhcp><range start='10.1.0.2' end='10.1.0.2'/></dhcp>
  </ip>
  <dnsmasq:options><dnsmasq:option value='dhcp-option=option:dns-server,10.2.0.1'/></dnsmasq:options>
</network>`);
    expect(xml).toBe(`<network xmlns:dnsmasq="http://libvirt.org/schemas/network/dnsmasq/1.0">
  <name>lan</name>
  <metadata>
    <sectunnel:tunnel xmlns:sectunnel="${TUNNEL_NAMESPACE}" name="sec-net" mode="exclusive"/>
  </metadata>
  <bridge name="virbr9"/> <!-- ours -->
  <forward mode="route" dev="stun-sec-net"/>
  <dns enable="no"/>
  <ip address="10.1.0.1" netmask="255.255.255.252">
    <dhcp><range start="10.1.0.2" end="10.1.0.2"/></dhcp>
  </ip>
  <dnsmasq:options><dnsmasq:option value="dhcp-option=option:dns-server,10.2.0.1"/></dnsmasq:options>
</network>
`);
    expect([name, pin]).toEqual(['lan', { tunnel: 'sec-net', mode: 'exclusive' }]);
    expect(changes).toHaveLength(3);
    expect(changes.join('\n')).toMatch(/tunnel='sec-net'.*\n.*dev='stun-sec-net'.*\n.*<dns enable='no'\/>/);
  });

  it('turns <sectunnel name=…> into a selective one, and leaves DNS and forwarding as they are', () => {
    const { xml, pin } = rewrite(`<network>
  <name>lan</name>
  <uuid>${UUID}</uuid>
  <metadata>
    <app:x xmlns:app='urn:app'/>
  </metadata>
  <forward mode='nat'/>
  <sectunnel name='sec-tun'/>
  <domain name='example'/>
</network>`);
    expect(xml).toBe(`<network>
  <name>lan</name>
  <uuid>${UUID}</uuid>
  <metadata>
    <app:x xmlns:app="urn:app"/>
    <sectunnel:tunnel xmlns:sectunnel="${TUNNEL_NAMESPACE}" name="sec-tun" mode="selective"/>
  </metadata>
  <forward mode="nat"/>
  <domain name="example"/>
</network>
`);
    expect(pin).toEqual({ tunnel: 'sec-tun', mode: 'selective' });
  });

  it("holds the proposal's own network, which forwards nothing else, exclusively", () => {
    const seed = `<network>
  <name>tvd</name>
  <bridge name='virbr0' />
  <domain name='example' />
  <sectunnel name='sec-tun' /> <!--(specify the 'sectunnel' to use)-->
</network>`;
    const { xml, pin, changes } = rewrite(seed);
    expect(pin.mode).toBe('exclusive');
    expect(xml).toContain(
      '  <bridge name="virbr0"/>\n  <forward mode="route" dev="stun-sec-tun"/>\n  <dns enable="no"/>\n',
    );
    expect(changes.join('\n')).toContain('it is held exclusively');
  });

  it('says what was lost with <dns>', () => {
    const { xml, changes } = rewrite(
      "<network><name>n</name><forward mode='route' tunnel='t'/><dns><host ip='10.1.0.1'><hostname>gw</hostname></host></dns></network>",
    );
    expect(xml).not.toContain('hostname');
    expect(changes.at(-1)).toContain('and what was in <dns> with it');
  });

  it('changes nothing when it is done again', () => {
    const once = rewrite("<network><name>n</name><forward mode='route' tunnel='t'/></network>");
    const again = rewrite(once.xml);
    expect(again).toEqual({ ...once, changes: [] });
  });

  it.each([
    ['<network><name>n</name></network>', 'it names no tunnel; write'],
    ["<network><name>n</name><forward tunnel='t'/></network>", "lan.xml:1: <forward>: mode='nat' would hide"],
    ["<network><name>n</name><forward mode='route' dev='eth0' tunnel='t'/></network>", "dev='eth0'"],
    ["<network><name>n</name><forward mode='bridge'/><sectunnel name='t'/></network>", "mode='bridge'"],
    ["<network><name>n</name><forward mode='route'/><sectunnel/></network>", "it has no name='…'"],
    ["<network><name>n</name><forward mode='route' tunnel='a b'/></network>", "tunnel='a b': a name"],
    [
      "<network><name>n</name>\n<forward mode='route' tunnel='t'/>\n<sectunnel name='u'/></network>",
      "lan.xml:3: <sectunnel>: it says selective use of the tunnel 'u', and line 2 says exclusive use of 't'; leave one of them",
    ],
    ["<sectunnel type='ipsec'/>", 'a libvirt <network> is required'],
  ])('refuses %s', (xml, message) => {
    expect(refusal(() => rewrite(xml))).toContain(message);
  });

  it('passes on that a tunnel is not known', () => {
    const unknown = (): never => {
      throw new Error('no such tunnel');
    };
    expect(() =>
      importNetwork("<network><name>n</name><forward mode='route' tunnel='t'/></network>", undefined, unknown),
    ).toThrow('no such tunnel');
  });
});
