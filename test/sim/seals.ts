/** Watches what is encrypted with which key and counter: none may be used twice (NIST SP 800-38D §8, RFC 8750 §4). */
import { toHex } from '../../src/base/bytes.ts';
import { nodeProvider } from '../../src/crypto/node/provider.ts';
import type { CipherKeys, CipherSuite, CryptoProvider, PacketCipher } from '../../src/crypto/types.ts';

export class Seals {
  readonly #used = new Map<string, Set<number>>();
  /** What was used twice, in words. */
  readonly repeated: string[] = [];
  count = 0;
  readonly provider: CryptoProvider = {
    ...nodeProvider,
    packetCipher: (suite, keys) => this.#watched(suite, keys),
  };

  #watched(suite: CipherSuite, keys: CipherKeys): PacketCipher {
    // Before the keys are wiped.
    const key = toHex(keys.encryption);
    const cipher = nodeProvider.packetCipher(suite, keys);
    const used = this.#used.get(key) ?? new Set();
    this.#used.set(key, used);
    return {
      ivLength: cipher.ivLength,
      icvLength: cipher.icvLength,
      blockSize: cipher.blockSize,
      seal: (buffer, start, ivAt, dataLength, high, low, esnHigh) => {
        const counter = (high >>> 0) * 2 ** 32 + (low >>> 0);
        if (used.has(counter)) this.repeated.push(`counter ${counter} with a key of ${suite.encryption.name}`);
        used.add(counter);
        this.count++;
        cipher.seal(buffer, start, ivAt, dataLength, high, low, esnHigh);
      },
      open: (buffer, start, ivAt, dataLength, esnHigh) => cipher.open(buffer, start, ivAt, dataLength, esnHigh),
      wipe: () => cipher.wipe(),
    };
  }
}
