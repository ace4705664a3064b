import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { dumpDocument } from '../../src/config/dump.ts';
import { DocumentError } from '../../src/config/errors.ts';
import type { SectunnelDocument } from '../../src/config/model.ts';
import { parseDocument } from '../../src/config/parse.ts';
import { withoutLines } from './helpers.ts';

const SEED = readFileSync(new URL('../../examples/ex-seed.xml', import.meta.url), 'utf8');
const RULE = "<rule protocol='esp' mode='tunnel'/>";
const SP = `<sp><src_range address='10.1.0.0' prefixlen='24'/><dst_range address='10.2.0.0' prefixlen='24'/><upperspec protocol='any'/><policy direction='both' action='ipsec'>${RULE}</policy></sp>`;

function parse(content: string): SectunnelDocument {
  return parseDocument(`<sectunnel type='ipsec'>${content}</sectunnel>`);
}

function group(src: string, dst: string, direction: string, policy: string): string {
  return `<src_range address='${src}'/><dst_range address='${dst}'/><upperspec protocol='any'/><policy direction='${direction}' ${policy}</policy>\n`;
}

describe('names', () => {
  it('a document without a UUID gets one, made from its name', () => {
    const asked: (string | undefined)[] = [];
    const newUuid = (name: string | undefined): string => {
      asked.push(name);
      return '01234567-89ab-4def-8123-456789abcdef';
    };
    const xml = `<sectunnel type='ipsec'><secret usage='k'/>${SP}</sectunnel>`;
    expect(parseDocument(xml, { newUuid })).toMatchObject({
      name: 'tunnel-01234567',
      uuid: '01234567-89ab-4def-8123-456789abcdef',
    });
    expect(parseDocument(xml, { newUuid, source: '/etc/some/lan-1.xml' }).name).toBe('lan-1');
    expect(parseDocument(xml, { newUuid, source: '(standard input)' }).name).toBe('tunnel-01234567');
    expect(parseDocument(xml.replace('<secret', '<name>given</name><secret'), { newUuid, source: 'x.xml' }).name).toBe(
      'given',
    );
    expect(asked).toEqual([undefined, 'lan-1', undefined, 'given']);
  });

  it('a random UUID is of version 4', () => {
    expect(parse(`<secret usage='k'/>${SP}`).uuid).toMatch(
      /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
    );
  });

  it('a UUID is written in one way', () => {
    expect(parse(`<uuid> 7E5F1C8E6D0E4B7E9A550C3F2F6D1A10\n</uuid><secret usage='k'/>${SP}`).uuid).toBe(
      '7e5f1c8e-6d0e-4b7e-9a55-0c3f2f6d1a10',
    );
  });

  it.each([
    ['lan', 'stun-lan'],
    ['ten-chars-', 'stun-ten-chars-'],
    ['eleven-char', 'stun-7DLTA8A3G4'],
    ['a+b', 'stun-7DLTA8A3G4'],
  ])('the device of %s is called %s', (name, device) => {
    const doc = parse(`<name>${name}</name><uuid>7e5f1c8e-6d0e-4b7e-9a55-0c3f2f6d1a10</uuid><secret usage='k'/>${SP}`);
    expect(doc.device.name).toBe(device);
  });

  it('policies without a name are numbered around those that have one', () => {
    const named = SP.replace('<sp>', "<sp name='sp1'>");
    expect(parse(`<secret usage='k'/>${SP}${named}${SP}`).sps.map(({ name }) => name)).toEqual(['sp2', 'sp1', 'sp3']);
  });
});

