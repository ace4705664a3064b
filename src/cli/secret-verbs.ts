/** The verbs that keep secrets. Values are read, never printed, but for one that is made here and is to be printed. */
import { randomFillSync } from 'node:crypto';
import { decodeBase64 } from '../base/base64.ts';
import { secretBytes, secretCopy } from '../base/secret-bytes.ts';
import { formatSecrets } from './format.ts';
import {
  type Arguments,
  document,
  flag,
  name,
  noOptions,
  RefusedInputError,
  readInput,
  type Terminal,
  UsageError,
  type VerbSpec,
} from './verb.ts';

export const secretDefine: VerbSpec = {
  ...noOptions,
  group: 'Secrets',
  usage: 'FILE',
  summary: "define a secret from a <secret> document, in libvirt's format",
  details: 'FILE may be - for standard input.',
  positionals: [1, 1],
  run: async (client, args, terminal) => {
    const result = await client.call('secret-define', await document(args, terminal));
    terminal.out(`Secret ${result.uuid} created\n`);
  },
};

export const secretSetValue: VerbSpec = {
  group: 'Secrets',
  usage: 'UUID [BASE64]',
  summary: 'set the value of a secret',
  details:
    'The value is read from a file, or from standard input when no other source is named, so that it appears neither in\n' +
    'the process list nor in the history of the shell; a terminal does not show it. It is base64; with --plain it is the\n' +
    'value itself, including a newline at the end. A pre-shared key that is easy to guess causes a warning.\n' +
    'For a new key, --generate takes 32 random bytes; --print writes them to standard output once, in base64, for the\n' +
    'peer: sectunnel secret-set-value UUID --generate --print | ssh PEER sectunnel secret-set-value UUID\n' +
    '(strongSwan and libreswan want 0s before it).',
  options: { file: { type: 'string' }, base64: { type: 'string' }, plain: flag, generate: flag, print: flag },
  optionHelp: {
    file: 'read the value from FILE',
    base64: 'the value itself, in base64 (visible to other users of this machine while the command runs)',
    plain: 'the value is not base64',
    generate: 'make a new key: 32 random bytes',
    print: 'write the generated key to standard output, in base64, and nothing else',
  },
  positionals: [1, 2],
  run: async (client, args, terminal) => {
    const { generate, print } = args.options;
    if (print === true && generate !== true) throw new UsageError('--print goes with --generate', 'secret-set-value');
    const value = generate === true ? generatedValue(args) : await secretValue(args, terminal);
    try {
      const result = await client.setSecret(name(args), value);
      for (const warning of result.warnings) terminal.err(`warning: ${warning}\n`);
      const done = `Secret value of ${result.uuid} set\n`;
      if (print === true) terminal.out(`${Buffer.from(value).toString('base64')}\n`);
      (print === true ? terminal.err : terminal.out)(done);
    } finally {
      value.fill(0);
    }
  },
};

/** Bytes of a key that is made here: as much as any cipher that is negotiated can use. */
const GENERATED_BYTES = 32;
/** Longest text or file that a value is read from, in bytes: more than the longest value takes as base64 in lines. */
const MAX_VALUE_TEXT = 0x4000;

function generatedValue({ options, positionals }: Arguments): Uint8Array {
  const others = [options.file, options.base64, options.plain, positionals[1]];
  if (others.some((other) => other !== undefined)) {
    throw new UsageError('--generate makes the value itself; leave out the other sources', 'secret-set-value');
  }
  return randomFillSync(secretBytes(GENERATED_BYTES));
}

async function secretValue(args: Arguments, terminal: Terminal): Promise<Uint8Array> {
  const { file, plain } = args.options;
  const sources = [args.options.base64, args.positionals[1], file].filter((source) => source !== undefined);
  if (sources.length > 1) {
    throw new UsageError(
      'the value comes from one source: --base64, --file, BASE64 or standard input',
      'secret-set-value',
    );
  }
  const base64 = args.options.base64 ?? args.positionals[1];
  if (typeof base64 === 'string') {
    if (plain === true) throw new UsageError('--plain goes with --file or standard input', 'secret-set-value');
    return decoded(Buffer.from(base64));
  }
  if (file === undefined && terminal.prompt !== undefined) return prompted(terminal.prompt, plain === true);
  const bytes = await readInput(typeof file === 'string' ? file : '-', MAX_VALUE_TEXT, terminal);
  if (plain !== true) return decoded(bytes);
  if (bytes.at(-1) === 0x0a)
    terminal.err("warning: the value ends with a newline; use printf '%s' if that was not meant\n");
  return bytes;
}

/** Asks twice, because what is typed is not shown. */
async function prompted(prompt: NonNullable<Terminal['prompt']>, plain: boolean): Promise<Uint8Array> {
  const what = plain ? 'Value (not shown): ' : 'Value in base64 (not shown): ';
  const first = await prompt(what, MAX_VALUE_TEXT);
  try {
    if (first.length > MAX_VALUE_TEXT) throw new RefusedInputError(`more than ${MAX_VALUE_TEXT} bytes were typed`);
    const second = await prompt('Again: ', MAX_VALUE_TEXT);
    const same = first.equals(second);
    second.fill(0);
    if (!same) throw new RefusedInputError('the two values differ; nothing was changed');
    return plain ? secretCopy(first) : decoded(first);
  } finally {
    first.fill(0);
  }
}

function decoded(text: Buffer): Uint8Array {
  const value = decodeBase64(text);
  text.fill(0);
  if (value !== undefined) return value;
  throw new RefusedInputError('the value is not base64; encode it, or use --plain to give it as it is');
}

export const secretList: VerbSpec = {
  ...noOptions,
  group: 'Secrets',
  usage: '',
  summary: 'list secrets (never their values)',
  details:
    "Secrets of sectunnel's own folder come first: they take precedence over those of libvirt with the same UUID or usage.",
  positionals: [0, 0],
  run: async (client, _args, terminal) => {
    const { secrets, notes } = await client.call('secret-list', {});
    terminal.out(formatSecrets(secrets));
    for (const note of notes) terminal.err(`note: ${note}\n`);
  },
};

export const secretUndefine: VerbSpec = {
  ...noOptions,
  group: 'Secrets',
  usage: 'UUID',
  summary: 'remove a secret and its value',
  details: '',
  positionals: [1, 1],
  run: async (client, args, terminal) => {
    const result = await client.call('secret-undefine', { uuid: name(args) });
    terminal.out(`Secret ${result.uuid} deleted\n`);
  },
};
