/**
 * Security Association payload: proposals, transforms, attributes (RFC 7296 §3.3).
 */
import type { ByteReader, ByteWriter } from '../../../base/bytes.ts';
import { ATTRIBUTE_KEY_LENGTH } from '../iana.ts';

export interface SaPayload {
  readonly type: 'sa';
  readonly proposals: readonly WireProposal[];
}

export interface WireProposal {
  readonly number: number;
  /** One of `ProtocolId`, or what the peer sent. */
  readonly protocol: number;
  readonly spi: Uint8Array;
  readonly transforms: readonly WireTransform[];
}

export interface WireTransform {
  /** One of `TransformType`, or what the peer sent. */
  readonly type: number;
  readonly id: number;
  /** The Key Length attribute. */
  readonly keyBits?: number | undefined;
  /** Has an attribute that we do not understand, which makes the transform unacceptable (RFC 7296 §3.3.6). */
  readonly unknownAttributes: boolean;
}

/** "Last Substruc" field (RFC 7296 §3.3.1, §3.3.2). */
const LAST = 0;
const MORE_PROPOSALS = 2;
const MORE_TRANSFORMS = 3;

const PROPOSAL_HEADER = 8;
const TRANSFORM_HEADER = 8;
/** Top bit of an attribute's type: the value stands in place of the length (RFC 7296 §3.3.5). */
const ATTRIBUTE_SHORT = 0x8000;

export function decodeSa(reader: ByteReader): SaPayload {
  const proposals: WireProposal[] = [];
  for (let more = true; more; ) {
    // The number of a proposal is one byte, so that there cannot be more.
    if (proposals.length === 255) reader.fail('too-many', 'more than 255 proposals');
    const last = reader.u8();
    if (last !== LAST && last !== MORE_PROPOSALS) reader.fail('bad-value', `Last Substruc of a proposal is ${last}`);
    reader.skip(1);
    const length = reader.u16();
    if (length < PROPOSAL_HEADER) reader.fail('bad-length', `proposal length ${length}`);
    proposals.push(decodeProposal(reader.sub(length - 4)));
    more = last === MORE_PROPOSALS;
  }
  reader.expectEnd('SA payload');
  return { type: 'sa', proposals };
}

function decodeProposal(reader: ByteReader): WireProposal {
  const number = reader.u8();
  const protocol = reader.u8();
  const spiSize = reader.u8();
  const count = reader.u8();
  const spi = reader.bytes(spiSize);
  const transforms: WireTransform[] = [];
  for (let left = count; left > 0; left--) {
    const last = reader.u8();
    if (last !== (left === 1 ? LAST : MORE_TRANSFORMS)) {
      reader.fail('bad-value', `Last Substruc of a transform is ${last} with ${left - 1} to follow`);
    }
    reader.skip(1);
    const length = reader.u16();
    if (length < TRANSFORM_HEADER) reader.fail('bad-length', `transform length ${length}`);
    transforms.push(decodeTransform(reader, reader.position + length - 4));
  }
  reader.expectEnd('proposal');
  return { number, protocol, spi, transforms };
}

/** Reads on in the proposal's reader up to `end`: a reader for each of a hundred transforms would cost more than they. */
function decodeTransform(reader: ByteReader, end: number): WireTransform {
  const type = reader.u8();
  reader.skip(1);
  const id = reader.u16();
  let keyBits: number | undefined;
  let unknownAttributes = false;
  while (reader.position < end) {
    const attribute = reader.u16();
    const value = reader.u16();
    if (attribute === (ATTRIBUTE_SHORT | ATTRIBUTE_KEY_LENGTH)) {
      // A second one would leave it open which key length was meant.
      if (keyBits !== undefined) unknownAttributes = true;
      keyBits = value;
    } else {
      unknownAttributes = true;
      if ((attribute & ATTRIBUTE_SHORT) === 0) reader.skip(value);
    }
  }
  if (reader.position !== end) reader.fail('bad-length', 'transform attribute reaches beyond its transform');
  return { type, id, keyBits, unknownAttributes };
}

/** A transform with `unknownAttributes` cannot be written again: what they were is not kept. */
export function encodeSa(writer: ByteWriter, payload: SaPayload): void {
  for (const [index, proposal] of payload.proposals.entries()) {
    const start = writer.length;
    writer.u8(index === payload.proposals.length - 1 ? LAST : MORE_PROPOSALS);
    writer.zeros(3);
    writer.u8(proposal.number);
    writer.u8(proposal.protocol);
    writer.u8(proposal.spi.length);
    writer.u8(proposal.transforms.length);
    writer.bytes(proposal.spi);
    for (const [at, transform] of proposal.transforms.entries()) {
      encodeTransform(writer, transform, at === proposal.transforms.length - 1);
    }
    writer.patchU16(start + 2, writer.length - start);
  }
}

function encodeTransform(writer: ByteWriter, transform: WireTransform, last: boolean): void {
  writer.u8(last ? LAST : MORE_TRANSFORMS);
  writer.u8(0);
  writer.u16(transform.keyBits === undefined ? TRANSFORM_HEADER : TRANSFORM_HEADER + 4);
  writer.u8(transform.type);
  writer.u8(0);
  writer.u16(transform.id);
  if (transform.keyBits !== undefined) {
    writer.u16(ATTRIBUTE_SHORT | ATTRIBUTE_KEY_LENGTH);
    writer.u16(transform.keyBits);
  }
}
