/**
 * The rules that say by which table packets from a local network are routed, as a tree where the networks are many: a packet
 * passes as many of them as the logarithm of their number. Each node takes three priorities:
 *
 * ```text
 * n    from NETWORK lookup TABLE, from PREFIX goto NODE
 * n+1  from PREFIX goto NODE, where a NETWORK of this node holds the PREFIX, and is looked up first
 * n+2  from all goto END
 * ```
 *
 * Look-ups alone decide about packets. What a goto passes over is for none of its packets, so it may come later than a look-up
 * and go sooner. A goto leads to a later priority, so nodes stand by their height: half of the block is for those without others
 * below them, half of the rest for those directly above these, and so on. A node that becomes higher moves. Pure.
 */
import { addressBits, type IpFamily } from '../../base/address.ts';
import { type Prefix, type Rule, samePrefix } from '../routes/routes.ts';
import { ruleKey } from './compare.ts';
import type { Block } from './priorities.ts';

const PRIORITIES = 3;

/** Rules that stand in place of others: the last is added first. */
export interface RuleChange {
  readonly before: readonly Rule[];
  readonly after: readonly Rule[];
}

interface Leaf<V> {
  readonly prefix: Prefix;
  readonly value: V;
}

interface Node<V> {
  readonly region: Prefix;
  /** More than that of each child. */
  height: number;
  /** The first of its priorities, counted in nodes. */
  place: number;
  readonly leaves: Set<Leaf<V>>;
  readonly children: Set<Node<V>>;
}

export interface TreeOptions<V> extends Block {
  readonly family: IpFamily;
  /** How many rules lead on from a node. Fewer make the tree deeper, and take more priorities. */
  readonly entries: number;
  /** What of a packet is one of the local addresses. */
  readonly by: 'from' | 'to';
  /** The look-ups for such packets, at that priority, and what comes after them, at the next one. */
  readonly rulesOf: (prefix: Prefix, value: V, priority: number) => readonly Rule[];
  /**
   * Whose the rules are that belong to no table. The kernel takes two for the same where they differ in where they go to alone: a
   * node that moves has become higher by one, and what goes there has the other owner.
   */
  readonly owners: readonly [number, number];
  /** The priority where packets go on that no table has a route for; behind the block. A rule stands there. */
  readonly end: number;
}

export class LocalTree<V> {
  readonly #options: TreeOptions<V>;
  readonly #root: Node<V>;
  /** By their places. BOUNDED: by the block. */
  readonly #nodes: Map<number, Node<V>>;

  constructor(options: TreeOptions<V>) {
    this.#options = options;
    const region = { address: { family: options.family, value: 0n }, prefixLength: 0 };
    this.#root = { region, height: Number.POSITIVE_INFINITY, place: 0, leaves: new Set(), children: new Set() };
    this.#nodes = new Map([[0, this.#root]]);
  }

