import { describe, expect, it } from 'vitest';
import { DocumentError } from '../../src/config/errors.ts';
import { dumpSecret, parseSecret, type SecretDocument } from '../../src/config/secret.ts';

const UUID = '11111111-2222-3333-4444-555555555501';

function refusal(xml: string): DocumentError {
  try {
    parseSecret(xml, { source: 's.xml' });
  } catch (error) {
    if (error instanceof DocumentError) return error;
    throw error;
  }
  throw new Error('the secret was accepted');
}

describe('secrets', () => {
  it("libvirt's form is read", () => {
    const xml = `<secret ephemeral='no' private='yes'>
  <uuid>${UUID.toUpperCase()}</uuid>
  <description>The key of the &lt;seed&gt;</description>
  <usage type='tls'>
    <name>sectunnel:seed</name>
  </usage>
</secret>`;
    expect(parseSecret(xml)).toEqual({
      uuid: UUID,
      ephemeral: false,
      private: true,
      description: 'The key of the <seed>',
      usage: { type: 'tls', name: 'sectunnel:seed' },
    });
  });

  it('everything in it may be left out', () => {
    expect(parseSecret('<secret/>', { newUuid: () => UUID })).toEqual({
      uuid: UUID,
      ephemeral: false,
      private: false,
      description: undefined,
      usage: undefined,
    });
    expect(parseSecret('<secret/>').uuid).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4/);
  });

  it.each<SecretDocument>([
    { uuid: UUID, ephemeral: true, private: true, description: "a & 'b'", usage: { type: 'ipsec', name: 'lan <1>' } },
    { uuid: UUID, ephemeral: false, private: false, description: undefined, usage: undefined },
    { uuid: UUID, ephemeral: false, private: false, description: undefined, usage: { type: 'volume', name: '/v' } },
    { uuid: UUID, ephemeral: false, private: false, description: undefined, usage: { type: 'iscsi', name: 't' } },
  ])('what is dumped is read again: %j', (secret) => {
    expect(parseSecret(dumpSecret(secret))).toEqual(secret);
  });

  it('is laid out as libvirt does it', () => {
    expect(
      dumpSecret({
        uuid: UUID,
        ephemeral: false,
        private: false,
        description: 'key',
        usage: { type: 'ipsec', name: 'lan' },
      }),
    ).toBe(`<secret ephemeral='no' private='no'>
  <uuid>${UUID}</uuid>
  <description>key</description>
  <usage type='ipsec'>
    <name>lan</name>
  </usage>
</secret>
`);
  });

  it.each<readonly [string, string, string]>([
    ['another document', '<sectunnel/>', 's.xml:1: <sectunnel>: a <secret> is required, this is <sectunnel>'],
    [
      'an unknown use',
      "<secret>\n<usage type='luks'><name>x</name></usage></secret>",
      "s.xml:2: <usage>: type='luks': allowed: ipsec, tls,",
    ],
    [
      'a use without a name',
      "<secret>\n<usage type='ipsec'/></secret>",
      "s.xml:2: <usage>: type='ipsec' needs a <name>",
    ],
    [
      'an empty name',
      "<secret><usage type='tls'><name> </name></usage></secret>",
      "type='tls' needs a <name> that is not empty",
    ],
    [
      'the name of another use',
      "<secret><usage type='tls'><volume>/v</volume></usage></secret>",
      "<volume>: it does not belong to type='tls'; write <name>",
    ],
    ['a UUID that is none', '<secret>\n\n<uuid>1-2</uuid></secret>', "s.xml:3: <uuid>: '1-2' is no UUID"],
    ['an unknown flag', "<secret private='maybe'/>", "private='maybe': allowed: yes or no"],
    ['a value in it', '<secret><value>c2VjcmV0</value></secret>', '<value>: it is not known in <secret>'],
  ])('%s is refused', (_, xml, message) => {
    expect(refusal(xml).message).toContain(message);
  });
});
