import { readdirSync, readFileSync } from 'node:fs';
import { XmlDocument } from 'libxml2-wasm';
import { describe, expect, it } from 'vitest';
import type { DocumentIssue } from '../../src/config/errors.ts';
import { checkSchema } from '../../src/config/schema.ts';
import { childElements, withXml, type XmlNode } from '../../src/config/xml.ts';

const SCHEMA = new URL('../../schema/sectunnel.rng', import.meta.url);
const EXAMPLES = new URL('../../examples/', import.meta.url);
const PSK = readFileSync(new URL('ex-psk.xml', EXAMPLES), 'utf8');
const X509 = readFileSync(new URL('ex-x509.xml', EXAMPLES), 'utf8');
const SEED = readFileSync(new URL('ex-seed.xml', EXAMPLES), 'utf8');

function check(xml: string): DocumentIssue | undefined {
  const document = XmlDocument.fromString(xml);
  try {
    return checkSchema(document);
  } finally {
    document.dispose();
  }
}

function elements(node: XmlNode): XmlNode[] {
  return [node, ...childElements(node).flatMap(elements)];
}

describe('schema/sectunnel.rng', () => {
  it('stands alone, and defines all that it refers to', () => {
    const all = withXml(readFileSync(SCHEMA), undefined, elements);
    expect(all.filter(({ name }) => ['include', 'externalRef', 'parentRef'].includes(name))).toEqual([]);
    const names = (element: string): Set<string | undefined> =>
      new Set(
        all
          .filter(({ name }) => name === element)
          .map(({ attributes }) => attributes.find(({ name }) => name === 'name')?.value),
      );
    const references = names('ref');
    const definitions = names('define');
    expect(references).toEqual(definitions);
  });

  it.each(readdirSync(EXAMPLES).filter((file) => /^ex-.*\.xml$/.test(file)))('accepts %s', (file) => {
    expect(check(readFileSync(new URL(file, EXAMPLES), 'utf8'))).toBeUndefined();
  });

  it.each<readonly [string, string, string, string]>([
    ['the type', SEED, "type='ipsec'", "type='other'"],
    ['a name', PSK, '<name>sec-net', '<name>../x'],
    ['a UUID', PSK, '<uuid>7e5f', '<uuid>xe5f'],
    ['a device name', PSK, "name='stun-sec-net'", "name='stun-sec-net-long'"],
    ['an MTU', PSK, "mtu='1400'", "mtu='100'"],
    ['an unknown element', PSK, '<sa>', '<sa><x/>'],
    ['an unknown attribute', PSK, '<sa>', "<sa x='1'>"],
    ['an address', PSK, "<remote address='192.0.2.2'>", "<remote address='192.0.2.300'>"],
    ['a direction', PSK, "direction='both'", "direction='up'"],
    ['a prefix length', PSK, "prefixlen='24'", "prefixlen='129'"],
    ['an empty range', PSK, "address='10.1.0.0'", "address=''"],
    ['prefix and end', PSK, "end='10.3.0.31'", "end='10.3.0.31' prefixlen='28'"],
    ['a rule that protects nothing', PSK, "action='ipsec'", "action='none'"],
    ['a level', PSK, "level='unique'", "level='often'"],
    ['fragments that are too small', PSK, '<nat ', "<fragmentation size='575'/><nat "],
    ['a list that is nowhere', X509, "<crl file='/etc/pki/CA/crl.pem' policy='ifpresent'/>", "<crl fetch='no'/>"],
    ['a policy of OCSP', X509, '<allow ', "<ocsp policy='often'/><allow "],
    ['a DSCP', PSK, "<replay window='1024'/>", "<outer dscp='64'/>"],
    ['padding to no size', PSK, "<replay window='1024'/>", "<tfc padding='fixed'/>"],
    ['a preference', PSK, '<sa>', "<sa><redundancy group='aws' preference='256'/>"],
    ['an IKE version', PSK, "version='2'", "version='1'"],
    ['the order of a group', SEED, "<upperspec protocol='any'/>", ''],
    ['no policy', "<sectunnel type='ipsec'/>", '/>', '/>'],
  ])('refuses %s', (_, base, from, to) => {
    expect(base).toContain(from);
    expect(check(base.replace(from, to))).toBeDefined();
  });

  it('says where, when it is the only one to complain', () => {
    expect(check(PSK.replace("mtu='1400'", "mtu='100'"))).toMatchObject({
      kind: 'invalid',
      line: 4,
      element: 'device',
      path: '/sectunnel/device',
      message: expect.stringContaining('it does not fit schema/sectunnel.rng: '),
    });
  });
});
