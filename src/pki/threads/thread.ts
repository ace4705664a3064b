/**
 * A verifier thread as the main thread sees it: one question is computed at a time, others may wait for the network. A
 * question that takes longer than it may ends the thread, and is refused with all that the thread had.
 */
import type { Worker } from 'node:worker_threads';
import { messageOf } from '../../base/text.ts';
import { refuse } from '../path.ts';
import type { Fetch, FetchRequest } from '../revocation/online.ts';
import type { PeerAuth, Verdict, Verifier } from '../types.ts';
import type { ThreadCommand, ThreadReport, TrustMaterial } from './messages.ts';

/** A question and what becomes of the answer. */
export interface Judgement {
  readonly id: number;
  readonly trust: {
    readonly digest: string;
    readonly material: TrustMaterial;
    /** The same, in the main thread. */
    readonly inline: Verifier;
  };
  readonly auth: PeerAuth;
  readonly settle: (verdict: Verdict) => void;
}

export interface ThreadOptions {
  readonly fetch: Fetch;
  readonly onFailure: (text: string) => void;
  /** Milliseconds that a question may take, what is asked over the network not counted. */
  readonly deadline: number;
  /** It can take another question. */
  readonly onFree: () => void;
  /** @param unheard its question, where it ended before it ran at all */
  readonly onEnd: (reason: string, unheard: Judgement | undefined) => void;
}

/** Milliseconds until a thread has begun with a question: it may have to start, and to read lists of tens of megabytes. */
const BEGIN_WITHIN = 30_000;
/** Milliseconds that a question may wait for the network: as long as IKE waits for its answer. */
const WAIT_AT_MOST = 30_000;
/** Questions that wait for the network, each of which may hold certificates and a list that is being read. */
const MAX_WAITING = 64;

interface Waiting {
  readonly judgement: Judgement;
  readonly timer: NodeJS.Timeout;
}

export class VerifierThread {
  readonly #worker: Worker;
  readonly #options: ThreadOptions;
  #ready = false;
  #current: Judgement | undefined;
  /** Ends the thread when the current question takes too long. */
  #timer: NodeJS.Timeout | undefined;
  /** By id. BOUNDED: MAX_WAITING. */
  readonly #waiting = new Map<number, Waiting>();
  #reason: string | undefined;
  /** What its question is refused with when it is ended. */
  #last: Verdict | undefined;
  readonly #ended: Promise<void>;

  constructor(worker: Worker, options: ThreadOptions) {
    this.#worker = worker;
    this.#options = options;
    // It lives as long as what asks it does.
    worker.unref();
    worker.on('message', (report: ThreadReport) => this.#heard(report));
    worker.on('error', (error) => {
      this.#reason ??= messageOf(error);
    });
    this.#ended = new Promise((resolve) => {
      worker.on('exit', (code) => {
        this.#exited(code);
        resolve();
      });
    });
  }

  get isFree(): boolean {
    return this.#current === undefined && this.#reason === undefined;
  }

  judge(judgement: Judgement): void {
    this.#current = judgement;
    const { id, trust, auth } = judgement;
    this.#post({ type: 'judge', id, trust: trust.digest, auth });
    this.#limit(BEGIN_WITHIN, 'the thread did not begin');
  }

  /** Ends the thread; the question that it computes is answered so. */
  async end(verdict: Verdict): Promise<void> {
    this.#last = verdict;
    this.#reason ??= 'it is not needed any more';
    await this.#worker.terminate();
    await this.#ended;
  }

  #post(command: ThreadCommand): void {
    this.#worker.postMessage(command);
  }

  #limit(milliseconds: number, what: string): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#reason = `${what} within ${milliseconds / 1_000} s`;
      const detail = `its certificates could not be verified: ${this.#reason}`;
      void this.end({ ...refuse('took-too-long', detail), spent: milliseconds });
    }, milliseconds).unref();
  }

  #heard(report: ThreadReport): void {
    switch (report.type) {
      case 'ready':
        this.#ready = true;
        return;
      case 'need-trust': {
        const { digest, material } = this.#current?.trust ?? {};
        if (digest === report.trust) this.#post({ type: 'trust', trust: digest, material: material! });
        return;
      }
      case 'judging':
        if (this.#current?.id === report.id) this.#limit(this.#options.deadline, 'they were not judged');
        return;
      case 'waiting':
        this.#wait(report.id);
        return;
      case 'judged':
        this.#settle(report.id, report.verdict);
        return;
      case 'failed':
        this.#settle(report.id, refuse('overloaded', `the certificates could not be verified: ${report.error}`));
        return;
      case 'fetch':
        void this.#fetch(report.fetch, report.request);
        return;
      case 'revocation-unknown':
        this.#options.onFailure(report.text);
        return;
    }
  }

  /** What is left of the current question is the network's: another one may follow. */
  #wait(id: number): void {
    const judgement = this.#current;
    if (judgement?.id !== id) return;
    if (this.#waiting.size >= MAX_WAITING) {
      judgement.settle(refuse('overloaded', 'too many peers wait for what is asked about their certificates'));
    } else {
      const late = refuse('took-too-long', 'what is asked about its certificates did not come in time');
      const timer = setTimeout(() => this.#settle(id, late), WAIT_AT_MOST).unref();
      this.#waiting.set(id, { judgement, timer });
    }
    this.#free();
  }

  #settle(id: number, verdict: Verdict): void {
    const waiting = this.#waiting.get(id);
    if (waiting !== undefined) {
      clearTimeout(waiting.timer);
      this.#waiting.delete(id);
      waiting.judgement.settle(verdict);
    } else if (this.#current?.id === id) {
      this.#current.settle(verdict);
      this.#free();
    }
  }

  #free(): void {
    clearTimeout(this.#timer);
    this.#current = undefined;
    if (this.isFree) this.#options.onFree();
  }

  async #fetch(fetch: number, request: FetchRequest): Promise<void> {
    try {
      this.#post({ type: 'fetched', fetch, answer: { bytes: await this.#options.fetch(request) } });
    } catch (error) {
      this.#post({ type: 'fetched', fetch, answer: { error: messageOf(error) } });
    }
  }

  #exited(code: number): void {
    const reason = this.#reason ?? `it ended with code ${code}`;
    this.#reason = reason;
    clearTimeout(this.#timer);
    const verdict = this.#last ?? refuse('took-too-long', `the verifier thread ended: ${reason}`);
    const unheard = this.#ready || this.#last !== undefined ? undefined : this.#current;
    if (unheard === undefined) this.#current?.settle(verdict);
    this.#current = undefined;
    for (const { judgement, timer } of this.#waiting.values()) {
      clearTimeout(timer);
      // Not at the expense of their peers, nor of what another's took.
      judgement.settle(refuse('overloaded', `the verifier thread ended: ${reason}`));
    }
    this.#waiting.clear();
    this.#options.onEnd(reason, unheard);
  }
}
