import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { dumpDocument } from '../../src/config/dump.ts';
import { parseDocument } from '../../src/config/parse.ts';
import { A, B, check, type Edit, edit, lineOf, problemsOf, report, turned } from './helpers.ts';

const UUID = '00000000-0000-4000-8000-000000000001';

describe('documents that fit each other', () => {
  it('will negotiate, and it is said on what', async () => {
    const { code, out } = await check([A, B]);
    expect(code).toBe(0);
    expect(out).toBe(`a.xml and b.xml will negotiate with each other: 1 note

whichever side initiates:
  IKE SA    aes128gcm16-prfsha256-x25519, ESP in UDP
  CHILD SA  'lan': tunnel, aes128gcm16, ESN
            10.1.0.0/24 === 10.2.0.0/24

note: the pre-shared key is not in the documents: both sides must hold the same
  a.xml:6: <auth type='psk'>
  b.xml:6: <auth type='psk'>
`);
  });

  it.each(['ex-psk', 'ex-seed', 'ex-x509'])('the example %s and its other end', async (name) => {
    const xml = readFileSync(new URL(`../../examples/${name}.xml`, import.meta.url), 'utf8');
    const document = parseDocument(xml, { source: `${name}.xml`, newUuid: () => UUID });
    const found = await report(xml, dumpDocument(turned(document)));
    // The seed has ports with any protocol, which is worth a warning by itself.
    expect(problemsOf(found).filter(({ topic }) => topic !== 'document')).toEqual([]);
    expect(found.willNegotiate).toBe(true);
    expect(found.dryRuns[0]).toMatchObject({ ok: true, failures: [] });
  });

  it('settle on what the initiator prefers', async () => {
    const cbc: Edit = ["<proposal encryption='aes128gcm16' prf='sha256' dh='x25519'/>\n", ''];
    const both = "<proposal encryption='aes128' integrity='sha256' prf='sha256' dh='ecp256'/>";
    const other = edit(B, cbc, [both, `${both}<proposal encryption='aes128gcm16' prf='sha256' dh='x25519'/>`]);
    const { code, out } = await check([A, other]);
    expect(code).toBe(0);
    expect(out).toContain('when a.xml initiates:\n  IKE SA    aes128gcm16-prfsha256-x25519');
    expect(out).toContain('when b.xml initiates:\n  IKE SA    aes128-sha256-ecp256,');
  });
});

interface Misfit {
  readonly topic: string;
  readonly level: 'error' | 'warning';
  /** What is changed in B. */
  readonly edits: readonly Edit[];
  readonly message: RegExp;
  /** What stands on the lines that are named, of A and of B. */
  readonly lines: readonly [readonly string[], readonly string[]];
  readonly change?: RegExp;
}

const PROPOSAL = "<proposal encryption='aes128gcm16' prf='sha256' dh='x25519'/>";
const CBC = "<proposal encryption='aes128' integrity='sha256' prf='sha256' dh='ecp256'/>";
const ESP = "<proposal encryption='aes128gcm16' dh='x25519' esn='yes'/>";

