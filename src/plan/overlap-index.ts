/**
 * Documents by the packets that they claim, and by their devices: which of thousands may overlap with one is found by
 * addresses.
 */
import { SetMap } from '../base/set-map.ts';
import type { SectunnelDocument } from '../config/model.ts';
import { PlacedClaims } from '../policy/claims-index.ts';
import { documentClaims, placeOf } from './overlaps.ts';

export class OverlapIndex {
  /** By the name of the tunnel. BOUNDED, both: by the owner, who deletes what is gone. */
  readonly #documents = new Map<string, SectunnelDocument>();
  readonly #claims = new PlacedClaims<string>();
  /** Tunnels by the name of their device. BOUNDED: as the documents. */
  readonly #devices = new SetMap<string, string>();

  /** Replaces the document of the tunnel. False when it is there already. */
  set(document: SectunnelDocument): boolean {
    const { name } = document;
    const before = this.#documents.get(name);
    if (before === document) return false;
    if (before !== undefined) this.#devices.delete(before.device.name, name);
    this.#devices.add(document.device.name, name);
    this.#documents.set(name, document);
    this.#claims.set(name, documentClaims(document), placeOf(document));
    return true;
  }

  delete(name: string): void {
    const before = this.#documents.get(name);
    if (before !== undefined) this.#devices.delete(before.device.name, name);
    this.#documents.delete(name);
    this.#claims.delete(name);
  }

  /**
   * Those of other tunnels that may claim the same packets, in the order of their names, and one with the same device, which
   * stands for all: they say the same of it.
   */
  near(document: SectunnelDocument): SectunnelDocument[] {
    const names = this.#claims.near(documentClaims(document), placeOf(document));
    for (const name of this.#devices.get(document.device.name)) {
      if (name === document.name) continue;
      names.add(name);
      break;
    }
    names.delete(document.name);
    return [...names].sort().map((name) => this.#documents.get(name)!);
  }
}
