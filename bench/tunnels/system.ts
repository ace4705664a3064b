/** What carries many tunnels: one program at each side, driven as its users drive it. */
import type { Lab } from '../../test/support/lab/lab.ts';
import type { Namespace } from '../../test/support/lab/namespace.ts';
import type { Side, Tunnel } from '../../test/support/lab/tunnel.ts';
import type { Question } from './prober.ts';

export interface TunnelsSystem {
  readonly name: string;
  /** Why it cannot be measured here; empty when it can. */
  readonly obstacles: readonly string[];
  /** Starts the program of one side, with nothing defined. The lab ends it. */
  start(lab: Lab, host: Namespace, plan: SidePlan): Promise<Gateway>;
}

/** What a side is to have. */
export interface SidePlan {
  readonly side: Side;
  readonly tunnels: readonly Tunnel[];
}

export interface Gateway {
  readonly pid: number;
  /** Defines all tunnels. @returns the refusals, one for each tunnel that was refused */
  define(): Promise<readonly string[]>;
  /** Starts all tunnels. @returns as `define`; `undefined` where what is defined needs no start */
  start(): Promise<readonly string[] | undefined>;
  /** Small commands that people and monitors send, on a connection of their own. */
  questions(): Promise<Questions>;
  /** @param onUp is told of each tunnel that comes up, perhaps more than once @returns closes the connection */
  watch(onUp: (name: string) => void): Promise<() => void>;
  /** Has memory given back that nothing needs, as far as the program can be told to. */
  settle(): Promise<void>;
  /** Ends the program in good order: peers are told. @returns whether it ended within `limit` milliseconds */
  stop(limit: number): Promise<boolean>;
}

export interface Questions {
  readonly all: readonly Question[];
  close(): void;
}
