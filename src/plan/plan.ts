/**
 * The room `plan`: what a document needs of an engine (its tunnel) and of the host (its device and routes), and whether it can run
 * beside others. Nothing is opened or changed; what this version cannot do is refused here.
 */

import type { IpAddress, IpFamily } from '../base/address.ts';
import { SectunnelError } from '../base/error.ts';
import { type Identity, identityFromText } from '../base/identity.ts';
import { IKE_PORT } from '../base/ports.ts';
import { messageOf } from '../base/text.ts';
import type { IdentityText, PeerAddress, PeerSettings, SecretReference, SectunnelDocument } from '../config/model.ts';
import { hasIpv6, sharingProblem, toChildren, toPolicy } from '../config/selectors.ts';
import type { TunnelConfig } from '../engine/config.ts';
import type { AuthMethod, ChildConfig, ConnectionConfig, Lifetime } from '../ike/config.ts';
import type { DevicePlan } from './device.ts';
import { devicePlan } from './device.ts';
import { deviceMtu } from './device-mtu.ts';
import { isTransport, type KnownEnds, TRANSPORT_MTU, transportRefusal } from './transport.ts';
import { vrfRefusal } from './vrf.ts';

/** What a tunnel's configuration needs to know of its certificates. */
export interface CertificateFacts {
  /** Our identity: that of the `<id>` in the document, or else one that our certificate proves. */
  readonly localId: Identity | undefined;
  /** SHA-1 of the SubjectPublicKeyInfo of each authority that we trust. */
  readonly authorities: readonly Uint8Array[];
}

/** What a document comes to: the configuration for the engine, and the device. */
export interface TunnelPlan {
  readonly tunnel: TunnelConfig;
  readonly device: DevicePlan;
}

/**
 * Resolves a host name.
 * @param family of the address that is wanted; `undefined` for either
 * @throws Error, for people, when the name has no such address
 */
export type Resolver = (name: string, family: IpFamily | undefined) => Promise<IpAddress>;

/** What a plan needs to know of the host. */
export interface PlanOptions {
  /** For documents that name an end by its host name, which are refused without it. */
  readonly resolve?: Resolver | undefined;
  /**
   * The known MTU of the path to the peer, bytes, from which the device's MTU follows when the document gives none. Default: not
   * known.
   */
  readonly pathMtuFor?: ((remote: IpAddress, local?: IpAddress, vrf?: string) => number | undefined) | undefined;
  /** Whether ESP can be sent directly over IP, without UDP. Default: yes. */
  readonly rawEsp?: boolean | undefined;
  /** For documents with `<auth type='x509'>`. */
  readonly certificates?: CertificateFacts | undefined;
}

const NO_CERTIFICATES: CertificateFacts = { localId: undefined, authorities: [] };

/**
 * Plans the tunnel of a document.
 * @throws SectunnelError `unsupported` for what this version cannot do, `system` for a name that cannot be resolved,
 *   `bad-document` when our own identity is missing
 */
export async function planTunnel(document: SectunnelDocument, options: PlanOptions = {}): Promise<TunnelPlan> {
  refuseUnsupported(document);
  const { nat, line } = document.sa.ike;
  if (nat.encapsulation === 'never' && options.rawEsp === false) {
    throw unsupported(`<nat traversal='off'> in <ike> on line ${line}: this host can carry ESP only in UDP`);
  }
  const ends = await resolveEnds(document, options.resolve);
  const refusal = transportRefusal(document, ends);
  if (refusal !== undefined) throw unsupported(refusal);
  return {
    tunnel: tunnelConfig(document, ends, options.certificates ?? NO_CERTIFICATES),
    device: devicePlan(document, fittingMtu(document, ends, options.pathMtuFor), ends.remote),
  };
}

function fittingMtu(
  document: SectunnelDocument,
  { local, remote }: KnownEnds,
  pathMtuFor: PlanOptions['pathMtuFor'],
): number {
  if (isTransport(document)) return TRANSPORT_MTU;
  const { ike, esp } = document.sa;
  return deviceMtu({
    pathMtu: remote && pathMtuFor?.(remote, local, document.sa.vrf),
    // Where neither end is known: IPv6, which has the larger header.
    outer: (remote ?? local)?.family ?? 6,
    encapsulated: ike.nat.encapsulation !== 'never',
    proposals: esp.proposals,
    ipv6: hasIpv6(document.sps),
  });
}

/**
 * Which secret holds the pre-shared key; `undefined` where both sides have certificates.
 * @throws SectunnelError when the two sides would have different ones
 */
export function secretOf(document: SectunnelDocument): SecretReference | undefined {
  const references = document.sa.auths.flatMap((auth) => (auth.type === 'psk' ? [auth] : []));
  const [first, ...others] = references;
  if (first === undefined) return undefined;
  const text = JSON.stringify(first.secret);
  const different = others.find(({ secret }) => JSON.stringify(secret) !== text);
  if (different !== undefined) {
    throw unsupported(`different pre-shared keys for the two sides (lines ${first.line} and ${different.line})`);
  }
  return first.secret;
}

