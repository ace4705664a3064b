import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DocumentError } from '../../src/config/errors.ts';
import { parseDocument } from '../../src/config/parse.ts';
import { parseSecret } from '../../src/config/secret.ts';
import { withXml, type XmlNode } from '../../src/config/xml.ts';

const PSK = readFileSync(new URL('../../examples/ex-psk.xml', import.meta.url));
const SEED = readFileSync(new URL('../../examples/ex-seed.xml', import.meta.url));

function load(input: string | Uint8Array): XmlNode {
  return withXml(input, 't.xml', (root) => root);
}

/** The refusal, or `undefined` when the text was accepted. Any other error ends the test. */
function refusal(
  input: string | Uint8Array,
  parse: (xml: string | Uint8Array) => unknown = parseDocument,
): DocumentError | undefined {
  try {
    parse(input);
    return undefined;
  } catch (error) {
    if (error instanceof DocumentError) return error;
    throw error;
  }
}

const DOCTYPE = /a document type declaration \(<!DOCTYPE …>\) is not allowed/;

describe('entities and DTDs', () => {
  const laughs = `<?xml version="1.0"?>
<!DOCTYPE sectunnel [
  <!ENTITY a "${'ha'.repeat(50)}">
  ${'bcdefghij'.replace(/./g, (name) => `<!ENTITY ${name} "${`&${String.fromCharCode(name.charCodeAt(0) - 1)};`.repeat(10)}">`)}
]>
<sectunnel type='ipsec'><description>&j;</description></sectunnel>`;

  it.each<readonly [string, string, number]>([
    ['a billion laughs', laughs, 2],
    [
      'an external entity',
      "<!DOCTYPE s [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><sectunnel><name>&x;</name></sectunnel>",
      1,
    ],
    ['an external DTD', "<!-- a -->\n<?b c?>\n<!DOCTYPE s SYSTEM 'http://192.0.2.1/s.dtd'><sectunnel/>", 3],
    ['a parameter entity', "<!DOCTYPE s [<!ENTITY % p SYSTEM 'file:///etc/passwd'> %p;]><sectunnel/>", 1],
    ['a DTD behind a byte order mark', '\uFEFF<!DOCTYPE s><sectunnel/>', 1],
    ['a DTD behind a comment that looks like its end', '<!-- --><!-- ?> > -->\n\n<!DOCTYPE s><sectunnel/>', 3],
  ])('%s is refused before anything is parsed', (_, xml, line) => {
    for (const input of [xml, Buffer.from(xml)]) {
      for (const parse of [parseDocument, parseSecret]) {
        const error = refusal(input, parse);
        expect(error?.message).toMatch(DOCTYPE);
        expect([error?.kind, error?.line]).toEqual(['malformed', line]);
      }
    }
  });

  it('an undeclared entity is refused', () => {
    expect(refusal('<sectunnel>\n&secret;</sectunnel>')?.message).toBe(
      "line 2: this is not well-formed XML: Entity 'secret' not defined",
    );
  });

  it('the built-in entities and character references are read', () => {
    expect(load("<a b='&lt;&amp;&#x20AC;'>&gt;&apos;&#65;</a>")).toMatchObject({
      attributes: [{ name: 'b', value: '<&€' }],
      children: [">'A"],
    });
  });

  it('includes are not followed', () => {
    const xml =
      "<sectunnel type='ipsec'><xi:include xmlns:xi='http://www.w3.org/2001/XInclude' href='/etc/passwd'/></sectunnel>";
    expect(refusal(xml)?.message).toContain("the element is in the namespace 'http://www.w3.org/2001/XInclude'");
  });

  it('what looks like a DTD inside of a comment or of CDATA is none', () => {
    const xml = '<!-- <!DOCTYPE a> --><a><![CDATA[<!DOCTYPE b>]]><!-- <!DOCTYPE c> --></a>';
    expect(load(xml).children).toEqual(['<!DOCTYPE b>']);
  });
});

