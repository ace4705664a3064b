/**
 * Chooses the cryptographic provider: of those that are there and pass their self-test, each algorithm is served by
 * the quickest that has it.
 */

import { SectunnelError } from '../base/error.ts';
import { messageOf } from '../base/text.ts';
import { openIpsecMbProvider } from '../crypto/ipsec-mb/provider.ts';
import { nobleProvider } from '../crypto/noble/provider.ts';
import { nodeProvider } from '../crypto/node/provider.ts';
import { openOpensslProvider } from '../crypto/openssl/provider.ts';
import { combineProviders } from '../crypto/provider.ts';
import { selfTest } from '../crypto/selftest.ts';
import type { CryptoProvider } from '../crypto/types.ts';

/** The name of a cryptographic provider. */
export type ProviderName = 'ipsec-mb' | 'openssl' | 'node' | 'noble';

/** From the quickest to the slowest. */
const candidates: Readonly<Record<ProviderName, () => CryptoProvider>> = {
  'ipsec-mb': openIpsecMbProvider,
  openssl: openOpensslProvider,
  node: () => nodeProvider,
  noble: () => nobleProvider,
};

const inOrder = Object.keys(candidates) as ProviderName[];

/** What an operator may ask for. */
export const cryptoChoices: readonly string[] = ['auto', ...inOrder];

/** `node` has nearly everything and `noble` all there is, so they stand behind whatever is forced. */
const fallbacks: readonly ProviderName[] = ['node', 'noble'];

/** The provider that was chosen, and what became of the others. */
export interface CryptoChoice {
  /** Its name joins those of its parts: `ipsec-mb+openssl+node+noble`. */
  readonly provider: CryptoProvider;
  /** Providers that could have been part of it but are not, and why. */
  readonly leftOut: readonly { readonly name: string; readonly reason: string }[];
}

/**
 * `auto`: all that there are. Another name: that provider, and for algorithms that it lacks `node` and `noble` alone.
 * @param opened for tests: the provider of that name, or why it cannot be used
 * @throws SectunnelError when the name is unknown, or the provider that was asked for cannot be used
 */
export function selectCrypto(
  name: string,
  opened: (name: ProviderName) => CryptoProvider | string = tryProvider,
): CryptoChoice {
  const wanted = wantedProviders(name);
  const found: CryptoProvider[] = [];
  const leftOut: { name: string; reason: string }[] = [];
  for (const candidate of wanted) {
    const result = opened(candidate);
    if (typeof result !== 'string') found.push(result);
    else if (candidate === name) throw new SectunnelError('system', `--crypto ${name}: ${result}`);
    else leftOut.push({ name: candidate, reason: result });
  }
  if (found.length === 0) throw new SectunnelError('system', `no cryptographic provider works: ${leftOut[0]?.reason}`);
  return { provider: combineProviders(...found), leftOut };
}

/** The same for those who do not ask what was left out. */
export function chooseCrypto(name: string): CryptoProvider {
  return selectCrypto(name).provider;
}

/** Each provider alone, or why it cannot be used, from the quickest to the slowest. */
export function testedProviders(): ReadonlyMap<string, CryptoProvider | string> {
  return new Map(inOrder.map((name) => [name, tryProvider(name)]));
}

function wantedProviders(name: string): readonly ProviderName[] {
  if (name === 'auto') return inOrder;
  const forced = inOrder.find((known) => known === name);
  if (forced === undefined) {
    throw new SectunnelError('bad-request', `--crypto ${name}: expected one of ${cryptoChoices.join(', ')}`);
  }
  if (forced === 'noble') return [forced];
  return [forced, ...fallbacks.filter((fallback) => fallback !== forced)];
}

// BOUNDED: one entry for each candidate.
const tried = new Map<ProviderName, CryptoProvider | string>();

/** The provider, or why it cannot be used; found out once. */
function tryProvider(name: ProviderName): CryptoProvider | string {
  let result = tried.get(name);
  if (result === undefined) {
    result = openTested(name);
    tried.set(name, result);
  }
  return result;
}

function openTested(name: ProviderName): CryptoProvider | string {
  try {
    const provider = candidates[name]();
    return selfTest(provider) ?? provider;
  } catch (error) {
    // Whatever a library does wrong, the next provider may do right.
    return messageOf(error);
  }
}
