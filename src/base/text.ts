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

/** Decodes for display: malformed sequences become U+FFFD, control characters become `?` (log injection). */
export function displayText(bytes: Uint8Array): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  return lenient.decode(bytes).replace(/[\u0000-\u001f\u007f-\u009f]/g, '?');
}
