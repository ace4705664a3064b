/**
 * The part of XDR (RFC 4506) that libvirt's protocol uses beyond plain 32-bit numbers: strings, byte arrays, optional
 * values, lists. Everything is padded to a multiple of four bytes, and every length is checked against a limit.
 */
import type { ByteReader, ByteWriter } from '../base/bytes.ts';
import { decodeText, utf8 } from '../base/text.ts';

/** Longest string in bytes: far more than any name, path or message, and than the XML of any network. */
export const MAX_STRING: number = 512 * 1024;

/** Variable-length opaque data (RFC 4506 §4.10). */
export function writeOpaque(writer: ByteWriter, value: Uint8Array): void {
  writer.u32(value.length);
  writer.bytes(value);
  writer.zeros(padding(value.length));
}

export function writeString(writer: ByteWriter, value: string): void {
  writeOpaque(writer, utf8(value));
}

/** Optional data (RFC 4506 §4.19). */
export function writeOptionalString(writer: ByteWriter, value: string | undefined): void {
  writer.u32(value === undefined ? 0 : 1);
  if (value !== undefined) writeString(writer, value);
}

/** A signed 32-bit number (RFC 4506 §4.1), two's complement. */
export function readInt(reader: ByteReader): number {
  return reader.u32() | 0;
}

/** A view, not a copy. @throws DecodeError when it is longer than `limit` bytes */
export function readOpaque(reader: ByteReader, limit: number): Uint8Array {
  const length = reader.u32();
  if (length > limit) reader.fail('bad-length', `${length} bytes of data, at most ${limit} are taken`);
  const value = reader.bytes(length);
  reader.skip(padding(length));
  return value;
}

export function readString(reader: ByteReader, limit: number = MAX_STRING): string {
  return decodeText(readOpaque(reader, limit));
}

export function readOptionalString(reader: ByteReader, limit: number = MAX_STRING): string | undefined {
  return readPresence(reader) ? readString(reader, limit) : undefined;
}

/** A variable-length array (RFC 4506 §4.13). @throws DecodeError when there are more than `limit` */
export function readList<T>(reader: ByteReader, limit: number, readItem: (reader: ByteReader) => T): T[] {
  const count = reader.u32();
  if (count > limit) reader.fail('too-many', `${count} items, at most ${limit} are taken`);
  return Array.from({ length: count }, () => readItem(reader));
}

function readPresence(reader: ByteReader): boolean {
  const value = reader.u32();
  if (value > 1) reader.fail('bad-value', `${value} where 0 or 1 tells whether a value follows`);
  return value === 1;
}

function padding(length: number): number {
  return -length & 3;
}
