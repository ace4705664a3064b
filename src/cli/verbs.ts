/**
 * The verbs of the `sectunnel` command: one entry each, with what it takes, what it does, and its help.
 */
import type { DefineResult, TunnelInfo } from '../control/results.ts';
import { check } from './check.ts';
import { explain } from './explain.ts';
import { exportNetwork } from './export.ts';
import { formatEvent, formatInfo, formatList, formatStatus } from './format.ts';
import { netHook } from './net-hook.ts';
import { netImport, netList } from './net-verbs.ts';
import { pkiCheck } from './pki-check.ts';
import { release } from './release.ts';
import { reload } from './reload.ts';
import { secretDefine, secretList, secretSetValue, secretUndefine } from './secret-verbs.ts';
import { restart, start } from './start-verbs.ts';
import {
  type Arguments,
  document,
  flag,
  json,
  jsonOption,
  name,
  noOptions,
  RefusedInputError,
  type Terminal,
  type VerbSpec,
} from './verb.ts';

function defined(result: DefineResult, what: string, terminal: Terminal): void {
  for (const warning of result.warnings) terminal.err(`warning: ${warning}\n`);
  terminal.out(`Tunnel ${result.name} ${what}\n`);
}

const define: VerbSpec = {
  group: 'Tunnels',
  usage: 'FILE',
  summary: 'define or change a tunnel from a <sectunnel> document',
  details:
    'The document is validated against the schema and for its meaning before anything is stored; a wrong document\n' +
    'never replaces one that works. Defining a running tunnel changes only its inactive configuration.\n' +
    'FILE may be - for standard input.',
  options: { validate: flag },
  optionHelp: { validate: 'accepted for virsh users: documents are always validated' },
  positionals: [1, 1],
  run: async (client, args, terminal) => {
    defined(await client.call('define', await document(args, terminal)), `defined from ${name(args)}`, terminal);
  },
};

const undefine: VerbSpec = {
  ...noOptions,
  group: 'Tunnels',
  usage: 'TUNNEL',
  summary: 'remove the definition of a tunnel; an active tunnel becomes transient',
  details: 'TUNNEL is a name or a UUID, here and in all other verbs.',
  positionals: [1, 1],
  run: async (client, args, terminal) => {
    const result = await client.call('undefine', { name: name(args) });
    terminal.out(`Tunnel ${result.name} has been undefined\n`);
  },
};

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

const destroy: VerbSpec = {
  ...noOptions,
  group: 'Tunnels',
  usage: 'TUNNEL',
  summary: 'stop a tunnel: delete its SAs, its routes and its device',
  details:
    'The definition stays. From now on, packets that the policy protected pass in the clear. Without a daemon,\n' +
    "'sectunnel release' removes the fences of all tunnels.",
  positionals: [1, 1],
  run: async (client, args, terminal) => {
    const result = await client.call('destroy', { name: name(args) });
    terminal.out(`Tunnel ${result.name} destroyed\n`);
  },
};

const autostart: VerbSpec = {
  group: 'Tunnels',
  usage: 'TUNNEL',
  summary: 'start the tunnel with the daemon, or no longer',
  details: '',
  options: { disable: flag },
  optionHelp: { disable: 'do not start it with the daemon any longer' },
  positionals: [1, 1],
  run: async (client, args, terminal) => {
    const enable = args.options.disable !== true;
    const result = await client.call('autostart', { name: name(args), enable });
    terminal.out(`Tunnel ${result.name} ${enable ? '' : 'un'}marked as autostarted\n`);
  },
};

const update: VerbSpec = {
  group: 'Tunnels',
  usage: 'FILE',
  summary: 'replace the running document of a tunnel, the defined one, or both',
  details:
    'The name in the document selects the tunnel. Without an option, an active tunnel gets a new running document, an\n' +
    'inactive one a new definition. Changing a running tunnel negotiates it again; a document that is equal to the\n' +
    'previous one changes nothing.',
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
  },
};

const list: VerbSpec = {
  group: 'Inspection',
  usage: '',
  summary: 'list tunnels; without options, the active ones',
  details:
    'Without options it also lists tunnels that are waiting to retry: the daemon starts them as soon as it can, and\n' +
    "their fences are in place meanwhile. 'sectunnel destroy' ends that.",
  options: {
    all: flag,
    inactive: flag,
    persistent: flag,
    transient: flag,
    autostart: flag,
    name: flag,
    uuid: flag,
    json: flag,
  },
  optionHelp: {
    all: 'active and inactive tunnels',
    inactive: 'inactive tunnels',
    persistent: 'only defined tunnels',
    transient: 'only tunnels that are not defined',
    autostart: 'only tunnels that start with the daemon',
    name: 'only names, one per line',
    uuid: 'only UUIDs, one per line',
    json: 'as JSON, for programs',
  },
  positionals: [0, 0],
  run: async (client, args, terminal) => {
    const { tunnels, unreadable } = await client.call('list', {});
    for (const tunnel of unreadable) {
      terminal.err(
        `warning: the documents of tunnel ${tunnel} cannot be read, so the packets that it protects are dropped; the log says why. Correct them and run 'sectunnel reload', or remove the fence with 'sectunnel destroy ${tunnel}'\n`,
      );
    }
    const chosen = tunnels.filter((tunnel) => listed(tunnel, args.options));
    if (args.options.name === true) terminal.out(chosen.map((tunnel) => `${tunnel.name}\n`).join(''));
    else if (args.options.uuid === true) terminal.out(chosen.map((tunnel) => `${tunnel.uuid}\n`).join(''));
    else terminal.out(args.options.json === true ? json(chosen) : formatList(chosen));
  },
};

function listed(tunnel: TunnelInfo, options: Arguments['options']): boolean {
  const activity =
    options.all === true || (options.inactive === true ? !tunnel.active : tunnel.active || tunnel.retrying);
  return (
    activity &&
    (options.persistent !== true || tunnel.persistent) &&
    (options.transient !== true || !tunnel.persistent) &&
    (options.autostart !== true || tunnel.autostart)
  );
}

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

const status: VerbSpec = {
  group: 'Inspection',
  usage: '[TUNNEL]',
  summary: 'IKE and CHILD SAs, algorithms, selectors, counters, drops and the last failure',
  details: '',
  ...jsonOption,
  positionals: [0, 1],
  run: async (client, args, terminal) => {
    const tunnel = args.positionals[0];
    const result = await client.call('status', tunnel === undefined ? {} : { name: tunnel });
    terminal.out(args.options.json === true ? json(result) : formatStatus(result));
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
