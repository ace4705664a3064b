/** Chooses the cryptographic provider. */
import { nobleProvider } from '../crypto/noble/provider.ts';
import { nodeProvider } from '../crypto/node/provider.ts';
import { combineProviders } from '../crypto/provider.ts';
import type { CryptoProvider } from '../crypto/types.ts';
import { ControlError } from './protocol.ts';

/** `auto`: Node's OpenSSL, and noble for what it lacks. */
export const cryptoChoices: Readonly<Record<string, CryptoProvider>> = {
  auto: combineProviders(nodeProvider, nobleProvider),
  node: nodeProvider,
  noble: nobleProvider,
};

export function chooseCrypto(name: string): CryptoProvider {
  const provider = Object.hasOwn(cryptoChoices, name) ? cryptoChoices[name] : undefined;
  if (provider === undefined) {
    throw new ControlError('bad-request', `--crypto ${name}: wanted one of ${Object.keys(cryptoChoices).join(', ')}`);
  }
  return provider;
}
