/**
 * What the fence's table contains, as the kernel lists it: for each chain its attributes and its rules in their order, for
 * each set and map its attributes and its elements. Read by netlink, without a program: a
 * thousand tunnels take 0.3 s of processor time, in slices.
 */
import { setImmediate } from 'node:timers/promises';
import { ERRNO, SystemError } from '../../sys/errno.ts';
import type { NetlinkRequest } from '../netlink/netlink.ts';
import {
  type ContentHash,
  ContentParser,
  type ContentSink,
  chainsRequest,
  elementsRequest,
  generationRequest,
  type ObjectName,
  parseGeneration,
  rulesRequest,
  setsRequest,
  tableRequest,
} from '../netlink/nftables.ts';
import type { NftChannel } from '../nft/channel.ts';

/** Of an object. Two are alike when all of it is. */
export interface ObjectContent {
  /** Hook, priority, policy, flags, types. */
  readonly properties: string;
  /** Rules or elements. */
  readonly count: number;
  /** Of the rules in their order, or of the elements in any. */
  readonly high: number;
  readonly low: number;
}

/** BOUNDED: by the objects of the table. */
export type TableContent = ReadonlyMap<ObjectName, ObjectContent>;

/** Objects that are asked for before the event loop has its turn. */
const OBJECTS_PER_TURN = 32;
/** How often a listing is begun anew when the table changed meanwhile. */
const MAX_ATTEMPTS = 5;
const WHAT = 'list the table of the fence';

export class TableReader {
  readonly #table: string;
  readonly #channel: NftChannel;

  constructor(table: string, channel: NftChannel) {
    this.#table = table;
    this.#channel = channel;
  }

  /** A number that each commit of any table raises by one, modulo 2^32. @throws SystemError */
  generation(): number {
    const [answer] = this.#channel.socket.request(generationRequest(), 'ask for the generation of nftables');
    return (answer && parseGeneration(answer.type, answer.body)?.id) ?? 0;
  }

  /** Those of the objects that exist; left out: the whole table. @throws SystemError */
  async read(names?: Iterable<ObjectName>): Promise<TableContent> {
    for (let attempt = 1; ; attempt++) {
      const content = new Gathered();
      const parser = new ContentParser(this.#table, content);
      try {
        await (names === undefined ? this.#readAll(parser, content) : this.#readSome(names, parser));
        return content.end();
      } catch (error) {
        if (!(error instanceof SystemError) || error.errno !== ERRNO.EINTR || attempt === MAX_ATTEMPTS) throw error;
      }
    }
  }

  async #readAll(parser: ContentParser, content: Gathered): Promise<void> {
    const table = this.#table;
    if (!(await this.#list(tableRequest(table), parser))) return;
    for (const request of [chainsRequest, rulesRequest, setsRequest]) await this.#list(request(table), parser);
    const turns = new Turns();
    for (const set of content.sets()) {
      await turns.next();
      await this.#list(elementsRequest(table, set), parser);
    }
  }

  async #readSome(names: Iterable<ObjectName>, parser: ContentParser): Promise<void> {
    const table = this.#table;
    const turns = new Turns();
    for (const name of names) {
      await turns.next();
      const [kind, own = ''] = name.split(' ');
      if (kind === 'table') await this.#list(tableRequest(table), parser);
      else if (kind === 'chain') {
        if (await this.#list(chainsRequest(table, own), parser)) await this.#list(rulesRequest(table, own), parser);
      } else if (await this.#list(setsRequest(table, own), parser)) {
        await this.#list(elementsRequest(table, own), parser);
      }
    }
  }

  /** False when it is not there. */
  #list(request: NetlinkRequest, parser: ContentParser): Promise<boolean> {
    return this.#channel.socket.requestInSlices(request, WHAT, ({ type, body }) => parser.add(type, body));
  }
}

/** Lets the event loop have its turn between many short requests. */
class Turns {
  #count = 0;

  async next(): Promise<void> {
    if (++this.#count % OBJECTS_PER_TURN === 0) await setImmediate();
  }
}

/** The contents of the table, gathered from the answers. */
class Gathered implements ContentSink {
  readonly #objects = new Map<ObjectName, { -readonly [Key in keyof ObjectContent]: ObjectContent[Key] }>();

  object(name: ObjectName, properties: string): void {
    this.#objects.set(name, { properties, count: 0, high: 0, low: 0 });
  }

  /** Rules have an order; elements are listed in any. */
  item(name: ObjectName, { high, low }: ContentHash): void {
    const object = this.#objects.get(name);
    // Its chain or set was created after the chains or sets had been listed.
    if (object === undefined) return;
    object.count++;
    const factor = name.startsWith('chain') ? ORDERED : 1;
    object.high = (Math.imul(object.high, factor) + high) | 0;
    object.low = (Math.imul(object.low, factor) + low) | 0;
  }

  sets(): string[] {
    return [...this.#objects.keys()].flatMap((name) => (name.startsWith('set ') ? [name.slice('set '.length)] : []));
  }

  end(): TableContent {
    return this.#objects;
  }
}

/** Odd: nothing of the hashes before is lost. */
const ORDERED = 0x0100_0193;

/** Of an object that is not there. */
export const MISSING = 'missing';

/** What of an object is not as it should be, in words that follow its name; `undefined` when all of it is. */
export function contentDamage(
  wanted: ObjectContent | undefined,
  found: ObjectContent | undefined,
  name: ObjectName,
): string | undefined {
  if (wanted === undefined) return found === undefined ? undefined : 'added';
  if (found === undefined) return MISSING;
  const { properties, count, high, low } = wanted;
  const items = name.startsWith('set ') ? 'elements' : 'rules';
  if (found.count < count) return `${count - found.count} of ${count} ${items} missing`;
  if (found.count > count) return `${found.count - count} added to ${count} ${items}`;
  if (found.high !== high || found.low !== low) return `${items} changed`;
  if (found.properties !== properties) return 'properties changed';
  return undefined;
}
