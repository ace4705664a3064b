/** The verb that looks at a tunnel's certificates before a peer does. */
import type { PkiCheckResult } from '../control/results.ts';
import { json, jsonOption, name, RefusedInputError, type VerbSpec } from './verb.ts';

export const pkiCheck: VerbSpec = {
  ...jsonOption,
  group: 'Inspection',
  usage: 'TUNNEL',
  summary: 'show the certificates of a tunnel, the identities they prove, and what a peer would reject',
  details:
    'Reads the files as the next start would, whether the tunnel runs or not. The exit code is 1 when there are errors;\n' +
    'warnings and notes do not count.',
  positionals: [1, 1],
  run: async (client, args, terminal) => {
    const result = await client.call('pki-check', { name: name(args) });
    terminal.out(args.options.json === true ? json(result) : formatPkiCheck(result));
    const errors = result.sides.flatMap(({ findings }) => findings.filter(({ level }) => level === 'error'));
    if (errors.length === 0) return;
    const what = errors.length === 1 ? 'one error' : `${errors.length} errors`;
    throw new RefusedInputError(`${what} in the certificates of tunnel ${result.name}`);
  },
};

const SIDES = { both: 'Both sides', local: 'Our side', remote: "The peer's side" } as const;

function formatPkiCheck({ sides }: PkiCheckResult): string {
  return sides
    .map(({ side, line, files, identities, methods, findings }) => {
      const width = Math.max(0, ...files.map(({ path }) => path.length));
      const lines = [`${SIDES[side]} (line ${line})`];
      for (const file of files) {
        lines.push(`  ${file.role.padEnd(11)}  ${file.path.padEnd(width)}  ${file.found} (${file.said})`);
      }
      if (identities.length > 0) lines.push('  proves', ...identities.map((identity) => `    ${identity}`));
      if (methods.length > 0) lines.push(`  signs with  ${methods.join(', ')}`);
      lines.push(...findings.map(({ level, text }) => `  ${level}: ${text}`));
      if (findings.length === 0) lines.push('  no problems');
      return `${lines.join('\n')}\n`;
    })
    .join('\n');
}