describe('bounds', () => {
  it.each<readonly [string, string, RegExp]>([
    ['size', `<a>${'x'.repeat(0x10_0000)}</a>`, /^t\.xml: the document has 1048583 bytes; at most 1048576 are read$/],
    ['size in bytes, not in characters', `<a>${'€'.repeat(400_000)}</a>`, /has 1200007 bytes/],
    ['lines', `<a>${'\n'.repeat(70_000)}</a>`, /^t\.xml: the document has 70001 lines; at most 65535 are read$/],
    ['tags', `<a>${'<b/>'.repeat(30_000)}</a>`, /^t\.xml: the document has 30002 tags; at most 20000 are read$/],
    ['depth', '<a>'.repeat(65) + '</a>'.repeat(65), /^t\.xml:1: elements are nested more than 64 deep$/],
    ['depth that the parser refuses', '<a>'.repeat(5_000) + '</a>'.repeat(5_000), /Excessive depth in document/],
  ])('%s', (_, xml, message) => {
    expect(refusal(xml, load)?.message).toMatch(message);
  });

  it('what is just within them is read', () => {
    expect(load(`<a>${'x'.repeat(0x10_0000 - 7)}</a>`).children[0]).toHaveLength(0x10_0000 - 7);
    expect(refusal('<a>'.repeat(64) + '</a>'.repeat(64), load)).toBeUndefined();
    expect(refusal(`<a>${'<b/>'.repeat(19_998)}</a>`, load)).toBeUndefined();
  });

  it('refuses a policy that would take too long to compile', () => {
    const range = (name: string, net: number): string =>
      Array.from({ length: 64 }, (_, i) => `<${name} address='10.${net}.0.${i}' port='1'/>`).join('');
    const sp = `<sp>${range('src_range', 1)}${range('dst_range', 2)}<upperspec protocol='any'/><policy direction='both' action='discard'/></sp>`;
    expect(refusal(`<sectunnel type='ipsec'>${sp.repeat(6)}</sectunnel>`)).toBeUndefined();
    expect(refusal(`<sectunnel type='ipsec'>${sp.repeat(7)}</sectunnel>`)?.message).toContain(
      'the ranges of all policies make 258048 pairs of source and destination, more than 250000',
    );
  });

  it('reads a thousand policies, and refuses more that are protected than an IKE SA can have', () => {
    const rule = "<rule protocol='esp' mode='tunnel'><src/><dst/></rule>";
    const document = (inside: string): string =>
      `<sectunnel type='ipsec'><secret usage='x'/><sa><local address='192.0.2.1'/><remote address='192.0.2.2'/></sa>${inside}</sectunnel>`;
    const here = (): string => '10.1.0.1';
    const there = (i: number): string => `10.2.${i >> 8}.${i & 255}`;
    const sps = (count: number, src: (i: number) => string, dst: (i: number) => string, policy: string): string =>
      Array.from({ length: count }, (_, i) => {
        const ranges = `<src_range address='${src(i)}'/><dst_range address='${dst(i)}'/><upperspec protocol='udp'/>`;
        return `<sp>${ranges}<policy ${policy}</sp>`;
      }).join('');
    const half = (direction: string): string => `direction='${direction}' action='ipsec'>${rule}</policy>`;
    const both = (count: number): string => sps(count, here, there, half('out')) + sps(count, there, here, half('in'));
    expect(refusal(document(sps(1_024, here, there, "direction='both' action='none'/>")))).toBeUndefined();
    expect(refusal(document(both(256)))).toBeUndefined();
    expect(refusal(document(both(257)))?.message).toContain(
      "257 policies have action='ipsec', and an IKE SA has at most 256 CHILD SAs; give an <sp> more ranges",
    );
  });
});

