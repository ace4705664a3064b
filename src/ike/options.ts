/** What an IKE endpoint is made with, and the defaults. */
import type { CryptoProvider, RandomSource } from '../crypto/types.ts';
import type { EndpointLimits, RetransmitPolicy } from './config.ts';

/** What an endpoint is made with. `crypto` and `random` are required. */
export interface IkeEndpointOptions {
  readonly crypto: CryptoProvider;
  readonly random: RandomSource;
  readonly limits?: Partial<EndpointLimits>;
  readonly retransmit?: Partial<RetransmitPolicy>;
  /** Contents of the Vendor ID payloads that are sent in IKE_SA_INIT. */
  readonly vendorIds?: readonly Uint8Array[];
  /**
   * Whether the owner can send and receive ESP straight over IP. Without it (the default) encapsulation is forced:
   * both sides put ESP into UDP (RFC 7296 §2.23, RFC 3948).
   */
  readonly rawEsp?: boolean;
  /**
   * When a packet last came or went on a CHILD SA. One that is populated from packets and was idle for half of its time is
   * not replaced. Without it all are.
   */
  readonly lastUsed?: (childId: number) => number | undefined;
}

export const DEFAULT_LIMITS: EndpointLimits = {
  cookieThreshold: 32,
  maxHalfOpen: 512,
  maxIkeSas: 8_192,
  maxChildrenPerIkeSa: 256,
  halfOpenTimeout: 30_000,
};

/** Gives a peer up after some 75 seconds: 1, 2, 4, 8, 15, 15, 15, 15 s. */
export const DEFAULT_RETRANSMIT: RetransmitPolicy = { initial: 1_000, factor: 2, max: 15_000, tries: 7 };
