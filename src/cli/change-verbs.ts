/** The verbs that change what is defined and what runs, of one tunnel or of many. */
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '../base/text.ts';
import type { DaemonClient } from '../control/client.ts';
import type { DefineResult, Outcome } from '../control/results.ts';
import { EachDisplay, eachOptions, followed, isMany, runEach, targets } from './each.ts';
import {
  type DaemonVerbSpec,
  type Document,
  document,
  documentOf,
  flag,
  name,
  RefusedInputError,
  type Terminal,
  UsageError,
} from './verb.ts';

/** Bytes of documents in one request, at least one document: it has at most 4 MiB, escaped. */
const MAX_REQUEST = 2 * 1024 * 1024;
/** Documents in one request. */
const MAX_DOCUMENTS = 4_000;

export function defined(result: DefineResult, what: string, terminal: Terminal): void {
  for (const warning of result.warnings) terminal.err(`warning: ${warning}\n`);
  terminal.out(`Tunnel ${result.name} ${what}\n`);
}

export const define: DaemonVerbSpec = {
  group: 'Tunnels',
  usage: 'FILE … | --dir DIR',
  summary: 'define or change tunnels from <sectunnel> documents',
  details:
    'The document is validated against the schema and for its meaning before anything is stored; a wrong document\n' +
    'never replaces one that works. Defining a running tunnel changes only its inactive configuration.\n' +
    'FILE may be - for standard input. Of several documents a wrong one is named, and the others are defined.',
  options: { dir: { type: 'string' }, validate: flag },
  optionHelp: {
    dir: 'all *.xml in this folder, in the order of their names',
    validate: 'accepted for virsh users: documents are always validated',
  },
  positionals: [0, Number.POSITIVE_INFINITY],
  exitCodes: eachOptions.exitCodes,
  run: async (client, args, terminal) => {
    const { dir } = args.options;
    if (args.positionals.length === 0 && dir === undefined)
      throw new UsageError('define takes FILE … | --dir DIR, not nothing', 'define');
    if (args.positionals.length === 1 && dir === undefined) {
      defined(await client.call('define', await document(args, terminal)), `defined from ${name(args)}`, terminal);
      return undefined;
    }
    const named = args.positionals.map((file) => ({ file, isFound: false }));
    return await defineEach(client, [...named, ...documentsIn(dir)], terminal);
  },
};

interface DocumentFile {
  readonly file: string;
  /** In a folder. A pipe that is named is meant; one that is found there may have no writer. */
  readonly isFound: boolean;
}

/** @throws RefusedInputError for a folder that cannot be read, or has none */
function documentsIn(dir: string | boolean | undefined): DocumentFile[] {
  if (typeof dir !== 'string') return [];
  let names: string[];
  try {
    names = readdirSync(dir).filter((file) => file.endsWith('.xml') && !file.startsWith('.'));
  } catch (error) {
    throw new RefusedInputError(`cannot read the folder ${dir}: ${messageOf(error)}`);
  }
  if (names.length === 0) throw new RefusedInputError(`there is no *.xml in ${dir}`);
  return names.sort().map((file) => ({ file: join(dir, file), isFound: true }));
}

function defineEach(
  client: DaemonClient,
  files: readonly DocumentFile[],
  terminal: Terminal,
): Promise<number | undefined> {
  const display = new EachDisplay({ doing: 'defining', done: 'defined' }, terminal);
  return followed(client, display, terminal, async () => {
    let left = files.length;
    // BOUNDED: by the files.
    const defined = new Set<string>();
    for await (const documents of slices(files, terminal, (file, why) => {
      left--;
      display.failed({ name: file, error: { code: 'bad-request', message: why } });
    })) {
      left -= documents.length;
      display.nextRequest(documents.length, left);
      await client.call(
        'define-each',
        { documents },
        {
          onProgress: (progress) => {
            display.show(progress);
            for (const outcome of progress.outcomes.filter(
              ({ name, error }) => error === undefined && defined.has(name),
            ))
              display.failed(twice(outcome));
            for (const { name } of progress.outcomes) defined.add(name);
          },
        },
      );
    }
  });
}

