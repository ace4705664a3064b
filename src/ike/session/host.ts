/** What an IKE SA sees of the endpoint that it belongs to. */
import type { IpAddress } from '../../base/address.ts';
import type { Identity } from '../../base/identity.ts';
import type { CryptoProvider, RandomSource } from '../../crypto/types.ts';
import type { SelectorPair } from '../../policy/selector.ts';
import type { ConnectionConfig, EndpointLimits, RetransmitPolicy } from '../config.ts';
import type { IkeEvent, Path } from '../events.ts';
import type { ProofBudget } from '../half-open/proof-budget.ts';
import type { Claim } from '../inner-addresses.ts';
import type { FragmentBudget } from '../protect/reassembly.ts';
import type { IkeCounterName } from '../status.ts';
import type { ChildRecord } from './child.ts';
import type { ChildRequest } from './child-request.ts';
import type { IkeSession } from './session.ts';

type Asked<E> = E extends { readonly requestId: number } ? Omit<E, 'requestId' | 'connection'> : never;

/** An event that the owner is to answer, without what the host adds. */
export type Question = Asked<IkeEvent>;

export interface Host {
  readonly crypto: CryptoProvider;
  readonly random: RandomSource;
  readonly limits: EndpointLimits;
  readonly retransmit: RetransmitPolicy;
  readonly rawEsp: boolean;
  readonly vendorIds: readonly Uint8Array[];
  /** What all IKE SAs together may hold of messages that are not complete. */
  readonly fragments: FragmentBudget;
  /** What peers may have us spend on their certificates. */
  readonly proofs: ProofBudget;

  emit(event: IkeEvent): void;
  transmit(path: Path, data: Uint8Array): void;
  keepalive(path: Path): void;
  count(name: IkeCounterName): void;

  /** The configuration as it is now, which a running SA may outlive. */
  connection(name: string): ConnectionConfig | undefined;
  /** The connections that a peer at `path.remote` may mean when it writes to `path.local`. */
  connectionsBetween(path: Path): readonly ConnectionConfig[];

  /** Ids of IKE SAs, CHILD SAs and requests; later ones are larger. */
  nextId(): number;
  newIkeSpi(): bigint;
  /** An inbound SPI that no CHILD SA has, larger than 255 (RFC 4303 §2.1). */
  newChildSpi(): number;
  /** One that was offered is reserved for nobody until its SA is made: another may have been made with it meanwhile. */
  isChildSpiFree(spi: number): boolean;

  /** The peer of a connection refuses each CHILD SA in IKE_AUTH: it is asked for it afterwards (RFC 6023). */
  goChildless(connection: string): void;
  isChildless(connection: string): boolean;

  /** Whether there may be another IKE SA. */
  hasRoom(): boolean;
  addSession(session: IkeSession): void;
  removeSession(session: IkeSession): void;
  /** The session's state changed: half-open ones are counted, authenticated ones are found by their peers. */
  stateChanged(session: IkeSession): void;
  /** Other IKE SAs of the same peer (`peers.ts`), authenticated and not on their way out. */
  siblings(session: IkeSession): readonly IkeSession[];
  /** The same with those that are on their way out, and this one: the first is the oldest. */
  withSamePeer(session: IkeSession): readonly IkeSession[];
  isSamePeer(a: IkeSession, b: IkeSession): boolean;

  /** Whether there is, or is about to be, another IKE SA with the peer of this one under the same identity of ours. */
  knowsPeer(session: IkeSession, localId: Identity): boolean;
  /** An IKE SA of a connection with a peer at an address that is up. */
  establishedOf(connection: string, remote: IpAddress): IkeSession | undefined;
  /** An IKE SA became established: its older and its simultaneous likes are dealt with (RFC 7296 §2.4). */
  established(now: number, session: IkeSession, initialContact: boolean): void;
  /** The delay is over in which the other of two IKE SAs may have gone by itself. */
  resolveDuplicate(now: number, session: IkeSession): void;
  /** Begins to make those of the children that an IKE SA lacks. */
  bringUp(now: number, session: IkeSession, children: readonly ChildRequest[]): void;

  /** When a packet last came or went on a CHILD SA; `undefined` for never, or when nobody can tell. */
  lastUsed(childId: number): number | undefined;

  /** The part of selectors that the peer of an IKE SA may have (`inner-addresses.ts`). */
  claim(session: IkeSession, now: number, childName: string, selectors: SelectorPair): Claim;
  addChild(child: ChildRecord): void;
  /** The CHILD SA carries no more traffic: its inner addresses are free. */
  freeAddresses(child: ChildRecord): void;
  removeChild(child: ChildRecord): void;

  /** Emits a question to the owner and returns its request id. */
  ask(session: IkeSession, question: Question): number;
  /** An answer to it would be of no use any more. */
  withdraw(requestId: number): void;
}