const MISFITS: Readonly<Record<string, Misfit>> = {
  'an address': {
    topic: 'address',
    level: 'error',
    edits: [["<local address='192.0.2.2'>", "<local address='192.0.2.7'>"]],
    message: /^a\.xml connects to 192\.0\.2\.2, and b\.xml is at 192\.0\.2\.7$/,
    lines: [['<remote'], ['<local']],
    change: /write 192\.0\.2\.7 in a\.xml, or 192\.0\.2\.2 in b\.xml/,
  },
  'a private address, which a NAT might translate': {
    topic: 'nat',
    level: 'warning',
    edits: [["<local address='192.0.2.2'>", "<local address='10.9.9.9'>"]],
    message: /b\.xml has the private address 10\.9\.9\.9: this works only with a NAT/,
    lines: [['<remote'], ['<local']],
  },
  'a port': {
    topic: 'port',
    level: 'error',
    edits: [["<local address='192.0.2.2'>", "<local address='192.0.2.2' port='55055'>"]],
    message: /a\.xml connects to port 500, and b\.xml listens on port 55055/,
    lines: [['<remote'], ['<local']],
  },
  'the port for NAT traversal': {
    topic: 'port',
    level: 'error',
    edits: [["port='4500'", "port='4501'"]],
    message: /different ports for NAT traversal/,
    lines: [['<nat'], ['<nat']],
  },
  'NAT traversal': {
    topic: 'nat',
    level: 'error',
    edits: [["traversal='auto' port='4500'", "traversal='off'"]],
    message: /a\.xml sends ESP in UDP.*b\.xml has it switched off/,
    lines: [['<nat'], ['<nat']],
    change: /traversal='auto' in b\.xml/,
  },
  'an identity': {
    topic: 'identity',
    level: 'error',
    edits: [["<id type='fqdn'>b.example</id>", "<id type='fqdn'>c.example</id>"]],
    message: /^b\.xml identifies itself as fqdn 'c\.example', and a\.xml expects fqdn 'b\.example'$/,
    lines: [["<id type='fqdn'>b.example"], ["<id type='fqdn'>c.example"]],
    change: /write <id type='fqdn'>c\.example<\/id> in <remote> of a\.xml, or <id type='fqdn'>b\.example<\/id>/,
  },
  'the kind of an identity': {
    topic: 'identity',
    level: 'error',
    edits: [["<id type='fqdn'>b.example</id>", '']],
    message: /b\.xml identifies itself as address '192\.0\.2\.2', and a\.xml expects fqdn 'b\.example'/,
    lines: [["<id type='fqdn'>b.example"], ['<local']],
  },
  'the way to authenticate': {
    topic: 'authentication',
    level: 'error',
    edits: [
      [
        "<auth type='psk'><secret uuid='11111111-2222-3333-4444-555555555501'/></auth>",
        "<auth type='x509'><x509 source='server'/></auth>",
      ],
    ],
    message: /^a\.xml authenticates with a pre-shared key, and b\.xml expects a certificate$/,
    lines: [['<auth'], ['<auth']],
  },
  'the group of IKE': {
    topic: 'ike-proposal',
    level: 'error',
    edits: [
      [PROPOSAL, PROPOSAL.replace('x25519', 'ecp384')],
      [`${CBC}\n`, ''],
    ],
    message: /dh is x25519 in a\.xml and ecp384 in b\.xml$/,
    lines: [[PROPOSAL], ['<proposal']],
    change: /dh='ecp384' in the <proposal> of a\.xml/,
  },
  'the second proposal of IKE, which comes closest': {
    topic: 'ike-proposal',
    level: 'error',
    edits: [
      [PROPOSAL, CBC.replace("'sha256' prf", "'sha512' prf")],
      [`${CBC}\n`, ''],
    ],
    message: /integrity is sha256 in a\.xml and sha512 in b\.xml$/,
    lines: [[CBC], ['<proposal']],
  },
  'the cipher of ESP': {
    topic: 'esp-proposal',
    level: 'error',
    edits: [[ESP, ESP.replace('aes128gcm16', 'aes256gcm16')]],
    message: /the two have no ESP proposal in common: encryption is aes128gcm16 in a\.xml and aes256gcm16 in b\.xml$/,
    lines: [[ESP], ["<proposal encryption='aes256gcm16'"]],
  },
  'extended sequence numbers': {
    topic: 'esp-proposal',
    level: 'error',
    edits: [[ESP, ESP.replace("esn='yes'", "esn='no'")]],
    message: /esn is yes in a\.xml and no in b\.xml/,
    lines: [[ESP], ["esn='no'"]],
  },
  'the group of ESP, which shows at the first rekeying': {
    topic: 'esp-proposal',
    level: 'error',
    edits: [[ESP, ESP.replace("dh='x25519' ", '')]],
    message: /the first CHILD SA comes up.*cannot be rekeyed.*dh is x25519 in a\.xml and none in b\.xml/,
    lines: [[ESP], ["<proposal encryption='aes128gcm16' esn"]],
    change: /dh='x25519' in the <proposal> of b\.xml/,
  },
  'the mode': {
    topic: 'mode',
    level: 'error',
    edits: [["mode='tunnel'", "mode='transport'"]],
    message: /'lan' of a\.xml is in tunnel mode, and 'lan' of b\.xml, for the same packets, in transport mode/,
    lines: [['<rule'], ['<rule']],
  },
  'ranges that do not meet': {
    topic: 'selectors',
    level: 'error',
    edits: [["address='10.2.0.0'", "address='10.7.0.0'"]],
    message:
      /'lan' of a\.xml protects 10\.1\.0\.0\/24 === 10\.2\.0\.0\/24, and no rule of b\.xml protects any of it\nseen from b\.xml.*no address is in both\nb\.xml drops them: none of its policies/,
    lines: [['<rule'], ['<rule']],
    change: /rule of b\.xml: 10\.2\.0\.0\/24 === 10\.1\.0\.0\/24/,
  },
  'ranges of which one is wider': {
    topic: 'selectors',
    level: 'warning',
    edits: [["address='10.2.0.0' prefixlen='24'", "address='10.2.0.0' prefixlen='28'"]],
    message: /'lan' of a\.xml is narrowed to 10\.1\.0\.0\/24 === 10\.2\.0\.0\/28/,
    lines: [['<rule'], ['<rule']],
  },
  'packets that only one side protects': {
    topic: 'one-sided',
    level: 'warning',
    edits: [["address='10.2.0.0' prefixlen='24'", "address='10.2.0.0' prefixlen='25'"]],
    message:
      /a\.xml protects 10\.1\.0\.0\/24 === 10\.2\.0\.128\/25 by 'lan', and b\.xml drops them: none of its policies matches/,
    lines: [['<policy'], []],
  },
  'packets that the other side lets pass': {
    topic: 'one-sided',
    level: 'warning',
    edits: [
      [
        "<sp name='lan'>",
        `<sp name='clear' priority='5'><src_range address='10.2.0.7' prefixlen='32'/><dst_range address='10.1.0.0' prefixlen='24'/>
    <upperspec protocol='tcp'/><policy direction='both' action='none'/></sp>
  <sp name='lan'>`,
      ],
    ],
    message:
      /a\.xml protects 10\.1\.0\.0\/24 tcp === 10\.2\.0\.7 tcp by 'lan', and b\.xml lets them pass in the clear by 'clear'/,
    lines: [['<policy'], ["action='none'"]],
  },
  'a lifetime that the other side always cuts short': {
    topic: 'lifetime',
    level: 'warning',
    edits: [["<lifetime soft='500' hard='600' jitter='50'/>", "<lifetime soft='5000' hard='6000' jitter='50'/>"]],
    message: /b\.xml rekeys CHILD SAs after 4950 s.*a\.xml ends them at 600 s.*rekeys them, at 500 s/,
    lines: [["<lifetime soft='500'"], ["<lifetime soft='5000'"]],
  },
  'no side that initiates': {
    topic: 'start',
    level: 'error',
    edits: [["start='trap'", "start='respond'"]],
    message: /each waits for the other to initiate/,
    lines: [['<ike'], ['<ike']],
  },
};

