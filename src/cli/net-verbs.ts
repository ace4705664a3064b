/** The verbs of libvirt networks: bring in one that names a tunnel, list those that are held. */
import { existsSync } from 'node:fs';
import type { NetworkInfo } from '../control/results.ts';
import { countersText, table } from './format.ts';
import { DEFAULT_HOOK } from './net-hook.ts';
import { document, flag, json, jsonOption, type VerbSpec } from './verb.ts';

export const netImport: VerbSpec = {
  group: 'Networks',
  usage: 'FILE',
  summary: 'define a libvirt network that names a tunnel',
  details:
    "libvirt discards <sectunnel name='…'/> and <forward mode='route' tunnel='…'/>. This verb rewrites them into what\n" +
    "libvirt keeps: an element in <metadata> and, for the second one, the tunnel's device in <forward>. It prints each\n" +
    'change and defines the network with libvirt. FILE may be - for standard input.',
  options: { print: flag, 'no-define': flag },
  optionHelp: {
    print: 'print the rewritten document, for virsh net-define',
    'no-define': 'do not define the network',
  },
  positionals: [1, 1],
  run: async (client, args, terminal) => {
    const define = args.options['no-define'] !== true;
    const result = await client.call('net-import', { ...(await document(args, terminal)), define });
    for (const change of result.changes) terminal.err(`changed: ${change}\n`);
    if (args.options.print === true) terminal.out(result.xml);
    const { name, tunnel, mode } = result;
    const done = define ? 'defined' : 'read, not defined';
    const line = `Network ${name} ${done}, held by tunnel ${tunnel} (${mode})\n`;
    if (args.options.print === true) terminal.err(line);
    else terminal.out(line);
    if (define && !existsSync(DEFAULT_HOOK)) {
      terminal.err(
        `warning: there is no ${DEFAULT_HOOK}; libvirt starts networks without their tunnels until 'sectunnel hook install'\n`,
      );
    }
    return undefined;
  },
};

export const netList: VerbSpec = {
  ...jsonOption,
  group: 'Networks',
  usage: '',
  summary: 'list the libvirt networks that tunnels hold, and the packets that their fences dropped',
  details:
    'Dropped are packets that were about to be forwarded past the tunnel, out of the network or into it, and packets to\n' +
    "other addresses of this host or to its name server. 'sectunnel status' shows the tunnels.",
  positionals: [0, 0],
  run: async (client, args, terminal) => {
    const { networks } = await client.call('net-list', {});
    terminal.out(args.options.json === true ? json(networks) : formatNetworks(networks));
    return undefined;
  },
};

/** Behind the table why a network is shut, or held closer than its document says. */
function formatNetworks(networks: readonly NetworkInfo[]): string {
  const problems = networks.flatMap(({ name, problem }) => (problem === undefined ? [] : [`\n${name}: ${problem}\n`]));
  const rows = table(
    ['Name', 'State', 'Bridge', 'Tunnel', 'Mode', 'Dropped'],
    networks.map(({ name, running, bridge, tunnel, tunnelState, mode, drops }) => [
      name,
      running ? 'held' : 'held, not running',
      bridge,
      `${tunnel} (${tunnelState})`,
      mode,
      countersText(drops),
    ]),
  );
  return rows + problems.join('');
}
