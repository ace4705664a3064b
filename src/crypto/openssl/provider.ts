/**
 * The provider on the OpenSSL inside this Node process, by FFI: packets, several times as quick as node:crypto, and key
 * exchanges whose keys node:crypto cannot free, or whose primes it tests each time. The provider behind it does PRFs, other
 * groups, AES-CCM and the AES MACs.
 */
import { NativeUnavailableError } from '../../sys/ffi.ts';
import { isModp, modpGroup } from '../dh.ts';
import { constructionOf } from '../macs.ts';
import { nodePrimitives, nodeProvider } from '../node/provider.ts';
import { buildProvider, openOrUnavailable } from '../provider.ts';
import type { Algorithm, CryptoProvider, DhGroup, DhKeyPair, IntegrityAlgorithm, RandomSource } from '../types.ts';
import { evpName, fetchCipher, opensslAead, opensslCbc, opensslCtr } from './ciphers.ts';
import { evp } from './evp.ts';
import { opensslHmac } from './hmac.ts';
import { bigNumbers, opensslModpKeyPair } from './modp.ts';
import { isMontgomery, opensslMontgomeryKeyPair } from './montgomery.ts';

/** @throws ProviderUnavailableError saying what is missing */
export function openOpensslProvider(): CryptoProvider {
  openOrUnavailable(bindOpenssl, NativeUnavailableError);
  return buildProvider({
    ...nodePrimitives,
    name: 'openssl',
    supports,
    aead: opensslAead,
    cbc: opensslCbc,
    ctr: opensslCtr,
    dhKeyPair,
    packetMac: (algorithm, key) => opensslHmac(hashOf(algorithm), key),
  });
}

function bindOpenssl(): void {
  evp();
  bigNumbers();
}

function dhKeyPair(group: DhGroup, random: RandomSource): DhKeyPair {
  const modp = modpGroup(group);
  return modp === undefined ? opensslMontgomeryKeyPair(group, random) : opensslModpKeyPair(group, modp, random);
}

/** What node:crypto refuses, as in FIPS mode, is not asked for behind its back. */
function supports(algorithm: Algorithm): boolean {
  if (!nodeProvider.supports(algorithm)) return false;
  if (algorithm.kind === 'encryption') {
    const name = evpName(algorithm);
    return algorithm.keyLength === 0 || (name !== undefined && fetchCipher(name) !== 0);
  }
  if (algorithm.kind === 'dh') return isMontgomery(algorithm) || isModp(algorithm);
  return algorithm.kind === 'integrity' && constructionOf(algorithm)?.type === 'hmac' && evp().hmac !== 0;
}

function hashOf(algorithm: IntegrityAlgorithm): Parameters<typeof opensslHmac>[0] {
  const construction = constructionOf(algorithm);
  if (construction?.type !== 'hmac') throw new Error(`bug: ${algorithm.name} is no HMAC`);
  return construction.hash;
}