describe('encodings', () => {
  it('UTF-8 is read, with a byte order mark or without, as text or as bytes', () => {
    for (const text of ['<a>é€😀</a>', '\uFEFF<a>é€😀</a>', "<?xml version='1.0' encoding='UTF-8'?><a>é€😀</a>"]) {
      expect(load(text).children).toEqual(['é€😀']);
      expect(load(Buffer.from(text)).children).toEqual(['é€😀']);
    }
  });

  it.each<readonly [string, string | Uint8Array, string]>([
    [
      'UTF-16, little-endian',
      Buffer.from('\uFEFF<a/>', 'utf16le'),
      't.xml:1: the document is in UTF-16 or UTF-32; save it as UTF-8',
    ],
    ['UTF-16, big-endian', Buffer.from('\uFEFF<a/>', 'utf16le').swap16(), 'the document is in UTF-16 or UTF-32'],
    ['UTF-16 without a mark', Buffer.from('<a/>', 'utf16le'), 'the document is in UTF-16 or UTF-32'],
    [
      'UTF-16 that was read as text',
      '<\0a\0/\0>\0',
      't.xml:1: a NUL character is not allowed in XML; save the document as UTF-8',
    ],
    ['Latin-1', Buffer.from('<a>é</a>', 'latin1'), 't.xml: the document is not valid UTF-8; save it as UTF-8'],
    ['half a character', '<a>\ud83d</a>', 't.xml: the text has half a surrogate pair'],
    [
      'another encoding that is declared',
      "<?xml version='1.0' encoding='ISO-8859-1'?><a/>",
      "t.xml:1: encoding='ISO-8859-1' is declared; only UTF-8 is read. Save the document as UTF-8",
    ],
  ])('%s is refused', (_, input, message) => {
    expect(refusal(input, load)?.message).toContain(message);
  });
});

describe('what is no document', () => {
  it.each<readonly [string, string, string]>([
    ['nothing', '', 'the document is empty'],
    ['only space', ' \n\t ', 'the document is empty'],
    ['only a comment', '<!-- x -->', 'this is not well-formed XML'],
    ['no XML', 'name = value', "line 1: this is not well-formed XML: Start tag expected, '<' not found"],
    ['another element', '<network/>', 'a <sectunnel> in no namespace is required, this is <network>'],
    ['a namespace', "<sectunnel xmlns='urn:x'/>", "this is <sectunnel> in the namespace 'urn:x'"],
    ['a tag that is not closed', "<sectunnel type='ipsec'>\n<sa>\n</sectunnel>", 'line 3: this is not well-formed XML'],
    ['two elements', '<sectunnel/><sectunnel/>', 'Extra content at the end of the document'],
    ['an attribute twice', "<sectunnel type='ipsec' type='ipsec'/>", 'Attribute type redefined'],
    ['a prefix of no namespace', '<x:sectunnel/>', 'Namespace prefix x on sectunnel is not defined'],
  ])('%s is refused', (_, xml, message) => {
    const error = refusal(xml);
    expect(error?.message).toContain(message);
  });

  it('a document that is cut off at any byte is refused, or is whole', () => {
    for (const bytes of [PSK, SEED]) {
      const end = bytes.lastIndexOf('>') + 1;
      for (let length = 0; length < bytes.length; length++) {
        const error = refusal(bytes.subarray(0, length));
        expect(error === undefined, `cut to ${length} bytes`).toBe(length >= end);
      }
    }
  });

  it('bytes that are garbled anywhere lead to a refusal or to a document, and to nothing else', () => {
    const change = fc.tuple(fc.nat(PSK.length - 1), fc.uint8Array({ minLength: 1, maxLength: 4 }));
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 6 }), (changes) => {
        const bytes = Uint8Array.from(PSK);
        for (const [at, garbage] of changes) bytes.set(garbage.subarray(0, bytes.length - at), at);
        refusal(bytes);
        refusal(bytes, parseSecret);
      }),
      { numRuns: 300 },
    );
  });

  it('any bytes and any text are refused, and lead to nothing else', () => {
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 200 }), fc.string({ unit: 'binary' })), (input) => {
        expect(refusal(input)).toBeInstanceOf(DocumentError);
      }),
      { numRuns: 300 },
    );
  });

  it('thousands of refusals do not fill the memory of the parser', () => {
    const before = process.memoryUsage().arrayBuffers;
    for (let i = 0; i < 2_000; i++) {
      refusal('<sectunnel><sa></sectunnel>');
      refusal('<sectunnel><sa/></sectunnel>');
    }
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(8 * 0x10_0000);
  });
});
