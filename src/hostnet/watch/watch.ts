/**
 * Watches what is installed in one network namespace. The fence, and rules and routes, have a guard each, which the kernel's
 * notifications wake. It restores what other programs changed, reports that, and keeps what it cannot restore as a problem.
 */
import { listSome, messageOf } from '../../base/text.ts';
import type { FenceKeeper, LookScope } from '../fence/fence.ts';
import { type HostNetwork, type NetworkChange, OWN_PROTOCOL } from '../routes/routes.ts';
import type { PolicyRouting } from '../steering/policy-routing.ts';
import { type GuardReport, KernelGuard } from './guard.ts';

/** A line for the log. */
export interface KernelReport {
  readonly level: 'info' | 'warn' | 'error';
  readonly text: string;
  readonly tunnel?: string | undefined;
  readonly netns: string | undefined;
  /** The kind of a line that may repeat, for rate limits. */
  readonly kind?: string;
  /** Whether `text` is a problem of the tunnel that begins, or one that ends. */
  readonly event?: 'degraded' | 'restored';
}

export interface KernelWatchOptions {
  readonly fence: FenceKeeper;
  readonly routing: PolicyRouting;
  readonly network: Pick<HostNetwork, 'watch'>;
  readonly netns: string | undefined;
  readonly report: (report: KernelReport) => void;
}

/** The number of changes that one line names. */
const MAX_LISTED = 4;

type Subject = 'fence' | 'routing';

const NAMES: Readonly<Record<Subject, string>> = { fence: 'the fence', routing: 'rules and routes' };
const AGAIN: Readonly<Record<Subject, string>> = {
  fence: 'the fence is as it should be again',
  routing: 'rules and routes are as they should be again',
};

export class KernelWatch {
  readonly #options: KernelWatchOptions;
  readonly #guards: Readonly<Record<Subject, KernelGuard>>;
  /** Problems of rules and routes, by tunnel. BOUNDED: by the tunnels. */
  readonly #problems = new Map<string, readonly string[]>();

  /** Called when another program changed links, addresses, routes or rules: packets may take another way. */
  onNetwork: (() => void) | undefined;

  constructor(options: KernelWatchOptions) {
    this.#options = options;
    const { fence } = options;
    this.#guards = {
      fence: this.#guard('fence', (scope) => fence.mend(scope)),
      routing: this.#guard('routing', (scope) => this.#mendRouting(scope)),
    };
  }

  /** Starts to listen. Where the kernel reports nothing, `look` still compares. */
  open(): void {
    const { fence, network, routing } = this.#options;
    this.#attempt('fence', () => fence.watch?.(() => this.#guards.fence.heard()));
    this.#attempt('routing', () => {
      network.watch((change) => {
        if (routing.heard(change)) this.#guards.routing.heard();
        if (!isOwn(change)) this.onNetwork?.();
      });
      routing.follow();
    });
  }

  /** Compares everything, or what was heard of. */
  async look(scope: LookScope): Promise<void> {
    await this.#guards.fence.look(scope);
    if (scope === 'everything') await this.#guards.routing.look(scope);
  }

  /** The problems of a tunnel that could not be put right, a sentence each. */
  degraded(tunnel: string): string[] {
    const subjects = (['fence', 'routing'] as const).flatMap((subject) => {
      const { problem } = this.#guards[subject];
      return problem === undefined ? [] : [problemText(subject, problem)];
    });
    const found = [...this.#options.routing.lacks(tunnel), ...(this.#problems.get(tunnel) ?? [])];
    return [...subjects, ...new Set(found)];
  }

  /** Fence and rules of a tunnel were installed: reports what they lack. */
  putUp(tunnel: string): void {
    const lacks = this.#options.routing.lacks(tunnel);
    if (lacks.length > 0) this.#setProblems(tunnel, [...(this.#problems.get(tunnel) ?? []), ...lacks]);
  }

  /** The addresses that this host may send from changed, though none was added or removed. */
  addressesChanged(): void {
    this.#options.routing.addressesChanged();
    this.#guards.routing.heard();
  }

  /** Nothing of the tunnel is installed any more. */
  forget(tunnel: string): void {
    this.#problems.delete(tunnel);
  }

  async close(): Promise<void> {
    await Promise.all(Object.values(this.#guards).map((guard) => guard.close()));
  }

  #guard(subject: Subject, mend: (scope: LookScope) => ReturnType<FenceKeeper['mend']>): KernelGuard {
    const { netns, report } = this.#options;
    return new KernelGuard({
      mend,
      onMended: (mended) =>
        report({ level: 'warn', netns, kind: `${subject} ${netns ?? ''}`, text: mendedText(subject, mended) }),
      onProblem: (problem) =>
        report(
          problem === undefined
            ? { level: 'info', netns, text: AGAIN[subject] }
            : { level: 'error', netns, text: problemText(subject, problem) },
        ),
    });
  }

  async #mendRouting(scope: LookScope): Promise<{ found: readonly string[]; by: readonly string[] }> {
    const { found, adapted, problems } = await this.#options.routing.mend(scope);
    const { netns, report } = this.#options;
    for (const [tunnel, texts] of adapted) {
      for (const subject of ['addresses', 'routes'] as const) {
        const text = texts[subject];
        if (text !== undefined)
          report({ level: 'info', netns, tunnel, text, kind: `${subject} ${tunnel} ${netns ?? ''}` });
      }
    }
    for (const [tunnel, texts] of problems) this.#setProblems(tunnel, texts);
    return { found, by: [] };
  }

  /** Reports those that are new, and those that are settled. */
  #setProblems(tunnel: string, problems: readonly string[]): void {
    const { netns, report } = this.#options;
    const texts = [...new Set(problems)];
    const before = this.#problems.get(tunnel) ?? [];
    if (texts.length === 0) this.#problems.delete(tunnel);
    else this.#problems.set(tunnel, texts);
    for (const text of texts) {
      if (!before.includes(text))
        report({ level: 'warn', netns, tunnel, text, kind: `problem ${tunnel} ${text}`, event: 'degraded' });
    }
    for (const text of before) {
      if (!texts.includes(text))
        report({
          ...{ level: 'info', netns, tunnel, text: `resolved: ${text}` },
          ...{ kind: `settled ${tunnel} ${text}`, event: 'restored' },
        });
    }
  }

  #attempt(subject: Subject, listen: () => void): void {
    try {
      listen();
    } catch (error) {
      const { netns, report } = this.#options;
      const text = `the kernel does not report changes of ${NAMES[subject]} here; they are found only every half minute: ${messageOf(error)}`;
      report({ level: 'warn', netns, text });
    }
  }
}

function isOwn(change: NetworkChange): boolean {
  if (change.kind === 'route') return change.route.protocol === OWN_PROTOCOL;
  return change.kind === 'rule' && change.rule.protocol === OWN_PROTOCOL;
}

function problemText(subject: Subject, problem: string): string {
  return `${NAMES[subject]} could not be restored after a change by another program; sectunnel tries again: ${problem}`;
}

function mendedText(subject: Subject, { found, by, took }: GuardReport): string {
  const who = by.length === 0 ? '' : ` (${by.join('; ')})`;
  const when = took === undefined ? '' : ` within ${Math.ceil(took)} ms`;
  return `another program${who} changed ${NAMES[subject]}: ${listSome(found, MAX_LISTED, '; ')}. All of it was put back${when}`;
}
