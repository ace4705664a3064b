/** Which tunnels have a device, by its name and by its link: several may share one. */
import { SetMap } from '../../base/set-map.ts';
import type { TableMember } from './member.ts';

export class DeviceTunnels {
  // BOUNDED: by the owner, who forgets those that are gone; both.
  readonly #named = new SetMap<string, string>();
  readonly #linked = new SetMap<number, string>();

  named(device: string): ReadonlySet<string> {
    return this.#named.get(device);
  }

  onLink(link: number): ReadonlySet<string> {
    return this.#linked.get(link);
  }

  add(device: string, tunnel: string): void {
    this.#named.add(device, tunnel);
  }

  addLink(link: number, tunnel: string): void {
    this.#linked.add(link, tunnel);
  }

  forget({ device, linkIndex, plan: { tunnel } }: TableMember): void {
    this.#named.delete(device, tunnel);
    if (linkIndex !== undefined) this.#linked.delete(linkIndex, tunnel);
  }
}
