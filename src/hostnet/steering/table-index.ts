/** Which routing tables there are: by number, by what tunnels share them by, by tunnel, and by the links that they lead to. */
import { SetMap } from '../../base/set-map.ts';
import { type InstalledRule, ownerOf } from '../routes/routes.ts';
import { DeviceTunnels } from './device-tunnels.ts';
import type { TableMember } from './member.ts';
import type { RoutingPlan } from './plan.ts';
import { isOnwardLookUp } from './priorities.ts';
import { canShare, type RoutingTable } from './table.ts';

export class TableIndex {
  /** By number. BOUNDED: by the tunnels, as all of these. */
  readonly #tables = new Map<number, RoutingTable>();
  /** Those that tunnels share, by key. */
  readonly #shared = new Map<string, RoutingTable>();
  /** By tunnel. */
  readonly #of = new Map<string, RoutingTable>();
  readonly #devices = new DeviceTunnels();
  /** By link, the tables of tunnels whose packets go on by it. */
  readonly #onward = new SetMap<number, RoutingTable>();

  all(): Iterable<RoutingTable> {
    return this.#tables.values();
  }

  /** Those that tunnels share. */
  shared(): Iterable<RoutingTable> {
    return this.#shared.values();
  }

  *members(): Iterable<TableMember> {
    for (const table of this.#tables.values()) yield* table.members;
  }

  get areEmpty(): boolean {
    return this.#tables.size === 0;
  }

  of(tunnel: string): RoutingTable | undefined {
    return this.#of.get(tunnel);
  }

  numbered(table: number | undefined): RoutingTable | undefined {
    return table === undefined ? undefined : this.#tables.get(table);
  }

  /** Another tunnel that has the table, and cannot share it with this one. */
  otherIn(number: number, plan: RoutingPlan, device: string): string | undefined {
    const other = this.#tables.get(number)?.otherThan(plan.tunnel);
    return other === undefined || canShare(other, plan, device) ? undefined : other.plan.tunnel;
  }

  /** The tunnel that a table is of, or one of them. */
  ownerOf(table: number): string | undefined {
    const [first] = this.#tables.get(table)?.members ?? [];
    return first?.plan.tunnel;
  }

  /** The table that a rule of ours is of. */
  ofRule(rule: InstalledRule): RoutingTable | undefined {
    if (!isOnwardLookUp(rule)) return this.numbered(ownerOf(rule));
    const { inputLink } = rule;
    const candidates =
      inputLink === undefined
        ? this.#shared.values()
        : [...this.#devices.named(inputLink)].flatMap((tunnel) => this.#of.get(tunnel) ?? []);
    return [...new Set(candidates)].find((table) => table.wantsRule(rule));
  }

  /** The tunnels into whose device packets go by that link. */
  *ofLink(index: number): Generator<{ readonly table: RoutingTable; readonly member: TableMember }> {
    for (const tunnel of this.#devices.onLink(index)) {
      const table = this.#of.get(tunnel);
      const member = table?.member(tunnel);
      if (table !== undefined && member !== undefined) yield { table, member };
    }
  }

  /** The tables of tunnels whose packets go on by that link. */
  onwardBy(index: number): Iterable<RoutingTable> {
    return this.#onward.get(index);
  }

  /** Packets of its tunnels go on by these links, no longer by those. */
  setOnward(table: RoutingTable, before: Iterable<number>): void {
    for (const link of before) this.#onward.delete(link, table);
    for (const link of table.onwardLinks) this.#onward.add(link, table);
  }

  /** From now on, in place of another one of its number. */
  keep(table: RoutingTable): void {
    const before = this.#tables.get(table.number);
    if (before !== undefined && before !== table) this.drop(before);
    this.#tables.set(table.number, table);
    if (table.key !== undefined) this.#shared.set(table.key, table);
  }

  drop(table: RoutingTable): void {
    for (const link of table.onwardLinks) this.#onward.delete(link, table);
    if (this.#tables.get(table.number) === table) this.#tables.delete(table.number);
    if (table.key !== undefined && this.#shared.get(table.key) === table) this.#shared.delete(table.key);
  }

  setTable(tunnel: string, table: RoutingTable): void {
    this.#of.set(tunnel, table);
  }

  forget(tunnel: string): void {
    this.#of.delete(tunnel);
  }

  addDevice(device: string, tunnel: string): void {
    this.#devices.add(device, tunnel);
  }

  /** @returns whether no other tunnel's device is there by that link */
  addLink(link: number, tunnel: string): boolean {
    const isFirst = this.#devices.onLink(link).size === 0;
    this.#devices.addLink(link, tunnel);
    return isFirst;
  }

  /** Of a tunnel that has no table any more, or another device. */
  forgetDevice(member: TableMember): void {
    const { tunnel } = member.plan;
    const now = this.#of.get(tunnel)?.member(tunnel);
    if (now === undefined || now === member || now.linkIndex !== member.linkIndex) this.#devices.forget(member);
  }
}