describe('defaults', () => {
  it('stand in the document', () => {
    const { sa, device } = parse(`<secret usage='k'/><sa><remote address='gw.example.org'/></sa>${SP}`);
    expect(device).toMatchObject({
      mtu: undefined,
      routes: 'auto',
      ipv6: 'pass',
      table: undefined,
      netns: undefined,
      vrf: undefined,
    });
    expect(sa.local).toMatchObject({ address: { kind: 'any' }, port: 500, id: undefined });
    expect(sa.remote).toMatchObject({
      address: { kind: 'fqdn', name: 'gw.example.org' },
      port: 500,
      id: { type: 'fqdn', text: 'gw.example.org' },
    });
    expect(sa.ike).toMatchObject({
      version: 2,
      start: 'trap',
      lifetime: { soft: 13_800, hard: 14_400, jitter: 600 },
      dpd: { interval: 30, action: 'trap' },
      fragmentSize: 1280,
      nat: { traversal: 'auto', encapsulation: 'always', port: 4500, keepalive: 20 },
    });
    expect(sa.esp).toMatchObject({ lifetime: { soft: 3_300, hard: 3_600, jitter: 300 }, replayWindow: 1024 });
    expect(sa.esp).toMatchObject({ dscp: undefined, tfc: { padding: 'none', size: undefined, dummies: 0 } });
    const algorithms = [...sa.ike.proposals, ...sa.esp.proposals].flatMap(({ encryption, integrity, dh }) => [
      ...encryption,
      ...integrity,
      ...dh,
    ]);
    expect(algorithms.filter(({ weak }) => weak)).toEqual([]);
  });

  it.each<readonly [string, string, string]>([
    ["<remote address='192.0.2.2'/>", 'trap', 'trap'],
    ["<remote address='192.0.2.2'/><ike start='initiate'/>", 'initiate', 'restart'],
    ["<remote address='any'/>", 'respond', 'clear'],
    ["<remote address='192.0.2.2'/><ike start='initiate'><dpd action='clear'/></ike>", 'initiate', 'clear'],
  ])('%s: start %s, dead peer %s', (sa, start, action) => {
    expect(parse(`<secret usage='k'/><sa>${sa}</sa>${SP}`).sa.ike).toMatchObject({ start, dpd: { action } });
  });

  it.each<readonly [string, number]>([
    ["group='aws'", 100],
    ["group='aws' preference='0'", 0],
    ["group='aws' preference='255'", 255],
  ])('redundancy with %s', (attributes, preference) => {
    const { sa } = parse(`<secret usage='k'/><sa><redundancy ${attributes}/></sa>${SP}`);
    expect(sa.redundancy).toMatchObject({ group: 'aws', preference });
  });

  it.each<readonly [string, number]>([
    ['off', 0],
    ['576', 576],
    ['65535', 65_535],
  ])('IKE messages may go in packets of %s bytes', (size, fragmentSize) => {
    const { sa } = parse(`<secret usage='k'/><sa><ike><fragmentation size='${size}'/></ike></sa>${SP}`);
    expect(sa.ike).toMatchObject({ fragmentSize });
  });

  it.each<readonly [string, { soft: number; hard: number; jitter: number }]>([
    ["hard='7200'", { soft: 6600, hard: 7200, jitter: 600 }],
    ["soft='6600'", { soft: 6600, hard: 7200, jitter: 600 }],
    ["soft='3' hard='5'", { soft: 3, hard: 5, jitter: 1 }],
    ["soft='1' hard='2'", { soft: 1, hard: 2, jitter: 0 }],
    ["hard='7200' jitter='0'", { soft: 6600, hard: 7200, jitter: 0 }],
  ])('a lifetime with %s is completed in proportion', (attributes, lifetime) => {
    expect(parse(`<secret usage='k'/><sa><esp><lifetime ${attributes}/></esp></sa>${SP}`).sa.esp.lifetime).toEqual({
      ...lifetime,
      bytes: undefined,
      packets: undefined,
    });
  });

  it('no identity is made up where certificates have one', () => {
    const auth =
      "<auth type='x509' side='local'><x509/></auth><auth type='psk' side='remote'><secret usage='k'/></auth>";
    const { sa } = parse(`<sa><local address='192.0.2.1'/><remote address='192.0.2.2'/>${auth}</sa>${SP}`);
    expect(sa.local.id).toBeUndefined();
    expect(sa.remote.id).toEqual({ type: 'address', text: '192.0.2.2' });
    expect(sa.auths.map(({ type, side }) => [type, side])).toEqual([
      ['x509', 'local'],
      ['psk', 'remote'],
    ]);
  });
});

