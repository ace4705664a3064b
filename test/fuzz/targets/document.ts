/** XML that a person or libvirt wrote: documents of tunnels, of secrets and of networks. */
import { readFileSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import { SectunnelError } from '../../../src/base/error.ts';
import { utf8 } from '../../../src/base/text.ts';
import { dumpDocument } from '../../../src/config/dump.ts';
import { DocumentError } from '../../../src/config/errors.ts';
import { parseDocument } from '../../../src/config/parse.ts';
import { dumpSecret, parseSecret } from '../../../src/config/secret.ts';
import { readNetwork } from '../../../src/libvirt/network.ts';
import { planTunnel } from '../../../src/plan/plan.ts';
import { withoutLines } from '../../config/helpers.ts';
import { holds, type Target, unlessRefused } from '../target.ts';

const UUID = '00000000-0000-4000-8000-000000000001';
const options = { source: 'fuzz.xml', newUuid: () => UUID };
const isDocumentError = (error: unknown): boolean => error instanceof DocumentError && error.message !== '';
const same = (one: unknown, other: unknown): boolean => isDeepStrictEqual(withoutLines(one), withoutLines(other));

async function run(input: Uint8Array): Promise<void> {
  unlessRefused(() => readNetwork(input, 'fuzz.xml'), isDocumentError);
  const secret = unlessRefused(() => parseSecret(input, options), isDocumentError);
  if (secret !== undefined) {
    const dump = dumpSecret(secret);
    holds(same(parseSecret(dump, options), secret), 'the dump of a secret means something else');
  }
  const document = unlessRefused(() => parseDocument(input, options), isDocumentError);
  if (document === undefined) return;
  const dump = dumpDocument(document);
  const again = parseDocument(dump, options);
  holds(same(again, document), 'the dump of a document means something else');
  holds(dumpDocument(again) === dump, 'the dump of a dump is another one');
  try {
    await planTunnel(document);
  } catch (error) {
    if (!(error instanceof SectunnelError) || error.code === 'internal') throw error;
  }
}

const SECRET = `<secret ephemeral='no' private='yes'><uuid>${UUID}</uuid><description>a key</description>
<usage type='tls'><name>sectunnel-key</name></usage></secret>`;
const WORDS = [
  '<sp>',
  '</sp>',
  "action='ipsec'",
  '10.0.0.0/8',
  '::/0',
  '&amp;',
  '&#x0;',
  '<![CDATA[',
  ']]>',
  '<!--',
  'xmlns=',
  '<!DOCTYPE a [<!ENTITY b "c">]>',
  '65536',
  '-1',
  'any',
  "''",
];

export const document: Target = {
  name: 'document',
  shape: 'text',
  maxLength: 16_384,
  tokens: WORDS.map(utf8),
  seeds: () => [
    ...['ex-seed', 'ex-psk', 'ex-x509', 'network'].map((name) => new Uint8Array(readFileSync(`examples/${name}.xml`))),
    utf8(SECRET),
  ],
  run,
};
