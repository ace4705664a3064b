/**
 * The host's cryptographic provider once more, for another thread of the same process. The main thread has tested what it is
 * made of; here no more of it is loaded than packets need, which memory thanks for.
 */

import { SectunnelError } from '../../base/error.ts';
import { encryptionAlgorithms, integrityAlgorithms } from '../../crypto/algorithms.ts';
import { combineProviders } from '../../crypto/provider.ts';
import type { CryptoProvider } from '../../crypto/types.ts';

/** By the names that `selectCrypto` joins. */
const providers: ReadonlyMap<string, () => Promise<CryptoProvider>> = new Map([
  ['ipsec-mb', async () => (await import('../../crypto/ipsec-mb/provider.ts')).openIpsecMbProvider()],
  ['openssl', async () => (await import('../../crypto/openssl/provider.ts')).openOpensslProvider()],
  ['node', async () => (await import('../../crypto/node/provider.ts')).nodeProvider],
  ['noble', async () => (await import('../../crypto/noble/provider.ts')).nobleProvider],
]);

/** Opens the parts that a name joins, up to the first that serves every suite that is left. @throws SectunnelError */
export async function reopenCrypto(name: string): Promise<CryptoProvider> {
  const parts: CryptoProvider[] = [];
  for (const part of name.split('+')) {
    const open = providers.get(part);
    if (open === undefined) throw new SectunnelError('system', `worker threads cannot open the provider ${part} again`);
    const provider = await open();
    parts.push(provider);
    if ([...encryptionAlgorithms, ...integrityAlgorithms].every((algorithm) => provider.supports(algorithm))) break;
  }
  return combineProviders(...parts);
}