describe('revocation', () => {
  const none = { crl: undefined, ocsp: undefined };
  it.each<readonly [string, object]>([
    ['', none],
    ["<crl file='/l'/>", { ...none, crl: { file: '/l', fetch: false, policy: 'ifpresent' } }],
    ["<crl file='/l' fetch='no' policy='strict'/>", { ...none, crl: { file: '/l', fetch: false, policy: 'strict' } }],
    ["<crl fetch='yes'/>", { ...none, crl: { file: undefined, fetch: true, policy: 'ifpresent' } }],
    ["<crl fetch='yes' file='/l'/>", { ...none, crl: { file: '/l', fetch: true, policy: 'ifpresent' } }],
    ['<ocsp/>', { ...none, ocsp: { policy: 'ifpresent' } }],
    ["<ocsp policy='strict'/>", { ...none, ocsp: { policy: 'strict' } }],
  ])('is asked for over the network only where %s says so', (elements, expected) => {
    const document = parse(`<sa><auth type='x509'><x509>${elements}</x509></auth></sa>${SP}`);
    expect(document.sa.auths).toMatchObject([{ x509: expected }]);
    expect(parseDocument(dumpDocument(document)).sa.auths).toMatchObject([{ x509: expected }]);
  });
});

describe('NAT traversal', () => {
  it.each([
    ['', 'auto', 'always', "traversal='auto' encapsulation='always'"],
    ["traversal='auto'", 'auto', 'always', "traversal='auto' encapsulation='always'"],
    ["encapsulation='needed'", 'auto', 'needed', "traversal='auto' encapsulation='needed'"],
    ["traversal='force' encapsulation='always'", 'force', 'always', "traversal='force' port="],
    ["traversal='off'", 'off', 'never', "traversal='off' port="],
  ])('of <nat %s/> says when ESP goes in UDP', (attributes, traversal, encapsulation, dumped) => {
    const document = parse(`<secret usage='k'/><sa><ike><nat ${attributes}/></ike></sa>${SP}`);
    expect(document.sa.ike.nat).toMatchObject({ traversal, encapsulation });
    expect(dumpDocument(document)).toContain(`<nat ${dumped}`);
    expect(parseDocument(dumpDocument(document)).sa.ike.nat).toEqual(document.sa.ike.nat);
  });
});

describe('end points', () => {
  const withEnds = (ends: string): string => SP.replace(RULE, RULE.replace('/>', `>${ends}</rule>`));

  it('an empty address or any takes that of the SA, as in the seed', () => {
    for (const address of ["address=''", "address='any'", '']) {
      const ends = `<src ${address} port='55055'/><dst ${address} port='55056'/>`;
      const { sa } = parse(
        `<secret usage='k'/><sa><local address='192.0.2.1'/><remote address='192.0.2.2'/></sa>${withEnds(ends)}`,
      );
      expect(sa.local).toMatchObject({ address: { kind: 'ip' }, port: 55055 });
      expect(sa.remote).toMatchObject({ address: { kind: 'ip' }, port: 55056 });
      expect(sa.ike.nat.traversal).toBe('force');
    }
  });

  it('where only one end has a port of its own the other has 4500', () => {
    const { sa } = parse(
      `<secret usage='k'/>${withEnds("<src address='192.0.2.1' port='55055'/><dst address='192.0.2.2'/>")}`,
    );
    expect([sa.local.port, sa.remote.port, sa.ike.nat.traversal]).toEqual([55055, 4500, 'force']);
  });

  it('IPv6 ends are written in one way', () => {
    const { sa } = parse(
      `<secret usage='k'/>${withEnds("<src address='2001:DB8:0::1'/><dst address='2001:db8::2'/>")}`,
    );
    expect(sa.local.id).toEqual({ type: 'address', text: '2001:db8::1' });
  });
});

