/**
 * Opens the host's cryptographic provider again in a worker thread. The main thread has tested its parts already; a worker
 * loads only those that packets need, which saves memory.
 */
import { SectunnelError } from '../../base/error.ts';
import { combineProviders, isComplete } from '../../crypto/provider.ts';
import type { CryptoProvider } from '../../crypto/types.ts';

/** The parts of a provider's name, as `selectCrypto` joins them with `+`. */
const providers: ReadonlyMap<string, () => Promise<CryptoProvider>> = new Map([
  ['ipsec-mb', async () => (await import('../../crypto/ipsec-mb/provider.ts')).openIpsecMbProvider()],
  ['openssl', async () => (await import('../../crypto/openssl/provider.ts')).openOpensslProvider()],
  ['node', async () => (await import('../../crypto/node/provider.ts')).nodeProvider],
  ['noble', async () => (await import('../../crypto/noble/provider.ts')).nobleProvider],
]);

/** Opens the parts of a provider's name, up to the first that supports every algorithm. @throws SectunnelError */
export async function reopenCrypto(name: string): Promise<CryptoProvider> {
  const parts: CryptoProvider[] = [];
  for (const part of name.split('+')) {
    const open = providers.get(part);
    if (open === undefined) throw new SectunnelError('system', `worker threads cannot open the provider ${part} again`);
    const provider = await open();
    parts.push(provider);
    if (isComplete(provider)) break;
  }
  return combineProviders(...parts);
}
