/** What a person should know about a document when it is defined: by itself, beside the others, and on this machine. */
import type { SectunnelDocument } from '../config/model.ts';
import { toPolicy } from '../config/selectors.ts';
import { sharedKeyWarning } from '../config/shared-keys.ts';
import { overlapsAmong, overlapsWhenKept } from '../plan/overlaps.ts';
import { secretOf } from '../plan/plan.ts';
import type { Runner } from './runner.ts';
import { certificateProblems } from './secrets/certificates.ts';
import type { SecretSources } from './secrets/sources.ts';
import type { Catalog } from './store/catalog.ts';
import type { DocumentIndex } from './store/document-index.ts';

export interface AdviceParts {
  readonly catalog: Catalog;
  readonly runner: Runner;
  readonly secrets: SecretSources;
}

export class Advice {
  readonly #parts: AdviceParts;

  constructor(parts: AdviceParts) {
    this.#parts = parts;
  }

  /**
   * What both the document and those of other tunnels claim, active or not.
   * @param among the documents that count, here and in the other methods; left out: those that count now
   */
  overlaps(document: SectunnelDocument, among: DocumentIndex = this.#now): ReturnType<typeof overlapsWhenKept> {
    const { catalog } = this.#parts;
    return overlapsWhenKept(overlapsAmong(document, among.near(document)), (tunnel) => catalog.isWanted(tunnel));
  }

  get #now(): DocumentIndex {
    return this.#parts.catalog.definitions.index;
  }

  /** Warnings about the policy, the addresses of this host, and keys that tunnels share. */
  warnings(document: SectunnelDocument, among: DocumentIndex = this.#now): string[] {
    const shared = [...sharedKeyWarning(document), ...among.sharedKeyWarning(document)];
    return [...toPolicy(document).warnings, ...this.#parts.runner.hostWarnings(document), ...shared];
  }

  /** The same, and what is wrong with the certificates and the secret that the document refers to. */
  async allWarnings(document: SectunnelDocument, among?: DocumentIndex): Promise<string[]> {
    return [
      ...this.warnings(document, among),
      ...(await certificateProblems(document, this.#parts.secrets)),
      ...(await this.#secretProblems(document)),
    ];
  }

  /** A tunnel cannot start before its secret has a value, and should not start with a weak one. */
  async #secretProblems(document: SectunnelDocument): Promise<string[]> {
    const { secrets } = this.#parts;
    const secret = secretOf(document);
    if (secret === undefined) return [];
    const problem = await secrets.problem(secret);
    if (problem !== undefined) return [problem];
    const weakness = await secrets.weakness(secret);
    const line = document.sa.auths.find(({ type }) => type === 'psk')?.line;
    return weakness === undefined ? [] : [`line ${line}: <auth type='psk'>: ${weakness}`];
  }
}
