/** Asks for a secret at a terminal, which does not show what is typed. */
import { secretBytes } from '../base/secret-bytes.ts';
import { RefusedInputError } from './verb.ts';

/** What a person types at: `process.stdin`, or what a test has in its place. */
export interface Keyboard {
  setRawMode(on: boolean): unknown;
  on(event: 'data' | 'end', listener: (typed: Uint8Array) => void): unknown;
  off(event: 'data' | 'end', listener: (typed: Uint8Array) => void): unknown;
  resume(): unknown;
  pause(): unknown;
}

const END_OF_TEXT = 0x03;
const END_OF_INPUT = 0x04;
const BACKSPACE = [0x08, 0x7f];
const LINE_ENDS = [0x0a, 0x0d];
const ERASE_LINE = 0x15;
const FIRST_PRINTABLE = 0x20;

/**
 * One line, without its end.
 * @param show writes the question, and the end of the line that was not shown
 * @param most bytes; of a longer line one more is returned, so that the caller can refuse it
 * @throws RefusedInputError when the person interrupts
 */
export function promptSecret(
  keyboard: Keyboard,
  show: (text: string) => void,
  question: string,
  most: number,
): Promise<Buffer> {
  const line = secretBytes(most + 1);
  let length = 0;
  /** A character of UTF-8 has bytes that begin with the bits 10, behind its first one. */
  const eraseOne = (): void => {
    do length = Math.max(0, length - 1);
    while (length > 0 && (line[length]! & 0xc0) === 0x80);
  };
  /** Whether the line goes on. */
  const take = (byte: number): boolean => {
    if (LINE_ENDS.includes(byte) || byte === END_OF_INPUT) return false;
    if (byte === END_OF_TEXT) throw new RefusedInputError('interrupted; nothing was changed');
    if (BACKSPACE.includes(byte)) eraseOne();
    else if (byte === ERASE_LINE) length = 0;
    else if (byte >= FIRST_PRINTABLE && length < line.length) line[length++] = byte;
    return true;
  };
  return new Promise((resolve, reject) => {
    const finish = (end: () => void): void => {
      keyboard.off('data', onData);
      keyboard.off('end', onEnd);
      keyboard.setRawMode(false);
      keyboard.pause();
      show('\n');
      end();
    };
    const done = (): void => finish(() => resolve(Buffer.from(line.buffer, 0, length)));
    const onEnd = (): void => done();
    const onData = (typed: Uint8Array): void => {
      try {
        if (!typed.every(take)) done();
      } catch (error) {
        line.fill(0);
        finish(() => reject(error as Error));
      } finally {
        typed.fill(0);
      }
    };
    show(question);
    keyboard.setRawMode(true);
    keyboard.on('data', onData);
    keyboard.on('end', onEnd);
    keyboard.resume();
  });
}
