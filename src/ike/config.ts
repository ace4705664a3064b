/**
 * What the owner of an IKE endpoint configures: connections and their children. Plain data, no behaviour.
 * Durations are milliseconds.
 */
import type { IpAddress } from '../base/address.ts';
import type { Identity } from '../base/identity.ts';
import type { EspProposal, IkeProposal } from '../crypto/proposal.ts';
import type { PacketFlags } from '../policy/populate.ts';
import type { SelectorPair } from '../policy/selector.ts';

/** How one side authenticates: with a pre-shared key, or with a signature and certificates (RFC 7296 §2.15). */
export type AuthMethod = 'psk' | 'signature';

/** Our end of a connection. */
export interface LocalPeer {
  /** Any local address when left out. */
  readonly address?: IpAddress | undefined;
  /** UDP port for IKE_SA_INIT: 500, or a port of the document's own that carries IKE and ESP together. */
  readonly port: number;
  /** UDP port that is moved to when there is a NAT or encapsulation is forced; equal to `port` when that is not 500. */
  readonly natPort: number;
  /** The VRF that its sockets are bound to: what comes by others is not for it. Left out: the default routing domain. */
  readonly vrf?: string | undefined;
  readonly id: Identity;
  readonly auth: AuthMethod;
}

/** The peer's end of a connection. */
export interface RemotePeer {
  /** Any address when left out: such a connection only responds. */
  readonly address?: IpAddress | undefined;
  readonly port: number;
  readonly natPort: number;
  /** Any identity that proves itself when left out. */
  readonly id?: Identity | undefined;
  readonly auth: AuthMethod;
  /**
   * For signatures, the authorities that we trust, as CERTREQ names them to the peer: SHA-1 of the
   * SubjectPublicKeyInfo of each, 20 bytes (RFC 7296 §3.7). Many peers send no certificate unless they are asked for one.
   */
  readonly authorities?: readonly Uint8Array[] | undefined;
}

/** `soft` begins a rekey, `hard` ends the SA; each SA subtracts a random part of `jitter` from `soft`. */
export interface Lifetime {
  readonly soft: number;
  readonly hard: number;
  readonly jitter: number;
}

/** The lifetime of a CHILD SA: milliseconds, and bytes and packets where they are limited. */
export interface ChildLifetime extends Lifetime {
  /** Hard limits of one direction; `undefined` for none. The soft limit is seven eighths. */
  readonly bytes?: bigint | undefined;
  readonly packets?: bigint | undefined;
}

/** A CHILD SA that a connection negotiates. Durations are milliseconds. */
export interface ChildConfig {
  /** Unique within the connection; stands in status, logs and events. */
  readonly name: string;
  readonly mode: 'tunnel' | 'transport';
  readonly proposals: readonly EspProposal[];
  /** What is offered as initiator and narrowed to as responder. */
  readonly selectors: SelectorPair;
  /** Populated from packets (RFC 4301 §4.4.1.2): each SA is for one packet's values of these, passed to `initiate`. */
  readonly pfp?: PacketFlags | undefined;
  readonly lifetime: ChildLifetime;
}

/** An IKE SA to be negotiated, or to be accepted. Durations are milliseconds. */
export interface ConnectionConfig {
  readonly name: string;
  readonly local: LocalPeer;
  readonly remote: RemotePeer;
  readonly proposals: readonly IkeProposal[];
  readonly lifetime: Lifetime;
  readonly dpd: {
    /** Liveness is checked after this time without a packet from the peer; 0 for never. */
    readonly interval: number;
  };
  readonly nat: {
    /**
     * `force` lets detection find a NAT always, so that both sides encapsulate; `auto` lets detection decide; `off` does not ask, so that
     * IKE stays on its port and ESP goes straight over IP. What was asked for another connection, which a peer might
     * have been of, holds for one that is `off` too.
     */
    readonly mode: 'auto' | 'force' | 'off';
    /** Interval of NAT keepalives when we are behind a NAT; 0 for none. */
    readonly keepalive: number;
  };
  /**
   * Bytes of the largest IP packet that a message is sent in when the peer takes fragments (RFC 7383), 576 to 65,535;
   * 1,280 when left out, 0 for neither sending nor taking them.
   */
  readonly fragmentSize?: number | undefined;
  readonly children: readonly ChildConfig[];
}

/** RFC 7296 §2.4 leaves these to the implementation. */
export interface RetransmitPolicy {
  /** Wait before the first retransmission. */
  readonly initial: number;
  /** Each wait is the one before multiplied by this. */
  readonly factor: number;
  /** Longest wait. */
  readonly max: number;
  /** Retransmissions before the peer counts as dead. */
  readonly tries: number;
}

/** What bounds an endpoint. */
export interface EndpointLimits {
  /** Half-open SAs as responder before cookies are demanded (RFC 7296 §2.6). */
  readonly cookieThreshold: number;
  /** Half-open SAs as responder; at this number a new one takes the place of another, see `half-open.ts`. */
  readonly maxHalfOpen: number;
  readonly maxIkeSas: number;
  readonly maxChildrenPerIkeSa: number;
  /** Time a half-open SA is kept as responder. */
  readonly halfOpenTimeout: number;
}
