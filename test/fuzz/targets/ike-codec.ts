/**
 * IKE messages whose sender has the keys: what is inside SK and SKF, which strangers do not reach. An input is how it is sent
 * (whole, in fragments, without protection), the suite, the exchange, the type of the first payload, and the content.
 */
import { isDeepStrictEqual } from 'node:util';
import { ByteWriter, concatBytes, DecodeError } from '../../../src/base/bytes.ts';
import { encryptionByName, integrityByName } from '../../../src/crypto/algorithms.ts';
import { nodeProvider } from '../../../src/crypto/node/provider.ts';
import type { PacketCipher } from '../../../src/crypto/types.ts';
import { openPart, sealPart } from '../../../src/ike/protect/protect.ts';
import { FragmentBudget, Reassembly } from '../../../src/ike/protect/reassembly.ts';
import { decodeMessage, encodePlain, type IkeHeader } from '../../../src/ike/wire/message.ts';
import { decodePayloads, encodePayloads, type Payload } from '../../../src/ike/wire/payload.ts';
import { checkRules } from '../../../src/ike/wire/rules.ts';
import { counting, samplePayloads, someHeader } from '../../ike/arbitraries.ts';
import { holds, type Target, unlessRefused } from '../target.ts';

const PREFIX = 4;
/** Above it the content is a datagram of its own. */
const MAX_FRAGMENTS = 8;
const RAW = 0xff;

const CIPHERS: readonly PacketCipher[] = [
  cipher('aes128gcm16'),
  cipher('aes128', 'sha256'),
  cipher('aes192ctr', 'aesxcbc'),
];

function cipher(encryption: string, integrity?: string): PacketCipher {
  const suite = {
    encryption: encryptionByName(encryption)!,
    integrity: integrity === undefined ? undefined : integrityByName(integrity)!,
  };
  return nodeProvider.packetCipher(suite, {
    encryption: counting(suite.encryption.keyLength + suite.encryption.saltLength),
    integrity: counting(suite.integrity?.keyLength ?? 0),
  });
}

const isDecodeError = (error: unknown): boolean => error instanceof DecodeError;

function run(input: Uint8Array): void {
  const [how = 0, suite = 0, exchange = 0, firstPayload = 0] = input;
  const content = input.subarray(PREFIX);
  if (how === RAW) {
    const plain = unlessRefused(() => decodeMessage(content), isDecodeError);
    if (plain !== undefined) examine({ ...plain.header, encrypted: false }, plain.payloads);
    return;
  }
  const header: IkeHeader = { ...someHeader, exchange, response: (suite & 0x80) !== 0, messageId: 1 };
  const total = how % (MAX_FRAGMENTS + 1);
  const by = CIPHERS[(suite & 0x7f) % CIPHERS.length]!;
  const payloads = unlessRefused(
    () =>
      total === 0
        ? whole(header, firstPayload, content, by)
        : inFragments(header, firstPayload, content, { by, total }),
    isDecodeError,
  );
  if (payloads !== undefined) examine({ ...header, encrypted: true }, payloads);
}

function whole(header: IkeHeader, firstPayload: number, content: Uint8Array, by: PacketCipher): readonly Payload[] {
  const sealed = sealPart(header, { firstPayload, content }, by, 1);
  const before = sealed.slice();
  const opened = openPart(sealed, decodeMessage(sealed).protectedPart!, by);
  holds(opened !== undefined, 'what was sealed is not opened');
  holds(isDeepStrictEqual(sealed, before), 'the datagram was changed');
  return decodePayloads(opened.message, opened.start, opened.end, firstPayload).payloads;
}

function inFragments(
  header: IkeHeader,
  firstPayload: number,
  content: Uint8Array,
  { by, total }: { readonly by: PacketCipher; readonly total: number },
): readonly Payload[] {
  const budget = new FragmentBudget();
  const reassembly = new Reassembly(budget);
  const size = Math.ceil(content.length / total);
  for (let number = total; number >= 1; number--) {
    const place = { number, total };
    const piece = content.subarray((number - 1) * size, number * size);
    const sealed = sealPart(
      header,
      { firstPayload: number === 1 ? firstPayload : 0, content: piece, place },
      by,
      number,
    );
    const part = decodeMessage(sealed).protectedPart!;
    holds(reassembly.judge(header, part.fragment!) === 'new', 'a new fragment is not called new');
    const opened = openPart(sealed, part, by)!;
    const bytes = opened.message.subarray(opened.start, opened.end);
    const joined = reassembly.add(header, part.fragment!, part.firstPayload, bytes, sealed);
    holds((number === 1) === (joined !== undefined), 'a message is whole before its last fragment, or not with it');
    if (joined === undefined || joined === 'full') continue;
    holds(isDeepStrictEqual(joined.content, concatBytes(content)), 'fragments are not put together as they were');
    holds(budget.held === 0, 'the budget is not given back');
    return decodePayloads(joined.content, 0, joined.content.length, joined.firstPayload).payloads;
  }
  throw new Error('fragments never come to a message');
}

function examine(header: IkeHeader & { readonly encrypted: boolean }, payloads: readonly Payload[]): void {
  checkRules(header, payloads);
  if (payloads.some(losesSomething)) return;
  const writer = new ByteWriter(64);
  const first = encodePayloads(writer, payloads);
  const bytes = writer.finish();
  const again = decodePayloads(bytes, 0, bytes.length, first).payloads;
  holds(isDeepStrictEqual(again, payloads), 'decoding, encoding and decoding again does not give the same payloads');
  const second = new ByteWriter(64);
  encodePayloads(second, again);
  holds(isDeepStrictEqual(second.finish(), bytes), 'encoding twice does not give the same bytes');
}

/** What we do not know is passed over and counted, so it cannot be written again. */
function losesSomething(payload: Payload): boolean {
  switch (payload.type) {
    case 'sa':
      return payload.proposals.some(({ transforms }) => transforms.some(({ unknownAttributes }) => unknownAttributes));
    case 'tsi':
    case 'tsr':
      return payload.unknown > 0;
    default:
      return false;
  }
}

function seeds(): Uint8Array[] {
  const lists = [...samplePayloads.map((payload) => [payload]), [...samplePayloads]];
  const sealed = lists.map((payloads, at) => {
    const writer = new ByteWriter(64);
    const first = encodePayloads(writer, payloads);
    return concatBytes(Uint8Array.of(at % 4, at, 34 + (at % 4), first), writer.finish());
  });
  const plain = lists.map((payloads) => concatBytes(Uint8Array.of(RAW, 0, 0, 0), encodePlain(someHeader, payloads)));
  return [...sealed, ...plain];
}

export const ikeCodec: Target = { name: 'ike-codec', shape: 'bytes', maxLength: 4_096, tokens: [], seeds, run };
