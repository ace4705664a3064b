import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { dumpDocument } from '../../src/config/dump.ts';
import type { SectunnelDocument } from '../../src/config/model.ts';
import { parseDocument } from '../../src/config/parse.ts';
import { withoutLines } from './helpers.ts';

const UUID = '00000000-0000-4000-8000-000000000001';

function load(name: string): SectunnelDocument {
  const xml = readFileSync(new URL(`../../examples/${name}.xml`, import.meta.url));
  return parseDocument(xml, { source: `examples/${name}.xml`, newUuid: () => UUID });
}

describe('the examples', () => {
  it.each(['ex-seed', 'ex-psk', 'ex-x509'])('%s loads, and its dump means the same', (name) => {
    const document = load(name);
    const dump = dumpDocument(document);
    const again = parseDocument(dump);
    expect(withoutLines(again)).toEqual(withoutLines(document));
    expect(dumpDocument(again)).toBe(dump);
  });

  it('the seed becomes one policy for both directions, with IKE and ESP on the port of its rules', () => {
    const document = load('ex-seed');
    expect(document.name).toBe('ex-seed');
    expect(document.uuid).toBe(UUID);
    expect(document.device).toMatchObject({ name: 'stun-ex-seed', mtu: undefined, routes: 'auto' });
    expect(document.sa.local).toMatchObject({
      address: { kind: 'ip', address: { family: 4, value: 0xc0000201n } },
      port: 55055,
      id: { type: 'address', text: '192.0.2.1' },
    });
    expect(document.sa.remote).toMatchObject({ port: 55055, id: { type: 'address', text: '192.0.2.2' } });
    expect(document.sa.ike).toMatchObject({ start: 'trap', nat: { traversal: 'force' } });
    expect(document.sa.auths).toEqual([
      {
        type: 'psk',
        side: 'both',
        secret: { by: 'uuid', uuid: '11111111-2222-3333-4444-555555555501' },
        line: 3,
      },
    ]);
    expect(document.sps).toHaveLength(1);
    const [sp] = document.sps;
    expect(sp).toMatchObject({ name: 'sp1', priority: 0, line: 5, upperspec: { protocol: 0 } });
    expect(sp!.srcRanges[0]!.ports).toEqual({ startPort: 5000, endPort: 5000 });
    expect(sp!.policies).toMatchObject([
      { direction: 'both', action: 'ipsec', line: 8, rule: { mode: 'tunnel', level: { kind: 'require' }, line: 9 } },
    ]);
  });

  it('the full form keeps what is written', () => {
    const { sa, sps } = load('ex-psk');
    expect(sa.ike.proposals.map(({ encryption, prf, dh }) => [encryption[0]!.name, prf[0]!.name, dh[0]!.name])).toEqual(
      [
        ['aes256gcm16', 'prfsha384', 'ecp384'],
        ['aes256', 'prfsha256', 'x25519'],
      ],
    );
    expect(sa.ike).toMatchObject({ start: 'initiate', lifetime: { soft: 13_800, hard: 14_400, jitter: 600 } });
    expect(sa.esp).toMatchObject({ lifetime: { bytes: 107_374_182_400n, packets: undefined }, replayWindow: 1024 });
    expect(sa.esp.proposals[0]).toMatchObject({ esn: [true], dh: [{ name: 'x25519' }] });
    expect(sps.map(({ name, priority }) => [name, priority])).toEqual([
      ['keep-bgp-clear', 100],
      ['lan', 0],
    ]);
    expect(sps[1]!.policies[0]).toMatchObject({ rule: { level: { kind: 'unique', group: undefined } } });
  });

  it('certificates are marked as such', () => {
    const { sa } = load('ex-x509');
    expect(sa.auths).toEqual([
      {
        type: 'x509',
        side: 'both',
        x509: {
          source: 'server',
          pkipath: undefined,
          ca: undefined,
          cert: undefined,
          key: undefined,
          crl: { file: '/etc/pki/CA/crl.pem', fetch: false, policy: 'ifpresent' },
          ocsp: undefined,
          allow: ['O=TVD,CN=gw*.example.org'],
          commonName: false,
          sha1: false,
        },
        line: 7,
      },
    ]);
    expect(sa.local).toMatchObject({ address: { kind: 'any' }, id: { type: 'dn' } });
    expect(sa.remote.address).toEqual({ kind: 'fqdn', name: 'gw2.example.org' });
  });
});
