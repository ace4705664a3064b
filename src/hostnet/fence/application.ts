/** What a change of the fence is made of, before it is a batch. */
import type { ObjectName } from '../netlink/nftables.ts';
import type { NamedPart } from './nft.ts';

/** When it is read back what a change made: `later`, with changes that follow. */
export type ReadBack = 'now' | 'later';

/** What is to be done, and what stands before. */
export interface Application {
  /** Ids of the parts that stand. */
  readonly known: ReadonlySet<string>;
  readonly added: readonly NamedPart[];
  readonly removed: readonly string[];
  /** Lines before and behind those of the change. */
  readonly first?: readonly string[];
  readonly last?: readonly string[];
  readonly concerned?: readonly ObjectName[];
  readonly latest?: readonly NamedPart[];
  /** Rules that lead to parts which the map finds go. */
  readonly dropsSurplus?: boolean;
  readonly readBack?: ReadBack | undefined;
}
