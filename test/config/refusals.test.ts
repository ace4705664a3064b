import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { DocumentError, type IssueKind } from '../../src/config/errors.ts';
import { parseDocument } from '../../src/config/parse.ts';

const SEED = readFileSync(new URL('../../examples/ex-seed.xml', import.meta.url), 'utf8');
const PSK = readFileSync(new URL('../../examples/ex-psk.xml', import.meta.url), 'utf8');

function refusal(xml: string): DocumentError {
  try {
    parseDocument(xml, { source: 't.xml' });
  } catch (error) {
    if (error instanceof DocumentError) return error;
    throw error;
  }
  throw new Error('the document was accepted');
}

/** The document with one change, which must be one. */
function change(base: string, from: string, to: string): string {
  const at = base.indexOf(from);
  if (at < 0) throw new Error(`'${from}' does not stand in the document`);
  return base.slice(0, at) + to + base.slice(at + from.length);
}

type Row = readonly [
  what: string,
  from: string,
  to: string,
  line: number,
  path: string,
  found: string | undefined,
  message: string,
];

const PSK_ROWS: readonly Row[] = [
  [
    'an unknown child',
    '<sa>',
    '<sa><ikee/>',
    5,
    '/sectunnel/sa/ikee',
    'ikee',
    "<ikee>: it is not known in <sa> (did you mean 'ike'?); allowed: <local>, <remote>, <auth>, <ike>, <esp> or <redundancy>",
  ],
  [
    'a misspelt required child, named once',
    "<policy direction='both' action='none'/>",
    "<polcy direction='both' action='none'/>",
    26,
    '/sectunnel/sp[1]/polcy',
    'polcy',
    "did you mean 'policy'?",
  ],
  [
    'an encapsulation that forcing forbids',
    "<nat traversal='auto'",
    "<nat traversal='force' encapsulation='needed'",
    14,
    '/sectunnel/sa/ike/nat',
    'needed',
    "with traversal='force' it is always; leave encapsulation out, or have traversal='auto'",
  ],
  [
    'an encapsulation where there is none',
    "<nat traversal='auto'",
    "<nat traversal='off' encapsulation='always'",
    14,
    '/sectunnel/sa/ike/nat',
    'always',
    "with traversal='off' it is never; leave encapsulation out, or have traversal='auto'",
  ],
  [
    'a preference that is too high',
    '<sa>',
    "<sa><redundancy group='aws' preference='256'/>",
    5,
    '/sectunnel/sa/redundancy',
    '256',
    "preference='256': a whole number from 0 to 255",
  ],
  [
    'a redundancy without its group',
    '<sa>',
    "<sa><redundancy preference='1'/>",
    5,
    '/sectunnel/sa/redundancy',
    undefined,
    "the attribute group='…' is missing; add it",
  ],
  [
    'an unknown attribute',
    "mtu='1400'",
    "mut='1400'",
    4,
    '/sectunnel/device',
    'mut',
    "the attribute mut='1400' is not known here (did you mean 'mtu'?); allowed: name, mtu, table, netns, vrf, routes or ipv6",
  ],
  [
    'a value that is not in the list',
    "direction='both' action='none'",
    "direction='bothe' action='none'",
    26,
    '/sectunnel/sp[1]/policy',
    'bothe',
    "direction='bothe': allowed: in, out or both (did you mean 'both'?)",
  ],
  [
    'a missing attribute',
    "direction='both' action='none'",
    "action='none'",
    26,
    '/sectunnel/sp[1]/policy',
    undefined,
    "the attribute direction='…' is missing; add it: in, out or both",
  ],
  ['text between elements', '<sa>', '<sa>hello', 5, '/sectunnel/sa', 'hello', "the text 'hello' is not allowed here"],
  [
    'an element that stands twice',
    '<esp>',
    '<ike/><esp>',
    16,
    '/sectunnel/sa/ike[2]',
    '2',
    'there may be only one in <sa>; the first is on line 9',
  ],
  [
    'another type of tunnel',
    "type='ipsec'",
    "type='wireguard'",
    1,
    '/sectunnel',
    'wireguard',
    "type='wireguard': allowed: ipsec",
  ],
  [
    'a foreign namespace',
    '<sa>',
    "<sa xmlns='urn:x'>",
    5,
    '/sectunnel/sa',
    'urn:x',
    "the element is in the namespace 'urn:x', but documents have none",
  ],
  [
    'a name that would leave the folder',
    '<name>sec-net',
    '<name>../etc',
    2,
    '/sectunnel/name',
    '../etc',
    "'../etc' cannot be a name: a name of 1 to 64 letters, digits, _, +, . and -",
  ],
  [
    'a UUID that is none',
    '7e5f1c8e-6d0e-4b7e-9a55-0c3f2f6d1a10',
    '7e5f',
    3,
    '/sectunnel/uuid',
    '7e5f',
    "'7e5f' is no UUID",
  ],
  [
    'a device name that the kernel refuses',
    "name='stun-sec-net'",
    "name='stun-sec-net-too'",
    4,
    '/sectunnel/device',
    'stun-sec-net-too',
    'it has 16 characters, and the kernel allows an interface at most 15; shorten it',
  ],
  [
    'an MTU out of range',
    "mtu='1400'",
    "mtu='70'",
    4,
    '/sectunnel/device',
    '70',
    "mtu='70': a whole number from 576 to 65535 is required",
  ],
  [
    'an end that is no address',
    "<local address='192.0.2.1'>",
    "<local address='192.0.2.256'>",
    6,
    '/sectunnel/sa/local',
    '192.0.2.256',
    "'192.0.2.256' is not an IPv4 address; 'any', an IP address or a host name is required",
  ],
  [
    'an end that is a network',
    "<local address='192.0.2.1'>",
    "<local address='192.0.2.0/24'>",
    6,
    '/sectunnel/sa/local',
    '192.0.2.0/24',
    "'192.0.2.0/24' is not an address",
  ],
  [
    'a multicast end',
    "<remote address='192.0.2.2'>",
    "<remote address='224.0.0.1'>",
    7,
    '/sectunnel/sa/remote',
    '224.0.0.1',
    'a multicast or broadcast address cannot be the end of a tunnel',
  ],
  [
    'an unspecified end',
    "<remote address='192.0.2.2'>",
    "<remote address='0.0.0.0'>",
    7,
    '/sectunnel/sa/remote',
    '0.0.0.0',
    "write 'any' where the address is not known",
  ],
  [
    'ends of two families',
    "<remote address='192.0.2.2'>",
    "<remote address='2001:db8::2'>",
    5,
    '/sectunnel/sa',
    '192.0.2.1 and 2001:db8::2',
    'the local end 192.0.2.1 is IPv4 and the remote end 2001:db8::2 is IPv6',
  ],
  [
    'an identity that does not fit its type',
    "<id type='fqdn'>gw1.example.org",
    "<id type='address'>gw1.example.org",
    6,
    '/sectunnel/sa/local/id',
    'gw1.example.org',
    "'gw1.example.org' is not an identity of type 'address': 'gw1.example.org' is not an IP address",
  ],
  [
    'a distinguished name with an attribute that is not known',
    "<id type='fqdn'>gw1.example.org",
    "<id type='dn'>O=Example, colour=green",
    6,
    '/sectunnel/sa/local/id',
    'O=Example, colour=green',
    "'colour' in a distinguished name is not known",
  ],
  [
    'a domain name that no ID payload may have',
    "<id type='fqdn'>gw1.example.org",
    "<id type='fqdn'>gw1.example.org.",
    6,
    '/sectunnel/sa/local/id',
    'gw1.example.org.',
    'is not a domain name without a dot at its end',
  ],
  [
    'an empty identity',
    "<id type='fqdn'>gw1.example.org",
    "<id type='keyid'> ",
    6,
    '/sectunnel/sa/local/id',
    '',
    'it is empty; write the identity between the tags',
  ],
  [
    'a secret by an unusable UUID',
    "uuid='11111111-2222-3333-4444-555555555501'",
    "uuid='1111'",
    8,
    '/sectunnel/sa/auth/secret',
    '1111',
    "uuid='1111': a UUID such as",
  ],
  [
    'a secret by nothing',
    "<secret uuid='11111111-2222-3333-4444-555555555501'/>",
    '<secret/>',
    8,
    '/sectunnel/sa/auth/secret',
    undefined,
    "it does not say which secret; add uuid='…' or usage='…'",
  ],
  [
    'a secret by both',
    "<secret uuid='11111111-2222-3333-4444-555555555501'/>",
    "<secret uuid='11111111-2222-3333-4444-555555555501' usage='x'/>",
    8,
    '/sectunnel/sa/auth/secret',
    undefined,
    'both uuid and usage are given',
  ],
  [
    'the key of a PSK missing',
    "<secret uuid='11111111-2222-3333-4444-555555555501'/>",
    '',
    8,
    '/sectunnel/sa/auth',
    undefined,
    "type='psk' needs a <secret>; add it",
  ],
  [
    'no authentication',
    "<auth type='psk'><secret uuid='11111111-2222-3333-4444-555555555501'/></auth>",
    '',
    5,
    '/sectunnel/sa',
    undefined,
    'nothing says how the two ends authenticate',
  ],
  [
    'authentication of one side only',
    "<auth type='psk'>",
    "<auth type='psk' side='local'>",
    5,
    '/sectunnel/sa',
    undefined,
    'nothing says how the remote end authenticates',
  ],
  [
    'two authentications of one side',
    '<sa>',
    "<secret usage='a'/>\n<sa>",
    9,
    '/sectunnel/sa/auth',
    'both',
    "side='both': line 5 says already how 'both' authenticates; remove one",
  ],
  [
    'certificates in files that are not named',
    "<auth type='psk'><secret uuid='11111111-2222-3333-4444-555555555501'/></auth>",
    "<auth type='x509'><x509 source='file'><cert file='/c.pem'/><key file='/k.pem'/></x509></auth>",
    8,
    '/sectunnel/sa/auth/x509',
    undefined,
    "source='file' needs <ca file='…'/> for side='both'; add it",
  ],
  [
    'a path that is not absolute',
    "<auth type='psk'><secret uuid='11111111-2222-3333-4444-555555555501'/></auth>",
    "<auth type='x509'><x509><crl file='crl.pem'/></x509></auth>",
    8,
    '/sectunnel/sa/auth/x509/crl',
    'crl.pem',
    "file='crl.pem': an absolute path, one that begins with / is required",
  ],
  [
    'revocation lists that are nowhere',
    "<auth type='psk'><secret uuid='11111111-2222-3333-4444-555555555501'/></auth>",
    "<auth type='x509'><x509><crl policy='strict'/></x509></auth>",
    8,
    '/sectunnel/sa/auth/x509/crl',
    undefined,
    "it does not say which lists; add file='…', or fetch='yes' for those that certificates name",
  ],
  [
    'a policy of OCSP that is none',
    "<auth type='psk'><secret uuid='11111111-2222-3333-4444-555555555501'/></auth>",
    "<auth type='x509'><x509><ocsp policy='always'/></x509></auth>",
    8,
    '/sectunnel/sa/auth/x509/ocsp',
    'always',
    "policy='always': allowed: strict or ifpresent",
  ],
  [
    'an unknown cipher, with those that are known',
    "encryption='aes256gcm16' prf",
    "encryption='aes999' prf",
    10,
    '/sectunnel/sa/ike/proposal[1]',
    "encryption='aes999' prf='sha384' dh='ecp384'",
    "'aes999' is not a known encryption algorithm; allowed in encryption: aes128gcm16,",
  ],
  [
    'a cipher that lacks integrity',
    "encryption='aes256' integrity='sha256' prf",
    "encryption='aes256' prf",
    11,
    '/sectunnel/sa/ike/proposal[2]',
    "encryption='aes256' prf='sha256' dh='x25519'",
    "'aes256' has no integrity of its own and needs an integrity algorithm",
  ],
  [
    'a PRF in ESP',
    "dh='x25519' esn='yes'",
    "prf='sha256' esn='yes'",
    17,
    '/sectunnel/sa/esp/proposal',
    'prf',
    "the attribute prf='sha256' is not known here",
  ],
  [
    'rekeying after the end',
    "soft='13800'",
    "soft='15000'",
    12,
    '/sectunnel/sa/ike/lifetime',
    '15000',
    "rekeying has to begin before the SA ends at hard='14400'",
  ],
  [
    'jitter beyond the lifetime',
    "jitter='300'",
    "jitter='3300'",
    18,
    '/sectunnel/sa/esp/lifetime',
    '3300',
    "it is taken off soft='3300', so it has to be smaller",
  ],
  [
    'a limit of nothing',
    "bytes='107374182400'",
    "bytes='0'",
    18,
    '/sectunnel/sa/esp/lifetime',
    '0',
    'a whole number from 1 is required; leave it out for no limit',
  ],
  [
    'a replay window that is too small',
    "window='1024'",
    "window='63'",
    19,
    '/sectunnel/sa/esp/replay',
    '63',
    "window='63': a whole number from 64 to 65536 is required",
  ],
  ...['575', '65536', '0', 'on'].map(
    (size) =>
      [
        `IKE fragments of ${size} bytes`,
        "<nat traversal='auto'",
        `<fragmentation size='${size}'/><nat traversal='auto'`,
        14,
        '/sectunnel/sa/ike/fragmentation',
        size,
        `size='${size}': a whole number from 576 to 65535 or 'off' is required`,
      ] as const,
  ),
  [
    'a DSCP that is none',
    "<replay window='1024'/>",
    "<outer dscp='64'/>",
    19,
    '/sectunnel/sa/esp/outer',
    '64',
    "dscp='64': 'copy' or a whole number from 0 to 63 is required",
  ],
  [
    'padding to an unknown size',
    "<replay window='1024'/>",
    "<tfc padding='fixed'/>",
    19,
    '/sectunnel/sa/esp/tfc',
    undefined,
    "padding='fixed' does not say to what; add size='…', a number of bytes from 16 to 65535",
  ],
  [
    'padding to a size that pads nothing',
    "<replay window='1024'/>",
    "<tfc padding='multiple' size='4'/>",
    19,
    '/sectunnel/sa/esp/tfc',
    '4',
    "size='4': a whole number from 16 to 65535 is required",
  ],
  [
    'a size without padding to it',
    "<replay window='1024'/>",
    "<tfc padding='mtu' size='1400'/>",
    19,
    '/sectunnel/sa/esp/tfc',
    '1400',
    "size='1400': padding='mtu' needs no size; leave it out, or write padding='multiple' or 'fixed'",
  ],
  [
    'more dummies than are good',
    "<replay window='1024'/>",
    "<tfc dummies='101'/>",
    19,
    '/sectunnel/sa/esp/tfc',
    '101',
    "dummies='101': a whole number from 0 to 100 is required",
  ],
  [
    'certificates where a PSK was said',
    "<secret uuid='11111111-2222-3333-4444-555555555501'/>",
    "<secret uuid='11111111-2222-3333-4444-555555555501'/><x509/>",
    8,
    '/sectunnel/sa/auth/x509',
    undefined,
    "it does not belong to type='psk' (line 8); remove it",
  ],
  [
    'a port that is none',
    "port='179'",
    "port='70000'",
    24,
    '/sectunnel/sp[1]/dst_range',
    '70000',
    "port='70000': 'any', a port from 1 to 65535, or a range of them such as 5000-5010 is required",
  ],
  ['port 0', "port='179'", "port='0'", 24, '/sectunnel/sp[1]/dst_range', '0', "'any', a port from 1 to 65535"],
  [
    'ports in the wrong order',
    "port='179'",
    "port='20-10'",
    24,
    '/sectunnel/sp[1]/dst_range',
    '20-10',
    'the range starts at 20 and ends before, at 10; write 10-20',
  ],
  [
    'a port of a protocol that has none',
    "protocol='tcp'",
    "protocol='icmp'",
    24,
    '/sectunnel/sp[1]/dst_range',
    '179',
    'the protocol icmp has no ports; type and code stand in <upperspec>',
  ],
  [
    'a prefix that is too long',
    "prefixlen='24'",
    "prefixlen='33'",
    29,
    '/sectunnel/sp[2]/src_range',
    '33',
    "prefixlen='33': a whole number from 0 to 32 is required, as 10.1.0.0 is an IPv4 address",
  ],
  [
    'prefix and end',
    "end='10.3.0.31'",
    "end='10.3.0.31' prefixlen='28'",
    31,
    '/sectunnel/sp[2]/dst_range[2]',
    undefined,
    'both prefixlen and end are given',
  ],
  [
    'a range that ends before it starts',
    "end='10.3.0.31'",
    "end='10.3.0.1'",
    31,
    '/sectunnel/sp[2]/dst_range[2]',
    '10.3.0.1',
    'the range ends before it starts; exchange address and end',
  ],
  [
    'a range over two families',
    "end='10.3.0.31'",
    "end='fd00::1'",
    31,
    '/sectunnel/sp[2]/dst_range[2]',
    'fd00::1',
    'address is IPv4 and end is IPv6',
  ],
  [
    'two sides of two families',
    "<src_range address='10.1.0.0' prefixlen='24'/>",
    "<src_range address='fd00::' prefixlen='64'/>",
    29,
    '/sectunnel/sp[2]/src_range',
    'fd00::',
    'this is IPv6, but no <dst_range> is (line 30)',
  ],
  [
    'an empty range',
    "<src_range address='10.1.0.0' prefixlen='24'/>",
    "<src_range address='' prefixlen='24'/>",
    29,
    '/sectunnel/sp[2]/src_range',
    '',
    'the address of a range must not be empty: it would mean every packet',
  ],
  [
    'any with a prefix',
    "<src_range address='10.1.0.0' prefixlen='24'/>",
    "<src_range address='any' prefixlen='24'/>",
    29,
    '/sectunnel/sp[2]/src_range',
    '24',
    "address='any' is every address; leave it out",
  ],
  [
    'a range that is a host name',
    "<src_range address='10.1.0.0' prefixlen='24'/>",
    "<src_range address='example.org'/>",
    29,
    '/sectunnel/sp[2]/src_range',
    'example.org',
    "'example.org' is not an IP address",
  ],
  [
    'an unknown protocol',
    "protocol='tcp'",
    "protocol='tpc'",
    25,
    '/sectunnel/sp[1]/upperspec',
    'tpc',
    "no such protocol is known (did you mean 'tcp'?); allowed: any, a number from 0 to 255",
  ],
  [
    'a type of a protocol that has none',
    "protocol='tcp'",
    "protocol='tcp' type='8'",
    25,
    '/sectunnel/sp[1]/upperspec',
    '8',
    'only icmp and icmpv6 have types and codes, not tcp',
  ],
  [
    'a code without a type',
    "<upperspec protocol='any'/>",
    "<upperspec protocol='icmp' code='1'/>",
    32,
    '/sectunnel/sp[2]/upperspec',
    '1',
    'a code says nothing without its type; add type',
  ],
  [
    'ICMP of the other family',
    "<upperspec protocol='any'/>",
    "<upperspec protocol='icmpv6'/>",
    32,
    '/sectunnel/sp[2]/upperspec',
    'icmpv6',
    'icmpv6 is of IPv6, but the ranges are of IPv4; write icmp',
  ],
  [
    'a priority that is no number',
    "priority='100'",
    "priority='high'",
    22,
    '/sectunnel/sp[1]',
    'high',
    "priority='high': a whole number from -2147483648 to 2147483647 is required",
  ],
  [
    'two policies of one name',
    "name='lan'",
    "name='keep-bgp-clear'",
    28,
    '/sectunnel/sp[2]',
    'keep-bgp-clear',
    'line 22 has an <sp> of this name already; rename one',
  ],
  [
    'elements in another order',
    "<upperspec protocol='tcp'/>",
    "<upperspec protocol='tcp'/><src_range address='10.9.0.0'/>",
    25,
    '/sectunnel/sp[1]/src_range[2]',
    undefined,
    'it stands after <upperspec> (line 25); the order is <src_range>, then <dst_range>, then <upperspec>, then <policy>',
  ],
  [
    'two policies for one direction',
    "<policy direction='both' action='none'/>",
    "<policy direction='both' action='none'/><policy direction='out' action='discard'/>",
    26,
    '/sectunnel/sp[1]/policy[2]',
    'out',
    "direction='out': the policy on line 26 is for direction 'out' already",
  ],
  [
    'a rule where nothing is protected',
    "<policy direction='both' action='none'/>",
    "<policy direction='both' action='discard'><rule protocol='esp' mode='tunnel'/></policy>",
    26,
    '/sectunnel/sp[1]/policy/rule',
    undefined,
    "a policy with action='discard' (line 26) has no rules; remove it, or write action='ipsec'",
  ],
  [
    'protection without a rule',
    "<policy direction='both' action='none'/>",
    "<policy direction='both' action='ipsec'/>",
    26,
    '/sectunnel/sp[1]/policy',
    undefined,
    "a policy with action='ipsec' needs a <rule protocol='esp' mode='tunnel'>; add it",
  ],
  [
    'an unknown level',
    "level='unique'",
    "level='unique:70000'",
    34,
    '/sectunnel/sp[2]/policy/rule',
    'unique:70000',
    'allowed: default, use, require, unique, or unique:N with N from 1 to 65535',
  ],
  [
    'one end point without the other',
    "<dst address='192.0.2.2'/>",
    '',
    34,
    '/sectunnel/sp[2]/policy/rule',
    undefined,
    '<dst> is missing in it; give both end points, or neither to take them from <sa>',
  ],
  [
    'encapsulation on port 500',
    "<src address='192.0.2.1'/>",
    "<src address='192.0.2.1' port='500'/>",
    35,
    '/sectunnel/sp[2]/policy/rule/src',
    '500',
    'which port 500 cannot (RFC 7296 section 2.23); write 4500 or another one',
  ],
  [
    'an end point that is not that of the SA',
    "<src address='192.0.2.1'/>",
    "<src address='192.0.2.9'/>",
    35,
    '/sectunnel/sp[2]/policy/rule/src',
    '192.0.2.9',
    "line 6 says '192.0.2.1' for the same end",
  ],
];

