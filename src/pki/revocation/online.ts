/**
 * Revocation lists and OCSP over HTTP, from where the certificate itself says (RFC 5280 §4.2.1.13, §4.2.2.1). To be asked about
 * certificates of a path that is trusted alone: the addresses are then those of an authority that is believed.
 *
 * Fetching itself is handed in, with its limits of time; what comes back is believed for its signature, not for where it came
 * from, so HTTP without TLS is enough, and is all there is: TLS would need certificates to be checked first.
 */
import { createHash, randomBytes } from 'node:crypto';
import { messageOf } from '../../base/text.ts';
import { type Certificate, describeCertificate, sameNames } from '../certificate.ts';
import { isDer, pemBlocks } from '../pem.ts';
import { type Crl, crlProblem, parseCrl, type RevocationStatus, revocationStatus, staleness } from './crl.ts';
import { listUrls, responderUrls } from './locations.ts';
import { MAX_OCSP_RESPONSE, type OcspAnswer, ocspRequest, readOcspResponse } from './ocsp.ts';
import { type Loaded, Remembered } from './remembered.ts';

/** One request by HTTP. Times are milliseconds, sizes bytes. */
export interface FetchRequest {
  /** With `http:`; whatever else a certificate says. */
  readonly url: string;
  /** Sent with POST; GET where there is none. */
  readonly body: { readonly type: string; readonly bytes: Uint8Array } | undefined;
  /** Media type that is wanted. */
  readonly accept: string;
  /** Longer answers are refused. */
  readonly maxBytes: number;
}

/** The body of the answer. Gives up soon; is rejected with an error for people. */
export type Fetch = (request: FetchRequest) => Promise<Uint8Array>;

/** How revocation is looked up, and what is remembered. Times are milliseconds. */
export interface OnlineOptions {
  readonly fetch: Fetch;
  /** Called when an address gives no status, at most twice a minute for each. */
  readonly onFailure?: ((text: string) => void) | undefined;
}

/** When a certificate is judged, and what is known beside. */
export interface Occasion {
  /** Milliseconds since 1970. */
  readonly now: number;
  /** How far the clocks of others may be off, milliseconds. */
  readonly clockSkew: number;
  /** Lists at hand. */
  readonly crls: readonly Crl[];
}

/** Largest list that is fetched, in bytes: 100,000 certificates, which take 0.2 s to be read. */
export const MAX_FETCHED_CRL: number = 4 * 1024 * 1024;
const MAX_URL = 1024;
/** Places of one certificate that are asked in turn. */
const MAX_PLACES = 2;
/** Nothing is kept longer without asking again, milliseconds, however long it says that it holds. */
const MAX_FRESH = 24 * 3_600_000;
/** How long it is kept what says nothing for later, milliseconds. */
const MIN_FRESH = 60_000;

/** Looks up by OCSP (RFC 6960), or else by CRL distribution points, whether a certificate was revoked. */
export class OnlineRevocation {
  readonly #fetch: Fetch;
  readonly #onFailure: (text: string) => void;
  readonly #lists = new Remembered<Crl>(64, 16 * 1024 * 1024);
  readonly #answers = new Remembered<OcspAnswer>(4_096, 1024 * 1024);

  constructor({ fetch, onFailure }: OnlineOptions) {
    this.#fetch = fetch;
    this.#onFailure = onFailure ?? (() => undefined);
  }

