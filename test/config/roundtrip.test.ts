import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatAddress } from '../../src/base/address.ts';
import { dumpDocument } from '../../src/config/dump.ts';
import { parseDocument } from '../../src/config/parse.ts';
import { toChildren, toPolicy } from '../../src/config/selectors.ts';
import { escapeAttribute, escapeText } from '../../src/config/write.ts';
import { dhGroups, encryptionAlgorithms, integrityAlgorithms, prfAlgorithms } from '../../src/crypto/algorithms.ts';
import { withoutLines } from './helpers.ts';

type Attributes = Record<string, string | undefined>;

function tag(name: string, attributes: Attributes, content = ''): string {
  const written = Object.entries(attributes)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => ` ${key}="${escapeAttribute(value!).replaceAll('"', '&quot;')}"`);
  return `<${name}${written.join('')}>${content}</${name}>`;
}

const maybe = <T>(value: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> => fc.option(value, { nil: undefined });
const number = (min: number, max: number): fc.Arbitrary<string> => fc.integer({ min, max }).map(String);
const name = fc.stringMatching(/^[A-Za-z0-9_+][A-Za-z0-9_+.-]{0,20}$/);
const interfaceName = fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$/);
const uuid = fc.uuid();
// Characters that XML has at all.
const text = fc
  .string({ unit: 'grapheme', maxLength: 30 })
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is left out
  .map((value) => value.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, ''));
const word = text.filter((value) => value.trim() !== '');

const address = (family: 4 | 6): fc.Arbitrary<bigint> =>
  fc.bigInt({ min: 1n, max: family === 4 ? 0xdfff_ffffn : 2n ** 127n });
const hostAddress = (family: 4 | 6): fc.Arbitrary<string> =>
  address(family).map((value) => formatAddress({ family, value }));

function subset<T extends { readonly name: string; readonly aliases: readonly string[] }>(
  table: readonly T[],
): fc.Arbitrary<string> {
  const spelling = fc.constantFrom(...table).chain((entry) => fc.constantFrom(entry.name, ...entry.aliases));
  return fc.array(spelling, { minLength: 1, maxLength: 3 }).map((names) => names.join('-'));
}

function proposal(ike: boolean): fc.Arbitrary<string> {
  const aead = encryptionAlgorithms.filter((entry) => entry.aead);
  const plain = encryptionAlgorithms.filter((entry) => !entry.aead && !(ike && entry.espOnly));
  const dh = ike ? subset(dhGroups) : maybe(subset(dhGroups));
  const prf = ike ? maybe(subset(prfAlgorithms)) : fc.constant(undefined);
  const esn = ike ? fc.constant(undefined) : maybe(fc.constantFrom('yes', 'no'));
  return fc
    .oneof(
      fc.record({ encryption: subset(aead), integrity: fc.constant(undefined), dh, prf, esn }),
      fc.record({ encryption: subset(plain), integrity: subset(integrityAlgorithms), dh, prf, esn }),
    )
    .map((attributes) => tag('proposal', attributes));
}

const lifetime = (more: Record<string, fc.Arbitrary<string | undefined>>): fc.Arbitrary<string> =>
  fc
    .record({ soft: number(100, 1000), hard: number(1001, 5000), jitter: maybe(number(0, 99)), ...more })
    .map((attributes) => tag('lifetime', attributes as Attributes));

const join = (...parts: fc.Arbitrary<string | undefined>[]): fc.Arbitrary<string> =>
  fc.tuple(...parts).map((texts) => texts.filter((part) => part !== undefined).join(''));

const several = (part: fc.Arbitrary<string>, minLength: number, maxLength: number): fc.Arbitrary<string> =>
  fc.array(part, { minLength, maxLength }).map((parts) => parts.join('\n'));

const secret = fc.oneof(
  uuid.map((value) => tag('secret', { uuid: value })),
  word.map((value) => tag('secret', { usage: value })),
);

const ike = fc
  .tuple(
    fc.record({ start: maybe(fc.constantFrom('initiate', 'trap', 'respond')), version: maybe(fc.constant('2')) }),
    join(
      several(proposal(true), 0, 3),
      maybe(lifetime({})),
      maybe(
        fc
          .record({ interval: number(0, 1000), action: fc.constantFrom('clear', 'trap', 'restart') })
          .map((it) => tag('dpd', it)),
      ),
      maybe(fc.oneof(fc.constant('off'), number(576, 65535)).map((size) => tag('fragmentation', { size }))),
      maybe(
        fc
          .record({
            traversal: fc.constantFrom('auto', 'force'),
            encapsulation: maybe(fc.constant('always')),
            port: maybe(number(1, 65535)),
          })
          .map((it) => tag('nat', it)),
      ),
    ),
  )
  .map(([attributes, content]) => tag('ike', attributes, content));