describe('in and out', () => {
  const ipsec = (out: boolean): string =>
    `action='ipsec'><rule protocol='esp' mode='tunnel'><src address='192.0.2.${out ? 1 : 2}'/><dst address='192.0.2.${out ? 2 : 1}'/></rule>`;
  const secret = "<secret usage='k'/>\n";

  it('pairs are joined, each with its mirror, wherever that stands', () => {
    const out = [group('10.1.0.1', '10.2.0.1', 'out', ipsec(true)), group('10.1.0.2', '10.2.0.2', 'out', ipsec(true))];
    const into = [group('10.2.0.1', '10.1.0.1', 'in', ipsec(false)), group('10.2.0.2', '10.1.0.2', 'in', ipsec(false))];
    const reference = withoutLines({
      ...parse(secret + out[0] + into[0] + out[1] + into[1]),
      uuid: '',
      name: '',
      device: '',
    });
    for (const order of [
      out[0]! + out[1]! + into[0]! + into[1]!,
      into[0]! + into[1]! + out[0]! + out[1]!,
      out[0]! + out[1]! + into[1]! + into[0]!,
    ]) {
      const document = parse(secret + order);
      expect(document.sps.map(({ policies }) => policies.map(({ direction }) => direction))).toEqual([
        ['both'],
        ['both'],
      ]);
      expect(withoutLines({ ...document, uuid: '', name: '', device: '' })).toEqual(reference);
    }
  });

  it('the full form may be written out too, with ranges in any order and the name on either half', () => {
    const half = (name: string, direction: string, ranges: string, out: boolean): string =>
      `<sp ${name}>${ranges}<upperspec protocol='tcp'/><policy direction='${direction}' ${ipsec(out)}</policy></sp>`;
    const document = parse(
      secret +
        half(
          '',
          'out',
          "<src_range address='10.1.0.1'/><src_range address='10.1.0.3'/><dst_range address='10.2.0.1' port='80'/>",
          true,
        ) +
        half(
          "name='web'",
          'in',
          "<src_range address='10.2.0.1' port='80'/><dst_range address='10.1.0.3'/><dst_range address='10.1.0.1'/>",
          false,
        ),
    );
    expect(document.sps).toHaveLength(1);
    expect(document.sps[0]).toMatchObject({ name: 'web', policies: [{ direction: 'both' }] });
  });

  it('what is not protected may have one direction', () => {
    const document = parse(
      secret +
        group('10.1.0.1', '10.2.0.1', 'out', "action='none'>") +
        group('10.2.0.1', '10.1.0.1', 'in', "action='discard'>"),
    );
    expect(document.sps.map(({ policies }) => policies[0])).toMatchObject([
      { direction: 'out', action: 'none' },
      { direction: 'in', action: 'discard' },
    ]);
  });

  it('a pair in one sp is no mirror: the source of both would be the same', () => {
    const both = `<policy direction='out' ${ipsec(true)}</policy><policy direction='in' ${ipsec(false)}</policy>`;
    const sp = `<sp><src_range address='10.1.0.1'/><dst_range address='10.2.0.1'/><upperspec protocol='any'/>${both}</sp>`;
    expect(() => parse(secret + sp)).toThrow(
      "line 2: <policy>: the policy direction='in' on line 2 is not the mirror of the policy direction='out' on line 2: src_range of out and dst_range of in differ (10.1.0.1 and 10.2.0.1). Make them mirror each other, or write one policy with direction='both'",
    );
  });

  it('an order that joining would change is refused, unless it does not matter', () => {
    const out = group('10.1.0.1', '10.2.0.1', 'out', ipsec(true));
    const into = group('10.2.0.1', '10.1.0.1', 'in', ipsec(false));
    const drop = (src: string): string => group(src, '10.1.0.1', 'in', "action='discard'>");
    expect(() => parse(secret + out + drop('10.2.0.1') + into)).toThrow(DocumentError);
    expect(() => parse(secret + out + drop('10.2.0.1') + into)).toThrow(
      'the inbound policies on lines 4 and 3 speak of the same packets, but stand in another order than their outbound mirrors',
    );
    expect(parse(secret + out + drop('10.9.0.1') + into).sps).toHaveLength(2);
    expect(parse(secret + drop('10.2.0.1') + out + into).sps).toHaveLength(2);
    expect(parse(secret + out + into + drop('10.2.0.1')).sps).toHaveLength(2);
  });

  it('the seed and its peer are each other with the ends exchanged', () => {
    const swap = (text: string): string =>
      text.replace(/10\.1\.0\.0|10\.2\.0\.0|192\.0\.2\.1|192\.0\.2\.2/g, (address) =>
        address.startsWith('10') ? `10.${address[3] === '1' ? 2 : 1}.0.0` : `192.0.2.${address.endsWith('1') ? 2 : 1}`,
      );
    const [here, there] = [parseDocument(SEED), parseDocument(swap(SEED))];
    expect(there.sa.local.address).toEqual(here.sa.remote.address);
    expect(there.sps[0]!.srcRanges).toEqual(here.sps[0]!.dstRanges);
    expect(there.sps[0]!.dstRanges).toEqual(here.sps[0]!.srcRanges);
  });
});