describe('a misfit', () => {
  it.each(Object.entries(MISFITS))('%s', async (name, { topic, level, edits, message, lines, change }) => {
    const a = topic === 'start' ? edit(A, ["start='trap'", "start='respond'"]) : A;
    const b = edit(B, ...edits);
    const found = await report(a, b);
    const finding = found.findings.find((one) => one.topic === topic && message.test(one.message));
    expect(finding, `${name}: ${JSON.stringify(found.findings, null, 1)}`).toBeDefined();
    expect(finding!.level).toBe(level);
    expect(finding!.places.map(({ side, line }) => `${side}${line}`).sort()).toEqual(
      [...lines[0].map((text) => `a${lineOf(a, text)}`), ...lines[1].map((text) => `b${lineOf(b, text)}`)].sort(),
    );
    if (change !== undefined) expect(finding!.change).toMatch(change);
    expect(found.willNegotiate).toBe(level === 'warning');
    expect((await check([a, b])).code).toBe(level === 'warning' ? 0 : 1);
    expect(found.findings.some((one) => one.topic === 'negotiation')).toBe(false);
  });

  it('is reported with file and line, as by compilers', async () => {
    const { out } = await check([A, edit(B, ['b.example', 'c.example'])]);
    expect(out).toContain(`a.xml and b.xml will NOT negotiate with each other: 1 error, 1 note

error: b.xml identifies itself as fqdn 'c.example', and a.xml expects fqdn 'b.example'
  b.xml:4: <id type='fqdn'>c.example</id>
  a.xml:5: <id type='fqdn'>b.example</id>
  to change: `);
  });

  it('a name that matches no <allow>', async () => {
    const signed = (xml: string, allowed: string): string =>
      edit(
        xml,
        [
          "<auth type='psk'><secret uuid='11111111-2222-3333-4444-555555555501'/></auth>",
          `<auth type='x509'><x509 source='server'><allow dn='O=Else,CN=*'/><allow dn='${allowed}'/></x509></auth>`,
        ],
        ["<id type='fqdn'>a.example</id>", "<id type='dn'>O=TVD,CN=a.example</id>"],
      );
    expect((await report(signed(A, '*'), signed(B, 'O=TVD,CN=*.example'))).willNegotiate).toBe(true);
    const b = signed(B, 'O=TVD,CN=b*');
    const found = await report(signed(A, '*'), b);
    expect(found.willNegotiate).toBe(false);
    const [finding, ...others] = problemsOf(found);
    expect(others).toEqual([]);
    expect(finding!.message).toBe(
      "a.xml identifies itself as dn 'O=TVD,CN=a.example', which matches no <allow> of b.xml",
    );
    expect(finding!.places.map(({ side, line }) => `${side}${line}`)).toEqual(['a4', 'b6', 'b6']);
  });

  it('keeps names and certificates that cannot be looked at here for notes', async () => {
    const named = edit(A, ["<remote address='192.0.2.2'>", "<remote address='gw.example'>"]);
    const found = await report(named, B);
    expect(found.willNegotiate).toBe(true);
    expect(found.findings.map(({ level, topic }) => `${level} ${topic}`)).toContain('note address');
  });
});

