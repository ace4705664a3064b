/**
 * IKEv2 alone (RFC 7296), as a pure machine: it negotiates, and gives the keys of CHILD SAs to its owner.
 *
 * @module sectunnel/ike
 */
export type {
  AuthMethod,
  ChildConfig,
  ChildLifetime,
  ConnectionConfig,
  EndpointLimits,
  Lifetime,
  LocalPeer,
  RemotePeer,
  RetransmitPolicy,
} from '../ike/config.ts';
export { IkeEndpoint } from '../ike/endpoint.ts';
export type { Transmit } from '../ike/endpoint-environment.ts';
export type {
  ChildSa,
  DownReason,
  FailureReason,
  IkeEvent,
  IkeSaSummary,
  Path,
  ReceivedAuth,
  SignatureAnswer,
  SignatureMethods,
  VerificationAnswer,
} from '../ike/events.ts';
export type { InitiateOptions } from '../ike/initiate.ts';
export type { IkeEndpointOptions } from '../ike/options.ts';
export type { ChildSaStatus, IkeCounterName, IkeCounters, IkeSaState, IkeSaStatus } from '../ike/status.ts';
export type { PacketFlags } from '../policy/populate.ts';
export type { SelectorPair, TrafficSelector } from '../policy/selector.ts';
export type { HostPair, TransportHosts } from '../policy/transport.ts';
export * from './values.ts';
