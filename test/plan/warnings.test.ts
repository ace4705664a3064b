import { describe, expect, it } from 'vitest';
import { parseAddress } from '../../src/base/address.ts';
import type { SectunnelDocument } from '../../src/config/model.ts';
import { parseDocument } from '../../src/config/parse.ts';
import { DEVICE_GROUP, type InterfaceAddress, type Link } from '../../src/hostnet/routes/routes.ts';
import type { HostAround } from '../../src/plan/own-networks.ts';
import { hostWarnings } from '../../src/plan/warnings.ts';

const own = (...texts: string[]): InterfaceAddress[] =>
  texts.map((text, linkIndex) => {
    const [address, length] = text.split('/');
    return { linkIndex, address: parseAddress(address!)!, prefixLength: Number(length) };
  });

const HOST = own('127.0.0.1/8', '192.0.2.1/24', '10.1.0.1/16', '10.1.0.1/32', 'fe80::1/64', '2001:db8::1/64');

interface Sp {
  readonly src: string;
  readonly dst: string;
  readonly action?: string;
  readonly level?: string;
  readonly priority?: number;
  readonly protocol?: string;
  readonly mode?: string;
}

/** Links are `eth0` and so on, one for each address. */
function around(addresses: readonly InterfaceAddress[], { router, bridge, group = 0 }: Around = {}): HostAround {
  const link = (index: number): Link => ({ index, name: `eth${index}`, mtu: 1500, up: true, group });
  const gateway = router === undefined ? undefined : parseAddress(router);
  const route = { linkIndex: 1, source: addresses[1]?.address, gateway, mtu: 1500, local: false, table: 254 };
  return {
    routing: {
      addresses: () => [...addresses],
      link: (asked) => (typeof asked === 'number' ? link(asked) : link(Number(asked.slice(3)))),
      routeTo: () => route,
    },
    bridges: bridge === undefined ? [] : [bridge],
  };
}

interface Around {
  readonly router?: string;
  /** One that a tunnel holds. */
  readonly bridge?: string;
  /** Of all links. */
  readonly group?: number;
}

function warnings(sps: readonly Sp[], addresses = HOST, device = '', host: Around = {}): string[] {
  return hostWarnings(documentOf(sps, device), around(addresses, host));
}

function documentOf(sps: readonly Sp[], device = ''): SectunnelDocument {
  const range = (side: string, text: string): string => {
    const [address, length] = text.split('/');
    return `<${side}_range address='${address}' prefixlen='${length}'/>`;
  };
  const words = sps.map(
    ({ src, dst, action = 'ipsec', level = 'require', priority = 0, protocol = 'any', mode = 'tunnel' }, at) =>
      `<sp name='p${at}' priority='${priority}'>${range('src', src)}${range('dst', dst)}<upperspec protocol='${protocol}'/>
      <policy direction='both' action='${action}'>${action === 'ipsec' ? `<rule protocol='esp' mode='${mode}' level='${level}'/>` : ''}</policy></sp>`,
  );
  const xml = `<sectunnel type='ipsec'><name>a</name>${device}<sa><remote address='198.51.100.2'/><auth type='psk'><secret usage='k'/></auth></sa>${words.join('\n')}</sectunnel>`;
  return parse(xml);
}

function parse(xml: string): SectunnelDocument {
  return parseDocument(xml, { newUuid: () => '11111111-2222-3333-4444-555555555555' });
}

const ALL: Sp = { src: '0.0.0.0/0', dst: '0.0.0.0/0' };

