/** What the verb `export` does with the document of a tunnel. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { messageOf } from '../base/text.ts';
import { parseDocument } from '../config/parse.ts';
import { makeFolders } from '../daemon/store/make-folders.ts';
import { type StagedFile, stageFile } from '../daemon/store/replace-file.ts';
import type { ExportFormat } from '../export/formats.ts';
import { EXPORT_MARK, type ExportedFile, exportHostNetwork } from '../export/host-network.ts';
import { RefusedInputError, type Terminal } from './verb.ts';

interface ExportRequest {
  readonly xml: string;
  readonly format: ExportFormat;
  /** A folder; left out: they are printed. */
  readonly output: string | undefined;
}

/** @throws SectunnelError when the document cannot be exported so, RefusedInputError when a file cannot be written */
export function exportTunnel({ xml, format, output }: ExportRequest, terminal: Terminal): void {
  const { files, steps } = exportHostNetwork(parseDocument(xml), format);
  if (output === undefined) {
    terminal.out(files.map(({ path, content }) => `# ${path}\n${content}`).join('\n'));
  } else {
    for (const path of writeFiles(output, files)) terminal.out(`${path}\n`);
  }
  terminal.err(`next steps:\n${steps.map((step) => `  ${step}\n`).join('')}`);
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
