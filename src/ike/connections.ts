/** Checks of connections before an endpoint takes them. */
import { formatAddress, sameAddress } from '../base/address.ts';
import type { IkeProposal } from '../crypto/proposal.ts';
import { formatProposal } from '../crypto/proposal-text.ts';
import type { Algorithm, CryptoProvider } from '../crypto/types.ts';
import { MAX_SELECTORS } from '../policy/selector.ts';
import { hostsOf } from '../policy/transport.ts';
import type { ChildConfig, ConnectionConfig } from './config.ts';
import { SMALLEST_PACKET } from './protect/outgoing.ts';

/** The number of a proposal is one byte (RFC 7296 §3.3.1). */
const MAX_PROPOSALS = 255;
/** SHA-1 (RFC 7296 §3.7). */
const AUTHORITY_HASH = 20;
/** The length of an IP packet has 16 bits. */
const MAX_PACKET = 0xffff;

/** @throws RangeError that names what an endpoint could not work with */
export function checkConnection(
  config: ConnectionConfig,
  { crypto, rawEsp }: { readonly crypto: CryptoProvider; readonly rawEsp: boolean },
): void {
  const wrong = (what: string): never => {
    throw new RangeError(`connection ${config.name}: ${what}`);
  };
  if (config.proposals.length === 0) wrong('there is no IKE proposal');
  if (config.proposals.length > MAX_PROPOSALS) wrong(`there are more than ${MAX_PROPOSALS} IKE proposals`);
  for (const { dh, prf, encryption, integrity } of config.proposals) {
    if (dh.length === 0 || prf.length === 0 || encryption.length === 0)
      wrong('an IKE proposal lacks a cipher, PRF or group');
    for (const algorithm of [...dh, ...prf, ...encryption, ...integrity]) need(algorithm, crypto, wrong);
  }
  if (config.nat.mode === 'off' && !rawEsp) {
    wrong(
      'without NAT traversal ESP is sent directly over IP, which is not possible here; enable encapsulation in UDP',
    );
  }
  const { fragmentSize = 0 } = config;
  if (fragmentSize !== 0 && !(fragmentSize >= SMALLEST_PACKET[4] && fragmentSize <= MAX_PACKET)) {
    wrong(`fragments of ${fragmentSize} bytes; 0, or ${SMALLEST_PACKET[4]} to ${MAX_PACKET} is required`);
  }
  if (config.remote.authorities?.some(({ length }) => length !== AUTHORITY_HASH)) {
    wrong(`the hash of an authority's key has ${AUTHORITY_HASH} bytes`);
  }
  const names = new Set<string>();
  for (const child of config.children) {
    if (names.has(child.name)) wrong(`there are two children ${child.name}`);
    names.add(child.name);
    if (child.proposals.length === 0) wrong(`child ${child.name} has no proposal`);
    for (const { length } of [child.selectors.local, child.selectors.remote]) {
      if (length === 0) wrong(`child ${child.name} has no traffic selectors`);
      if (length > MAX_SELECTORS)
        wrong(`child ${child.name} has more than ${MAX_SELECTORS} traffic selectors of a side`);
    }
    const { pfp } = child;
    if (pfp !== undefined && !pfp.protocol && (pfp.localPort || pfp.remotePort)) {
      wrong(`child ${child.name} takes ports from packets, but not the protocol that they belong to`);
    }
    if (child.mode === 'transport') checkTransport(config, child, wrong);
    if (child.proposals.length > MAX_PROPOSALS) wrong(`child ${child.name} has more than ${MAX_PROPOSALS} proposals`);
    for (const { dh, encryption, integrity } of child.proposals) {
      for (const algorithm of [...dh, ...encryption, ...integrity]) need(algorithm, crypto, wrong);
    }
  }
}

/** RFC 4301 §4.1: transport mode is between the ends themselves. */
function checkTransport(
  { local, remote }: ConnectionConfig,
  { name, selectors }: ChildConfig,
  wrong: (what: string) => never,
): void {
  const hosts = hostsOf(selectors);
  if (hosts === undefined) {
    wrong(`child ${name} is in transport mode, which needs selectors of one host on each side`);
    return;
  }
  for (const [host, end] of [
    [hosts.local, local.address],
    [hosts.remote, remote.address],
  ] as const) {
    if (end !== undefined && !sameAddress(host, end)) {
      const found = `${formatAddress(host)}, not of the end at ${formatAddress(end)}`;
      wrong(`child ${name} is in transport mode, and its selectors are of ${found}`);
    }
  }
}

function need(algorithm: Algorithm, crypto: CryptoProvider, wrong: (what: string) => never): void {
  if (!crypto.supports(algorithm)) wrong(`${algorithm.name} is not supported by the ${crypto.name} provider`);
}

/** The list that another connection has already, if it says the same. */
export function internProposals(
  proposals: readonly IkeProposal[],
  others: Iterable<ConnectionConfig>,
): readonly IkeProposal[] {
  const text = proposals.map(formatProposal).join(' ');
  const seen = new Set<readonly IkeProposal[]>();
  for (const { proposals: theirs } of others) {
    if (seen.has(theirs)) continue;
    if (theirs.map(formatProposal).join(' ') === text) return theirs;
    seen.add(theirs);
  }
  return proposals;
}
