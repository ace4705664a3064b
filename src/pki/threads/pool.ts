/**
 * Verifies peers in threads of their own, so that certificates of peers that have proved nothing hold up no negotiation, no
 * command and no liveness check: the main thread only passes bytes on. What waits is bounded and served by source in
 * turn; a thread that takes too long is ended, and another takes its place with the next question.
 *
 * Threads start with the first question. Where none can be started, the main thread verifies, one in each
 * turn of its event loop: what certificates may cost is bounded before (`base/asn1/x509-limits.ts`), as is how much of it an
 * address may ask for (`ike/half-open/verification-budget.ts`).
 */
import { createHash } from 'node:crypto';
import { availableParallelism } from 'node:os';
import type { Worker } from 'node:worker_threads';
import { messageOf } from '../../base/text.ts';
import { authorityHash } from '../certificate.ts';
import { refuse } from '../path.ts';
import type { Fetch } from '../revocation/online.ts';
import type { PeerAuth, Verdict, Verifier } from '../types.ts';
import { pathVerifier, type VerifierOptions } from '../verifier.ts';
import { FairQueue } from './fair-queue.ts';
import type { TrustMaterial } from './messages.ts';
import { spawnVerifierThread } from './spawn.ts';
import { type Judgement, VerifierThread } from './thread.ts';

/** How many threads judge certificates, and by which trust. */
export interface VerifierPoolOptions {
  /** Default: one, and two where there are four processors. */
  readonly threads?: number | undefined;
  /** For documents that have something asked over the network. */
  readonly fetch: Fetch;
  /** Called when an address gives no revocation status, at most twice a minute for each. */
  readonly onFailure: (text: string) => void;
  /** Told when a thread ended, or could not be started. */
  readonly onTrouble: (text: string) => void;
  /** For tests. */
  readonly spawn?: (() => Worker) | undefined;
  /** Milliseconds that one verification may take; time spent on network requests is not counted. */
  readonly deadline?: number | undefined;
}

/** Questions that wait, of one source and of all; each holds at most 256 KiB. */
const MAX_QUEUED_OF_SOURCE = 16;
const MAX_QUEUED = 128;
/** A thousand times what the verification of an honest peer takes. */
const DEADLINE = 2_000;
/** Milliseconds until a thread is started again where it could not be. */
const NO_THREADS_FOR = 30_000;

/** A verifier in worker threads, so that certificates of peers do not keep the event loop from carrying packets. */
export class VerifierPool {
  readonly #options: VerifierPoolOptions;
  readonly #most: number;
  readonly #queue = new FairQueue<Judgement>(MAX_QUEUED_OF_SOURCE, MAX_QUEUED);
  /** BOUNDED: #most. */
  readonly #threads = new Set<VerifierThread>();
  #lastId = 0;
  /** Until when no thread is started, of `performance.now()`. */
  #inlineUntil = 0;
  #inlinePlanned = false;
  #closed = false;

  constructor(options: VerifierPoolOptions) {
    this.#options = options;
    this.#most = options.threads ?? (availableParallelism() < 4 ? 1 : 2);
  }

  /** Judges as `pathVerifier` does with these options. */
  verifier(options: VerifierOptions): Verifier {
    const material = materialOf(options);
    const trust = { digest: digestOf(material), material, inline: pathVerifier(options) };
    return {
      authorities: options.anchors.map(authorityHash),
      verify: (auth) =>
        new Promise<Verdict>((resolve) => {
          this.#ask({ id: ++this.#lastId, trust, auth: plainCopy(auth), settle: resolve });
        }),
    };
  }

  /** Questions that wait for a thread. */
  get queued(): number {
    return this.#queue.size;
  }

  /** Threads that there are. */
  get size(): number {
    return this.#threads.size;
  }

