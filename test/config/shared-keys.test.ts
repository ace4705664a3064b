import { describe, expect, it } from 'vitest';
import type { SectunnelDocument } from '../../src/config/model.ts';
import { parseDocument } from '../../src/config/parse.ts';
import { KeyHolders, sharedKeyWarning } from '../../src/config/shared-keys.ts';

const KEY = "<secret uuid='11111111-2222-3333-4444-555555555501'/>";
const PSK = `<auth type='psk'>${KEY}</auth>`;
const X509 = "<auth type='x509'><x509 source='server'/></auth>";

function document(name: string, remote: string, auth: string): SectunnelDocument {
  return parseDocument(`<sectunnel type='ipsec'>
    <name>${name}</name>
    <sa>
      <local address='192.0.2.1'/>
      ${remote}
      ${auth}
      <ike start='respond'/>
    </sa>
    <sp name='lan'>
      <src_range address='10.1.0.0' prefixlen='24'/>
      <dst_range address='10.2.0.0' prefixlen='24'/>
      <upperspec protocol='any'/>
      <policy direction='both' action='ipsec'><rule protocol='esp' mode='tunnel'/></policy>
    </sp>
  </sectunnel>`);
}

const ANY = "<remote address='any'/>";
const named = (id: string): string => `<remote address='any'><id type='fqdn'>${id}</id></remote>`;

describe('a key that all peers of a tunnel share', () => {
  it.each([
    ['for peers of any identity', ANY, PSK, 1],
    ['for one that is named', named('b'), PSK, 0],
    ['for one at an address, which is its name', "<remote address='192.0.2.2'/>", PSK, 0],
    ['for peers with certificates', ANY, X509, 0],
    [
      'for peers with certificates, while ours is a key',
      ANY,
      `<auth type='psk' side='local'>${KEY}</auth>${X509.replace("'x509'", "'x509' side='remote'")}`,
      0,
    ],
  ])('is warned of where identities are not told apart: %s', (_what, remote, auth, warnings) => {
    expect(sharedKeyWarning(document('t', remote, auth))).toEqual(
      new Array(warnings).fill(
        "line 5: <remote> has no <id>, and <auth type='psk'> on line 6 gives all its peers one key: each peer can claim the identity of any other. Use <auth type='x509'>, or give each peer a document of its own, with an <id> and a secret that no other peer knows",
      ),
    );
  });
});

function warningBeside(others: readonly SectunnelDocument[], own: SectunnelDocument): string[] {
  const holders = new KeyHolders();
  for (const other of others) holders.set(other);
  return holders.warning(own);
}

describe('a key that several tunnels share', () => {
  it('is forgotten with the document that had it', () => {
    const holders = new KeyHolders();
    const own = document('t', named('b'), PSK);
    holders.set(document('gw', named('c'), PSK));
    expect(holders.warning(own)).toHaveLength(1);
    holders.set(document('gw', named('c'), X509));
    expect(holders.warning(own)).toEqual([]);
    holders.set(document('gw', named('c'), PSK));
    holders.delete('gw');
    expect(holders.warning(own)).toEqual([]);
  });

  it.each([
    ['with other peers', named('b'), PSK, named('c'), true],
    ['with any peer', ANY, PSK, named('c'), true],
    ['with the same peer', named('b'), PSK, named('b'), false],
    ['which have certificates', named('b'), X509, named('c'), false],
    ['by another reference', named('b'), PSK.replace(/uuid='[^']*'/, "usage='other'"), named('c'), false],
  ])('is warned of: %s', (_what, remote, auth, other, warned) => {
    const others = [document('gw', other, PSK), document('t', named('z'), PSK)];
    expect(warningBeside(others, document('t', remote, auth))).toEqual(
      warned
        ? [
            'line 6: the secret is also that of tunnel gw, which has another peer: a host that knows it can claim either identity. Give each tunnel a secret of its own',
          ]
        : [],
    );
  });

  it('names no more of them than a line takes', () => {
    const others = ['a', 'b', 'c', 'd', 'e', 'f'].map((name) => document(name, named(name), PSK));
    expect(warningBeside(others, document('t', ANY, PSK))[0]).toContain('of tunnel a, b, c, d and 2 more, which has');
  });
});