describe('a policy for everything', () => {
  it('is warned of, with the networks of the host that it cuts off', () => {
    expect(warnings([ALL])).toEqual([
      expect.stringMatching(
        /^line \d+: <sp name='p0'> protects all packets of IPv4.*this host loses.*logins.*\(192\.0\.2\.0\/24, 10\.1\.0\.0\/16\).*action='none'/,
      ),
    ]);
    expect(warnings([{ src: '::/0', dst: '::/0' }])[0]).toMatch(/IPv6.*\(2001:db8::\/64\)/);
  });

  it('but for those that go on beside it', () => {
    const pass = { src: '0.0.0.0/0', dst: '192.0.2.0/24', action: 'none' };
    expect(warnings([ALL, { ...pass, priority: 1 }])[0]).toMatch(/host \(10\.1\.0\.0\/16\)\./);
    expect(warnings([ALL, { ...pass, priority: -1 }])[0]).toMatch(/\(192\.0\.2\.0\/24, 10/);
  });

  it('is nothing to warn of where one side is narrower, where packets may go in the clear, or routes are the owner’s', () => {
    expect(warnings([{ ...ALL, src: '10.1.0.0/16' }])).toEqual([]);
    expect(warnings([{ ...ALL, level: 'use' }])).toEqual([]);
    expect(warnings([ALL], HOST, "<device routes='none'/>")).toEqual([]);
  });
});

describe('sides that look swapped', () => {
  it('are found by the addresses of the host', () => {
    expect(warnings([{ src: '10.2.0.0/16', dst: '10.1.0.0/16' }])).toEqual([
      expect.stringMatching(
        /^line \d+: <sp name='p0'>: 10\.1\.0\.1 of this host is in the ranges of the other side.*swapped/,
      ),
      expect.stringMatching(/: the network 10\.1\.0\.0\/16 of this host/),
    ]);
    const there = own('10.1.0.1/32');
    expect(warnings([{ src: '10.2.0.0/16', dst: '10.1.0.0/16' }], there)).toEqual([expect.stringMatching(/swapped/)]);
  });

  it('do not, where an entry lets that address pass', () => {
    const sps = [
      { src: '10.2.0.0/16', dst: '10.1.0.0/16' },
      { src: '10.1.0.1/32', dst: '10.1.0.0/16', action: 'none' },
    ];
    expect(warnings(sps)).toEqual([]);
  });

  it.each([
    ['as they should be', { src: '10.1.0.0/16', dst: '10.2.0.0/16' }, HOST],
    ['of which both hold one', { src: '10.1.0.0/24', dst: '10.1.0.0/25' }, HOST],
    ['of which neither does', { src: '10.3.0.0/16', dst: '10.2.0.0/16' }, HOST],
    ['of a host whose addresses are not known', { src: '10.2.0.0/16', dst: '10.1.0.0/16' }, []],
    ['of which one is everything', { src: '10.3.0.0/16', dst: '0.0.0.0/0' }, HOST],
  ] as const)('%s are not', (_, sp, addresses) => {
    expect(warnings([sp], [...addresses])).toEqual([]);
  });
});

describe('a network of this host within protected destinations', () => {
  const CENTRE: Sp = { src: '10.1.0.0/24', dst: '10.0.0.0/8' };
  const TWO = own('10.1.0.1/32', '10.5.0.1/24');
  const exceptionIn = (text: string): string => /<sp priority=.*<\/sp>/.exec(text)![0];

  it('is warned of, with what is dropped', () => {
    expect(warnings([CENTRE], TWO)).toEqual([
      expect.stringMatching(
        /^line \d+: <sp name='p0'>: the network 10\.5\.0\.0\/24 of this host \(eth1\) lies within 10\.0\.0\.0\/8, which is protected: what this host sends there from 10\.5\.0\.1, replies included, is dropped by the fence/,
      ),
    ]);
    const [ipv6] = warnings([{ src: 'fd00:1::/64', dst: 'fd00::/8' }], own('fd00:1::1/128', 'fd00:5::1/64'));
    expect(ipv6).toMatch(/the network fd00:5::\/64 .* lies within fd00::\/8/);
  });

  it('is warned of, with what goes into the tunnel', () => {
    expect(warnings([CENTRE], own('10.1.0.1/24'))).toEqual([
      expect.stringMatching(/the network 10\.1\.0\.0\/24 .* from 10\.1\.0\.1, replies included, goes into the tunnel/),
    ]);
    expect(warnings([{ ...CENTRE, src: '0.0.0.0/0' }], TWO)).toEqual([expect.stringMatching(/goes into the tunnel/)]);
  });

  it.each([
    ['the fence drops', CENTRE, TWO],
    ['the tunnel takes', { ...CENTRE, priority: 7 }, own('10.1.0.1/24')],
    ['of IPv6', { src: 'fd00:1::/64', dst: 'fd00::/8' }, own('fd00:1::1/128', 'fd00:5::1/64')],
    ['of the highest priority', { ...CENTRE, priority: 0x7fff_ffff }, TWO],
  ] as const)('reaches the host again with the entry that the warning has: %s', (_, sp, addresses) => {
    const [text] = warnings([sp], [...addresses]);
    const others = `<sectunnel type='ipsec'><name>a</name><sa><auth type='psk'><secret usage='k'/></auth></sa>`;
    const passes = parse(`${others}${exceptionIn(text!)}</sectunnel>`).sps;
    const document = documentOf([sp]);
    expect(hostWarnings({ ...document, sps: [...passes, ...document.sps] }, around(addresses))).toEqual([]);
  });

  it('is warned of in part, where an entry lets the other part pass', () => {
    const pass = { src: '10.5.0.0/24', dst: '10.5.0.0/25', action: 'none' };
    expect(warnings([CENTRE, pass], TWO)).toHaveLength(1);
    expect(warnings([CENTRE, pass, { ...pass, dst: '10.5.0.128/25' }], TWO)).toEqual([]);
    expect(warnings([CENTRE, { ...pass, dst: '10.5.0.0/24', protocol: 'tcp' }], TWO)).toHaveLength(1);
    expect(warnings([{ ...CENTRE, protocol: 'tcp' }], TWO)[0]).toMatch(/what is protected of what this host sends/);
  });

  it('is named with the router of the host, or the router alone', () => {
    const [network, ...rest] = warnings([CENTRE], TWO, '', { router: '10.5.0.254' });
    expect(network).toMatch(/which is protected, with the router 10\.5\.0\.254: /);
    expect(rest).toEqual([]);
    const wider = own('10.1.0.1/32', '10.5.0.1/16');
    const remote = { ...CENTRE, dst: '10.5.7.0/24' };
    const [router, ...others] = warnings([remote], wider, '', { router: '10.5.7.254' });
    expect(router).toMatch(
      /: the router 10\.5\.7\.254 of this host \(eth1\) lies within 10\.5\.7\.0\/24, which is protected: /,
    );
    expect(exceptionIn(router!)).toContain(
      "<src_range address='10.5.0.1' prefixlen='32'/><dst_range address='10.5.7.254'",
    );
    expect(others).toEqual([]);
    expect(warnings([{ ...CENTRE, dst: '10.5.7.254/32' }], wider, '', { router: '10.5.7.254' })).toEqual([]);
  });

  it('is named up to six times', () => {
    const many = own('10.1.0.1/32', ...Array.from({ length: 9 }, (_, at) => `10.5.${at}.1/24`));
    const found = warnings([CENTRE], many);
    expect(found).toHaveLength(7);
    expect(found[6]).toMatch(/^3 more networks of this host/);
  });

  it.each([
    ['that is wider than they are', { ...CENTRE, dst: '10.5.0.0/25' }, TWO, {}],
    ['where they hold the Internet', { ...CENTRE, dst: '8.0.0.0/6' }, TWO, {}],
    ['where packets may go in the clear', { ...CENTRE, level: 'use' }, TWO, {}],
    ['on a bridge that a tunnel holds', CENTRE, TWO, { bridge: 'eth1' }],
    ['on the device of a tunnel', CENTRE, TWO, { group: DEVICE_GROUP }],
  ] as const)('is nothing to warn of %s', (_, sp, addresses, host) => {
    expect(warnings([sp], [...addresses], '', host)).toEqual([]);
  });

  it('is nothing to warn of where the namespace is not known', () => {
    expect(hostWarnings(documentOf([CENTRE]), undefined)).toEqual([]);
  });
});
