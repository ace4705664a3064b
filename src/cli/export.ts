/** The verb that makes a tunnel a part of the host's own network configuration. */
import { EXPORT_FORMATS, type ExportFormat } from '../export/formats.ts';
import { type Arguments, name, UsageError, type VerbSpec } from './verb.ts';

export const exportNetwork: VerbSpec = {
  group: 'Tunnels',
  usage: 'TUNNEL --format FORMAT',
  summary: "write the files that bring a tunnel up as part of the host's network configuration",
  details:
    `FORMAT is ${EXPORT_FORMATS.join(', ')}. The files are printed, each under its path, or written with --output.\n` +
    'What remains to be done is printed to standard error. The daemon makes the device in any case, and sets its routes\n' +
    "unless the document says <device routes='none'>.",
  options: { format: { type: 'string' }, output: { type: 'string' } },
  optionHelp: {
    format: EXPORT_FORMATS.join(', '),
    output: 'write the files below this folder; / is where the host looks for them',
  },
  positionals: [1, 1],
  run: async (client, args, terminal) => {
    const format = formatOf(args);
    const { output } = args.options;
    const { xml } = await client.call('dumpxml', { name: name(args), inactive: true });
    // It brings along all that reads documents, which no other verb that asks the daemon needs.
    const { exportTunnel } = await import('./export-run.ts');
    exportTunnel({ xml, format, output: typeof output === 'string' ? output : undefined }, terminal);
    return undefined;
  },
};

function formatOf(args: Arguments): ExportFormat {
  const found = args.options.format;
  const format = EXPORT_FORMATS.find((candidate) => candidate === found);
  if (format !== undefined) return format;
  const what = found === undefined ? '--format is missing' : `--format ${found}`;
  throw new UsageError(`${what}; expected: --format with one of ${EXPORT_FORMATS.join(', ')}`, 'export');
}
