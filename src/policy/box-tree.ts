/**
 * An index of boxes in five dimensions that finds the box of the lowest entry which meets a query.
 *
 * A node cuts its boxes at one coordinate of one dimension into those below, those from there on, and those across the
 * cut; no box is stored twice, so space is linear and no set of policies makes a look-up slower than a plain scan by
 * more than a small factor. Each node knows the lowest entry under it: a part that cannot beat the best entry found is skipped.
 */

/** The coordinates of a packet. */
export const Dimension = { localAddress: 0, remoteAddress: 1, localPort: 2, remotePort: 3, protocol: 4 } as const;
export const DIMENSIONS = 5;

/** Words of a box: lowest and highest coordinate for each dimension, then the entry. */
export const BOX_STRIDE: number = 2 * DIMENSIONS + 1;
const ENTRY = 2 * DIMENSIONS;

/** Boxes that are scanned rather than cut further. */
const LEAF_SIZE = 6;
/** Boxes that a node looks at to find a good cut. */
const SAMPLE_SIZE = 256;

/*
 * Words of a node. A leaf has dimension -1, and the offset of its first box and the offset behind its last instead of
 * the cut and the child below.
 */
const DIMENSION = 0;
const CUT = 1;
const BELOW = 2;
const ABOVE = 3;
const ACROSS = 4;
/** The lowest entry in the node. */
const LOWEST = 5;
const LEAF = -1;
const NO_CHILD = -1;

/** The built index. Its search is not re-entrant: it has one stack. */
export class BoxTree {
  readonly #nodes: Int32Array;
  readonly #boxes: Int32Array;
  /** BOUNDED: a node takes one place and leaves at most three, so twice the depth and three are enough. */
  readonly #stack: Int32Array;

  constructor(nodes: Int32Array, boxes: Int32Array, depth: number) {
    this.#nodes = nodes;
    this.#boxes = boxes;
    this.#stack = new Int32Array(2 * depth + 3);
  }

  /**
   * The lowest entry below `limit` that has a box which meets `query` in all dimensions, else `limit`.
   *
   * @param query lowest and highest coordinate for each dimension
   * @param allowed when given, entries with 0 here are skipped
   */
  search(query: Int32Array, limit: number, allowed: Uint8Array | undefined): number {
    const nodes = this.#nodes;
    const stack = this.#stack;
    if (nodes.length === 0) return limit;
    let best = limit;
    let depth = 1;
    stack[0] = 0;
    while (depth > 0) {
      const node = stack[--depth]!;
      if (nodes[node + LOWEST]! >= best) continue;
      const dimension = nodes[node + DIMENSION]!;
      if (dimension === LEAF) {
        best = this.#scan(nodes[node + CUT]!, nodes[node + BELOW]!, query, best, allowed);
        continue;
      }
      const cut = nodes[node + CUT]!;
      const across = nodes[node + ACROSS]!;
      if (across !== NO_CHILD) stack[depth++] = across;
      const above = nodes[node + ABOVE]!;
      if (above !== NO_CHILD && query[2 * dimension + 1]! >= cut) stack[depth++] = above;
      const below = nodes[node + BELOW]!;
      if (below !== NO_CHILD && query[2 * dimension]! < cut) stack[depth++] = below;
    }
    return best;
  }

  /** Boxes of a leaf stand in the order of their entries: the first that meets the query is the best of them. */
  #scan(from: number, to: number, query: Int32Array, best: number, allowed: Uint8Array | undefined): number {
    const boxes = this.#boxes;
    for (let box = from; box < to; box += BOX_STRIDE) {
      const entry = boxes[box + ENTRY]!;
      if (entry >= best) return best;
      if (allowed !== undefined && allowed[entry] === 0) continue;
      if (meets(boxes, box, query)) return entry;
    }
    return best;
  }
}

function meets(boxes: Int32Array, box: number, query: Int32Array): boolean {
  for (let i = 0; i < 2 * DIMENSIONS; i += 2) {
    if (boxes[box + i]! > query[i + 1]! || boxes[box + i + 1]! < query[i]!) return false;
  }
  return true;
}