describe('the comparison and the negotiation', () => {
  /** Each changes what one side wants. */
  const EDITS: readonly (readonly Edit[])[] = [
    [],
    [[`${CBC}\n`, '']],
    [[`${PROPOSAL}\n`, '']],
    [["prf='sha256' dh='x25519'", "prf='sha384' dh='x25519'"]],
    [[ESP, ESP.replace('aes128gcm16', 'aes256gcm16')]],
    [[ESP, ESP.replace("esn='yes'", "esn='no'")]],
    [[ESP, ESP.replace(" esn='yes'", '')]],
    [["<id type='fqdn'>b.example</id>", '']],
    [["<id type='fqdn'>a.example</id>", '']],
    [["address='10.2.0.0' prefixlen='24'", "address='10.2.0.0' prefixlen='16'"]],
    [["address='10.1.0.0' prefixlen='24'", "address='10.9.0.0' prefixlen='24'"]],
    [["<upperspec protocol='any'/>", "<upperspec protocol='udp'/>"]],
    [["<upperspec protocol='any'/>", "<upperspec protocol='tcp'/>"]],
    [["traversal='auto' port='4500'", "traversal='auto' encapsulation='needed'"]],
    [["traversal='auto' port='4500'", "traversal='off'"]],
  ];

  it('come to the same, whatever the documents say', async () => {
    const edits = fc.array(fc.constantFrom(...EDITS), { maxLength: 2 });
    const spoil = (xml: string, chosen: readonly (readonly Edit[])[]): string | undefined => {
      try {
        return edit(xml, ...chosen.flat());
      } catch {
        return undefined;
      }
    };
    await fc.assert(
      fc.asyncProperty(edits, edits, async (forA, forB) => {
        const [a, b] = [spoil(A, forA), spoil(B, forB)];
        fc.pre(a !== undefined && b !== undefined);
        const found = await report(a, b);
        const negotiated = found.dryRuns.every(({ ok }) => ok);
        expect(found.willNegotiate, JSON.stringify(found, null, 1)).toBe(negotiated);
        expect(found.findings.filter(({ topic }) => topic === 'negotiation')).toEqual([]);
      }),
      { numRuns: 30 },
    );
  });
});
