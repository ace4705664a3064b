/** DER as a tree, changed so that the lengths around a change are right again: what is inside is reached. */
import { derElement } from '../../src/base/asn1/der.ts';
import { concatBytes } from '../../src/base/bytes.ts';
import type { Random } from '../support/ike-pair.ts';

interface Node {
  tag: number;
  /** Elements inside, or bytes. */
  content: Node[] | Uint8Array;
}

const CONSTRUCTED = 0x20;
const MAX_DEPTH = 24;
/** Tags that hold others, or a value that is compared. */
const TAGS = [
  0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x0a, 0x0c, 0x13, 0x17, 0x18, 0x30, 0x31, 0x80, 0x82, 0x86, 0xa0, 0xa3,
];

/** Elements that fill the bytes; `undefined` when they do not. OCTET STRINGs with elements inside are looked into. */
function parse(bytes: Uint8Array, depth = 0): Node[] | undefined {
  const nodes: Node[] = [];
  for (let at = 0; at < bytes.length; ) {
    const tag = bytes[at]!;
    let length = bytes[at + 1];
    at += 2;
    if (length === undefined || length === 0x80 || length > 0x83) return undefined;
    if (length > 0x80) {
      const count = length - 0x80;
      length = bytes.subarray(at, at + count).reduce((sum, byte) => sum * 256 + byte, 0);
      at += count;
    }
    if (at + length > bytes.length) return undefined;
    const inside = bytes.subarray(at, at + length);
    const holdsOthers = (tag & CONSTRUCTED) !== 0 || (tag === 0x04 && length > 1);
    const content = holdsOthers && depth < MAX_DEPTH ? parse(inside, depth + 1) : undefined;
    nodes.push({ tag, content: content ?? inside });
    at += length;
  }
  return nodes;
}

function write(nodes: readonly Node[]): Uint8Array {
  return concatBytes(
    ...nodes.map(({ tag, content }) => derElement(tag, content instanceof Uint8Array ? content : write(content))),
  );
}

/** Each list of elements, with the one that holds it. */
function lists(nodes: Node[]): Node[][] {
  return [nodes, ...nodes.flatMap(({ content }) => (content instanceof Uint8Array ? [] : lists(content)))];
}

/** A changed copy; what is no DER is returned as it is. */
export function mutateDer(random: Random, input: Uint8Array, other: Uint8Array): Uint8Array {
  const root = parse(input);
  if (root === undefined || root.length === 0) return input;
  const all = lists(root).filter(({ length }) => length > 0);
  const list = all[random.below(all.length)]!;
  const at = random.below(list.length);
  const node = list[at]!;
  switch (random.below(7)) {
    case 0:
      list.splice(at, 1);
      break;
    case 1:
      list.splice(random.below(list.length), 0, node);
      break;
    case 2: {
      const theirs = lists(parse(other) ?? [])
        .filter(({ length }) => length > 0)
        .flat();
      list[at] = theirs[random.below(Math.max(1, theirs.length))] ?? node;
      break;
    }
    case 3:
      list[at] = { ...node, tag: TAGS[random.below(TAGS.length)]! };
      break;
    case 4:
      list[at] = { tag: 0x30, content: [node] };
      break;
    default:
      list[at] = { ...node, content: changedValue(random, node) };
  }
  return write(root);
}

function changedValue(random: Random, { content }: Node): Uint8Array {
  const bytes = content instanceof Uint8Array ? content : write(content);
  if (bytes.length === 0 || random.below(4) === 0) return concatBytes(bytes, random.bytes(1 + random.below(40)));
  if (random.below(4) === 0) return bytes.subarray(0, random.below(bytes.length));
  const changed = bytes.slice();
  changed[random.below(bytes.length)] = random.below(256);
  return changed;
}
