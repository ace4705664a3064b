/** What a verb of the `sectunnel` command is, and what all of them share: input, output, refusals. */
import { closeSync, openSync, readSync } from 'node:fs';
import type { ParseArgsConfig } from 'node:util';
import { MAX_DOCUMENT_BYTES } from '../config/size.ts';
import type { DaemonClient } from '../control/client.ts';

/** The command line is wrong: exit code 2 and a hint at the help. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
  /** The verb whose help tells more, if it is known. */
  readonly verb: readonly string[];

  constructor(message: string, ...verb: readonly [] | readonly [string]) {
    super(message);
    this.verb = verb;
  }
}

/** A file that was named cannot be used. */
export class RefusedInputError extends Error {
  override readonly name = 'RefusedInputError';
}

/** What a verb may use of its surroundings: replaced in tests. */
export interface Terminal {
  out(text: string): void;
  err(text: string): void;
  /** Stops when more than `most` bytes have come, and gives them. */
  readStdin(most: number): Promise<Buffer>;
  /** Asks the person at the terminal for a line that is not shown; left out where standard input is no terminal. */
  readonly prompt?: ((question: string, most: number) => Promise<Buffer>) | undefined;
  /** Resolves when the user interrupts. */
  interrupted(): Promise<void>;
  /** Standard error is read by a person: a line there may be rewritten. */
  readonly isWatched?: boolean;
}

export interface Arguments {
  readonly positionals: readonly string[];
  readonly options: Readonly<Record<string, string | boolean | undefined>>;
}

export const GROUPS = ['Tunnels', 'Inspection', 'Networks', 'Secrets'] as const;

interface VerbWords {
  readonly group: (typeof GROUPS)[number];
  /** Positional arguments, as in the help; an optional one in brackets. */
  readonly usage: string;
  readonly summary: string;
  /** Further paragraphs of the help. */
  readonly details: string;
  readonly options: NonNullable<ParseArgsConfig['options']>;
  readonly optionHelp: Readonly<Record<string, string>>;
  /** Options whose value may be left out: what to call it in the help, and what stands for it then. */
  readonly optionalValues?: Readonly<Record<string, { readonly name: string; readonly value: string }>>;
  readonly positionals: readonly [min: number, max: number];
  /** Exit codes of its own, beside those that all verbs have or in their place. */
  readonly exitCodes?: Readonly<Record<number, string>>;
}

export interface DaemonVerbSpec extends VerbWords {
  /** Resolves with an exit code; with none where all went well. */
  run(client: DaemonClient, args: Arguments, terminal: Terminal): Promise<number | undefined>;
}

/** A verb that needs no daemon. */
export interface LocalVerbSpec extends VerbWords {
  runLocally(args: Arguments, terminal: Terminal, runDir: string): Promise<number | undefined>;
}

export type VerbSpec = DaemonVerbSpec | LocalVerbSpec;

export const noOptions: Pick<VerbWords, 'options' | 'optionHelp'> = { options: {}, optionHelp: {} };
export const flag: { readonly type: 'boolean' } = { type: 'boolean' };
export const jsonOption: Pick<VerbWords, 'options' | 'optionHelp'> = {
  options: { json: flag },
  optionHelp: { json: 'as JSON, for programs' },
};

export function json(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}

export function name(args: Arguments): string {
  return args.positionals[0]!;
}

/** A document, and what to call it in messages. */
export interface Document {
  readonly xml: string;
  readonly source: string;
}

export function document(args: Arguments, terminal: Terminal): Promise<Document> {
  return documentOf(name(args), terminal);
}

/** @throws RefusedInputError saying what is wrong with the file */
export async function documentOf(file: string, terminal: Terminal): Promise<Document> {
  const bytes = await readInput(file, MAX_DOCUMENT_BYTES, terminal);
  return { xml: bytes.toString('utf8'), source: file === '-' ? STANDARD_INPUT : file };
}

export const STANDARD_INPUT = '(standard input)';

/**
 * The whole of a file, or of the standard input for `-`. What has no end (`/dev/zero`) is not read for one.
 * @param most bytes that are taken
 * @throws RefusedInputError saying what is wrong with it
 */
export async function readInput(file: string, most: number, terminal: Terminal): Promise<Buffer> {
  const bytes = file === '-' ? await terminal.readStdin(most) : readFile(file, most);
  if (bytes.length <= most) return bytes;
  bytes.fill(0);
  throw new RefusedInputError(
    `${file === '-' ? STANDARD_INPUT : file} has more than ${most} bytes, which is the most that is read`,
  );
}

/** One byte more than `most` where there is more. */
function readFile(file: string, most: number): Buffer {
  const bytes = Buffer.alloc(most + 1);
  let length = 0;
  try {
    const descriptor = openSync(file, 'r');
    try {
      for (let count = -1; count !== 0 && length < bytes.length; length += count) {
        count = readSync(descriptor, bytes, length, bytes.length - length, null);
      }
    } finally {
      closeSync(descriptor);
    }
    return bytes.subarray(0, length);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    const reasons: Readonly<Record<string, string>> = {
      ENOENT: 'there is no such file',
      EISDIR: 'it is a folder, a file is required',
      EACCES: 'this user may not read it',
    };
    throw new RefusedInputError(`cannot read ${file}: ${reasons[String(code)] ?? String(error)}`);
  }
}
