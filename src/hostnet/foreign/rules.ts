/**
 * Rules of other programs in the kernel's packet filter, as far as they say what becomes of a bridge's packets: which of
 * them stand, and when that changes. Implemented by `rules-linux.ts`; hosts in memory have none.
 */
import type { IpFamily } from '../../base/address.ts';

export interface ForeignChain {
  readonly family: IpFamily;
  readonly table: string;
  readonly chain: string;
}

export interface ForeignRule extends ForeignChain {
  /** What it compares parts of packets with, hexadecimal. */
  readonly constants: readonly string[];
  /** The chain that it leads to. */
  readonly jump: string | undefined;
}

export interface ForeignRules {
  /** From now on calls `onChange` when any program changed one of the tables. @throws Error where that cannot be heard */
  watch(onChange: () => void): void;
  /** The rules of all the chains. @throws Error */
  read(): ForeignRule[];
  /** The index of a link, by which rules may name it; `undefined` where there is none. */
  linkIndex(name: string): number | undefined;
  /** Whether iptables keeps its rules where they cannot be seen here: in the tables of old kernels. */
  hidden(): Promise<boolean>;
  close(): Promise<void>;
}
