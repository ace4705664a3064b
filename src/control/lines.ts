/** Splits a stream of bytes into lines of bounded length, for both ends of the control socket. */

/** A line grew past its bound. */
export class LineTooLongError extends Error {
  override readonly name = 'LineTooLongError';
}

/**
 * Bytes of a block that small chunks are gathered in: a sender of single bytes costs no more memory than another. Larger
 * chunks are kept as they came.
 */
const BLOCK = 4096;
const NEWLINE = 0x0a;

/** Bytes from `start` to `end` of `memory`, which has room behind them. */
interface Block {
  readonly memory: Buffer;
  start: number;
  end: number;
}

/** Collects chunks, and hands out one complete line after another. */
export class LineSplitter {
  readonly #limit: number;
  // BOUNDED: `limit` bytes, and what the last `push` brought; the owner asks `ready` before it pushes more.
  #blocks: Block[] = [];
  #length = 0;
  #memory = 0;
  #skipping = false;
  /** The block with the next byte to be searched for a newline, where that lies, and the bytes of the blocks before. */
  #at = 0;
  #from = 0;
  #passed = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Bytes that were not handed out yet. */
  get length(): number {
    return this.#length;
  }

  /** Bytes of memory that they take. */
  get memory(): number {
    return this.#memory;
  }

  /** Whether the end of a line that is skipped is still to come. */
  get skipping(): boolean {
    return this.#skipping;
  }

  /** The chunk is the splitter's from now on. */
  push(chunk: Buffer): void {
    const start = this.#skipping ? chunk.indexOf(NEWLINE) + 1 : 0;
    if (this.#skipping && start === 0) return;
    this.#skipping = false;
    const length = chunk.length - start;
    if (length === 0) return;
    this.#length += length;
    const last = this.#blocks.at(-1);
    if (last !== undefined && length <= last.memory.length - last.end) {
      chunk.copy(last.memory, last.end, start);
      last.end += length;
    } else if (length >= BLOCK) {
      this.#add({ memory: chunk, start, end: chunk.length });
    } else {
      const memory = Buffer.allocUnsafe(BLOCK);
      chunk.copy(memory, 0, start);
      this.#add({ memory, start: 0, end: length });
    }
  }

  /** Drops the first line: what there is of it, and what is still to come. */
  skip(): void {
    const blocks = this.#blocks;
    this.clear();
    this.#skipping = true;
    for (const { memory, start, end } of blocks) this.push(memory.subarray(start, end));
  }

  clear(): void {
    this.#blocks = [];
    this.#length = 0;
    this.#memory = 0;
    this.#restart();
  }

  /** Whether a complete line waits. @throws LineTooLongError when a line has more than `limit` bytes */
  get ready(): boolean {
    return this.#find() !== undefined;
  }

  /** Takes the next line, without its newline; `undefined` when there is no complete one. @throws LineTooLongError */
  next(): Buffer | undefined {
    const last = this.#find();
    if (last === undefined) return undefined;
    const before = this.#blocks.splice(0, this.#at);
    const parts = before.map(({ memory, start, end }) => memory.subarray(start, end));
    parts.push(last.memory.subarray(last.start, this.#from));
    const line = parts.length === 1 ? parts[0]! : Buffer.concat(parts);
    for (const { memory } of before) this.#memory -= memory.length;
    this.#length -= line.length + 1;
    last.start = this.#from + 1;
    if (this.#length === 0) this.clear();
    else this.#restart();
    return line;
  }

  /** The block with the next newline, which lies at `#from` then. @throws LineTooLongError */
  #find(): Block | undefined {
    for (let block = this.#blocks[this.#at]; block !== undefined; block = this.#blocks[this.#at]) {
      const from = Math.max(this.#from, block.start);
      const found = block.memory.subarray(from, block.end).indexOf(NEWLINE);
      this.#from = found < 0 ? block.end : from + found;
      if (this.#passed + this.#from - block.start > this.#limit) {
        throw new LineTooLongError(`a line has more than ${this.#limit} bytes`);
      }
      if (found >= 0) return block;
      // There may be more in the last one later.
      if (this.#at === this.#blocks.length - 1) return undefined;
      this.#passed += block.end - block.start;
      this.#at++;
      this.#from = 0;
    }
    return undefined;
  }

  #restart(): void {
    this.#at = 0;
    this.#from = 0;
    this.#passed = 0;
  }

  #add(block: Block): void {
    this.#blocks.push(block);
    this.#memory += block.memory.length;
  }
}
