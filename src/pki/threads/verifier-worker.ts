/**
 * Where a verifier thread begins: it reads certificates and checks signatures, and does nothing else. It holds no private
 * key and has no socket; what is to be fetched it asks the main thread for.
 */
import { type MessagePort, parentPort } from 'node:worker_threads';
import { messageOf } from '../../base/text.ts';
import { parseCertificate } from '../certificate.ts';
import { CertificateCache } from '../certificate-cache.ts';
import { parseCrl } from '../revocation/crl.ts';
import { type Fetch, OnlineRevocation } from '../revocation/online.ts';
import type { PeerAuth, Verdict } from '../types.ts';
import { judgeAuth, type VerifierOptions } from '../verifier.ts';
import type { ThreadCommand, ThreadReport, TrustMaterial } from './messages.ts';

/** What tunnels judge their peers by. */
const MAX_TRUSTS = 64;

interface Trust {
  readonly options: VerifierOptions;
  readonly cache: CertificateCache;
}

type Judgement = Extract<ThreadCommand, { readonly type: 'judge' }>;

class VerifierThread {
  readonly #port: MessagePort;
  /** By digest, the last used last. BOUNDED: MAX_TRUSTS. */
  readonly #trusts = new Map<string, Trust>();
  /** What waits for a trust that was forgotten, or is new. BOUNDED: by the pool, which sends one at a time. */
  #waiting: Judgement[] = [];
  /** BOUNDED: by `OnlineRevocation`. */
  readonly #fetches = new Map<number, { resolve: (bytes: Uint8Array) => void; reject: (error: Error) => void }>();
  #lastFetch = 0;
  readonly #online: OnlineRevocation;

  constructor(port: MessagePort) {
    this.#port = port;
    this.#online = new OnlineRevocation({
      fetch: (request) => this.#fetch(request),
      onFailure: (text) => this.#report({ type: 'revocation-unknown', text }),
    });
    port.on('message', (command: ThreadCommand) => this.#obey(command));
    this.#report({ type: 'ready' });
  }

  #report(report: ThreadReport): void {
    this.#port.postMessage(report);
  }

  #obey(command: ThreadCommand): void {
    switch (command.type) {
      case 'judge':
        void this.#judge(command);
        return;
      case 'trust':
        this.#learn(command.trust, command.material);
        return;
      case 'fetched': {
        const fetch = this.#fetches.get(command.fetch);
        this.#fetches.delete(command.fetch);
        if ('bytes' in command.answer) fetch?.resolve(command.answer.bytes);
        else fetch?.reject(new Error(command.answer.error));
        return;
      }
    }
  }

  #learn(digest: string, material: TrustMaterial): void {
    this.#trusts.set(digest, { options: this.#options(material), cache: new CertificateCache() });
    if (this.#trusts.size > MAX_TRUSTS) {
      const [oldest] = this.#trusts.keys();
      this.#trusts.delete(oldest!);
    }
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const judgement of waiting) void this.#judge(judgement);
  }

  #options({ anchors, intermediates, crls, online, ...rest }: TrustMaterial): VerifierOptions {
    return {
      ...rest,
      anchors: anchors.map((der) => parseCertificate(der)),
      intermediates: intermediates.map((der) => parseCertificate(der)),
      crls: crls.map((der) => parseCrl(der)),
      online: online && { through: this.#online, ...online },
    };
  }

  async #judge(judgement: Judgement): Promise<void> {
    const { id, trust: digest, auth } = judgement;
    const trust = this.#trusts.get(digest);
    if (trust === undefined) {
      this.#waiting.push(judgement);
      this.#report({ type: 'need-trust', trust: digest });
      return;
    }
    this.#trusts.delete(digest);
    this.#trusts.set(digest, trust);
    try {
      this.#report({ type: 'judged', id, verdict: await this.#measured(id, trust, auth) });
    } catch (error) {
      this.#report({ type: 'failed', id, error: messageOf(error) });
    }
  }

  /** Time that is spent waiting for others is not counted. */
  async #measured(id: number, { options, cache }: Trust, auth: PeerAuth): Promise<Verdict> {
    this.#report({ type: 'judging', id });
    const begun = performance.now();
    let spent: number | undefined;
    const verdict = await judgeAuth(auth, options, cache, () => {
      spent = performance.now() - begun;
      this.#report({ type: 'waiting', id });
    });
    return { ...verdict, spent: spent ?? performance.now() - begun };
  }

  readonly #fetch: Fetch = (request) =>
    new Promise((resolve, reject) => {
      const fetch = ++this.#lastFetch;
      this.#fetches.set(fetch, { resolve, reject });
      this.#report({ type: 'fetch', fetch, request });
    });
}

if (parentPort !== null) new VerifierThread(parentPort);
