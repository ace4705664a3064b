/** Looks for keys in the memory of a process, as an attacker with a core dump would. Needs root, or its parent's rights. */
import { closeSync, openSync, readFileSync, readSync } from 'node:fs';

/** Bytes of a key that make a find: allocators overwrite the front of what is freed, so any window of it counts. */
const WINDOW = 16;
const LARGEST_WINDOW = 64;
const STEP = 8;
/** Memory is read in pieces that overlap, so that no window lies between two. */
const PIECE = 4 * 1024 * 1024;
const PAGE = 4_096;
const ZEROS = Buffer.alloc(PAGE);

export interface Find {
  readonly name: string;
  /** Where, and in what kind of mapping. */
  readonly place: string;
}

/** What is looked for; text that says little in each byte has a larger window, or it is found by chance. */
export interface Needle {
  readonly bytes: Uint8Array;
  readonly window: number;
}

/** By their names. */
export type Needles = ReadonlyMap<string, Uint8Array | Needle>;

interface Pattern {
  readonly name: string;
  readonly bytes: Buffer;
}

/** The windows of all needles, by their first two bytes: memory is gone through once for all of them. */
class Patterns {
  readonly #first = new Uint8Array(0x1_0000);
  readonly #byFirst = new Map<number, Pattern[]>();

  constructor(needles: Needles) {
    for (const [name, needle] of needles) for (const bytes of windows(needle)) this.#add({ name, bytes });
  }

  #add(pattern: Pattern): void {
    const first = pattern.bytes.readUInt16LE();
    this.#first[first] = 1;
    this.#byFirst.set(first, [...(this.#byFirst.get(first) ?? []), pattern]);
  }

  /** Calls `found` for each window that begins in the first `length` bytes. */
  match(memory: Buffer, length: number, found: (name: string, at: number) => void): void {
    const end = Math.min(length, memory.length - WINDOW + 1);
    for (let at = 0; at < end; at += PAGE) {
      // Most of what is mapped was never used.
      if (memory.compare(ZEROS, 0, Math.min(PAGE, memory.length - at), at, Math.min(at + PAGE, memory.length)) === 0)
        continue;
      this.#matchPage(memory, at, Math.min(at + PAGE, end), found);
    }
  }

  #matchPage(memory: Buffer, start: number, end: number, found: (name: string, at: number) => void): void {
    const isFirst = this.#first;
    let low = memory[start]!;
    for (let at = start; at < end; at++) {
      const high = memory[at + 1]!;
      const first = low | (high << 8);
      low = high;
      if (isFirst[first] === 0) continue;
      for (const { name, bytes } of this.#byFirst.get(first)!) {
        const there =
          at + bytes.length <= memory.length && memory.compare(bytes, 0, bytes.length, at, at + bytes.length) === 0;
        if (there) found(name, at);
      }
    }
  }
}

function windows(needle: Uint8Array | Needle): Buffer[] {
  const { bytes, window } = needle instanceof Uint8Array ? { bytes: needle, window: WINDOW } : needle;
  if (bytes.length < window || window > LARGEST_WINDOW) throw new RangeError(`a window of ${window} bytes`);
  const starts = [...Array(Math.floor((bytes.length - window) / STEP) + 1).keys()].map((i) => i * STEP);
  return starts.map((start) => Buffer.from(bytes.subarray(start, start + window)));
}

/** Everything in the writable memory of a process that is a part of a needle, with no find twice. */
export function searchMemory(pid: number, needles: Needles): Find[] {
  const patterns = new Patterns(needles);
  const finds = new Map<string, Find>();
  const memory = openSync(`/proc/${pid}/mem`, 'r');
  const piece = Buffer.allocUnsafeSlow(PIECE + LARGEST_WINDOW);
  try {
    for (const { from, to, label } of writableRegions(pid)) {
      for (let at = from; at < to; at += PIECE) {
        const length = readPiece(memory, piece, at, Math.min(piece.length, to - at));
        patterns.match(piece.subarray(0, length), PIECE, (name, offset) => {
          const place = `${(at + offset).toString(16)} in ${label}`;
          finds.set(`${name} ${place}`, { name, place });
        });
      }
    }
  } finally {
    closeSync(memory);
  }
  return [...finds.values()];
}

/** 0 for what cannot be read: it was unmapped meanwhile, or belongs to a device. */
function readPiece(memory: number, piece: Buffer, at: number, length: number): number {
  try {
    return readSync(memory, piece, 0, length, at);
  } catch {
    return 0;
  }
}

interface Region {
  readonly from: number;
  readonly to: number;
  readonly label: string;
}

function writableRegions(pid: number): Region[] {
  const lines = readFileSync(`/proc/${pid}/maps`, 'latin1').trim().split('\n');
  return lines.flatMap((line) => {
    const [, from, to, label] = /^([0-9a-f]+)-([0-9a-f]+) rw\S+ \S+ \S+ \S+\s*(.*)$/.exec(line) ?? [];
    if (from === undefined || to === undefined) return [];
    return [{ from: Number.parseInt(from, 16), to: Number.parseInt(to, 16), label: label || 'anonymous memory' }];
  });
}
