/** The verb that removes what the product has put up on a host, without a daemon. */
import { defaultConfigDir } from '../daemon/store/folders.ts';
import type { ReleaseResult } from '../daemon/without-daemon.ts';
import type { LocalVerbSpec, Terminal } from './verb.ts';

export const release: LocalVerbSpec = {
  group: 'Tunnels',
  usage: '',
  summary: 'remove all fences, rules and routes from this host, for uninstalling; the daemon must not run',
  details:
    'The fences of tunnels that are to run again stay when the daemon ends. This removes them, those of networks of libvirt too,\n' +
    'with all rules and routes of sectunnel, here and in the network namespaces that documents name; and no daemon starts the\n' +
    'tunnels that ran again, but for those with autostart. From then on what their policies protect passes in the clear.\n' +
    'Definitions and secrets stay. It may be run any number of times, and takes root.',
  options: { 'config-dir': { type: 'string' } },
  optionHelp: { 'config-dir': `the folder of definitions (default ${defaultConfigDir()})` },
  positionals: [0, 0],
  runLocally: async (args, terminal, runDir) => {
    const given = args.options['config-dir'];
    const configDir = typeof given === 'string' ? given : defaultConfigDir();
    // It brings along netlink and nftables, which no other verb needs.
    const { releaseHost } = await import('../daemon/without-daemon.ts');
    return report(await releaseHost({ configDir, runDir }), terminal);
  },
};

function report({ cleared, forgotten, autostarted, problems }: ReleaseResult, terminal: Terminal): number | undefined {
  for (const { netns, fence, rules, routes } of cleared) {
    const parts = [
      ...(fence ? ['the fence (table inet sectunnel)'] : []),
      count(rules, 'rule'),
      count(routes, 'route'),
    ];
    terminal.out(`Removed${netns === undefined ? '' : ` in network namespace ${netns}`}: ${parts.join(', ')}\n`);
  }
  if (forgotten.length > 0) terminal.out(`Forgotten that they ran: ${forgotten.join(', ')}\n`);
  if (cleared.length + forgotten.length + problems.length === 0) terminal.out('Nothing to remove\n');
  if (autostarted.length > 0) {
    terminal.err(
      `note: with autostart, so their fences are put up again at the next boot: ${autostarted.join(', ')}\n`,
    );
  }
  for (const problem of problems) terminal.err(`error: ${problem}\n`);
  return problems.length > 0 ? 1 : undefined;
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? '' : 's'}`;
}