  /** Ends the threads; questions that are open are refused. */
  async close(): Promise<void> {
    this.#closed = true;
    for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) next.settle(ENDING);
    await Promise.all([...this.#threads].map((thread) => thread.end(ENDING)));
  }

  #ask(judgement: Judgement): void {
    if (this.#closed) judgement.settle(ENDING);
    else if (this.#queue.push(judgement.auth.source ?? '', judgement)) this.#pump();
    else judgement.settle(refuse('overloaded', 'too many certificates wait for being judged'));
  }

  #pump(): void {
    for (const thread of this.#threads) {
      if (this.#queue.size === 0) return;
      if (thread.isFree) thread.judge(this.#queue.shift()!);
    }
    if (this.#queue.size === 0 || this.#threads.size >= this.#most) return;
    if (performance.now() >= this.#inlineUntil) {
      if (this.#start()) this.#pump();
    } else if (this.#threads.size === 0) this.#planInline();
  }

  /** False when there is no starting threads now. */
  #start(): boolean {
    const { spawn = spawnVerifierThread, fetch, onFailure, deadline = DEADLINE } = this.#options;
    try {
      const thread: VerifierThread = new VerifierThread(spawn(), {
        fetch,
        onFailure,
        deadline,
        onFree: () => this.#pump(),
        onEnd: (reason, unheard) => this.#ended(thread, reason, unheard),
      });
      this.#threads.add(thread);
      return true;
    } catch (error) {
      this.#withoutThreads(messageOf(error));
      return false;
    }
  }

  /** @param unheard the question that the thread never began with, as it never ran */
  #ended(thread: VerifierThread, reason: string, unheard: Judgement | undefined): void {
    this.#threads.delete(thread);
    if (this.#closed) {
      unheard?.settle(ENDING);
      return;
    }
    if (unheard === undefined) {
      this.#options.onTrouble(`the verifier thread ended: ${reason}`);
    } else {
      this.#queue.push(unheard.auth.source ?? '', unheard);
      this.#withoutThreads(reason);
    }
    this.#pump();
  }

  #withoutThreads(reason: string): void {
    this.#inlineUntil = performance.now() + NO_THREADS_FOR;
    if (this.#threads.size > 0) return;
    this.#options.onTrouble(
      `no verifier thread can be started (${reason}): the main thread verifies certificates, one at a time`,
    );
    this.#planInline();
  }

  #planInline(): void {
    if (this.#inlinePlanned) return;
    this.#inlinePlanned = true;
    setImmediate(() => {
      this.#inlinePlanned = false;
      const judgement = this.#queue.shift();
      if (judgement !== undefined) void judgeInline(judgement);
      if (this.#queue.size > 0) this.#pump();
    });
  }
}

const ENDING: Verdict = refuse('overloaded', 'the program ends');

async function judgeInline({ trust, auth, settle }: Judgement): Promise<void> {
  try {
    settle(await trust.inline.verify(auth));
  } catch (error) {
    settle(refuse('overloaded', `the certificates could not be verified: ${messageOf(error)}`));
  }
}

function materialOf(options: VerifierOptions): TrustMaterial {
  const { crlPolicy, allowedDns, allowCommonName, allowSha1, extendedKeyUsage, clockSkew, online } = options;
  const ders = (list: readonly { readonly der: Uint8Array }[] = []): Uint8Array[] => list.map(({ der }) => der);
  return {
    anchors: ders(options.anchors),
    intermediates: ders(options.intermediates),
    crls: ders(options.crls),
    online: online && { ocsp: online.ocsp, lists: online.lists },
    ...{ crlPolicy, allowedDns, allowCommonName, allowSha1, extendedKeyUsage, clockSkew },
  };
}

/** Of everything that a verdict depends on beside what the peer sent. */
function digestOf({ anchors, intermediates, crls, ...rest }: TrustMaterial): string {
  const hash = createHash('sha256').update(JSON.stringify(rest));
  for (const list of [anchors, intermediates, crls]) {
    hash.update(`${list.length} `);
    for (const der of list) hash.update(createHash('sha256').update(der).digest());
  }
  return hash.digest('base64');
}

/** Bytes of its own: what is posted to a thread takes the whole message along that a view is of. */
function plainCopy(auth: PeerAuth): PeerAuth {
  const copy = (bytes: Uint8Array): Uint8Array => new Uint8Array(bytes);
  return {
    ...auth,
    certificates: auth.certificates.map(copy),
    crls: auth.crls.map(copy),
    id: { type: auth.id.type, data: copy(auth.id.data) },
    algorithm: auth.algorithm && copy(auth.algorithm),
    signature: copy(auth.signature),
    octets: copy(auth.octets),
  };
}
