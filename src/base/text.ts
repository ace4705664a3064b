/** UTF-8, through the two web-standard classes that every JavaScript host has but the bare language lacks. */

declare class TextEncoder {
  encode(text: string): Uint8Array<ArrayBuffer>;
}
declare class TextDecoder {
  constructor(label: 'utf-8', options: { fatal: boolean });
  decode(bytes: Uint8Array): string;
}

const encoder = new TextEncoder();
const lenient = new TextDecoder('utf-8', { fatal: false });

export function utf8(text: string): Uint8Array {
  return encoder.encode(text);
}

/** Control characters, ends of lines and paragraphs, and what turns the direction of writing round. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
const UNSHOWN = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/** Decodes as it is; malformed sequences become U+FFFD. */
export function decodeText(bytes: Uint8Array): string {
  return lenient.decode(bytes);
}

/** Decodes for display: malformed sequences become U+FFFD, what could forge or garble a line of a log becomes `?`. */
export function displayText(bytes: Uint8Array): string {
  return lenient.decode(bytes).replace(UNSHOWN, '?');
}

/** `a, b and 3 more`: the first `most` of some texts, and how many others there are. */
export function listSome(
  texts: readonly string[],
  most: number,
  separator = ', ',
  count: number = texts.length,
): string {
  const rest = count - most;
  return texts.slice(0, most).join(separator) + (rest > 0 ? ` and ${rest} more` : '');
}

/** What was thrown, for people. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
