/** The fences of the tunnels of a network namespace: each as its policy and the order of tunnels want it. */
import { SectunnelError } from '../base/error.ts';
import type { TunnelFence } from '../hostnet/fence/fence.ts';
import type { LinuxFence } from '../hostnet/fence/linux.ts';
import type { PolicyRouting } from '../hostnet/steering/policy-routing.ts';
import { tunnelFence } from '../hostnet/steering/tunnel-fence.ts';
import type { Claimant, TunnelOrder } from '../hostnet/steering/tunnel-order.ts';
import type { DevicePlan } from '../plan/device.ts';

export class TunnelFences {
  readonly #fence: LinuxFence;
  readonly #order: TunnelOrder;
  readonly #routing: PolicyRouting;
  /** Of tunnels that were raised here. BOUNDED: by the tunnels. */
  readonly #plans = new Map<string, DevicePlan>();

  /** @param order of the tunnels here, which this sets and `routing` follows */
  constructor(fence: LinuxFence, order: TunnelOrder, routing: PolicyRouting) {
    this.#fence = fence;
    this.#order = order;
    this.#routing = routing;
  }

  /** Whether the fence of a tunnel stands, set by this program. */
  has(tunnel: string): boolean {
    return this.#fence.has(fenceKey(tunnel));
  }

  /** @throws SectunnelError when the tunnels can have no order then, Error saying what is missing; what stands is as before */
  async raise(plan: DevicePlan): Promise<void> {
    for (const tunnel of this.#place(plan)) await this.#set(tunnel);
  }

  /**
   * Many at once, in few commits.
   * @returns by tunnel, why its fence does not stand
   */
  async raiseTogether(plans: readonly DevicePlan[]): Promise<ReadonlyMap<string, unknown>> {
    // BOUNDED: by the tunnels, as the others.
    const problems = new Map<string, unknown>();
    const concerned = new Set<string>();
    for (const plan of plans) {
      try {
        for (const tunnel of this.#place(plan)) concerned.add(tunnel);
      } catch (error) {
        problems.set(plan.tunnel, error);
      }
    }
    const fences = new Map([...concerned].map((tunnel) => [fenceKey(tunnel), this.#wanted(tunnel)]));
    const refused = await this.#fence.setTogether(fences);
    for (const tunnel of concerned) {
      if (refused.has(fenceKey(tunnel))) problems.set(tunnel, refused.get(fenceKey(tunnel)));
    }
    return problems;
  }

  /** @throws Error with the fence still standing */
  async remove(tunnel: string): Promise<void> {
    await this.#fence.set(fenceKey(tunnel), undefined);
  }

  /** The tunnel leaves the order: the fences of others that follow from it are set. */
  async forget(tunnel: string): Promise<void> {
    const neighbours = this.#neighbours(tunnel);
    this.#order.delete(tunnel);
    this.#plans.delete(tunnel);
    for (const each of neighbours) await this.#set(each);
  }

  /** Takes away the fences that a program before this one left, but for those of these tunnels. */
  reconcile(tunnels: Iterable<string>): Promise<void> {
    return this.#fence.reconcile('tunnel', [...tunnels].map(fenceKey));
  }

  /** Which addresses are those of guests has changed. */
  async guestsChanged(): Promise<void> {
    for (const tunnel of this.#plans.keys()) await this.#set(tunnel);
  }

  /** Which tunnel of its redundancy group carries what this one is for; itself where it is in none. */
  carrier(tunnel: string): string {
    return this.#order.carrier(tunnel);
  }

  /**
   * Gives a tunnel its place in the order.
   * @returns the tunnels whose fences that may change, its own first
   * @throws SectunnelError when they can have no order then; it is as before
   */
  #place(plan: DevicePlan): Iterable<string> {
    const { tunnel, name, routing } = plan;
    if (routing === undefined) return [];
    const { claims, redundancy, vrf } = routing;
    const before = this.#neighbours(tunnel);
    this.#setOrder({ tunnel, vrf, device: name, claims, redundancy });
    this.#plans.set(tunnel, plan);
    return new Set([tunnel, ...this.#neighbours(tunnel), ...before]);
  }

  #setOrder(claimant: Claimant): void {
    const { tunnel } = claimant;
    const former = this.#plans.get(tunnel);
    this.#order.set(claimant);
    const circle = this.#order.circle(tunnel);
    if (circle.length === 0) return;
    if (former?.routing === undefined) this.#order.delete(tunnel);
    else this.#order.set({ ...former.routing, device: former.name });
    const names = [...new Set(circle)].filter((name) => name !== tunnel).join(', ');
    throw new SectunnelError(
      'system',
      `the policies of tunnel ${tunnel} and of ${names} can have no order: each goes before another of them for some packets, and behind it for others; give policies a priority, or put them in documents of their own`,
    );
  }

  /** Tunnels whose fences let pass what goes by the device of this one. */
  #neighbours(tunnel: string): string[] {
    return [...this.#order.behind(tunnel), ...this.#order.mates(tunnel)];
  }

  /** As the order of tunnels wants it; where it stands so already nothing is done. */
  async #set(tunnel: string): Promise<void> {
    if (this.#plans.has(tunnel)) await this.#fence.set(fenceKey(tunnel), this.#wanted(tunnel));
  }

  /** `undefined` where none is needed. */
  #wanted(tunnel: string): TunnelFence | undefined {
    const plan = this.#plans.get(tunnel);
    if (plan?.routing === undefined) return undefined;
    const fence = tunnelFence(plan.routing, plan.name, {
      beside: this.#order.devicesBeside(tunnel),
      isOfGuests: (local) => this.#routing.isOfGuests(local),
    });
    return needsFence(fence) ? fence : undefined;
  }
}

/** The key of a tunnel's part of the fence. */
export function fenceKey(tunnel: string): string {
  return `tunnel:${tunnel}`;
}

function needsFence({ outbound, inbound }: TunnelFence): boolean {
  return [...outbound, ...inbound].some(({ action }) => action !== 'pass');
}
