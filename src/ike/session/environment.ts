/** What an IKE SA sees of the endpoint around it, without any IKE SA: algorithms, limits, configuration, and the ways out. */
import type { CryptoProvider, RandomSource } from '../../crypto/types.ts';
import type { Candidates } from '../candidates.ts';
import type { ConnectionConfig, EndpointLimits, RetransmitPolicy } from '../config.ts';
import type { IkeEvent, Path } from '../events.ts';
import type { VerificationBudget } from '../half-open/verification-budget.ts';
import type { FragmentBudget } from '../protect/reassembly.ts';
import type { IkeCounterName } from '../status.ts';

export interface Environment {
  readonly crypto: CryptoProvider;
  readonly random: RandomSource;
  readonly limits: EndpointLimits;
  readonly retransmit: RetransmitPolicy;
  readonly rawEsp: boolean;
  readonly vendorIds: readonly Uint8Array[];
  /** What all IKE SAs together may hold of messages that are not complete. */
  readonly fragments: FragmentBudget;
  /** What peers may have us spend on their certificates. */
  readonly verifications: VerificationBudget;

  /** No SA is to be made or replaced any more: another process is to go on with those that there are. */
  readonly isSettling: boolean;

  emit(event: IkeEvent): void;
  transmit(path: Path, data: Uint8Array): void;
  keepalive(path: Path): void;
  count(name: IkeCounterName): void;

  /** The configuration as it is now, which a running SA may outlive. */
  connection(name: string): ConnectionConfig | undefined;
  /** The connections that a peer at `path.remote` may mean when it writes to `path.local`. */
  connectionsBetween(path: Path): Candidates;

  /** The peer of a connection refuses each CHILD SA in IKE_AUTH: it is asked for it afterwards (RFC 6023). */
  goChildless(connection: string): void;
  isChildless(connection: string): boolean;

  /** Ids of IKE SAs, CHILD SAs and requests; later ones are larger. */
  nextId(): number;

  /** When a packet last came or went on a CHILD SA; `undefined` for never, or when the owner does not report it. */
  lastUsed(childId: number): number | undefined;
}
