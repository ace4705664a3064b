/**
 * Compiles lines for nft(8), as the fence writes them, to the netlink messages that nft(8) would make of them: one batch, which the
 * kernel carries out as a whole or not at all. It knows the fence's words and no other: for any other line it throws. Pure.
 */
import { utf8 } from '../../base/text.ts';
import { NLM_F } from '../netlink/netlink.ts';
import {
  NFNL_MSG,
  NFNL_SUBSYS_NFTABLES,
  NFT_MSG,
  NFT_OBJECT_COUNTER,
  NFTA_CHAIN,
  NFTA_COUNTER,
  NFTA_HOOK,
  NFTA_OBJECT,
  NFTA_RULE,
  NFTA_SET,
  NFTA_SET_ELEM_LIST,
  NFTA_TABLE,
  nftType,
} from '../netlink/nftables-layout.ts';
import { writeExpression } from './expressions.ts';
import { compileRule, NO_NAME } from './rule.ts';
import { type ElementWriter, elementWriters, writeOwnElements, writeOwnSet, writeSet } from './sets.ts';
import { numberOf } from './values.ts';
import { Words } from './words.ts';
import { MessageWriter } from './writer.ts';

export interface CompiledBatch {
  /** Messages one after another, from the one that begins a batch to the one that ends it. */
  readonly bytes: Uint8Array;
  /** Of each message between these the line that it is made of. */
  readonly lines: readonly string[];
}

/** A command that names an object and no more: its message, and the attribute with the name; the table's own where there is none. */
interface SimpleCommand {
  readonly message: number;
  readonly name?: number;
}

/** What has no rules, or no elements, in its message loses all that it has. */
const SIMPLE: Readonly<Record<string, SimpleCommand>> = {
  'delete table': { message: NFT_MSG.DELTABLE },
  'delete chain': { message: NFT_MSG.DELCHAIN, name: NFTA_CHAIN.NAME },
  'flush chain': { message: NFT_MSG.DELRULE, name: NFTA_RULE.CHAIN },
  'delete set': { message: NFT_MSG.DELSET, name: NFTA_SET.NAME },
  'delete map': { message: NFT_MSG.DELSET, name: NFTA_SET.NAME },
  'flush set': { message: NFT_MSG.DELSETELEM, name: NFTA_SET_ELEM_LIST.SET },
  'flush map': { message: NFT_MSG.DELSETELEM, name: NFTA_SET_ELEM_LIST.SET },
};

/** Of base chains: NF_INET_… */
const HOOKS: Readonly<Record<string, number>> = { prerouting: 0, input: 1, forward: 2, output: 3, postrouting: 4 };
const CHAIN_TYPES: readonly string[] = ['filter', 'nat', 'route'];
const ACCEPT = 1;
/** A list is an attribute, of 64 KiB at most: an element has 200 bytes. */
const ELEMENTS_PER_MESSAGE = 256;
const COMMENT = 0;

export class BatchCompiler {
  readonly #to = new MessageWriter();
  readonly #lines: string[] = [];
  #line = '';
  #sets = 0;

  constructor() {
    this.#around(NFNL_MSG.BATCH_BEGIN);
  }

  /** An empty line is nothing. @throws Error for one that it does not know */
  add(line: string): void {
    if (line === '') return;
    this.#line = line;
    const words = new Words(line);
    const [verb, kind] = [words.next(), words.next()];
    words.expect('inet');
    const table = words.next();
    const command = `${verb} ${kind}`;
    const simple = SIMPLE[command];
    if (simple !== undefined) this.#simple(simple, table, words);
    else if (!this.#takesOther(command, table, words)) throw words.unknown(command);
  }

  #takesOther(command: string, table: string, words: Words): boolean {
    switch (command) {
      case 'add table':
        this.#addTable(table, words);
        return true;
      case 'add chain':
        this.#addChain(table, words);
        return true;
      case 'add counter':
        this.#addCounter(table, words);
        return true;
      case 'delete counter':
        this.#deleteCounter(table, words);
        return true;
      case 'add set':
      case 'add map':
        this.#addSet(table, words);
        return true;
      case 'add element':
        this.#elements(NFT_MSG.NEWSETELEM, table, words);
        return true;
      case 'delete element':
        this.#elements(NFT_MSG.DELSETELEM, table, words);
        return true;
      case 'add rule':
        this.#addRule(table, words);
        return true;
      default:
        return false;
    }
  }

  end(): CompiledBatch {
    this.#around(NFNL_MSG.BATCH_END);
    return { bytes: this.#to.end(), lines: this.#lines };
  }

  /** struct nfgenmsg names the subsystem. */
  #around(type: number): void {
    this.#to.message(type, { family: 0, resource: NFNL_SUBSYS_NFTABLES }, () => undefined);
  }