/** Builds the index of boxes that stand one behind the other, in the order of their entries. */
export function buildBoxTree(boxes: Int32Array): BoxTree {
  const build: Build = { source: boxes, nodes: [], boxes: new Int32Array(boxes.length), used: 0, depth: 0 };
  const all = Int32Array.from({ length: boxes.length / BOX_STRIDE }, (_, i) => i * BOX_STRIDE);
  if (all.length > 0) buildNode(build, all, 1);
  return new BoxTree(Int32Array.from(build.nodes), build.boxes, build.depth);
}

interface Build {
  readonly source: Int32Array;
  readonly nodes: number[];
  /** The boxes again, in the order of the leaves, of which `used` words are written. */
  readonly boxes: Int32Array;
  used: number;
  depth: number;
}

interface Cut {
  readonly dimension: number;
  readonly at: number;
}

/** Builds the node of the boxes at the offsets `members`, which are ascending; returns its own offset. */
function buildNode(build: Build, members: Int32Array, depth: number): number {
  const node = build.nodes.length;
  const lowest = build.source[members[0]! + ENTRY]!;
  build.depth = Math.max(build.depth, depth);
  build.nodes.push(LEAF, build.used, 0, NO_CHILD, NO_CHILD, lowest);
  const cut = members.length > LEAF_SIZE ? chooseCut(build.source, members) : undefined;
  if (cut === undefined) {
    for (const box of members) {
      build.boxes.set(build.source.subarray(box, box + BOX_STRIDE), build.used);
      build.used += BOX_STRIDE;
    }
    build.nodes[node + BELOW] = build.used;
    return node;
  }
  const child = (wanted: number): number => {
    const part = members.filter((box) => sideOfCut(build.source, box, cut) === wanted);
    return part.length === 0 ? NO_CHILD : buildNode(build, part, depth + 1);
  };
  build.nodes[node + DIMENSION] = cut.dimension;
  build.nodes[node + CUT] = cut.at;
  for (const place of [BELOW, ABOVE, ACROSS]) build.nodes[node + place] = child(place);
  return node;
}

function sideOfCut(boxes: Int32Array, box: number, { dimension, at }: Cut): number {
  if (boxes[box + 2 * dimension + 1]! < at) return BELOW;
  return boxes[box + 2 * dimension]! >= at ? ABOVE : ACROSS;
}

/**
 * The cut that leaves a look-up the fewest boxes. `undefined` when every cut leaves some part more than fifteen
 * sixteenths of them, which also bounds the depth of the tree.
 */
function chooseCut(boxes: Int32Array, members: Int32Array): Cut | undefined {
  const step = Math.ceil(members.length / SAMPLE_SIZE);
  const sample = members.filter((_, i) => i % step === 0);
  let best: Cut | undefined;
  let bestCost = Number.POSITIVE_INFINITY;
  for (let dimension = 0; dimension < DIMENSIONS; dimension++) {
    for (const at of candidates(boxes, sample, dimension)) {
      const cost = costOfCut(boxes, members, { dimension, at });
      if (cost >= bestCost) continue;
      best = { dimension, at };
      bestCost = cost;
    }
  }
  return best;
}

/**
 * The medians of where boxes start and of where they have ended. The lowest start and the highest end are left out: they
 * are those of ANY, which no cut separates from anything.
 */
function candidates(boxes: Int32Array, sample: Int32Array, dimension: number): number[] {
  const starts = sample.map((box) => boxes[box + 2 * dimension]!).sort();
  const ends = sample.map((box) => boxes[box + 2 * dimension + 1]! + 1).sort();
  const laterStarts = starts.filter((start) => start !== starts[0]);
  const earlierEnds = ends.filter((end) => end !== ends.at(-1));
  const cuts = [laterStarts[laterStarts.length >>> 1], earlierEnds[earlierEnds.length >>> 1]];
  return cuts.filter((cut) => cut !== undefined);
}

/** What a look-up of one point may have to look at after the cut, and the largest part; infinite for a poor cut. */
function costOfCut(boxes: Int32Array, members: Int32Array, { dimension, at }: Cut): number {
  let below = 0;
  let above = 0;
  for (const box of members) {
    if (boxes[box + 2 * dimension + 1]! < at) below++;
    else if (boxes[box + 2 * dimension]! >= at) above++;
  }
  const across = members.length - below - above;
  const largest = Math.max(below, above, across);
  if (largest > members.length - Math.ceil(members.length / 16)) return Number.POSITIVE_INFINITY;
  return across + Math.max(below, above) + largest;
}
