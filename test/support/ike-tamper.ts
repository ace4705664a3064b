/** A peer whose messages are authentic and wrong: what it seals is changed just before it is sealed. */
import { nodeProvider } from '../../src/crypto/node/provider.ts';
import type { CryptoProvider } from '../../src/crypto/types.ts';
import { decodeHeader } from '../../src/ike/wire/message.ts';

export interface Sealed {
  readonly exchange: number;
  readonly response: boolean;
  /** What SK is about to hold: payloads, padding, pad length. To be changed in place. */
  readonly content: Uint8Array;
  /** The generic header of SK, whose first byte names the first payload inside. */
  readonly skHeader: Uint8Array;
}

/** A provider whose IKE ciphers show each message to `tamper` before they seal it. */
export function sealing(tamper: (sealed: Sealed) => unknown): CryptoProvider {
  return {
    ...nodeProvider,
    packetCipher(suite, keys) {
      const cipher = nodeProvider.packetCipher(suite, keys);
      return {
        ivLength: cipher.ivLength,
        icvLength: cipher.icvLength,
        blockSize: cipher.blockSize,
        open: cipher.open.bind(cipher),
        wipe: cipher.wipe.bind(cipher),
        seal(buffer, start, ivAt, dataLength, high, low, esn) {
          // A message of IKE has a buffer of its own, ESP lies in the midst of a batch.
          if (start === 0) {
            const dataAt = ivAt + cipher.ivLength;
            const { exchange, response } = decodeHeader(buffer);
            const content = buffer.subarray(dataAt, dataAt + dataLength);
            tamper({ exchange, response, content, skHeader: buffer.subarray(ivAt - 4, ivAt) });
          }
          cipher.seal(buffer, start, ivAt, dataLength, high, low, esn);
        },
      };
    },
  };
}
