import { describe, expect, it } from 'vitest';
import { parseAddress } from '../../src/base/address.ts';
import { parseDocument } from '../../src/config/parse.ts';
import type { InterfaceAddress } from '../../src/hostnet/routes/routes.ts';
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
}

function warnings(sps: readonly Sp[], addresses = HOST, device = ''): string[] {
  const range = (side: string, text: string): string => {
    const [address, length] = text.split('/');
    return `<${side}_range address='${address}' prefixlen='${length}'/>`;
  };
  const words = sps.map(
    ({ src, dst, action = 'ipsec', level = 'require', priority = 0 }, at) =>
      `<sp name='p${at}' priority='${priority}'>${range('src', src)}${range('dst', dst)}<upperspec protocol='any'/>
      <policy direction='both' action='${action}'>${action === 'ipsec' ? `<rule protocol='esp' mode='tunnel' level='${level}'/>` : ''}</policy></sp>`,
  );
  const xml = `<sectunnel type='ipsec'><name>a</name>${device}<sa><auth type='psk'><secret usage='k'/></auth></sa>${words.join('\n')}</sectunnel>`;
  return hostWarnings(parseDocument(xml, { newUuid: () => '11111111-2222-3333-4444-555555555555' }), addresses);
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
    ]);
  });

  it.each([
    ['as they should be', { src: '10.1.0.0/16', dst: '10.2.0.0/16' }, HOST],
    ['of which both hold one', { src: '10.1.0.0/24', dst: '10.0.0.0/8' }, HOST],
    ['of which neither does', { src: '10.3.0.0/16', dst: '10.2.0.0/16' }, HOST],
    ['of a host whose addresses are not known', { src: '10.2.0.0/16', dst: '10.1.0.0/16' }, []],
    ['of which one is everything', { src: '10.3.0.0/16', dst: '0.0.0.0/0' }, HOST],
  ] as const)('%s are not', (_, sp, addresses) => {
    expect(warnings([sp], [...addresses])).toEqual([]);
  });
});