  /** What the lists say that are where the certificate says. Never throws. */
  async list(certificate: Certificate, issuer: Certificate, { now, clockSkew }: Occasion): Promise<RevocationStatus> {
    return await this.#inTurn('list', listUrls(certificate), async (url) => {
      const key = keyOf(url, issuer);
      const crl = await this.#lists.get(key, now, () => this.#loadList(url, issuer, now, clockSkew));
      return await revocationStatus(certificate, issuer, [crl], now, clockSkew);
    });
  }

  /** What the responders say that the certificate names. Never throws. */
  async ask(certificate: Certificate, issuer: Certificate, occasion: Occasion): Promise<RevocationStatus> {
    return await this.#inTurn('OCSP responder', responderUrls(certificate), async (url) => {
      const key = `${keyOf(url, issuer)} ${certificate.serial}`;
      const load = (): Promise<Loaded<OcspAnswer>> => this.#loadAnswer(url, certificate, issuer, occasion);
      return await this.#answers.get(key, occasion.now, load);
    });
  }

  /** The first of the places that knows. */
  async #inTurn(
    what: string,
    urls: readonly string[],
    ask: (url: string) => Promise<RevocationStatus>,
  ): Promise<RevocationStatus> {
    const places = urls.filter((url) => /^http:/i.test(url) && url.length <= MAX_URL).slice(0, MAX_PLACES);
    let detail = `it names no ${what} with an http: address${urls.length === 0 ? '' : '; other addresses are not used'}`;
    for (const url of places) {
      try {
        const found = await ask(url);
        if (found.status !== 'unknown') return found;
        detail = `${url}: ${found.detail}`;
      } catch (error) {
        detail = messageOf(error);
      }
    }
    return { status: 'unknown', detail };
  }

  async #loadList(url: string, issuer: Certificate, now: number, clockSkew: number): Promise<Loaded<Crl>> {
    return await this.#telling(url, async () => {
      const accept = 'application/pkix-crl';
      const bytes = await this.#fetch({ url, body: undefined, accept, maxBytes: MAX_FETCHED_CRL });
      const crl = parseCrl(listDer(bytes));
      if (!sameNames(crl.issuerName, issuer.subjectName)) {
        throw new Error(`the revocation list is from '${crl.issuer}', not from ${describeCertificate(issuer)}`);
      }
      const problem = await crlProblem(crl, issuer);
      if (problem !== undefined) throw new Error(`the revocation list cannot be used: ${problem}`);
      const { nextUpdate } = crl;
      return lasting(crl, bytes.length, now, staleness(crl, now, clockSkew) === undefined ? nextUpdate : undefined);
    });
  }

  async #loadAnswer(
    url: string,
    certificate: Certificate,
    issuer: Certificate,
    { now, clockSkew, crls }: Occasion,
  ): Promise<Loaded<OcspAnswer>> {
    return await this.#telling(url, async () => {
      const question = { certificate, issuer, nonce: new Uint8Array(randomBytes(32)) };
      const body = { type: 'application/ocsp-request', bytes: ocspRequest(question) };
      const accept = 'application/ocsp-response';
      const bytes = await this.#fetch({ url, body, accept, maxBytes: MAX_OCSP_RESPONSE });
      const answer = await readOcspResponse(bytes, question, { now, skew: clockSkew, crls });
      return lasting(answer, 256, now, answer.status === 'unknown' ? undefined : answer.nextUpdate);
    });
  }

  /** What a failure is about stands before it; and it is told of. */
  async #telling<T>(url: string, load: () => Promise<T>): Promise<T> {
    try {
      return await load();
    } catch (error) {
      const text = `${url}: ${messageOf(error)}`;
      this.#onFailure(text);
      throw new Error(text, { cause: error });
    }
  }
}

function lasting<T>(value: T, bytes: number, now: number, until: number | undefined): Loaded<T> {
  const usableUntil = Math.max(until ?? 0, now + MIN_FRESH);
  return { value, bytes, freshUntil: Math.min(usableUntil, now + MAX_FRESH), usableUntil };
}

/** Lists are to be DER (RFC 5280 §4.2.1.13); who made one by hand often publishes PEM. */
function listDer(bytes: Uint8Array): Uint8Array {
  if (isDer(bytes)) return bytes;
  const found = pemBlocks(bytes.subarray(0, MAX_FETCHED_CRL));
  return found.find(({ label }) => label === 'X509 CRL')?.der() ?? bytes;
}

/** One place may have something of several authorities, and none may speak for another. */
function keyOf(url: string, { publicKeyInfo, subject }: Certificate): string {
  return `${url} ${createHash('sha256').update(subject).update(publicKeyInfo).digest('base64')}`;
}