describe('a document that is wrong is refused with line, element, what was found and what to do', () => {
  it.each(PSK_ROWS)('%s', (_, from, to, line, path, found, message) => {
    const error = refusal(change(PSK, from, to));
    expect(error.message.split('\n')[0]).toContain(message);
    expect({ line: error.line, path: error.path, found: error.found, kind: error.kind }).toEqual({
      line,
      path,
      found,
      kind: 'invalid',
    });
    expect(error.message).toMatch(new RegExp(`^t\\.xml:${line}: <${error.element}>: `));
  });

  it.each<readonly [string, string, string, number, string]>([
    [
      'AH',
      "protocol='esp'",
      "protocol='ah'",
      34,
      "t.xml:34: unsupported configuration: <rule>: protocol='ah': AH is not offered; write protocol='esp', which encrypts and authenticates",
    ],
    ['IPComp', "protocol='esp'", "protocol='ipcomp'", 34, "unsupported configuration: <rule>: protocol='ipcomp'"],
    [
      'a bundle of two rules',
      '</rule>',
      "</rule><rule protocol='esp' mode='tunnel'/>",
      37,
      'unsupported configuration: <rule>: a second rule (the first is on line 34)',
    ],
  ])('%s parses, and is unsupported', (_, from, to, line, message) => {
    const error = refusal(change(PSK, from, to));
    const kind: IssueKind = 'unsupported';
    expect({ kind: error.kind, line: error.line }).toEqual({ kind, line });
    expect(error.message).toContain(message);
  });

  it("cannot initiate without the peer's address", () => {
    const nobody = change(
      change(PSK, "<remote address='192.0.2.2'>", '<remote>'),
      "<dst address='192.0.2.2'/>",
      '<dst/>',
    );
    expect(refusal(nobody).message).toBe(
      "t.xml:9: <ike>: start='initiate': the remote end has no address (line 7), so the tunnel cannot initiate; give <remote address='…'>, or write start='respond'",
    );
    expect(parseDocument(change(nobody, "start='initiate'", '')).sa.ike.start).toBe('respond');
  });

  it('transport mode parses', () => {
    const document = parseDocument(change(PSK, "mode='tunnel'", "mode='transport'"));
    expect(document.sps[1]!.policies[0]).toMatchObject({ rule: { mode: 'transport' } });
  });

  it('names everything that is wrong, in order of lines, the first one first', () => {
    const error = refusal(
      change(
        change(change(PSK, "prefixlen='24'", "prefixlen='33'"), "mtu='1400'", "mtu='1'"),
        "window='1024'",
        "window='x'",
      ),
    );
    expect(
      error.issues.map(({ line, element, attribute, found, allowed }) => [line, element, attribute, found, allowed]),
    ).toEqual([
      [4, 'device', 'mtu', '1', 'a whole number from 576 to 65535'],
      [19, 'replay', 'window', 'x', 'a whole number from 64 to 65536'],
      [29, 'src_range', 'prefixlen', '33', 'a whole number from 0 to 32'],
    ]);
    expect(error.message.split('\n')).toHaveLength(3);
    expect([error.line, error.element, error.allowed]).toEqual([4, 'device', 'a whole number from 576 to 65535']);
  });

  it('puts what is invalid before what is only unsupported', () => {
    const error = refusal(
      change(change(PSK, "protocol='esp'", "protocol='ah'"), "<dst address='192.0.2.2'/>", "<dst address='1.2.3'/>"),
    );
    expect(error.issues.map(({ kind, line }) => [kind, line])).toEqual([
      ['invalid', 36],
      ['unsupported', 34],
    ]);
  });

  it('does not list more than twenty issues', () => {
    expect(refusal(`<sectunnel type='ipsec'>${'<x/>'.repeat(500)}</sectunnel>`).issues).toHaveLength(20);
  });

  it('keeps line breaks and long values of a document out of its messages', () => {
    const error = refusal(change(PSK, "level='unique'", `level='a&#10;b&#155;${'x'.repeat(200)}'`));
    expect(error.message).not.toContain('\n');
    expect(error.message).not.toContain('\u009b');
    expect(error.message).toContain(`level='a b ${'x'.repeat(73)}...'`);
  });
});

