/**
 * What counts now of each tunnel, and whom it has to do with: whose policies may meet its own, and who has the same secret.
 * Costs the same for any number of tunnels.
 */
import type { SectunnelDocument } from '../../config/model.ts';
import { KeyHolders } from '../../config/shared-keys.ts';
import { OverlapIndex } from '../../plan/overlap-index.ts';

export class DocumentIndex {
  readonly #policies = new OverlapIndex();
  readonly #holders = new KeyHolders();

  /** @param document that counts from now on; `undefined`: there is none any more */
  set(name: string, document: SectunnelDocument | undefined): void {
    if (document === undefined) {
      this.#policies.delete(name);
      this.#holders.delete(name);
    } else if (this.#policies.set(document)) this.#holders.set(document);
  }

  /** Those of other tunnels that may claim the same packets, in the order of their names. */
  near(document: SectunnelDocument): SectunnelDocument[] {
    return this.#policies.near(document);
  }

  /** Warns of a secret that other tunnels have too. */
  sharedKeyWarning(document: SectunnelDocument): string[] {
    return this.#holders.warning(document);
  }
}
