/** Changes of many tunnels: how far they are, what failed, and what goes on when the command ends before them. */
import { constants } from 'node:os';
import { listSome } from '../base/text.ts';
import type { DaemonClient } from '../control/client.ts';
import type { EachResult, Outcome, Progress } from '../control/results.ts';
import type { Params } from '../control/verbs.ts';
import { ExitCode } from './exit-code.ts';
import { type Arguments, type DaemonVerbSpec, flag, type Terminal, UsageError } from './verb.ts';

/** Of a command that SIGINT ends, for shells. */
export const INTERRUPTED: number = 128 + constants.signals.SIGINT;
/** Of those that share a warning. */
const FEW_NAMES = 5;
export const CLEAR_LINE = '\r\u001b[K';

/** The options and exit codes of a verb that takes several tunnels. */
export const eachOptions: Pick<DaemonVerbSpec, 'usage' | 'positionals' | 'options'> & {
  readonly exitCodes: NonNullable<DaemonVerbSpec['exitCodes']>;
} = {
  usage: 'TUNNEL … | --all',
  positionals: [0, Number.POSITIVE_INFINITY],
  options: { all: flag },
  exitCodes: {
    1: 'refused; of several tunnels, at least one: the messages say which and why',
    130: 'interrupted: the daemon goes on with what it was asked for',
  },
};

/** Which tunnels a command line means. @throws UsageError */
export function targets(
  verb: string,
  { positionals, options }: Arguments,
): { names: readonly string[] } | { all: true } {
  if (options.all === true && positionals.length > 0) {
    throw new UsageError(`${verb}: give either names or --all, not both`, verb);
  }
  if (options.all === true) return { all: true };
  if (positionals.length === 0) throw new UsageError(`${verb} takes ${eachOptions.usage}, not nothing`, verb);
  return { names: positionals };
}

/** Whether a command line does not mean one tunnel alone, of which more is told. */
export function isMany({ positionals, options }: Arguments): boolean {
  return options.all === true || positionals.length !== 1;
}

/** What is done, in words: `starting`, `started`. */
export interface EachWords {
  readonly doing: string;
  readonly done: string;
}

/** Does a verb to each of several tunnels. @param onDone is told of each to which it was done @returns the exit code */
export async function runEach(
  client: DaemonClient,
  params: Params<'each'>,
  words: EachWords,
  terminal: Terminal,
  onDone: (name: string) => void = () => undefined,
): Promise<number | undefined> {
  const display = new EachDisplay(words, terminal);
  return await followed(client, display, terminal, async () => {
    const onProgress = (progress: Progress): void => {
      display.show(progress);
      for (const { name, error } of progress.outcomes) if (error === undefined) onDone(name);
    };
    await client.call('each', params, { onProgress });
  });
}

/** Runs `work`, unless the user interrupts it. @returns the exit code */
export async function followed(
  client: DaemonClient,
  display: EachDisplay,
  terminal: Terminal,
  work: () => Promise<void>,
): Promise<number | undefined> {
  const interrupted = terminal.interrupted().then(() => true);
  const running = work();
  running.catch(() => undefined);
  try {
    if ((await Promise.race([running, interrupted])) === true) {
      client.abandon();
      display.interrupted();
      return INTERRUPTED;
    }
  } catch (error) {
    display.clear();
    throw error;
  }
  return display.end();
}

/**
 * One line that is rewritten on a terminal, a line for each failure, and a summary. A warning that many tunnels have is told at
 * once of the first, and of all others together at the end.
 */
export class EachDisplay {
  readonly #words: EachWords;
  readonly #terminal: Terminal;
  /** Of requests before the present one. */
  #before: EachResult = { done: 0, failed: 0 };
  #now: Omit<Progress, 'outcomes'> = { done: 0, failed: 0, remaining: 0 };
  /** Not asked for yet. */
  #later = 0;
  /** Those that have a warning which was told of another, by its text. BOUNDED: by the changes. */
  readonly #alike = new Map<string, string[]>();
  #isDrawn = false;

  constructor(words: EachWords, terminal: Terminal) {
    this.#words = words;
    this.#terminal = terminal;
  }

  /**
   * The next request begins.
   * @param count changes in it
   * @param later changes that are left for the requests after it
   */
  nextRequest(count: number, later: number): void {
    const { done, failed } = this.#totals();
    this.#before = { done, failed };
    this.#now = { done: 0, failed: 0, remaining: count };
    this.#later = later;
  }

  show({ outcomes, ...progress }: Progress): void {
    this.#now = progress;
    for (const outcome of outcomes) this.#tell(outcome);
    this.#draw();
  }

  /** One that failed before the daemon was asked. */
  failed(outcome: Outcome): void {
    this.#before = { ...this.#before, failed: this.#before.failed + 1 };
    this.#tell(outcome);
  }

  clear(): void {
    if (this.#isDrawn) this.#terminal.err(CLEAR_LINE);
    this.#isDrawn = false;
  }

  /** @returns the exit code */
  end(): number | undefined {
    this.#tellAlike();
    const { done, failed } = this.#totals();
    this.#terminal.out(`${counted(done)} ${this.#words.done}${failed === 0 ? '' : `, ${failed} failed`}\n`);
    return failed === 0 ? undefined : ExitCode.Refused;
  }

  interrupted(): void {
    this.#tellAlike();
    const { done, failed } = this.#totals();
    const goesOn =
      this.#now.remaining === 0
        ? ''
        : `; the daemon goes on with the remaining ${this.#now.remaining}, see 'sectunnel list --all'`;
    const left = this.#later === 0 ? '' : `; not sent to the daemon: ${this.#later}`;
    this.#terminal.err(`interrupted: ${counted(done)} ${this.#words.done}, ${failed} failed${goesOn}${left}\n`);
  }

  #totals(): { readonly done: number; readonly failed: number } {
    return { done: this.#before.done + this.#now.done, failed: this.#before.failed + this.#now.failed };
  }

  #tell({ name, warnings = [], error }: Outcome): void {
    if (warnings.length > 0 || error !== undefined) this.clear();
    for (const warning of warnings) {
      const others = this.#alike.get(warning);
      if (others !== undefined) others.push(name);
      else {
        this.#alike.set(warning, []);
        this.#terminal.err(`warning: ${named(name, warning)}\n`);
      }
    }
    if (error !== undefined) this.#terminal.err(`error: ${named(name, error.message)}\n`);
  }

  #tellAlike(): void {
    this.clear();
    for (const [warning, names] of this.#alike) {
      if (names.length > 0) this.#terminal.err(`warning: ${listSome(names, FEW_NAMES)}: ${warning}\n`);
    }
    this.#alike.clear();
  }

  #draw(): void {
    if (this.#terminal.isWatched !== true) return;
    const { done, failed } = this.#totals();
    const remaining = this.#now.remaining + this.#later;
    this.#terminal.err(`${CLEAR_LINE}${this.#words.doing}: ${done} done, ${failed} failed, ${remaining} remaining`);
    this.#isDrawn = true;
  }
}

function counted(count: number): string {
  return `${count} ${count === 1 ? 'tunnel' : 'tunnels'}`;
}

/** Many messages name the tunnel or the file themselves. */
function named(name: string, text: string): string {
  return text.includes(name) ? text : `${name}: ${text}`;
}