  get isEmpty(): boolean {
    return isBare(this.#root);
  }

  /** Packets of these addresses are for that, too. */
  add(prefix: Prefix, value: V): RuleChange {
    const path = this.#pathTo(prefix);
    const node = path.at(-1)!;
    const before = this.#rulesAt(path);
    node.leaves.add({ prefix, value });
    const isFull = node.leaves.size + node.children.size > this.#options.entries;
    return { before, after: this.#rulesAt([...path, ...(isFull ? this.#divide(path) : [])]) };
  }

  /** Does nothing where they are not. */
  remove(prefix: Prefix, value: V): RuleChange {
    const path = this.#pathTo(prefix);
    const before = this.#rulesAt(path);
    const node = path.at(-1)!;
    for (const leaf of node.leaves) if (isLeaf(leaf, prefix, value)) node.leaves.delete(leaf);
    const kept = [...path];
    while (kept.length > 1 && isBare(kept.at(-1)!)) {
      const bare = kept.pop()!;
      kept.at(-1)!.children.delete(bare);
      this.#nodes.delete(bare.place);
    }
    return { before, after: this.#rulesAt(kept) };
  }

  /** The rules for a value, by the prefixes that it was added with. */
  rulesOf(prefixes: readonly Prefix[], value: V): Rule[] {
    return prefixes.flatMap((prefix) => {
      const node = this.#pathTo(prefix).at(-1)!;
      const leaves = [...node.leaves].filter((leaf) => isLeaf(leaf, prefix, value));
      return leaves.flatMap((leaf) => this.#lookUps(node, leaf));
    });
  }

  /** Those that are for no value. */
  get ways(): Rule[] {
    return [...this.#nodes.values()].flatMap((node) => this.#waysAt(node));
  }

  /** Whether it is one of `ways`. */
  wantsWay(rule: Rule): boolean {
    const node = this.#nodes.get(Math.floor((rule.priority - this.#options.block) / PRIORITIES));
    const key = ruleKey(rule);
    return node !== undefined && this.#waysAt(node).some((way) => ruleKey(way) === key);
  }

  /** From the root to the last node whose region holds all of these addresses. */
  #pathTo(prefix: Prefix): Node<V>[] {
    const path = [this.#root];
    for (const node of path) {
      for (const child of node.children) if (holds(child.region, prefix)) path.push(child);
    }
    return path;
  }

  /** @returns the node below the last one that some of its entries are in now; none where they cannot be told apart, or there is no room */
  #divide(path: readonly Node<V>[]): Node<V>[] {
    const node = path.at(-1)!;
    const region = regionToMove(node);
    if (region === undefined) return [];
    const leaves = [...node.leaves].filter(({ prefix }) => holds(region, prefix));
    const children = [...node.children].filter((child) => holds(region, child.region));
    const height = Math.max(-1, ...children.map((child) => child.height)) + 1;
    const lifted = path.toReversed().filter((above, steps) => above.height < height + steps + 1);
    const places = [height, ...lifted.map((_, steps) => height + steps + 1)].map((one) => this.#freePlace(one));
    if (places.includes(undefined)) return [];
    for (const leaf of leaves) node.leaves.delete(leaf);
    for (const child of children) node.children.delete(child);
    const divided = { region, height, place: places[0]!, leaves: new Set(leaves), children: new Set(children) };
    node.children.add(divided);
    for (const [steps, above] of lifted.entries()) {
      this.#nodes.delete(above.place);
      above.height = height + steps + 1;
      above.place = places[steps + 1]!;
    }
    for (const one of [divided, ...lifted]) this.#nodes.set(one.place, one);
    return [divided];
  }

  #freePlace(height: number): number | undefined {
    const places = Math.floor(this.#options.size / PRIORITIES);
    const end = Math.floor(places / 2 ** height);
    for (let place = Math.max(1, Math.floor(end / 2)); place < end; place++) if (!this.#nodes.has(place)) return place;
    return undefined;
  }

  /** Node by node. The last is added first: in a node what comes after a look-up is added after it, and removed before it. */
  #rulesAt(nodes: readonly Node<V>[]): Rule[] {
    return [...nodes]
      .sort((a, b) => a.place - b.place)
      .flatMap((node) => {
        const rules = [...[...node.leaves].flatMap((leaf) => this.#lookUps(node, leaf)), ...this.#waysAt(node)];
        const at = (offset: number): Rule[] =>
          rules.filter(({ priority }) => priority === this.#priorityOf(node) + offset);
        return [...at(1), ...at(0), ...at(2)];
      });
  }

  #lookUps(node: Node<V>, { prefix, value }: Leaf<V>): readonly Rule[] {
    return this.#options.rulesOf(prefix, value, this.#priorityOf(node));
  }

  #waysAt(node: Node<V>): Rule[] {
    const { family, by, owners, end } = this.#options;
    const priority = this.#priorityOf(node);
    const ways = [...node.children].map((child): Rule => {
      const isLater = [...node.leaves].some(({ prefix }) => holds(prefix, child.region));
      const action = { type: 'goto', priority: this.#priorityOf(child) } as const;
      const owner = owners[child.height % 2]!;
      return { family, priority: priority + Number(isLater), [by]: child.region, action, owner };
    });
    if (node === this.#root && ways.length === 0) return [];
    return [...ways, { family, priority: priority + 2, action: { type: 'goto', priority: end }, owner: owners[0] }];
  }

  #priorityOf({ place }: Node<V>): number {
    return this.#options.block + place * PRIORITIES;
  }
}

/** The region of the entries of a node that are to have a node of their own; `undefined` where there is none. */
function regionToMove<V>({ region, leaves, children }: Node<V>): Prefix | undefined {
  const entries = [...[...leaves].map(({ prefix }) => prefix), ...[...children].map((child) => child.region)];
  const common = commonPrefix(entries);
  const halves = ([0n, 1n] as const).map((bit) => entries.filter((entry) => bitBehind(common, entry) === bit));
  const larger = halves[0]!.length < halves[1]!.length ? halves[1]! : halves[0]!;
  if (larger.length > 1) return commonPrefix(larger);
  return common.prefixLength > region.prefixLength ? common : undefined;
}

/** The first bits that all have in common. @param prefixes at least one */
function commonPrefix(prefixes: readonly Prefix[]): Prefix {
  return prefixes.reduce((one, other) => {
    const bits = BigInt(addressBits(one.address.family));
    const differing = (one.address.value ^ other.address.value).toString(2).length;
    const same = one.address.value === other.address.value ? Number(bits) : Number(bits) - differing;
    const prefixLength = Math.min(one.prefixLength, other.prefixLength, same);
    const shift = bits - BigInt(prefixLength);
    return { address: { ...one.address, value: (one.address.value >> shift) << shift }, prefixLength };
  });
}

/** The first bit of an entry behind a prefix that holds it; `undefined` where the entry ends with the prefix. */
function bitBehind({ prefixLength }: Prefix, entry: Prefix): bigint | undefined {
  if (entry.prefixLength === prefixLength) return undefined;
  return (entry.address.value >> BigInt(addressBits(entry.address.family) - prefixLength - 1)) & 1n;
}

function holds(region: Prefix, { address, prefixLength }: Prefix): boolean {
  if (region.prefixLength > prefixLength) return false;
  const shift = BigInt(addressBits(address.family) - region.prefixLength);
  return region.address.value >> shift === address.value >> shift;
}

function isLeaf<V>(leaf: Leaf<V>, prefix: Prefix, value: V): boolean {
  return leaf.value === value && samePrefix(leaf.prefix, prefix);
}

function isBare<V>({ leaves, children }: Node<V>): boolean {
  return leaves.size + children.size === 0;
}
