/** The verb that has the daemon read its definitions again. */
import type { ReloadResult } from '../control/results.ts';
import { type DaemonVerbSpec, json, jsonOption } from './verb.ts';

/** Exit code when not all that stands on the disk could be taken over. */
const INCOMPLETE = 1;

export const reload: DaemonVerbSpec = {
  ...jsonOption,
  group: 'Tunnels',
  usage: '',
  summary: 'read the definitions in the configuration folder again',
  details:
    'The files become the definitions. As after define, a running tunnel keeps its document until it is restarted. A\n' +
    'tunnel whose file is gone is no longer defined. A file with an error changes nothing, and neither does the missing\n' +
    'file of a tunnel that is waiting to retry. Nothing is started or stopped, except tunnels that could not start\n' +
    'because no document could be read. SIGHUP does the same.',
  positionals: [0, 0],
  exitCodes: { [INCOMPLETE]: 'refused, or some definitions were not read: the messages say which' },
  run: async (client, args, terminal) => {
    const result = await client.call('reload', {});
    for (const warning of result.warnings) terminal.err(`warning: ${warning}\n`);
    for (const problem of result.problems) terminal.err(`error: ${problem}\n`);
    terminal.out(args.options.json === true ? json(result) : formatReload(result));
    return result.problems.length > 0 ? INCOMPLETE : undefined;
  },
};

function formatReload({ defined, changed, forgotten, unchanged }: ReloadResult): string {
  const goesOn = (name: string): string => `it runs with its previous document until 'sectunnel restart ${name}'`;
  const lines = [
    ...defined.map((name) => `Tunnel ${name} defined`),
    ...changed.map(({ name, active }) => `Tunnel ${name} changed${active ? `; ${goesOn(name)}` : ''}`),
    ...forgotten.map(
      ({ name, active }) => `Tunnel ${name} ${active ? 'is transient now: its file is gone' : 'forgotten'}`,
    ),
    `${unchanged} ${unchanged === 1 ? 'definition' : 'definitions'} unchanged`,
  ];
  return lines.map((line) => `${line}\n`).join('');
}
