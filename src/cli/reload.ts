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
    'What changed on the disk is what is kept from now on; a tunnel that runs goes on with its own document until it is\n' +
    'restarted, as after define. A tunnel whose file is gone is forgotten. Of a file that is wrong, or belongs to a tunnel that\n' +
    'is to run and is gone, nothing is taken over: what was known stays. Nothing is started or stopped, but for tunnels that\n' +
    'were to run and had no document that could be read. SIGHUP does the same.',
  positionals: [0, 0],
  exitCodes: { [INCOMPLETE]: 'refused, or not all could be taken over: the messages say what' },
  run: async (client, args, terminal) => {
    const result = await client.call('reload', {});
    for (const warning of result.warnings) terminal.err(`warning: ${warning}\n`);
    for (const problem of result.problems) terminal.err(`error: ${problem}\n`);
    terminal.out(args.options.json === true ? json(result) : formatReload(result));
    return result.problems.length > 0 ? INCOMPLETE : undefined;
  },
};

function formatReload({ defined, changed, forgotten, unchanged }: ReloadResult): string {
  const goesOn = (name: string): string => `runs on as it is until 'sectunnel restart ${name}'`;
  const lines = [
    ...defined.map((name) => `Tunnel ${name} defined`),
    ...changed.map(({ name, active }) => `Tunnel ${name} changed${active ? `; ${goesOn(name)}` : ''}`),
    ...forgotten.map(
      ({ name, active }) => `Tunnel ${name} ${active ? 'is transient now, its file is gone' : 'forgotten'}`,
    ),
    `${unchanged} ${unchanged === 1 ? 'definition is' : 'definitions are'} as before`,
  ];
  return lines.map((line) => `${line}\n`).join('');
}
