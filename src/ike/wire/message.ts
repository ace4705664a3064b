/**
 * Messages: the IKE header (RFC 7296 §3.1) and the payloads that are not encrypted. `protect.ts` opens the rest.
 *
 * Everything that is decoded is a view into the datagram, valid as long as the datagram's bytes are.
 */
import { ByteReader, ByteWriter } from '../../base/bytes.ts';
import { NotifyType } from './iana.ts';
import { decodePayloads, encodePayloads, type Payload, type PayloadChain, RefusedMessageError } from './payload.ts';

export interface IkeHeader {
  readonly initiatorSpi: bigint;
  /** 0 in the first message of an IKE SA. */
  readonly responderSpi: bigint;
  /** One of `ExchangeType`, or what the peer sent. */
  readonly exchange: number;
  /** Sent by the original initiator of the IKE SA. */
  readonly initiator: boolean;
  readonly response: boolean;
  readonly messageId: number;
}

export interface IkeMessage extends PayloadChain {
  readonly header: IkeHeader;
}

/** Bytes of the IKE header. */
export const IKE_HEADER_LENGTH = 28;
/** Offset of the Next Payload field in the IKE header. */
const NEXT_PAYLOAD_AT = 16;
const LENGTH_AT = 24;
const MAJOR_VERSION = 2;
const VERSION_2_0 = 0x20;

export const FLAG_INITIATOR = 0x08;
export const FLAG_RESPONSE = 0x20;

/**
 * The header alone: what a datagram is dispatched by, before anything is spent on it.
 * @throws DecodeError when there is no IKEv2 header, or its length is not the datagram's; RefusedMessageError for a
 * higher major version (RFC 7296 §2.5).
 */
export function decodeHeader(datagram: Uint8Array): IkeHeader {
  const reader = new ByteReader(datagram);
  const initiatorSpi = reader.u64();
  const responderSpi = reader.u64();
  reader.skip(1);
  const version = reader.u8();
  const exchange = reader.u8();
  const flags = reader.u8();
  const messageId = reader.u32();
  const length = reader.u32();
  const major = version >>> 4;
  if (major > MAJOR_VERSION) {
    const detail = `IKE version ${major}.${version & 0xf}, 2.0 expected`;
    throw new RefusedMessageError('bad-version', 17, detail, NotifyType.INVALID_MAJOR_VERSION, new Uint8Array(0));
  }
  // Version 1 has no such notify: an IKEv1 peer could not read it.
  if (major < MAJOR_VERSION) reader.fail('bad-version', `IKE version ${major}, 2 expected`);
  if (length !== datagram.length) reader.fail('bad-length', `length ${length} in a datagram of ${datagram.length}`);
  // The one exception, an INVALID_SPI hint outside of any SA (RFC 7296 §1.5), is of no use to us.
  if (initiatorSpi === 0n) reader.fail('bad-value', 'initiator SPI of zero');
  return {
    initiatorSpi,
    responderSpi,
    exchange,
    initiator: (flags & FLAG_INITIATOR) !== 0,
    response: (flags & FLAG_RESPONSE) !== 0,
    messageId,
  };
}

/**
 * Header and unprotected payloads of a datagram (without non-ESP marker).
 * @throws DecodeError; nothing else.
 */
export function decodeMessage(datagram: Uint8Array, header: IkeHeader = decodeHeader(datagram)): IkeMessage {
  const first = datagram[NEXT_PAYLOAD_AT]!;
  const chain = decodePayloads(datagram, IKE_HEADER_LENGTH, datagram.length, first, { mayProtect: true });
  return { header, payloads: chain.payloads, protectedPart: chain.protectedPart };
}

/** Writes a header whose length and first payload are patched in by `finishHeader`. */
export function encodeHeader(writer: ByteWriter, header: IkeHeader): void {
  writer.u64(header.initiatorSpi);
  writer.u64(header.responderSpi);
  writer.u8(0);
  writer.u8(VERSION_2_0);
  writer.u8(header.exchange);
  writer.u8((header.initiator ? FLAG_INITIATOR : 0) | (header.response ? FLAG_RESPONSE : 0));
  writer.u32(header.messageId);
  writer.u32(0);
}

export function finishHeader(writer: ByteWriter, firstPayload: number, length: number): void {
  writer.patchU8(NEXT_PAYLOAD_AT, firstPayload);
  writer.patchU32(LENGTH_AT, length);
}

/** A message without SK: IKE_SA_INIT, and error notifies outside of an IKE SA. */
export function encodePlain(header: IkeHeader, payloads: readonly Payload[]): Uint8Array {
  const writer = new ByteWriter();
  encodeHeader(writer, header);
  const first = encodePayloads(writer, payloads);
  finishHeader(writer, first, writer.length);
  return writer.finish();
}

/** The SPI as it stands on the wire: for cookies, NAT detection, key derivation. */
export function ikeSpiBytes(spi: bigint): Uint8Array {
  const writer = new ByteWriter(8);
  writer.u64(spi);
  return writer.finish();
}

/** An IKE SPI that a peer sent; `undefined` when it is 0 or not 8 bytes. */
export function readIkeSpi(bytes: Uint8Array): bigint | undefined {
  if (bytes.length !== 8) return undefined;
  const spi = new ByteReader(bytes).u64();
  return spi === 0n ? undefined : spi;
}