/** Of one request the daemon refuses it. */
function twice({ name }: Outcome): Outcome {
  const message = `two documents define tunnel ${name}, and the later one counts: give one of them another <name>`;
  return { name, error: { code: 'invalid-state', message } };
}

/** What is not there, or is a folder, is refused when it is read. @throws RefusedInputError for what reading may wait for */
function refuseSpecial(file: string): void {
  const found = statSync(file, { throwIfNoEntry: false });
  if (found === undefined || found.isFile() || found.isDirectory()) return;
  throw new RefusedInputError(`cannot read ${file}: it is a pipe, a socket or a device, a file is required`);
}

/** Documents by the request that they go into; read when it is their turn. */
async function* slices(
  files: readonly DocumentFile[],
  terminal: Terminal,
  unreadable: (file: string, why: string) => void,
): AsyncGenerator<Document[]> {
  let slice: Document[] = [];
  let bytes = 0;
  for (const { file, isFound } of files) {
    let next: Document;
    try {
      if (isFound) refuseSpecial(file);
      next = await documentOf(file, terminal);
    } catch (error) {
      unreadable(file, messageOf(error));
      continue;
    }
    const size = JSON.stringify(next).length;
    if (slice.length === MAX_DOCUMENTS || (slice.length > 0 && bytes + size > MAX_REQUEST)) {
      yield slice;
      [slice, bytes] = [[], 0];
    }
    slice.push(next);
    bytes += size;
  }
  if (slice.length > 0) yield slice;
}

export const undefine: DaemonVerbSpec = {
  ...eachOptions,
  group: 'Tunnels',
  summary: 'remove the definition of tunnels; an active tunnel becomes transient',
  details: 'TUNNEL is a name or a UUID, here and in all other verbs.',
  optionHelp: { all: 'all that are defined' },
  run: async (client, args, terminal) => {
    if (isMany(args)) {
      const words = { doing: 'undefining', done: 'undefined' };
      return await runEach(client, { verb: 'undefine', ...targets('undefine', args) }, words, terminal);
    }
    const result = await client.call('undefine', { name: name(args) });
    terminal.out(`Tunnel ${result.name} has been undefined\n`);
    return undefined;
  },
};

export const destroy: DaemonVerbSpec = {
  ...eachOptions,
  group: 'Tunnels',
  summary: 'stop tunnels: delete their SAs, their routes and their devices',
  details:
    'The definition stays. From now on, packets that the policy protected pass in the clear. Without a daemon,\n' +
    "'sectunnel release' removes the fences of all tunnels.",
  optionHelp: { all: 'all that are active or waiting to retry' },
  run: async (client, args, terminal) => {
    if (isMany(args)) {
      const words = { doing: 'destroying', done: 'destroyed' };
      return await runEach(client, { verb: 'destroy', ...targets('destroy', args) }, words, terminal);
    }
    const result = await client.call('destroy', { name: name(args) });
    terminal.out(`Tunnel ${result.name} destroyed\n`);
    return undefined;
  },
};

export const autostart: DaemonVerbSpec = {
  ...eachOptions,
  group: 'Tunnels',
  summary: 'start tunnels with the daemon, or no longer',
  details: '',
  options: { ...eachOptions.options, disable: flag },
  optionHelp: {
    all: 'all that are defined and not marked so yet; with --disable, all that are',
    disable: 'do not start them with the daemon any longer',
  },
  run: async (client, args, terminal) => {
    const enable = args.options.disable !== true;
    const done = `${enable ? '' : 'un'}marked as autostarted`;
    if (isMany(args)) {
      const words = { doing: `${enable ? '' : 'un'}marking`, done };
      const verb = enable ? 'autostart' : 'no-autostart';
      return await runEach(client, { verb, ...targets('autostart', args) }, words, terminal);
    }
    const result = await client.call('autostart', { name: name(args), enable });
    terminal.out(`Tunnel ${result.name} ${done}\n`);
    return undefined;
  },
};
