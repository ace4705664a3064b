/**
 * IKEv2 alone (RFC 7296), as a pure machine: it negotiates, and gives the keys of CHILD SAs to its owner.
 *
 * @module sectunnel/ike
 */
export type {
  ChildConfig,
  ConnectionConfig,
  EndpointLimits,
  Lifetime,
  LocalPeer,
  RemotePeer,
  RetransmitPolicy,
} from '../ike/config.ts';
export { IkeEndpoint } from '../ike/endpoint.ts';
export type {
  IkeEvent,
  Path,
  ReceivedProof,
  SignatureAnswer,
  SignatureMethods,
  VerificationAnswer,
} from '../ike/events.ts';
export type { PacketFlags } from '../policy/populate.ts';
export type { SelectorPair, TrafficSelector } from '../policy/selector.ts';
