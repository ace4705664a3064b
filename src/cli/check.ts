/** The verb that holds two documents against each other, without a daemon and without a privilege. */
import type { CheckOutcome } from './check-run.ts';
import { flag, type LocalVerbSpec } from './verb.ts';

const CODES: Readonly<Record<CheckOutcome, number>> = { fits: 0, doesNot: 1, unreadable: 2 };

export const check: LocalVerbSpec = {
  group: 'Inspection',
  usage: 'A.xml [B.xml]',
  summary: 'whether two documents will negotiate with each other, or what has to change',
  details:
    'Compares the documents of the two ends: addresses, identities, authentication, algorithms,\n' +
    'selectors, modes and lifetimes, and negotiates both in memory. Names the lines that matter. With one document, checks\n' +
    'the problems of it alone. Needs no daemon and sends nothing; secrets and certificates are not checked\n' +
    "('sectunnel pki-check' does). One of the files may be - for standard input.",
  options: { json: flag },
  optionHelp: { json: 'as JSON, for programs' },
  positionals: [1, 2],
  exitCodes: {
    [CODES.fits]: 'the two will negotiate; with one document: it can run',
    [CODES.doesNot]: 'they will not negotiate, or the one document cannot run: see the errors',
    [CODES.unreadable]: 'a document cannot be read, or is refused',
  },
  runLocally: async (args, terminal) => {
    // It brings along all that negotiates, which no other verb needs.
    const { runCheck } = await import('./check-run.ts');
    return CODES[await runCheck(args, terminal)];
  },
};
