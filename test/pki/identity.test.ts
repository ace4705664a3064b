/** Which identities a certificate proves, and who is let in by patterns over its subject. */
import { describe, expect, it } from 'vitest';
import { dnFromText } from '../../src/base/asn1/dn-text.ts';
import { fromHex } from '../../src/base/bytes.ts';
import { type IdentityTextType, identityFromText } from '../../src/base/identity.ts';
import { utf8 } from '../../src/base/text.ts';
import { parseCertificate } from '../../src/pki/certificate.ts';
import { describeIdentity, matchesDnPattern, provenIdentities, provesIdentity } from '../../src/pki/identity.ts';
import { judge, right, root } from './judge.ts';
import { dns, email, ip, type Made, make } from './make.ts';

describe('identities', () => {
  const full = make({
    subject: 'C=CH, O=Example, CN=gw1.example.org',
    issuer: root,
    san: [
      dns('gw1.example.org'),
      dns('*.wild.example'),
      dns('dot.example.'),
      email('Admin@example.org'),
      email('example.org'),
      ip('c0000201'),
      ip(`20010db8${'00'.repeat(11)}01`),
    ],
  });
  const plain = make({ subject: 'O=Example, CN=gw2.example.org', issuer: root });
  const proves = (made: Made, type: IdentityTextType, text: string, allowCommonName = false): boolean =>
    provesIdentity(parseCertificate(made.der), identityFromText(type, text), { allowCommonName });

  it.each<[IdentityTextType, string, boolean]>([
    ['dn', 'C=CH, O=Example, CN=gw1.example.org', true],
    ['dn', 'C=ch,O=EXAMPLE,CN=GW1.example.org', true],
    ['dn', 'O=Example, CN=gw1.example.org', false],
    ['dn', 'CN=gw1.example.org, O=Example, C=CH', false],
    ['fqdn', 'gw1.example.org', true],
    ['fqdn', 'GW1.Example.ORG', true],
    ['fqdn', 'gw1.example', false],
    ['fqdn', 'x.gw1.example.org', false],
    ['fqdn', 'a.wild.example', false],
    ['fqdn', 'dot.example', false],
    ['email', 'Admin@EXAMPLE.org', true],
    ['email', 'admin@example.org', false],
    ['email', 'gw1.example.org@x', false],
    ['address', '192.0.2.1', true],
    ['address', '192.0.2.2', false],
    ['address', '2001:db8::1', true],
    ['keyid', 'gw1.example.org', false],
  ])('%s %s: %s', (type, text, expected) => {
    expect(proves(full, type, text)).toBe(expected);
  });

  it('are not those that only look so: with a dot, a star, another type', () => {
    const certificate = parseCertificate(full.der);
    const given = (type: number, text: string): boolean =>
      provesIdentity(certificate, { type, data: utf8(text) }, { allowCommonName: true });
    expect(given(2, 'gw1.example.org.')).toBe(false);
    expect(given(2, '*.wild.example')).toBe(false);
    expect(given(2, 'gw1.example.org\0')).toBe(false);
    expect(given(11, 'gw1.example.org')).toBe(false);
    expect(given(3, '@example.org')).toBe(false);
    expect(given(2, '')).toBe(false);
  });

  it('come from the common name only where there is no other and it is allowed', () => {
    expect(proves(plain, 'fqdn', 'gw2.example.org')).toBe(false);
    expect(proves(plain, 'fqdn', 'GW2.example.org', true)).toBe(true);
    expect(proves(plain, 'fqdn', 'gw1.example.org', true)).toBe(false);
    const san = make({ subject: 'CN=gw2.example.org', issuer: root, san: [dns('gw1.example.org')] });
    expect(proves(san, 'fqdn', 'gw2.example.org', true)).toBe(false);
    const two = make({ subject: 'CN=first.example, CN=last.example', issuer: root });
    expect(proves(two, 'fqdn', 'first.example', true)).toBe(false);
    expect(proves(two, 'fqdn', 'last.example', true)).toBe(true);
    // An empty name is the name of nobody.
    const nobody = parseCertificate(make({ subject: '', issuer: root, san: [dns('a.b')] }).der);
    expect(provesIdentity(nobody, { type: 9, data: fromHex('3000') }, { allowCommonName: false })).toBe(false);
  });

  it('are listed, the subject first', () => {
    const list = provenIdentities(parseCertificate(full.der), { allowCommonName: false }).map(describeIdentity);
    expect(list).toEqual([
      'dn C=CH, O=Example, CN=gw1.example.org',
      'fqdn gw1.example.org',
      'email Admin@example.org',
      'address 192.0.2.1',
      'address 2001:db8::1',
    ]);
  });

  it('that do not fit are refused, with a list of those that would', async () => {
    expect(await judge(await right(full, { id: identityFromText('fqdn', 'gw9.example.org') }))).toBe(
      'identity-mismatch: the peer identifies itself as fqdn gw9.example.org, but its certificate proves only: ' +
        'dn C=CH, O=Example, CN=gw1.example.org; fqdn gw1.example.org; email Admin@example.org; address 192.0.2.1; address 2001:db8::1',
    );
    expect(
      await judge(await right(plain, { id: identityFromText('fqdn', 'gw2.example.org') }), { allowCommonName: true }),
    ).toBe('ok');
  });

  it('are accepted by patterns', async () => {
    const given = await right(full, { id: identityFromText('fqdn', 'gw1.example.org') });
    expect(await judge(given, { allowedDns: ['C=DE,*', 'C=CH,O=Example,CN=*'] })).toBe('ok');
    expect(await judge(given, { allowedDns: ['C=DE,*'] })).toBe(
      "not-allowed: 'C=CH, O=Example, CN=gw1.example.org' matches none of the allowed names: 'C=DE,*'",
    );
  });

  it.each<[string, string, boolean]>([
    ['C=GB,O=Red Hat,CN=gw1', 'C=GB,O=Red Hat,CN=*', true],
    ['C=GB,O=Red Hat,CN=gw1', 'C=GB, O=Red Hat, CN=gw?', true],
    ['C=GB,O=Red Hat,CN=gw1', 'CN=gw1,O=Red Hat,C=GB', true],
    ['C=GB,O=Red Hat,CN=gw1', '*', true],
    ['C=GB,O=Red Hat,CN=gw1', '*,CN=gw1', true],
    ['C=GB,O=Red Hat,CN=gw1', 'C=GB', false],
    ['C=GB,O=Red Hat,CN=gw1', 'CN=gw1', false],
    ['C=GB,O=Red Hat,CN=gw1', '', false],
    ['C=GB,O=Red Hat,CN=gw12', '*CN=gw1', false],
    ['C=GB,CN=x\\,O=Red Hat', '*,O=Red Hat', false],
    ['C=GB,CN=x\\,y', 'C=GB,CN=x\\,*', true],
    ['CN=a,E=a@example.org', 'CN=a,EMAIL=*@example.org', true],
    [`CN=${'a'.repeat(200)}`, '*a*a*a*a*a*a*a*a*a*a*b', false],
  ])('the name %s fits %s: %s', (subject, pattern, expected) => {
    expect(matchesDnPattern(dnFromText(subject), pattern)).toBe(expected);
  });
});