const esp = join(
  several(proposal(false), 0, 3),
  maybe(
    lifetime({ bytes: maybe(fc.bigInt({ min: 1n, max: 2n ** 64n - 1n }).map(String)), packets: maybe(number(1, 99)) }),
  ),
  maybe(number(64, 65536).map((window) => tag('replay', { window }))),
  maybe(fc.oneof(fc.constant('copy'), number(0, 63)).map((dscp) => tag('outer', { dscp }))),
  maybe(
    fc
      .oneof(
        fc.record({ padding: maybe(fc.constantFrom('none', 'mtu')), dummies: maybe(number(0, 100)) }),
        fc.record({
          padding: fc.constantFrom('multiple', 'fixed'),
          size: number(16, 65535),
          dummies: maybe(number(0, 100)),
        }),
      )
      .map((it) => tag('tfc', it as Attributes)),
  ),
).map((content) => tag('esp', {}, content));

const id = fc.oneof(
  hostAddress(6).map((value) => tag('id', { type: 'address' }, value)),
  fc.constant(tag('id', { type: 'fqdn' }, 'gw-1.example.org')),
  fc.constant(tag('id', { type: 'email' }, ' admin@example.org ')),
  fc.constant(tag('id', { type: 'dn' }, 'O=A &amp; B,CN=gw')),
  word.map((value) => tag('id', { type: 'keyid' }, escapeText(value))),
);

const x509 = fc
  .record({ ca: word, allow: fc.array(word, { maxLength: 2 }), policy: maybe(fc.constantFrom('strict', 'ifpresent')) })
  .map(({ ca, allow, policy }) =>
    tag(
      'x509',
      { source: 'client', pkipath: '/etc/pki', commonname: policy && 'yes', sha1: allow.length > 0 ? 'yes' : 'no' },
      tag('ca', { file: `/${ca.replace(/\s/g, '_')}` }) +
        tag('key', { file: '/key' }, tag('secret', { usage: 'passphrase' })) +
        tag('crl', {
          file: allow.length === 2 ? undefined : '/crl',
          fetch: allow.length > 0 ? 'yes' : undefined,
          policy,
        }) +
        (ca.length % 2 === 0 ? '' : tag('ocsp', { policy })) +
        allow.map((dn) => tag('allow', { dn })).join(''),
    ),
  );

const auths = fc.oneof(
  secret.map((it) => tag('auth', { type: 'psk', side: 'both' }, it)),
  fc
    .tuple(secret, x509)
    .map(([a, b]) => tag('auth', { type: 'psk', side: 'local' }, a) + tag('auth', { type: 'x509', side: 'remote' }, b)),
);

function range(element: string, family: 4 | 6, ports: boolean): fc.Arbitrary<string> {
  const port = fc.oneof(
    fc.constant('any'),
    number(1, 65535),
    fc.tuple(fc.integer({ min: 0, max: 30000 }), fc.integer({ min: 30001, max: 65535 })).map((it) => it.join('-')),
  );
  const extent = fc.oneof(
    hostAddress(family).map((it): Attributes => ({ address: it })),
    fc
      .tuple(hostAddress(family), number(0, family === 4 ? 32 : 128))
      .map(([it, prefixlen]): Attributes => ({ address: it, prefixlen })),
    fc.tuple(address(family), fc.bigInt({ min: 0n, max: 1000n })).map(
      ([value, more]): Attributes => ({
        address: formatAddress({ family, value }),
        end: formatAddress({ family, value: value + more }),
      }),
    ),
    fc.constant<Attributes>({ address: 'any' }),
  );
  return fc
    .tuple(extent, ports ? maybe(port) : fc.constant(undefined), maybe(fc.constantFrom('yes', 'no')))
    .map(([where, numbers, pfp]) => tag(element, { ...where, port: numbers, pfp }));
}

const level = fc.constantFrom('default', 'use', 'require', 'unique', 'unique:7');

function policies(ends: string): fc.Arbitrary<string> {
  const protect = fc
    .tuple(fc.constantFrom('tunnel', 'transport'), maybe(level))
    .map(([mode, value]) =>
      tag('policy', { direction: 'both', action: 'ipsec' }, tag('rule', { protocol: 'esp', mode, level: value }, ends)),
    );
  const clear = fc
    .constantFrom('both', 'out', 'in')
    .chain((direction) => fc.constantFrom('none', 'discard').map((action) => tag('policy', { direction, action })));
  const split = fc.constant(
    tag('policy', { direction: 'in', action: 'none' }) + tag('policy', { direction: 'out', action: 'discard' }),
  );
  return fc.oneof(protect, clear, split);
}

