import { describe, expect, it } from 'vitest';
import { encryptionAlgorithms, integrityAlgorithms } from '../../../src/crypto/algorithms.ts';
import { chooseCrypto } from '../../../src/host/crypto.ts';
import { reopenCrypto } from '../../../src/host/workers/crypto.ts';

describe('the provider of a worker', () => {
  it.each(['auto', 'node', 'noble'])('has of %s the quickest parts, and all that packets need', async (choice) => {
    const { name } = chooseCrypto(choice);
    const provider = await reopenCrypto(name);
    expect(name.startsWith(provider.name)).toBe(true);
    for (const algorithm of [...encryptionAlgorithms, ...integrityAlgorithms]) {
      expect(provider.supports(algorithm), algorithm.name).toBe(true);
    }
  });

  it('is refused when it is one of the owner’s own', async () => {
    await expect(reopenCrypto('mine+node')).rejects.toThrow('worker threads cannot open the provider mine again');
  });
});