  #message(type: number, table: string, content: (to: MessageWriter) => void, flags: number = 0): void {
    const to = this.#to;
    to.message(nftType(type), { flags }, () => {
      to.text(NFTA_TABLE.NAME, table);
      content(to);
    });
    this.#lines.push(this.#line);
  }

  #simple({ message, name: attribute }: SimpleCommand, table: string, words: Words): void {
    const name = attribute === undefined ? '' : words.next();
    words.end();
    this.#message(message, table, (to) => {
      if (attribute !== undefined) to.text(attribute, name);
    });
  }

  /** Without flags: one that is dormant wakes. */
  #addTable(table: string, words: Words): void {
    const comment = words.atEnd ? undefined : /^.* \{ comment "([^"]{1,128})"; \}$/.exec(words.line)?.[1];
    if (!words.atEnd && comment === undefined) throw words.unknown(words.peeked);
    this.#message(
      NFT_MSG.NEWTABLE,
      table,
      (to) => {
        to.u32(NFTA_TABLE.FLAGS, 0);
        if (comment !== undefined) {
          const text = utf8(`${comment}\0`);
          to.bytes(NFTA_TABLE.USERDATA, Uint8Array.of(COMMENT, text.length, ...text));
        }
      },
      NLM_F.CREATE,
    );
  }

  /** `{ type filter hook input priority -10; policy accept; }` for a base chain. */
  #addChain(table: string, words: Words): void {
    const name = words.next();
    const hook = words.atEnd ? undefined : takeHook(words);
    words.end();
    this.#message(
      NFT_MSG.NEWCHAIN,
      table,
      (to) => {
        to.text(NFTA_CHAIN.NAME, name);
        if (hook === undefined) return;
        to.text(NFTA_CHAIN.TYPE, hook.type);
        to.u32(NFTA_CHAIN.POLICY, ACCEPT);
        to.nested(NFTA_CHAIN.HOOK, () => {
          to.u32(NFTA_HOOK.NUMBER, hook.number);
          to.u32(NFTA_HOOK.PRIORITY, hook.priority);
        });
      },
      NLM_F.CREATE,
    );
  }

  /** One that is there goes on counting. */
  #addCounter(table: string, words: Words): void {
    const name = words.next();
    let packets = 0;
    if (words.takes('{', 'packets')) {
      const word = words.next();
      if (!/^\d{1,15}$/.test(word)) throw words.unknown(word);
      packets = Number(word);
      words.expect('bytes', '0', '}');
    }
    words.end();
    this.#message(
      NFT_MSG.NEWOBJ,
      table,
      (to) => {
        to.text(NFTA_OBJECT.NAME, name);
        to.u32(NFTA_OBJECT.TYPE, NFT_OBJECT_COUNTER);
        to.nested(NFTA_OBJECT.DATA, () => {
          to.u64(NFTA_COUNTER.BYTES, 0);
          to.u64(NFTA_COUNTER.PACKETS, packets);
        });
      },
      NLM_F.CREATE,
    );
  }

  #deleteCounter(table: string, words: Words): void {
    const name = words.next();
    words.end();
    this.#message(NFT_MSG.DELOBJ, table, (to) => {
      to.text(NFTA_OBJECT.NAME, name);
      to.u32(NFTA_OBJECT.TYPE, NFT_OBJECT_COUNTER);
    });
  }

  #addSet(table: string, words: Words): void {
    const name = words.next();
    const id = ++this.#sets;
    this.#message(
      NFT_MSG.NEWSET,
      table,
      (to) => {
        to.text(NFTA_SET.NAME, name);
        writeSet(to, id, words);
      },
      NLM_F.CREATE,
    );
  }

  /** In several messages where they are many. */
  #elements(type: number, table: string, words: Words): void {
    const set = words.next();
    const [, text] = /^[^{]*\{ (.+) \}$/.exec(words.line) ?? [];
    if (text === undefined) throw words.unknown(words.peeked);
    const writers = elementWriters(words, text);
    for (let first = 0; first < writers.length; first += ELEMENTS_PER_MESSAGE) {
      this.#elementsOf(type, table, { name: set }, writers.slice(first, first + ELEMENTS_PER_MESSAGE));
    }
  }

  #elementsOf(
    type: number,
    table: string,
    { name, id }: { readonly name: string; readonly id?: number },
    writers: readonly ElementWriter[],
  ): void {
    this.#message(
      type,
      table,
      (to) => {
        to.text(NFTA_SET_ELEM_LIST.SET, name);
        if (id !== undefined) to.u32(NFTA_SET_ELEM_LIST.SET_ID, id);
        to.nested(NFTA_SET_ELEM_LIST.ELEMENTS, () => {
          for (const write of writers) write(to);
        });
      },
      type === NFT_MSG.NEWSETELEM ? NLM_F.CREATE : 0,
    );
  }

  /** The sets that it alone has come first. */
  #addRule(table: string, words: Words): void {
    const chain = words.next();
    const { expressions, sets } = compileRule(words, () => ++this.#sets);
    for (const set of sets) {
      this.#message(
        NFT_MSG.NEWSET,
        table,
        (to) => {
          to.text(NFTA_SET.NAME, NO_NAME);
          writeOwnSet(to, set);
        },
        NLM_F.CREATE,
      );
      this.#elementsOf(NFT_MSG.NEWSETELEM, table, { name: NO_NAME, id: set.id }, [
        (to) => writeOwnElements(to, set.values),
      ]);
    }
    this.#message(
      NFT_MSG.NEWRULE,
      table,
      (to) => {
        to.text(NFTA_RULE.CHAIN, chain);
        to.nested(NFTA_RULE.EXPRESSIONS, () => {
          for (const expression of expressions) writeExpression(to, expression);
        });
      },
      NLM_F.CREATE | NLM_F.APPEND,
    );
  }
}

interface Hook {
  readonly type: string;
  readonly number: number;
  readonly priority: number;
}

function takeHook(words: Words): Hook {
  words.expect('{', 'type');
  const type = words.next();
  words.expect('hook');
  const number = HOOKS[words.peeked];
  if (!CHAIN_TYPES.includes(type) || number === undefined) throw words.unknown(words.peeked);
  words.next();
  words.expect('priority');
  const [, sign, digits = ''] = /^(-?)(\d+);$/.exec(words.next()) ?? [];
  const priority = numberOf(digits);
  if (priority === undefined) throw words.unknown('priority');
  words.expect('policy', 'accept;', '}');
  return { type, number, priority: (sign === '-' ? -priority : priority) >>> 0 };
}
