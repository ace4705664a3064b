/** A line for nft(8), word by word. The fence's lines have blanks between words, and none within the name of a link. */

export class Words {
  readonly line: string;
  readonly #words: readonly string[];
  #at = 0;

  constructor(line: string) {
    this.line = line;
    this.#words = line.split(' ').filter((word) => word !== '');
  }

  get atEnd(): boolean {
    return this.#at === this.#words.length;
  }

  /** The next word, which stays the next. */
  get peeked(): string {
    return this.#words[this.#at] ?? '';
  }

  next(): string {
    const word = this.#words[this.#at];
    if (word === undefined) throw this.unknown('its end');
    this.#at++;
    return word;
  }

  /** Takes the next words if they are these. */
  takes(...words: readonly string[]): boolean {
    if (words.some((word, at) => this.#words[this.#at + at] !== word)) return false;
    this.#at += words.length;
    return true;
  }

  /** @throws Error when the next words are others */
  expect(...words: readonly string[]): void {
    for (const word of words) if (!this.takes(word)) throw this.unknown(this.peeked);
  }

  /** @throws Error when there are more words */
  end(): void {
    if (!this.atEnd) throw this.unknown(this.peeked);
  }

  /** Nothing may be left out in silence: each rule of a fence counts. */
  unknown(word: string): Error {
    return new Error(`bug: '${word}' is not known in the line of a fence '${this.line}'`);
  }
}
