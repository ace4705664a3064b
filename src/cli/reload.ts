/** The verb that has the daemon read its definitions again. */
import type { Difference } from '../config/differences.ts';
import type { ReloadResult } from '../control/results.ts';
import { formatRenewal } from './renewal.ts';
import { type DaemonVerbSpec, flag, json, jsonOption } from './verb.ts';

/** Exit code when not all that stands on the disk could be taken over. */
const INCOMPLETE = 1;

export const reload: DaemonVerbSpec = {
  group: 'Tunnels',
  usage: '',
  summary: 'read the definitions in the configuration folder again',
  details:
    'The files become the definitions. As after define, a running tunnel keeps its document until it is restarted. A\n' +
    'tunnel whose file is gone is no longer defined. A file with an error changes nothing, and neither does the missing\n' +
    'file of a tunnel that is waiting to retry. Nothing is started or stopped, except tunnels that could not start\n' +
    'because no document could be read. SIGHUP does the same. With --dry-run nothing at all is done, and what differs in\n' +
    'each document is listed.',
  options: { ...jsonOption.options, 'dry-run': flag },
  optionHelp: { ...jsonOption.optionHelp, 'dry-run': 'say what would be done, and do nothing' },
  positionals: [0, 0],
  exitCodes: { [INCOMPLETE]: 'refused, or some definitions were not read: the messages say which' },
  run: async (client, args, terminal) => {
    const plan = args.options['dry-run'] === true;
    const result = await client.call('reload', { plan });
    for (const warning of result.warnings) terminal.err(`warning: ${warning}\n`);
    for (const problem of result.problems) terminal.err(`error: ${problem}\n`);
    terminal.out(args.options.json === true ? json(result) : (plan ? formatPlan : formatReload)(result));
    return result.problems.length > 0 ? INCOMPLETE : undefined;
  },
};

const goesOn = (name: string): string => `it runs with its previous document until 'sectunnel restart ${name}'`;

function formatReload({ defined, changed, forgotten, unchanged }: ReloadResult): string {
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

function formatPlan({ defined, changed, forgotten, unchanged }: ReloadResult): string {
  const lines = [
    ...defined.map((name) => `Tunnel ${name} would be defined`),
    ...changed.flatMap(({ name, active, differences, renewal }) => [
      `Tunnel ${name} would change${active ? `; ${goesOn(name)}` : ''}:`,
      ...differences.map((difference) => `    ${formatDifference(difference)}`),
      ...(renewal === undefined ? [] : [`    'sectunnel update --live' instead: ${formatRenewal(renewal)}`]),
    ]),
    ...forgotten.map(
      ({ name, active }) =>
        `Tunnel ${name} would be ${active ? 'transient: its file is gone, and it runs' : 'forgotten: its file is gone'}`,
    ),
    unchanged === 1 ? '1 definition would stay as it is' : `${unchanged} definitions would stay as they are`,
    'Nothing was changed. A reload interrupts no tunnel.',
  ];
  return lines.map((line) => `${line}\n`).join('');
}

/** Values of attributes and texts in full, of elements that they differ: both are in the JSON. */
function formatDifference({ path, before, after }: Difference): string {
  if (before === undefined || after === undefined) {
    const value = path.includes('@') ? ` (${before ?? after})` : '';
    return `${path} ${before === undefined ? 'added' : 'removed'}${value}`;
  }
  return /@|\(\)$/.test(path) ? `${path}: ${before} -> ${after}` : `${path} changed`;
}
