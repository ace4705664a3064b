/** Inputs that are a list of frames: each a length of two bytes, then as many bytes. Any bytes are such a list. */

/** Frames of any bytes; one that is longer than what is left ends there. */
export function readFrames(input: Uint8Array): Uint8Array[] {
  const frames: Uint8Array[] = [];
  for (let at = 0; at + 2 <= input.length; ) {
    const length = (input[at]! << 8) | input[at + 1]!;
    frames.push(input.subarray(at + 2, at + 2 + length));
    at += 2 + length;
  }
  return frames;
}

/** Frames are cut at 65,535 bytes. */
export function writeFrames(frames: readonly Uint8Array[]): Uint8Array {
  const parts = frames.map((frame) => frame.subarray(0, 0xffff));
  const bytes = new Uint8Array(parts.reduce((sum, { length }) => sum + 2 + length, 0));
  let at = 0;
  for (const part of parts) {
    bytes[at] = part.length >>> 8;
    bytes[at + 1] = part.length;
    bytes.set(part, at + 2);
    at += 2 + part.length;
  }
  return bytes;
}
