/** Documents by the packets that they claim: which of thousands may overlap with one is found by addresses. */
import type { SectunnelDocument } from '../config/model.ts';
import { ClaimsIndex } from '../policy/claims-index.ts';
import { documentClaims } from './overlaps.ts';

export class OverlapIndex {
  /** By the name of the tunnel. BOUNDED, both: by the owner, who deletes what is gone. */
  readonly #documents = new Map<string, SectunnelDocument>();
  readonly #claims = new ClaimsIndex<string>();

  /** Replaces the document of the tunnel. False when it is there already. */
  set(document: SectunnelDocument): boolean {
    const { name } = document;
    if (this.#documents.get(name) === document) return false;
    this.#documents.set(name, document);
    this.#claims.set(name, documentClaims(document));
    return true;
  }

  delete(name: string): void {
    this.#documents.delete(name);
    this.#claims.delete(name);
  }

  /** Those of other tunnels that may claim the same packets, in the order of their names. */
  near(document: SectunnelDocument): SectunnelDocument[] {
    const names = [...this.#claims.near(documentClaims(document))].filter((name) => name !== document.name);
    return names.sort().map((name) => this.#documents.get(name)!);
  }
}
