/** The verb that holds two documents against each other, without a daemon and without a privilege. */
import type { CheckOutcome } from './check-run.ts';
import { flag, type LocalVerbSpec } from './verb.ts';

const CODES: Readonly<Record<CheckOutcome, number>> = { fits: 0, doesNot: 1, unreadable: 2 };

export const check: LocalVerbSpec = {
  group: 'Looking',
  usage: 'A.xml [B.xml]',
  summary: 'whether two documents will negotiate with each other, or what has to change',
  details:
    'Holds the document of each end against that of the other: addresses, identities, authentication, algorithms,\n' +
    'selectors, modes and lifetimes, and has both negotiate in memory. Names the lines that matter. With one document,\n' +
    'what is amiss with it by itself. Needs no daemon and sends nothing; secrets and certificates are not looked at\n' +
    "('sectunnel pki-check' does). One of the files may be - for standard input.",
  options: { json: flag },
  optionHelp: { json: 'as JSON, for programs' },
  positionals: [1, 2],
  exitCodes: {
    [CODES.fits]: 'the two will negotiate; of one document, that it can run',
    [CODES.doesNot]: 'they will not, or it cannot: see the errors',
    [CODES.unreadable]: 'a document cannot be read, or is refused',
  },
  runLocally: async (args, terminal) => {
    // It brings along all that negotiates, which no other verb needs.
    const { runCheck } = await import('./check-run.ts');
    return CODES[await runCheck(args, terminal)];
  },
};
