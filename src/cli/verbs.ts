/**
 * The verbs of the `sectunnel` command: one entry each, with what it takes, what it does, and its help.
 */
import { autostart, define, defined, destroy, undefine } from './change-verbs.ts';
import { check } from './check.ts';
import { explain } from './explain.ts';
import { exportNetwork } from './export.ts';
import { formatEvent, formatInfo } from './format.ts';
import { list, status } from './list-verbs.ts';
import { netHook } from './net-hook.ts';
import { netImport, netList } from './net-verbs.ts';
import { pkiCheck } from './pki-check.ts';
import { release } from './release.ts';
import { reload } from './reload.ts';
import { formatRenewal } from './renewal.ts';
import { probe, reauth, rekey, reset } from './sa-verbs.ts';
import { secretDefine, secretList, secretSetValue, secretUndefine } from './secret-verbs.ts';
import { restart, start } from './start-verbs.ts';
import { document, flag, json, jsonOption, name, noOptions, RefusedInputError, type VerbSpec } from './verb.ts';

const create: VerbSpec = {
  ...noOptions,
  group: 'Tunnels',
  usage: 'FILE',
  summary: 'start a transient tunnel from a document, without defining it',
  details: 'The tunnel is gone when it stops or when the host restarts. FILE may be - for standard input.',
  positionals: [1, 1],
  run: async (client, args, terminal) => {
    defined(await client.call('create', await document(args, terminal)), `created from ${name(args)}`, terminal);
  },
};

const update: VerbSpec = {
  group: 'Tunnels',
  usage: 'FILE',
  summary: 'replace the running document of a tunnel, the defined one, or both',
  details:
    'The name in the document selects the tunnel. Without an option, an active tunnel gets a new running document, an\n' +
    'inactive one a new definition. Of a running tunnel the SAs that the change does not concern stay up, and what it\n' +
    'concerns is replaced, without interruption where that is possible: the answer says which. Another device makes\n' +
    'all anew. A document that is equal to the previous one changes nothing.',
  options: { live: flag, config: flag },
  optionHelp: { live: 'change the running document', config: 'change the defined document' },
  positionals: [1, 1],
  run: async (client, args, terminal) => {
    const params = {
      ...(await document(args, terminal)),
      live: args.options.live === true,
      config: args.options.config === true,
    };
    const result = await client.call('update', params);
    const what =
      result.unchanged === true ? `unchanged: ${name(args)} is equal to its document` : `updated from ${name(args)}`;
    defined(result, what, terminal);
    if (result.renewal !== undefined) terminal.out(`${formatRenewal(result.renewal)}\n`);
  },
};

const info: VerbSpec = {
  ...jsonOption,
  group: 'Inspection',
  usage: 'TUNNEL',
  summary: 'basic facts of a tunnel',
  details: '',
  positionals: [1, 1],
  run: async (client, args, terminal) => {
    const result = await client.call('info', { name: name(args) });
    terminal.out(args.options.json === true ? json(result) : formatInfo(result));
  },
};

const dumpxml: VerbSpec = {
  group: 'Inspection',
  usage: 'TUNNEL',
  summary: 'print the document of a tunnel',
  details: 'For an active tunnel, the running document; with --inactive, the defined one.',
  options: { inactive: flag },
  optionHelp: { inactive: 'the document that the next start uses' },
  positionals: [1, 1],
  run: async (client, args, terminal) => {
    const params = { name: name(args), inactive: args.options.inactive === true };
    terminal.out((await client.call('dumpxml', params)).xml);
  },
};

const uuid: VerbSpec = {
  ...noOptions,
  group: 'Inspection',
  usage: 'NAME',
  summary: 'the UUID of a tunnel',
  details: '',
  positionals: [1, 1],
  run: async (client, args, terminal) => {
    terminal.out(`${(await client.call('info', { name: name(args) })).uuid}\n`);
  },
};

const nameOf: VerbSpec = {
  ...noOptions,
  group: 'Inspection',
  usage: 'UUID',
  summary: 'the name of a tunnel',
  details: '',
  positionals: [1, 1],
  run: async (client, args, terminal) => {
    terminal.out(`${(await client.call('info', { name: name(args) })).name}\n`);
  },
};

const event: VerbSpec = {
  group: 'Inspection',
  usage: '[TUNNEL]',
  summary: 'print the events of tunnels until interrupted',
  details: '',
  options: { json: flag },
  optionHelp: { json: 'as JSON, one event per line' },
  positionals: [0, 1],
  run: async (client, args, terminal) => {
    const asJson = args.options.json === true;
    client.onEvent = (happened) => terminal.out(asJson ? `${JSON.stringify(happened)}\n` : formatEvent(happened));
    const gone = new Promise<never>((_, reject) => {
      client.onClose = () => reject(new RefusedInputError('the daemon closed the connection'));
    });
    const tunnel = args.positionals[0];
    const watched = async (): Promise<void> => {
      await client.call('event', tunnel === undefined ? {} : { name: tunnel });
      await terminal.interrupted();
    };
    await Promise.race([watched(), gone]);
  },
};

/** All verbs, in the order of the help. */
export const verbs: ReadonlyMap<string, VerbSpec> = new Map(
  Object.entries({
    define,
    undefine,
    create,
    start,
    restart,
    destroy,
    rekey,
    reauth,
    probe,
    reset,
    autostart,
    update,
    reload,
    export: exportNetwork,
    release,
    list,
    info,
    status,
    event,
    dumpxml,
    uuid,
    name: nameOf,
    explain,
    check,
    'pki-check': pkiCheck,
    'net-import': netImport,
    'net-list': netList,
    hook: netHook,
    'secret-define': secretDefine,
    'secret-set-value': secretSetValue,
    'secret-list': secretList,
    'secret-undefine': secretUndefine,
  }),
);
