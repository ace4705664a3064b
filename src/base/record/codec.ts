/**
 * Records: values as bytes that another process reads, described once for writing and reading. A record is a sequence of
 * fields, each of a tag (16 bits), the length of its value in bytes (32 bits) and the value, in the order of the tags; all
 * numbers are in network order. `docs/state.md` shows what is written so.
 */
import type { ByteReader, ByteWriter } from '../bytes.ts';
import { decodeText, utf8 } from '../text.ts';

/** How a value is written, and read. `read` throws DecodeError for what `write` cannot have written. */
export interface Codec<T> {
  write(writer: ByteWriter, value: T): void;
  read(reader: ByteReader): T;
}

export const u16: Codec<number> = { write: (writer, value) => writer.u16(value), read: (reader) => reader.u16() };
export const u32: Codec<number> = { write: (writer, value) => writer.u32(value), read: (reader) => reader.u32() };
export const u64: Codec<bigint> = { write: (writer, value) => writer.u64(value), read: (reader) => reader.u64() };

/** A count beyond 32 bits, or a time in milliseconds: a double (IEEE 754). */
export const double: Codec<number> = {
  write: (writer, value) => {
    const view = new DataView(new ArrayBuffer(8));
    view.setFloat64(0, value);
    writer.bytes(new Uint8Array(view.buffer));
  },
  read: (reader) => {
    const { buffer, byteOffset } = reader.bytes(8);
    const value = new DataView(buffer, byteOffset, 8).getFloat64(0);
    return Number.isFinite(value) ? value : reader.fail('bad-value', 'a number that is not finite');
  },
};

export const flag: Codec<boolean> = {
  write: (writer, value) => writer.u8(value ? 1 : 0),
  read: (reader) => {
    const value = reader.u8();
    return value <= 1 ? value === 1 : reader.fail('bad-value', `${value} where 0 or 1 is expected`);
  },
};

/** As many as the field has. What is read is a copy. */
export const bytes: Codec<Uint8Array> = {
  write: (writer, value) => writer.bytes(value),
  read: (reader) => reader.rest().slice(),
};

/** The same of a key. What is read is a view of the record, so that it is erased with the record: it is copied by its user. */
export const secret: Codec<Uint8Array> = { write: bytes.write, read: (reader) => reader.rest() };

/** UTF-8. */
export const text: Codec<string> = {
  write: (writer, value) => writer.bytes(utf8(value)),
  read: (reader) => decodeText(reader.rest()),
};

/** One of some words, or of what has a name of its own. */
export function named<T>(what: string, nameOf: (value: T) => string, find: (name: string) => T | undefined): Codec<T> {
  return {
    write: (writer, value) => text.write(writer, nameOf(value)),
    read: (reader) => {
      const value = find(text.read(reader));
      return value === undefined ? reader.fail('bad-value', `unknown ${what}`) : value;
    },
  };
}

export function word<T extends string>(what: string, words: readonly T[]): Codec<T> {
  return named<T>(
    what,
    (value) => value,
    (name) => words.find((one) => one === name),
  );
}

/** Any number of values one behind the other, each after its length (32 bits). */
export function list<T>(item: Codec<T>): Codec<readonly T[]> {
  return {
    write: (writer, values) => {
      for (const value of values) writeSized(writer, item, value);
    },
    read: (reader) => {
      const values: T[] = [];
      while (reader.remaining > 0) values.push(readSized(reader, item));
      return values;
    },
  };
}

interface Field<V> {
  readonly tag: number;
  readonly isOptional: boolean;
  readonly codec: Codec<V>;
}

export function field<V>(tag: number, codec: Codec<V>): Field<V> {
  return { tag, codec, isOptional: false };
}

/** One that is not there when the value is `undefined`. */
export function optional<V>(tag: number, codec: Codec<V>): Field<V | undefined> {
  return { tag, codec: codec as Codec<V | undefined>, isOptional: true };
}

/** An object, each of whose properties is a field. What no field is for is refused, as is a field that is missing. */
export function record<T extends object>(table: { readonly [K in keyof T]-?: Field<T[K]> }): Codec<T> {
  const fields = (Object.entries(table) as [string, Field<unknown>][]).sort(([, a], [, b]) => a.tag - b.tag);
  return {
    write: (writer, value) => {
      for (const [name, { tag, codec }] of fields) {
        const content = (value as Record<string, unknown>)[name];
        if (content === undefined) continue;
        writer.u16(tag);
        writeSized(writer, codec, content);
      }
    },
    read: (reader) => {
      const value: Record<string, unknown> = {};
      let next = reader.remaining > 0 ? reader.u16() : undefined;
      for (const [name, { tag, codec, isOptional }] of fields) {
        if (next !== tag) {
          if (!isOptional) reader.fail('bad-order', `field ${tag} expected, ${next ?? 'the end'} found`);
          value[name] = undefined;
          continue;
        }
        value[name] = readSized(reader, codec);
        next = reader.remaining > 0 ? reader.u16() : undefined;
      }
      if (next !== undefined) reader.fail('bad-order', `unknown field ${next}, or one too many`);
      return value as T;
    },
  };
}

function writeSized<T>(writer: ByteWriter, codec: Codec<T>, value: T): void {
  const at = writer.length;
  writer.u32(0);
  codec.write(writer, value);
  writer.patchU32(at, writer.length - at - 4);
}

function readSized<T>(reader: ByteReader, codec: Codec<T>): T {
  const inner = reader.sub(reader.u32());
  const value = codec.read(inner);
  inner.expectEnd('a field');
  return value;
}
