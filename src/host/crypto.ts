/**
 * Chooses the cryptographic provider: of those that are there and pass their self-test, each algorithm is served by
 * the quickest that has it. One that packets are never entrusted to is not tested: the slowest would take a tenth of a
 * second of each start.
 */

import { SectunnelError } from '../base/error.ts';
import { messageOf } from '../base/text.ts';
import { openIpsecMbProvider } from '../crypto/ipsec-mb/provider.ts';
import { nobleProvider } from '../crypto/noble/provider.ts';
import { nodeProvider } from '../crypto/node/provider.ts';
import { openOpensslProvider } from '../crypto/openssl/provider.ts';
import { combineProviders, isComplete } from '../crypto/provider.ts';
import { selfTest } from '../crypto/selftest.ts';
import type { CryptoProvider } from '../crypto/types.ts';

/** The name of a cryptographic provider. */
export type ProviderName = 'ipsec-mb' | 'openssl' | 'node' | 'noble';

/** Whether packets may be given to a provider, or those before it have all that they need. */
export type ProviderUse = 'packets' | 'spare';

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
 * @param opened for tests: the provider of that name, tested when its use is `packets`, or why it cannot be used
 * @throws SectunnelError when the name is unknown, or the provider that was asked for cannot be used
 */
export function selectCrypto(
  name: string,
  opened: (name: ProviderName, use: ProviderUse) => CryptoProvider | string = tryProvider,
): CryptoChoice {
  const wanted = wantedProviders(name);
  const found: CryptoProvider[] = [];
  const leftOut: { name: string; reason: string }[] = [];
  for (const candidate of wanted) {
    const result = opened(candidate, found.some(isComplete) ? 'spare' : 'packets');
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
  return new Map(inOrder.map((name) => [name, tryProvider(name, 'packets')]));
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

// BOUNDED: one entry for each candidate and use.
const tried: Readonly<Record<ProviderUse, Map<ProviderName, CryptoProvider | string>>> = {
  packets: new Map(),
  spare: new Map(),
};

/** The provider, or why it cannot be used so; found out once. */
function tryProvider(name: ProviderName, use: ProviderUse): CryptoProvider | string {
  let result = tried[use].get(name);
  if (result === undefined) {
    result = openProvider(name, use);
    tried[use].set(name, result);
  }
  return result;
}

function openProvider(name: ProviderName, use: ProviderUse): CryptoProvider | string {
  try {
    const provider = candidates[name]();
    return use === 'spare' ? provider : (selfTest(provider) ?? provider);
  } catch (error) {
    // Whatever a library does wrong, the next provider may do right.
    return messageOf(error);
  }
}