describe('metadata', () => {
  const secret = "<secret usage='k'/>";

  it('is kept as XML that stands for itself', () => {
    const xml = `<sectunnel type='ipsec' xmlns:a='urn:a' xmlns:b='urn:b'><metadata>
      <a:one b:x='1' y='&lt;&#10;"&apos;'><a:two>  text &amp; <![CDATA[<more>]]></a:two><three xmlns='urn:d'><four/></three></a:one>
      <other xmlns='urn:e'/>
    </metadata>${secret}${SP}</sectunnel>`;
    const document = parseDocument(xml);
    expect(document.metadata).toEqual([
      "<a:one xmlns:a='urn:a' xmlns:b='urn:b' b:x='1' y='&lt;&#10;\"&apos;'><a:two>  text &amp; &lt;more&gt;</a:two><three xmlns='urn:d'><four/></three></a:one>",
      "<other xmlns='urn:e'/>",
    ]);
    const dump = dumpDocument(document);
    expect(dump).toContain("  <metadata>\n    <a:one xmlns:a='urn:a'");
    expect(parseDocument(dump).metadata).toEqual(document.metadata);
  });

  it.each<readonly [string, string]>([
    ['<x/>', 'elements of <metadata> need a namespace of their own'],
    [
      "<a:x xmlns:a='urn:a'/><a:y xmlns:a='urn:a'/>",
      "has an element in the namespace 'urn:a' already; put both into one",
    ],
    ['text', 'there is text in it outside of any element'],
  ])('%s is refused', (content, message) => {
    expect(() => parse(`<metadata>${content}</metadata>${secret}${SP}`)).toThrow(message);
  });
});

describe('dump', () => {
  it('escapes what has to be escaped', () => {
    const title = 'A & B <c> "d" \'e\'';
    const escaped = 'A &amp; B &lt;c&gt; "d" \'e\'';
    const document = parse(
      `<title>${escaped}</title><description>one\ntwo &#13;three</description><secret usage='a&apos;&lt;&#9;b'/>${SP}`,
    );
    expect(document.title).toBe(title);
    expect(document.description).toBe('one\ntwo \rthree');
    const dump = dumpDocument(document);
    expect(dump).toContain(`\n  <title>A &amp; B &lt;c&gt; "d" 'e'</title>\n`);
    expect(dump).toContain("<secret usage='a&apos;&lt;&#9;b'/>");
    expect(withoutLines(parseDocument(dump))).toEqual(withoutLines(document));
  });

  it('writes the seed out in the full form', () => {
    const dump = dumpDocument(parseDocument(SEED, { source: 'seed.xml' }));
    expect(dump).toContain(`  <sp name='sp1' priority='0'>
    <src_range address='10.1.0.0' prefixlen='30' port='5000'/>
    <dst_range address='10.2.0.0' prefixlen='30' port='5000'/>
    <upperspec protocol='any'/>
    <policy direction='both' action='ipsec'>
      <rule protocol='esp' mode='tunnel' level='require'>
        <src address='192.0.2.1' port='55055'/>
        <dst address='192.0.2.2' port='55055'/>
      </rule>
    </policy>
  </sp>
</sectunnel>
`);
    expect(dump).toContain(`  <sa>
    <local address='192.0.2.1' port='55055'>
      <id type='address'>192.0.2.1</id>
    </local>
`);
  });

  it('never has the sequence number choice lost', () => {
    for (const [encryption, esn] of [
      ["'aes128gcm16'", [true, false]],
      ["'aes128gcm16' esn='yes'", [true]],
      ["'aes128gcm16' esn='no'", [false]],
      ["'aes128gcm16-x25519-noesn-esn'", [false, true]],
    ] as const) {
      const document = parse(`<secret usage='k'/><sa><esp><proposal encryption=${encryption}/></esp></sa>${SP}`);
      expect(document.sa.esp.proposals[0]!.esn).toEqual(esn);
      expect(parseDocument(dumpDocument(document)).sa.esp.proposals).toEqual(document.sa.esp.proposals);
    }
  });
});