function unsupported(what: string): SectunnelError {
  return new SectunnelError('unsupported', `unsupported configuration: ${what}`);
}

function refuseUnsupported(document: SectunnelDocument): void {
  const problem = sharingProblem(document) ?? vrfRefusal(document);
  if (problem !== undefined) throw unsupported(problem);
}

/** The peer's name is resolved to the family of our own address where that is known. */
async function resolveEnds({ sa }: SectunnelDocument, resolve: Resolver | undefined): Promise<KnownEnds> {
  const local = await addressOf(sa.local.address, undefined, resolve);
  return { local, remote: await addressOf(sa.remote.address, local?.family, resolve) };
}

async function addressOf(
  address: PeerAddress,
  family: IpFamily | undefined,
  resolve: Resolver | undefined,
): Promise<IpAddress | undefined> {
  switch (address.kind) {
    case 'any':
      return undefined;
    case 'ip':
      return address.address;
    case 'fqdn':
      if (resolve === undefined) {
        throw unsupported(`the name '${address.name}' of an end: this program resolves no names; write its address`);
      }
      try {
        return await resolve(address.name, family);
      } catch (error) {
        throw new SectunnelError('system', `the name '${address.name}' cannot be resolved: ${messageOf(error)}`, error);
      }
  }
}

function tunnelConfig(document: SectunnelDocument, ends: KnownEnds, certificates: CertificateFacts): TunnelConfig {
  const { name, sa } = document;
  const children = childConfigs(document);
  return {
    name,
    // Without a policy that protects there is nothing to negotiate.
    connections: children.length === 0 ? [] : [connectionConfig(document, ends, certificates, children)],
    policy: toPolicy(document).entries,
    start: sa.ike.start,
    dpdAction: sa.ike.dpd.action,
    replayWindow: sa.esp.replayWindow,
    dscp: sa.esp.dscp,
    tfc: sa.esp.tfc,
  };
}

function connectionConfig(
  document: SectunnelDocument,
  ends: KnownEnds,
  { localId, authorities }: CertificateFacts,
  children: readonly ChildConfig[],
): ConnectionConfig {
  const { local, remote, ike } = document.sa;
  const remoteId = remote.id === undefined ? undefined : identity(remote.id);
  return {
    name: document.name,
    local: {
      address: ends.local,
      ...portsOf(local, ike.nat.port),
      vrf: document.sa.vrf,
      id: localIdentity(document, localId),
      auth: authMethod(document, 'local'),
    },
    remote: {
      address: ends.remote,
      ...portsOf(remote, ike.nat.port),
      id: remoteId,
      auth: authMethod(document, 'remote'),
      authorities,
    },
    proposals: ike.proposals,
    lifetime: milliseconds(ike.lifetime),
    dpd: { interval: ike.dpd.interval * 1000 },
    fragmentSize: ike.fragmentSize,
    nat: { mode: NAT_MODES[ike.nat.encapsulation], keepalive: ike.nat.keepalive * 1000 },
    children,
  };
}

/** `force`: ESP goes in UDP also where there is no NAT (forced encapsulation). */
const NAT_MODES = { always: 'force', needed: 'auto', never: 'off' } as const;

/** A port other than 500 carries IKE and ESP together, and IKE does not change to another. */
function portsOf({ port }: PeerSettings, natPort: number): { port: number; natPort: number } {
  return { port, natPort: port === IKE_PORT ? natPort : port };
}

function authMethod({ sa }: SectunnelDocument, of: 'local' | 'remote'): AuthMethod {
  return sa.auths.some(({ type, side }) => type === 'x509' && (side === 'both' || side === of)) ? 'signature' : 'psk';
}

/** The identity in our certificate, or else the one in the document. */
function localIdentity({ sa }: SectunnelDocument, certified: Identity | undefined): Identity {
  if (certified !== undefined) return certified;
  if (sa.local.id !== undefined) return identity(sa.local.id);
  throw new SectunnelError(
    'bad-document',
    `line ${sa.local.line}: this end has no identity; give <local> an <id>, or an address that can serve as one`,
  );
}

function identity({ type, text }: IdentityText): Identity {
  return identityFromText(type, text);
}

function childConfigs(document: SectunnelDocument): ChildConfig[] {
  const { proposals, lifetime } = document.sa.esp;
  return toChildren(document).map(({ name, mode, selectors, pfp }) => ({
    name,
    mode,
    proposals,
    selectors,
    pfp,
    lifetime: { bytes: lifetime.bytes, packets: lifetime.packets, ...milliseconds(lifetime) },
  }));
}

function milliseconds({ soft, hard, jitter }: Lifetime): Lifetime {
  return { soft: soft * 1000, hard: hard * 1000, jitter: jitter * 1000 };
}
