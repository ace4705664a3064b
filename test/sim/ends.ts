/** The two ends of a spoke's tunnel, as a setup describes it. */
import { parseAddress } from '../../src/base/address.ts';
import { identityFromText } from '../../src/base/identity.ts';
import { parseEspProposalString } from '../../src/crypto/proposal-text.ts';
import type { TunnelConfig } from '../../src/engine/config.ts';
import { opposite, protect, tunnel } from '../support/engine-net.ts';
import { child, connection, net } from '../support/ike-pair.ts';
import type { Name, Setup } from './scenario.ts';

export const HUB: Name = 'hub';
export const HUB_ADDRESS = '192.0.2.1';
const KEEPALIVE = 20_000;
/** Soft lifetimes are drawn up to a tenth shorter, so that two ends seldom begin at once, but do. */
const JITTER = 0.1;

/** Of a spoke, by its number from 1. Its address inside, where it is behind a NAT. */
export function spokeAddress(number: number, { nat }: Setup): string {
  return nat ? `10.99.${number}.2` : `192.0.2.${10 + number}`;
}

/** What the hub sees of a spoke behind a NAT. */
export function natAddress(number: number): string {
  return `198.51.100.${number}`;
}

export function innerAddress(host: Name, child = 0): string {
  return host === HUB ? '10.1.0.1' : `10.${1 + numberOf(host)}.${child}.1`;
}

/** Of a spoke `s3`: 3. */
export function numberOf(spoke: Name): number {
  return Number(spoke.slice(1));
}

function lifetime(soft: number): { soft: number; hard: number; jitter: number } {
  return { soft, hard: 2 * soft, jitter: soft * JITTER };
}

/** The configuration of the tunnel of a spoke, at each end. Its name is the spoke's. */
export function endsOf(spoke: Name, setup: Setup): { readonly hub: TunnelConfig; readonly spoke: TunnelConfig } {
  const number = numberOf(spoke);
  const names = setup.children === 1 ? ['c'] : ['c', 'd'];
  const children = names.map((name, at) =>
    child(`${spoke}${name}`, {
      proposals: [parseEspProposalString(`aes128gcm16${setup.pfs ? '-x25519' : ''}${setup.esn ? '-esn' : '-noesn'}`)],
      selectors: { local: [net('10.1.0.0/24')], remote: [net(`10.${1 + number}.${at}.0/24`)] },
      lifetime: lifetime(setup.childLifetime),
    }),
  );
  const base = connection();
  const own = { ...base.local, address: parseAddress(HUB_ADDRESS)!, id: identityFromText('fqdn', HUB) };
  const address = parseAddress(spokeAddress(number, setup))!;
  const theirs = { ...base.remote, address, id: identityFromText('fqdn', spoke) };
  const shared = connection({
    name: spoke,
    local: own,
    remote: theirs,
    children,
    lifetime: lifetime(setup.ikeLifetime),
    dpd: { interval: setup.dpd },
    nat: { mode: 'auto', keepalive: KEEPALIVE },
  });
  const common = {
    name: spoke,
    replayWindow: setup.replayWindow,
    policy: children.map(({ name, selectors }) => protect({ name, child: name, selectors })),
  };
  const atHub = tunnel({ ...common, connections: [shared], start: setup.start.hub, dpdAction: setup.dpdAction.hub });
  const atSpoke = opposite(atHub, { start: setup.start.spoke, dpdAction: setup.dpdAction.spoke });
  if (!setup.nat) return { hub: atHub, spoke: atSpoke };
  const anywhere = { ...shared, remote: { ...theirs, address: undefined } };
  return { hub: { ...atHub, connections: [anywhere] }, spoke: atSpoke };
}
