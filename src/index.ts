/**
 * sectunnel as a library.
 *
 * Three ways in, from the most to the least that is done for you: a `TunnelHost` runs tunnels over UDP sockets and
 * packet devices on this process's event loop; an `Engine` is the same as a pure machine, for a loop of your own (its
 * documentation describes the loop); an `IkeEndpoint` negotiates only.
 */

// Values
export {
  type AddressRange,
  addressFromBytes,
  addressToBytes,
  anyRange,
  formatAddress,
  formatRange,
  formatSocketAddress,
  type IpAddress,
  type IpFamily,
  parseAddress,
  prefixRange,
  type SocketAddress,
} from './base/address.ts';
export { PacketBatch } from './base/batch.ts';
export { formatIdentity, type Identity, identityFromText } from './base/identity.ts';
export { type Logger, silentLogger } from './base/log.ts';
export { utf8 } from './base/text.ts';
// Documents
export { dumpDocument } from './config/dump.ts';
export { DocumentError, type DocumentIssue } from './config/errors.ts';
export type { SectunnelDocument } from './config/model.ts';
export type { ParseOptions } from './config/parse.ts';
export { parseDocument } from './config/parse-lazily.ts';
export { toPolicy } from './config/selectors.ts';
// Cryptography
export { defaultEspProposals, defaultIkeProposals } from './crypto/algorithms.ts';
export { openIpsecMbProvider } from './crypto/ipsec-mb/provider.ts';
export { nobleProvider } from './crypto/noble/provider.ts';
export { nodeProvider } from './crypto/node/provider.ts';
export { openOpensslProvider } from './crypto/openssl/provider.ts';
export type { EspProposal, IkeProposal } from './crypto/proposal.ts';
export { parseEspProposalString, parseIkeProposalString } from './crypto/proposal-text.ts';
export { combineProviders, ProviderUnavailableError } from './crypto/provider.ts';
export { selfTest } from './crypto/selftest.ts';
export type { CryptoProvider, RandomSource } from './crypto/types.ts';
// The pure machines
export type { TunnelConfig } from './engine/config.ts';
export { Engine } from './engine/engine.ts';
export type { ChildSummary, EngineEvent } from './engine/events.ts';
export type { Answer, EngineOptions, Transmit } from './engine/options.ts';
export { type CryptoChoice, selectCrypto } from './host/crypto.ts';
export { type FetchOptions, httpFetch } from './host/fetch.ts';
// Running tunnels
export { TunnelHost } from './host/host.ts';
export { linuxPlatform } from './host/linux.ts';
export type { HostOptions, SecretQuestion } from './host/options.ts';
export type { Platform } from './host/platform.ts';
export type { CredentialsQuestion } from './host/proofs.ts';
export type { ChildStatus, FailureStatus, IkeStatus } from './host/status.ts';
export type { HostFailure, HostTunnelStatus } from './host/status-view.ts';
export type {
  ChildConfig,
  ConnectionConfig,
  EndpointLimits,
  Lifetime,
  LocalPeer,
  RemotePeer,
  RetransmitPolicy,
} from './ike/config.ts';
export { IkeEndpoint } from './ike/endpoint.ts';
export type {
  IkeEvent,
  Path,
  ReceivedProof,
  SignatureAnswer,
  SignatureMethods,
  VerificationAnswer,
} from './ike/events.ts';
export { type Certificate, parseCertificate } from './pki/certificate.ts';
export { type Crl, parseCrl } from './pki/crl.ts';
export { type MethodOptions, methodsOf } from './pki/methods.ts';
export { type Fetch, type FetchRequest, OnlineRevocation } from './pki/online.ts';
export { MalformedCertificateError } from './pki/outline.ts';
export { keySigner } from './pki/signer.ts';
export { VerifierPool, type VerifierPoolOptions } from './pki/threads/pool.ts';
export type {
  Credentials,
  PeerIdentity,
  PeerProof,
  RefusalReason,
  SignatureMethod,
  Signer,
  Verdict,
  Verifier,
} from './pki/types.ts';
export { pathVerifier, type VerifierOptions } from './pki/verifier.ts';
export type { DevicePlan } from './plan/device.ts';
export { type CertificateFacts, planTunnel, type TunnelPlan } from './plan/plan.ts';
export type { PolicyEntry } from './policy/database.ts';
export type { PacketFlags } from './policy/populate.ts';
export type { SelectorPair, TrafficSelector } from './policy/selector.ts';
// Devices and sockets
export type { PacketDevice } from './tun/device.ts';
export { type LinuxTunOptions, openLinuxTun } from './tun/linux.ts';
export { MemoryDevice, type MemoryDeviceOptions } from './tun/memory.ts';
export { SharedOffloads } from './tun/offload/shared.ts';
export type { OwnerErrorHandler } from './tun/owner-calls.ts';
export { hasLinuxUdp, type LinuxUdpOptions, linuxUdp } from './tun/udp/linux.ts';
export { MemoryNetwork } from './tun/udp/memory.ts';
export { nodeUdp } from './tun/udp/node.ts';
export type { UdpNetwork, UdpSocket } from './tun/udp/udp.ts';
