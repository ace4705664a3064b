/** The verb that removes what the product has put up on a host, without a daemon. */
import { defaultConfigDir } from '../daemon/store/folders.ts';
import type { ReleaseResult } from '../daemon/without-daemon.ts';
import type { LocalVerbSpec, Terminal } from './verb.ts';

export const release: LocalVerbSpec = {
  group: 'Tunnels',
  usage: '',
  summary: 'remove all fences, rules and routes from this host, to uninstall; the daemon must not run',
  details:
    'The fences of tunnels that ran stay in place when the daemon ends. This verb removes them and those of libvirt\n' +
    'networks, with all rules and routes of sectunnel, here and in the network namespaces that documents name. The next\n' +
    'daemon starts only tunnels with autostart. From now on, packets that the policies protected pass in the clear.\n' +
    'Definitions and secrets stay. It needs root, and may be run repeatedly.',
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
  if (forgotten.length > 0) terminal.out(`The next daemon does not start: ${forgotten.join(', ')}\n`);
  if (cleared.length + forgotten.length + problems.length === 0) terminal.out('Nothing to remove\n');
  if (autostarted.length > 0) {
    terminal.err(
      `note: autostart installs the fences of these tunnels again at the next boot: ${autostarted.join(', ')}\n`,
    );
  }
  for (const problem of problems) terminal.err(`error: ${problem}\n`);
  return problems.length > 0 ? 1 : undefined;
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? '' : 's'}`;
}
