/** The help texts, made from the table of verbs so that they cannot disagree with it. */
import { defaultRunDir } from '../daemon/store/folders.ts';
import { ExitCode } from './exit-code.ts';
import { GROUPS, type VerbSpec } from './verb.ts';
import { verbs } from './verbs.ts';

/** Seconds that the daemon may take to answer: changes wait for those before them, and may look up names. */
export const DEFAULT_TIMEOUT = 60;

export function generalHelp(): string {
  const width = Math.max(...[...verbs.keys()].map((verb) => verb.length));
  const sections = GROUPS.map((group) => {
    const lines = [...verbs].filter(([, spec]) => spec.group === group);
    return `${group}\n${lines.map(([verb, spec]) => `  ${verb.padEnd(width)}  ${spec.summary}`).join('\n')}\n`;
  });
  return `sectunnel - define, start and watch IPsec tunnels of sectunneld

Usage
  sectunnel [--run-dir DIR] [--timeout SECONDS] VERB [ARGUMENT …]
  sectunnel VERB --help

${sections.join('\n')}
Options
  --run-dir DIR      folder of the daemon's control socket (default ${defaultRunDir()}, or $SECTUNNEL_RUN_DIR)
  --timeout SECONDS  how long the daemon may take to reply (default ${DEFAULT_TIMEOUT})
  --help             this help, or that of a verb
  --version          the version

Exit codes
  ${ExitCode.Ok}  done
  ${ExitCode.Refused}  refused: the message says what was found, what was required and what to change
  ${ExitCode.Usage}  the command line is wrong
  ${ExitCode.Unreachable}  no daemon listens there, or it does not reply in time
`;
}

export function verbHelp(verb: string, spec: VerbSpec): string {
  const options = Object.entries(spec.optionHelp).map(([option, text]) => {
    const value = spec.options[option]?.type === 'string' ? ` ${option.toUpperCase()}` : '';
    const optional = spec.optionalValues?.[option];
    return [`--${option}${optional === undefined ? value : `[=${optional.name}]`}`, text] as const;
  });
  const width = Math.max(0, ...options.map(([option]) => option.length));
  const optionLines = options.map(([option, text]) => `  ${option.padEnd(width)}  ${text}\n`).join('');
  const exitLines = Object.entries(spec.exitCodes ?? {})
    .map(([code, text]) => `  ${code}  ${text}\n`)
    .join('');
  const usage = ['sectunnel', verb, ...(options.length > 0 ? ['[OPTION …]'] : []), spec.usage].join(' ').trimEnd();
  return [
    `sectunnel ${verb} - ${spec.summary}\n`,
    `\nUsage\n  ${usage}\n`,
    spec.details === '' ? '' : `\n${spec.details}\n`,
    optionLines === '' ? '' : `\nOptions\n${optionLines}`,
    exitLines === '' ? '' : `\nExit codes\n${exitLines}`,
  ].join('');
}
