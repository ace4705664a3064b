/** The verb that makes a tunnel a part of the host's own network configuration. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { messageOf } from '../base/text.ts';
import { parseDocument } from '../config/parse.ts';
import { makeFolders } from '../daemon/store/make-folders.ts';
import { type StagedFile, stageFile } from '../daemon/store/replace-file.ts';
import {
  EXPORT_FORMATS,
  EXPORT_MARK,
  type ExportedFile,
  type ExportFormat,
  exportHostNetwork,
} from '../export/host-network.ts';
import { type Arguments, name, RefusedInputError, UsageError, type VerbSpec } from './verb.ts';

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
    const { files, steps } = exportHostNetwork(parseDocument(xml), format);
    if (typeof output === 'string') {
      for (const path of writeFiles(output, files)) terminal.out(`${path}\n`);
    } else {
      terminal.out(files.map(({ path, content }) => `# ${path}\n${content}`).join('\n'));
    }
    terminal.err(`next steps:\n${steps.map((step) => `  ${step}\n`).join('')}`);
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

/** All of them, or none where one is not ours to replace or cannot be written. */
function writeFiles(folder: string, files: readonly ExportedFile[]): string[] {
  const placed = files.map(({ path, content }) => ({ path: join(folder, path), content }));
  const staged: StagedFile[] = [];
  try {
    for (const { path } of placed) {
      if (existsSync(path) && !readFileSync(path, 'utf8').startsWith(EXPORT_MARK)) {
        throw new RefusedInputError(
          `${path} exists and was not written by sectunnel; move it away, or choose another folder`,
        );
      }
    }
    for (const { path, content } of placed) {
      makeFolders(dirname(path), 0o755);
      staged.push(stageFile(path, content, 0o644));
    }
    for (const file of staged) file.commit();
  } catch (error) {
    for (const file of staged) file.discard();
    throw error instanceof RefusedInputError ? error : new RefusedInputError(messageOf(error));
  }
  return placed.map(({ path }) => path);
}
