/** Object identifiers (X.690 §8.19) between the contents of their DER and dotted text. */

/** Arcs beyond this are in no registry, and no number holds them exactly. */
const MAX_ARC = 0xffff_ffff;
const MAX_ARCS = 32;

/** `2.5.4.3` → the contents of the DER element. `undefined` when the text is no object identifier. */
export function oidFromText(text: string): Uint8Array | undefined {
  if (!/^[0-2](\.(0|[1-9]\d{0,9}))+$/.test(text)) return undefined;
  const [top, second, ...rest] = text.split('.').map(Number);
  if (top === undefined || second === undefined || rest.length > MAX_ARCS) return undefined;
  if (top < 2 && second > 39) return undefined;
  const arcs = [40 * top + second, ...rest];
  if (arcs.some((arc) => arc > MAX_ARC)) return undefined;
  return Uint8Array.from(arcs.flatMap(base128));
}

/** The dotted text of the contents of a DER element; `undefined` when they are no object identifier, or a huge one. */
export function formatOid(contents: Uint8Array): string | undefined {
  const arcs: number[] = [];
  let arc = 0;
  let first = true;
  for (const byte of contents) {
    // X.690 §8.19.2: the shortest form has no leading zeros.
    if (first && byte === 0x80) return undefined;
    arc = arc * 128 + (byte & 0x7f);
    if (arc > MAX_ARC) return undefined;
    first = byte < 0x80;
    if (!first) continue;
    arcs.push(arc);
    arc = 0;
  }
  const [lead, ...rest] = arcs;
  if (!first || lead === undefined || rest.length > MAX_ARCS) return undefined;
  const top = Math.min(2, Math.floor(lead / 40));
  return [top, lead - 40 * top, ...rest].join('.');
}

/** Most significant group first; all but the last have the upper bit. */
function base128(arc: number): number[] {
  const groups = [arc % 128];
  for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128)) groups.unshift((left % 128) | 0x80);
  return groups;
}
