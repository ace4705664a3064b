/**
 * Runs tunnels: parse a `<sectunnel>` document, plan its tunnel, and give that to a {@link TunnelHost} with a packet device.
 *
 * @example
 * ```ts
 * import { nodeProvider, nodeUdp, parseDocument, planTunnel, TunnelHost, utf8 } from 'sectunnel';
 * import { MemoryDevice } from 'sectunnel/testing';
 *
 * const { tunnel, device } = await planTunnel(await parseDocument(xml));
 * await using host = new TunnelHost({ network: nodeUdp, crypto: nodeProvider, secretFor: () => utf8('the key') });
 * await host.add(tunnel, new MemoryDevice({ mtu: device.mtu }));
 * await host.up(tunnel.name, { signal: AbortSignal.timeout(30_000) });
 * ```
 *
 * @module sectunnel
 */
export { type Logger, silentLogger } from '../base/log.ts';
// Documents
export { dumpDocument } from '../config/dump.ts';
export { DocumentError, type DocumentIssue, type IssueKind } from '../config/errors.ts';
export type {
  AuthSettings,
  AuthSide,
  DeviceSettings,
  EndPoint,
  EspSettings,
  IdentityKind,
  IdentityText,
  IkeSettings,
  LifetimeSettings,
  NatSettings,
  PacketRange,
  PeerAddress,
  PeerSettings,
  PolicyDirection,
  PolicySettings,
  RedundancySettings,
  RevocationPolicy,
  RuleLevel,
  RuleSettings,
  SaSettings,
  SecretReference,
  SectunnelDocument,
  SecurityPolicy,
  TfcSettings,
  UpperSpec,
  X509Settings,
} from '../config/model.ts';
export type { ParseOptions } from '../config/parse.ts';
export { parseDocument } from '../config/parse-lazily.ts';
export { type DocumentPolicy, toPolicy } from '../config/selectors.ts';
// Cryptography of Node's own
export { nodeProvider } from '../crypto/node/provider.ts';
export type { RekeyChoice } from '../engine/sa-operations.ts';
export type { AuthenticationOptions, CredentialsQuestion } from '../host/authentication.ts';
// Running tunnels
export { type CryptoChoice, type ProviderName, type ProviderUse, selectCrypto } from '../host/crypto.ts';
export { TunnelHost } from '../host/host.ts';
export type { CheckResult, Operations, Patience, RekeyResult } from '../host/operations.ts';
export type { HostOptions, SecretQuestion } from '../host/options.ts';
export type { PeerRouteReport } from '../host/reach/peer-routes.ts';
export { systemResolver } from '../host/resolve.ts';
export type {
  ChildStatus,
  DeviceStatus,
  FailureStatus,
  IkeStatus,
  SecretStatus,
  TunnelStatus,
} from '../host/status.ts';
export type { HostFailure, HostTunnelStatus } from '../host/status-view.ts';
export type { DevicePlan } from '../plan/device.ts';
export { type CertificateFacts, type PlanOptions, planTunnel, type Resolver, type TunnelPlan } from '../plan/plan.ts';
export type { PortRange } from '../policy/selector.ts';
// Devices and sockets
export type { DeviceCounters, DeviceDescriptor, DeviceDropReason, PacketDevice } from '../tun/device.ts';
export type { OwnerErrorHandler } from '../tun/owner-calls.ts';
export { SharedDevice } from '../tun/shared-device.ts';
export { nodeUdp } from '../tun/udp/node.ts';
export type {
  DatagramHandler,
  UdpBindOptions,
  UdpCounters,
  UdpDescriptor,
  UdpNetwork,
  UdpSendError,
  UdpSocket,
  UdpTarget,
} from '../tun/udp/udp.ts';
export * from './values.ts';