describe('the flat form', () => {
  it.each<readonly [string, string, string, number, string]>([
    [
      'ranges that do not mirror',
      "<dst_range address='10.1.0.0' prefixlen='30' port='5000'/>",
      "<dst_range address='10.1.0.0' prefixlen='29' port='5000'/>",
      17,
      "the policy direction='in' on line 17 is not the mirror of the policy direction='out' on line 8: src_range of out and dst_range of in differ (10.1.0.0/30 port 5000 and 10.1.0.0/29 port 5000)",
    ],
    [
      'end points that do not mirror',
      "<src address='192.0.2.2' port='55055'/>",
      "<src address='192.0.2.2' port='4500'/>",
      17,
      "line 17 is not the mirror of the policy direction='out' on line 8: dst of the out rule and src of the in rule differ (192.0.2.2 port 55055 and 192.0.2.2 port 4500)",
    ],
    [
      'levels that do not mirror',
      "level='require'",
      "level='unique'",
      17,
      'on line 8: level differ (unique and require)',
    ],
    [
      'an in policy alone',
      "direction='out'",
      "direction='in'",
      8,
      "direction='in': there is no policy with direction='out' that mirrors this one, and SAs come in pairs. Write direction='both', or add the mirror",
    ],
    [
      'a group without upperspec',
      "<upperspec protocol='any'/>",
      '',
      5,
      'the group of policy elements that begins here has no <upperspec>',
    ],
    [
      'a policy without a group',
      "<src_range address='10.1.0.0' prefixlen='30' port='5000'/>",
      "<policy direction='both' action='none'/><src_range address='10.1.0.0' prefixlen='30' port='5000'/>",
      5,
      'no <src_range>, <dst_range> and <upperspec> stand before it',
    ],
    [
      'an sp beside it',
      '</sectunnel>',
      "<sp><src_range address='any'/><dst_range address='any'/><upperspec protocol='any'/><policy direction='both' action='none'/></sp></sectunnel>",
      5,
      'it stands beside <sp>, not in it (the first <sp> is on line 23)',
    ],
    [
      'an SA that forbids what its ports demand',
      "<secret uuid='11111111-2222-3333-4444-555555555501'/>",
      "<secret usage='x'/><sa><ike><nat traversal='off'/></ike></sa>",
      3,
      'the ports 55055 and 55055 are for ESP in UDP, which this forbids; leave traversal out, or the ports',
    ],
    [
      'an SA whose encapsulation its ports contradict',
      "<secret uuid='11111111-2222-3333-4444-555555555501'/>",
      "<secret usage='x'/><sa><ike><nat encapsulation='needed'/></ike></sa>",
      3,
      'the ports 55055 and 55055 are for ESP in UDP, always; leave encapsulation out, or the ports',
    ],
    [
      'another port in the SA',
      "<secret uuid='11111111-2222-3333-4444-555555555501'/>",
      "<secret usage='x'/><sa><local port='4500'/></sa>",
      10,
      "port='55055': line 3 says '4500' for the same end",
    ],
  ])('%s is refused', (_, from, to, line, message) => {
    const error = refusal(change(SEED, from, to));
    expect(error.message.split('\n')[0]).toContain(message);
    expect(error.line).toBe(line);
  });

  it('a document without a policy is refused', () => {
    expect(refusal("<sectunnel type='ipsec'><secret usage='x'/></sectunnel>").message).toBe(
      't.xml:1: <sectunnel>: there is no policy in it; add an <sp> with <src_range>, <dst_range>, <upperspec> and <policy>',
    );
  });
});