function body(ends: string): fc.Arbitrary<string> {
  return fc
    .tuple(fc.constantFrom<4 | 6>(4, 6), fc.constantFrom('tcp', 'udp', 'any', '132', 'gre', '200', 'icmp'))
    .chain(([family, protocol]) => {
      const ports = ['tcp', 'udp', 'any', '132'].includes(protocol);
      const icmp = protocol === 'icmp' ? (family === 4 ? 'icmp' : 'ipv6-icmp') : protocol;
      const upper =
        protocol === 'icmp'
          ? fc.record({ type: maybe(number(0, 255)), code: number(0, 255), pfp: maybe(fc.constant('yes')) })
          : fc.constant({ type: undefined, code: undefined, pfp: 'yes' });
      return join(
        several(range('src_range', family, ports), 1, 3),
        several(range('dst_range', family, ports), 1, 3),
        upper.map(({ type, code, pfp }) =>
          tag('upperspec', { protocol: icmp, type, code: type === undefined ? undefined : code, pfp }),
        ),
        policies(ends),
      );
    });
}

const document = fc
  .tuple(
    fc.record({
      local: hostAddress(4),
      remote: hostAddress(4),
      src: maybe(number(1024, 65535)),
      dst: maybe(number(1024, 65535)),
    }),
    fc.boolean(),
  )
  .chain(([{ local, remote, src, dst }, flat]) => {
    const ends = tag('src', { address: local, port: src }) + tag('dst', { address: remote, port: dst });
    const sps = flat
      ? several(body(ends), 1, 4)
      : fc
          .uniqueArray(fc.tuple(name, maybe(number(-1000, 1000)), body(ends)), {
            minLength: 1,
            maxLength: 4,
            selector: ([it]) => it,
          })
          .map((all) => all.map(([it, priority, content]) => tag('sp', { name: it, priority }, content)).join('\n'));
    const device = fc.record({
      name: maybe(interfaceName.filter((it) => it !== '.')),
      mtu: maybe(number(1280, 65535)),
      table: maybe(number(1, 0xffffffff)),
      netns: maybe(name),
      vrf: maybe(interfaceName),
      ...{ routes: maybe(fc.constantFrom('auto', 'none')), ipv6: maybe(fc.constant('pass')) },
    });
    const sa = join(
      maybe(id).map((it) => tag('local', { address: local }, it)),
      maybe(id).map((it) => tag('remote', { address: remote }, it)),
      auths,
      maybe(ike),
      maybe(esp),
      maybe(fc.record({ group: fc.constantFrom('aws', 'g.1'), preference: maybe(number(0, 255)) })).map(
        (it) => it && tag('redundancy', it as Attributes),
      ),
    );
    return join(
      maybe(name.map((it) => tag('name', {}, it))),
      maybe(uuid.map((it) => tag('uuid', {}, it))),
      maybe(word.map((it) => tag('title', {}, escapeText(it.replace(/[\r\n]/g, ''))))),
      maybe(text.map((it) => tag('description', {}, escapeText(it)))),
      maybe(
        text.map((it) =>
          tag('metadata', {}, `<m:x xmlns:m='urn:m' y='${escapeAttribute(it)}'>${escapeText(it)}<m:y/></m:x>`),
        ),
      ),
      maybe(device.map((it) => tag('device', it))),
      sa.map((content) => tag('sa', {}, content)),
      sps,
    );
  })
  .map((content) => `<sectunnel type='ipsec'>${content}</sectunnel>`);

describe('parse and dump', () => {
  it('the dump of a document means the same, and its dump is the same text', () => {
    let protectedDocuments = 0;
    fc.assert(
      fc.property(document, (xml) => {
        const first = parseDocument(xml);
        const dump = dumpDocument(first);
        const second = parseDocument(dump);
        expect(withoutLines(second)).toEqual(withoutLines(first));
        expect(dumpDocument(second)).toBe(dump);
        const entries = (doc: typeof first): unknown => withoutLines(toPolicy(doc).entries);
        expect(entries(second)).toEqual(entries(first));
        protectedDocuments += toChildren(first).length > 0 ? 1 : 0;
      }),
      { numRuns: 100 },
    );
    expect(protectedDocuments).toBeGreaterThan(20);
  });
});
