/** The IKE SAs and CHILD SAs of an endpoint, as one of its IKE SAs sees them, and the owners of inner addresses. */
import type { IpAddress } from '../../base/address.ts';
import type { Identity } from '../../base/identity.ts';
import type { SelectorPair } from '../../policy/selector.ts';
import type { IkeEvent } from '../events.ts';
import type { ChildRecord } from './child.ts';
import type { ChildRequest } from './child-request.ts';
import type { Environment } from './environment.ts';

type Asked<E> = E extends { readonly requestId: number } ? Omit<E, 'requestId' | 'connection'> : never;

/** An event that the owner is to answer, without what the registry adds. */
export type Question = Asked<IkeEvent>;

/** The part of requested selectors that a peer may have. */
export interface Claim {
  /** The same object when all is free, `undefined` when nothing is. */
  readonly free: SelectorPair | undefined;
  /** For people: the owners of the rest, and the peer that asked; empty when all is free. */
  readonly conflict: string;
  /** An owner may be the same peer, and has not answered a probe yet. */
  readonly undecided: boolean;
}

/** @typeParam S the IKE SA, whose class refers to its registry */
export interface Registry<S> {
  readonly env: Environment;

  newIkeSpi(): bigint;
  /** An inbound SPI that no CHILD SA has, larger than 255 (RFC 4303 §2.1). */
  newChildSpi(): number;
  /** An SPI that was offered is not reserved until its SA is made: another may have been made with it meanwhile. */
  isChildSpiFree(spi: number): boolean;

  /** Whether there may be another IKE SA. */
  hasRoom(): boolean;
  addSession(session: S): void;
  removeSession(session: S): void;
  session(id: number): S | undefined;
  /** The IKE SA that a CHILD SA belongs to, which is there as long as the CHILD SA is. */
  sessionOf(child: ChildRecord): S;
  /** Anything about the session changed: half-open ones are counted, authenticated ones are found by their peers. */
  stateChanged(session: S): void;

  /** Other IKE SAs of the same peer (`peers.ts`), authenticated and not on their way out. */
  siblings(session: S): readonly S[];
  /** The same with those that are on their way out, and this one: the first is the oldest. */
  withSamePeer(session: S): readonly S[];
  isSamePeer(a: S, b: S): boolean;
  /** Whether there is, or is about to be, another IKE SA with the peer of this one under the same identity of ours. */
  knowsPeer(session: S, localId: Identity): boolean;
  /** The IKE SAs of a connection that were not given up, whatever their state. */
  sessionsOf(connection: string): readonly S[];
  /** An IKE SA of a connection with a peer at an address that is up. */
  establishedOf(connection: string, remote: IpAddress): S | undefined;

  /** Begins to make those of the children that an IKE SA lacks. */
  bringUp(now: number, session: S, children: readonly ChildRequest[]): void;
  addChild(child: ChildRecord): void;
  removeChild(child: ChildRecord): void;
  /** The part of selectors that the peer of an IKE SA may have (`inner-addresses.ts`). */
  claim(session: S, now: number, childName: string, selectors: SelectorPair): Claim;
  /** The CHILD SA carries no more traffic: its inner addresses are free. */
  freeAddresses(child: ChildRecord): void;

  /** Emits a question to the owner and returns its request id. */
  ask(session: S, question: Question): number;
  /** An answer to it would be of no use any more. */
  withdraw(requestId: number): void;
}
