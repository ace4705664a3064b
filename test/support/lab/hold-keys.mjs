/**
 * Holds keys in every kind of object that a provider makes of them, and wipes them when it is told to: for a test that
 * looks into its memory from outside. Keys come XORed with a mask, and are unmasked where they can be erased.
 *
 * Standard input: `{ mask, cases }` as JSON, then a line for each next step; standard output: a line when it is done.
 */
import { createInterface } from 'node:readline';

const dist = (path) => import(new URL(`../../../dist/${path}`, import.meta.url).href);
const { encryptionByName, integrityByName, prfByName, dhGroupByName } = await dist('crypto/algorithms.js');
const { testedProviders } = await dist('host/crypto.js');
const { secretBytes, secretCopy } = await dist('base/secret-bytes.js');

const providers = testedProviders();

function unmask(hex) {
  const bytes = secretBytes(hex.length / 2);
  for (let i = 0; i < bytes.length; i++) bytes[i] = Number.parseInt(hex.slice(2 * i, 2 * i + 2), 16) ^ mask;
  return bytes;
}

/** Seals and opens, so that everything is in memory that use brings about. */
function useCipher(cipher) {
  const packet = new Uint8Array(8 + cipher.ivLength + 64 + cipher.icvLength);
  for (let i = 1; i <= 3; i++) {
    cipher.seal(packet, 0, 8, 64, 0, i, -1);
    if (!cipher.open(packet, 0, 8, 64, -1)) throw new Error('a packet was not opened');
    // And one that is not genuine.
    packet[packet.length - 1] ^= 1;
    cipher.open(packet, 0, 8, 64, -1);
  }
}

const makers = {
  suite(provider, { encryption, integrity, masked }) {
    const suite = { encryption: encryptionByName(encryption), integrity: integrity && integrityByName(integrity) };
    const key = unmask(masked);
    const split = suite.encryption.keyLength + suite.encryption.saltLength;
    const cipher = provider.packetCipher(suite, { encryption: key.subarray(0, split), integrity: key.subarray(split) });
    key.fill(0);
    useCipher(cipher);
    return cipher;
  },
  prf(provider, { algorithm, masked }) {
    const key = unmask(masked);
    const prf = provider.prf(prfByName(algorithm), key);
    key.fill(0);
    prf.compute(new Uint8Array(100)).fill(0);
    return prf;
  },
  dh(provider, { algorithm, masked }) {
    const group = dhGroupByName(algorithm);
    const peer = provider.dhKeyPair(group, (length) => new Uint8Array(length).fill(0x11));
    const key = unmask(masked);
    const pair = provider.dhKeyPair(group, (length) => secretCopy(key.subarray(0, length)));
    key.fill(0);
    pair.derive(peer.publicValue).fill(0);
    return pair;
  },
};

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const say = (line) => process.stdout.write(`${line}\n`);

const { mask, cases } = JSON.parse((await lines.next()).value);
const held = cases.map((entry) => makers[entry.kind](providers.get(entry.provider), entry));
say('held');
await lines.next();
for (const object of held) object.wipe();
say('wiped');
await lines.next();
globalThis.gc();
held.length = 0;
await new Promise((resolve) => setTimeout(resolve, 50));
globalThis.gc();
say('collected');
await lines.next();
