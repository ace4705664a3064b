/** Splits a stream of bytes into lines, bounded: what both ends of the control socket read with. */

/** A line grew past its bound. */
export class LineTooLongError extends Error {
  override readonly name = 'LineTooLongError';
}

/** Collects chunks and hands out complete lines, without the newline. */
export class LineSplitter {
  readonly #limit: number;
  // BOUNDED: `limit` bytes, checked on every chunk.
  #parts: Buffer[] = [];
  #length = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** @throws LineTooLongError when a line has more than `limit` bytes */
  push(chunk: Buffer): string[] {
    const lines: string[] = [];
    let from = 0;
    for (let end = chunk.indexOf(0x0a); end >= 0; end = chunk.indexOf(0x0a, from)) {
      this.#keep(chunk.subarray(from, end));
      lines.push(Buffer.concat(this.#parts).toString('utf8'));
      this.#parts = [];
      this.#length = 0;
      from = end + 1;
    }
    this.#keep(chunk.subarray(from));
    return lines;
  }

  #keep(part: Buffer): void {
    if (part.length === 0) return;
    this.#length += part.length;
    if (this.#length > this.#limit) throw new LineTooLongError(`a line has more than ${this.#limit} bytes`);
    this.#parts.push(part);
  }
}
