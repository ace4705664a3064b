/**
 * From a document to what runs it: an engine's tunnel, and the device with its routes. Says what this version does not
 * do, before anything is touched.
 */

import { lookup } from 'node:dns/promises';
import { type IpAddress, type IpFamily, parseAddress } from '../base/address.ts';
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
import { isTransport, TRANSPORT_MTU, transportRefusal } from './transport.ts';

/** What of a tunnel's certificates stands in its configuration. */
export interface CertificateFacts {
  /** Who we are, as our certificate says it; with an `<id>` in the document, that one. */
  readonly localId: Identity | undefined;
  /** SHA-1 of the SubjectPublicKeyInfo of each authority that we trust. */
  readonly authorities: readonly Uint8Array[];
}

export interface TunnelPlan {
  readonly tunnel: TunnelConfig;
  readonly device: DevicePlan;
}

/**
 * @param pathMtuFor what is known of the path to the peer; the device's MTU follows from it when the document gives none
 * @param rawEsp whether ESP can go straight over IP here
 * @param certificates for documents with `<auth type='x509'>`
 * @throws SectunnelError when the document asks for what this version does not do, or a name cannot be resolved
 */
export async function planTunnel(
  document: SectunnelDocument,
  pathMtuFor: (remote: IpAddress, local?: IpAddress) => number | undefined = () => undefined,
  rawEsp = true,
  certificates: CertificateFacts = { localId: undefined, authorities: [] },
): Promise<TunnelPlan> {
  refuseUnsupported(document);
  const { nat, line } = document.sa.ike;
  if (nat.encapsulation === 'never' && !rawEsp) {
    throw unsupported(`<nat traversal='off'> in <ike> on line ${line}: here ESP can be carried in UDP only`);
  }
  const { local, remote } = document.sa;
  const localAddress = await resolve(local.address, undefined);
  const remoteAddress = await resolve(remote.address, localAddress?.family);
  const refusal = transportRefusal(document, localAddress, remoteAddress);
  if (refusal !== undefined) throw unsupported(refusal);
  const mtu = isTransport(document)
    ? TRANSPORT_MTU
    : deviceMtu({
        pathMtu: remoteAddress === undefined ? undefined : pathMtuFor(remoteAddress, localAddress),
        // Of a peer that nothing is known of, IPv6 has the larger header.
        outer: (remoteAddress ?? localAddress)?.family ?? 6,
        encapsulated: document.sa.ike.nat.encapsulation !== 'never',
        proposals: document.sa.esp.proposals,
        ipv6: hasIpv6(document.sps),
      });
  return {
    tunnel: tunnelConfig(document, localAddress, remoteAddress, certificates),
    device: devicePlan(document, mtu, remoteAddress),
  };
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
  const { device } = document;
  const problem = sharingProblem(document);
  if (problem !== undefined) throw unsupported(problem);
  if (device.vrf !== undefined)
    throw unsupported("<device vrf='…'>; a device can be put into a network namespace with netns");
}

/** A name is resolved when the tunnel starts, to the family of the other end where that is known. */
async function resolve(address: PeerAddress, family: IpFamily | undefined): Promise<IpAddress | undefined> {
  switch (address.kind) {
    case 'any':
      return undefined;
    case 'ip':
      return address.address;
    case 'fqdn':
      try {
        return parseAddress((await lookup(address.name, { family: family ?? 0 })).address);
      } catch (error) {
        const why = messageOf(error);
        throw new SectunnelError('system', `the name '${address.name}' cannot be resolved: ${why}`);
      }
  }
}

function tunnelConfig(
  document: SectunnelDocument,
  localAddress: IpAddress | undefined,
  remoteAddress: IpAddress | undefined,
  certificates: CertificateFacts,
): TunnelConfig {
  const { name, sa } = document;
  const children = childConfigs(document);
  return {
    name,
    // A document of nothing but bypass and discard has nobody to negotiate with.
    connections:
      children.length === 0 ? [] : [connectionConfig(document, localAddress, remoteAddress, certificates, children)],
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
  localAddress: IpAddress | undefined,
  remoteAddress: IpAddress | undefined,
  { localId, authorities }: CertificateFacts,
  children: readonly ChildConfig[],
): ConnectionConfig {
  const { local, remote, ike } = document.sa;
  const remoteId = remote.id === undefined ? undefined : identity(remote.id);
  return {
    name: document.name,
    local: {
      address: localAddress,
      ...portsOf(local, ike.nat.port),
      id: localIdentity(document, localId),
      auth: authMethod(document, 'local'),
    },
    remote: {
      address: remoteAddress,
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

/** ESP goes in UDP where there is no NAT too when one is pretended. */
const NAT_MODES = { always: 'force', needed: 'auto', never: 'off' } as const;

/** A port other than 500 carries IKE and ESP together and is never left. */
function portsOf({ port }: PeerSettings, natPort: number): { port: number; natPort: number } {
  return { port, natPort: port === IKE_PORT ? natPort : port };
}

function authMethod({ sa }: SectunnelDocument, of: 'local' | 'remote'): AuthMethod {
  return sa.auths.some(({ type, side }) => type === 'x509' && (side === 'both' || side === of)) ? 'signature' : 'psk';
}

/** As our certificate has it, or that of the document. */
function localIdentity({ sa }: SectunnelDocument, certified: Identity | undefined): Identity {
  if (certified !== undefined) return certified;
  if (sa.local.id !== undefined) return identity(sa.local.id);
  throw new SectunnelError(
    'bad-document',
    `line ${sa.local.line}: who we are is not said; give <local> an <id>, or an address that can serve as one`,
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
    lifetime: { ...milliseconds(lifetime), bytes: lifetime.bytes, packets: lifetime.packets },
  }));
}

function milliseconds({ soft, hard, jitter }: Lifetime): Lifetime {
  return { soft: soft * 1000, hard: hard * 1000, jitter: jitter * 1000 };
}
