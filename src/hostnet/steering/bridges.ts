/**
 * Routes what comes in by bridges, from guests, into the table of a tunnel and nowhere else, by rules before those of
 * tunnels.
 */
import type { HostNetwork, InstalledRule, Prefix, Rule } from '../routes/routes.ts';
import { sameRule } from '../routes/routes.ts';
import { type Changer, type Mended, mendRouting, type RoutesOf } from './mend.ts';
import { bridgeRules, isOfBridge, tableOfBridge } from './priorities.ts';

/** What stands. */
export interface BridgeRules {
  readonly ofBridges: readonly InstalledRule[];
  /** Rules of other programs. */
  readonly foreign: readonly InstalledRule[];
  readonly routesOf: RoutesOf;
}

export class BridgeRouting {
  readonly #network: HostNetwork;
  /** By the name of the bridge. BOUNDED: by libvirt's networks. */
  readonly #rules = new Map<string, readonly Rule[]>();

  constructor(network: HostNetwork) {
    this.#network = network;
  }

  get areRouted(): boolean {
    return this.#rules.size > 0;
  }

  want(rule: Rule): boolean {
    return [...this.#rules.values()].flat().some((other) => sameRule(other, rule));
  }

  /** Networks at routed bridges: the host's own addresses there are for guests. */
  guests(): Prefix[] {
    return [...this.#rules.values()].flatMap((rules) => rules.flatMap(({ to }) => to ?? []));
  }

  /** As `Platform.routeBridge` says. */
  route(bridge: string, own: readonly Prefix[], table: number | undefined): () => void {
    const rules = bridgeRules(bridge, own, table);
    try {
      for (const rule of rules) this.#network.addRule(rule);
    } catch (error) {
      this.#forget(rules);
      throw error;
    }
    this.#rules.set(bridge, rules);
    this.#forget(this.#network.rules().filter(({ inputLink }) => inputLink === bridge));
    return () => {
      if (this.#rules.get(bridge) !== rules) return;
      this.#rules.delete(bridge);
      this.#forget([...rules].reverse());
    };
  }

  /** Removes what an earlier daemon installed for other bridges. */
  forgetOthers(): void {
    this.#forget(this.#network.rules());
  }

  /** Puts right what others changed. @returns what was found of each bridge, and its table */
  *mend(
    changer: Changer,
    listed: BridgeRules,
  ): Iterable<{ readonly table: number | undefined; readonly mended: Mended }> {
    for (const [bridge, rules] of this.#rules) {
      const table = tableOfBridge(rules);
      yield { table, mended: this.#mendBridge(changer, { bridge, rules, table }, listed) };
    }
  }

  #mendBridge(
    changer: Changer,
    { bridge, rules, table }: { bridge: string; rules: readonly Rule[]; table: number | undefined },
    { ofBridges, foreign, routesOf }: BridgeRules,
  ): Mended {
    const own = ofBridges.filter((rule) => rules.some((other) => sameRule(other, rule)));
    const flow = { local: undefined, remote: undefined, protocol: undefined, inputLink: bridge };
    const wanted = { rules, tables: [], flows: table === undefined ? [] : [flow] };
    return mendRouting(changer, wanted, { own, foreign, routesOf });
  }

  /** Removes rules of bridges that are no longer routed here. */
  #forget(rules: readonly Rule[]): void {
    for (const rule of rules) if (isOfBridge(rule) && !this.want(rule)) this.#network.deleteRule(rule);
  }
}
