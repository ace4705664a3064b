/**
 * Loaded before a daemon with `--crypto node --workers 0` that is the peer of the one whose memory is searched: writes
 * each key that it is given to the file KEYS_FILE, a line each. Both ends have the same keys.
 */
import { appendFileSync } from 'node:fs';

const { nodeProvider } = await import(new URL('../../../dist/crypto/node/provider.js', import.meta.url).href);
const { prf, packetCipher, dhKeyPair } = nodeProvider;

const hex = (bytes) => Buffer.from(bytes).toString('hex');
const report = (kind, bytes) => appendFileSync(process.env.KEYS_FILE, `${kind} ${hex(bytes)}\n`);
/** Results of key exchanges. */
const shared = new Set();

nodeProvider.prf = (algorithm, key) => {
  const made = prf(algorithm, key);
  const text = hex(key);
  let told = false;
  const compute = (...parts) => {
    // The key of SKEYSEED is the nonces, which are no secret (RFC 7296 §2.14).
    if (!told && !(parts.length === 1 && shared.has(hex(parts[0])))) report('prf', Buffer.from(text, 'hex'));
    told = true;
    return made.compute(...parts);
  };
  return { ...made, compute };
};

nodeProvider.packetCipher = (suite, keys) => {
  const kind = suite.encryption.name;
  report(kind, keys.encryption.subarray(0, suite.encryption.keyLength));
  if (keys.integrity.length > 0) report('integrity', keys.integrity);
  return packetCipher(suite, keys);
};

nodeProvider.dhKeyPair = (group, random) => {
  const pair = dhKeyPair(group, random);
  const derive = (value) => {
    const secret = pair.derive(value);
    shared.add(hex(secret));
    report('dh', secret);
    return secret;
  };
  return { group: pair.group, publicValue: pair.publicValue, derive, wipe: () => pair.wipe() };
};
