/**
 * A provider is made from a few primitives, so that what lies above them (packet layout, AES MACs, key lengths) is
 * written once; and providers are joined to one that takes each algorithm from the first that has it.
 */
import { invariant } from '../base/assert.ts';
import { SectunnelError } from '../base/error.ts';
import { encryptionAlgorithms, integrityAlgorithms } from './algorithms.ts';
import { buildMac, buildPrf, type MacPrimitives } from './macs.ts';
import { type PacketMac, type PacketPrimitives, packetCipher, packetMac } from './packet.ts';
import type {
  Algorithm,
  CipherSuite,
  CryptoProvider,
  DhGroup,
  DhKeyPair,
  IntegrityAlgorithm,
  RandomSource,
} from './types.ts';

export interface Primitives extends PacketPrimitives, MacPrimitives {
  readonly name: string;
  /** Whether the algorithm is there; asked once for each by `buildProvider`, so it may try things out. */
  supports(algorithm: Algorithm): boolean;
  dhKeyPair(group: DhGroup, random: RandomSource): DhKeyPair;
  sha1(...parts: readonly Uint8Array[]): Uint8Array;
  /** A quicker way to the ICV of packets than by `hmac` and `cbcMac`. */
  readonly packetMac?: (algorithm: IntegrityAlgorithm, key: Uint8Array) => PacketMac;
}

/** A provider does not work here (`code` is `unsupported`); the message says what is missing or what was found instead. */
export class ProviderUnavailableError extends SectunnelError {
  override readonly name = 'ProviderUnavailableError';

  constructor(message: string, cause?: unknown) {
    super('unsupported', message, cause);
  }
}

/**
 * Opens what a provider rests on. @throws ProviderUnavailableError with the words of an error of the class `missing`, by
 * which what was opened says that it is not here
 */
export function openOrUnavailable<T>(open: () => T, missing: abstract new (...words: never[]) => Error): T {
  try {
    return open();
  } catch (error) {
    throw error instanceof missing ? new ProviderUnavailableError(error.message, error) : error;
  }
}

export function buildProvider(primitives: Primitives): CryptoProvider {
  // BOUNDED: by the descriptors that are alive.
  const supported = new WeakMap<Algorithm, boolean>();
  const supports = (algorithm: Algorithm): boolean => {
    let answer = supported.get(algorithm);
    if (answer === undefined) {
      answer = primitives.supports(algorithm);
      supported.set(algorithm, answer);
    }
    return answer;
  };
  const demand = (algorithm: Algorithm): void => {
    if (!supports(algorithm)) throw unsupported(primitives.name, algorithm);
  };
  const macOf = (algorithm: IntegrityAlgorithm, key: Uint8Array): PacketMac =>
    primitives.packetMac?.(algorithm, key) ?? packetMac(buildMac(algorithm, key, primitives));
  return {
    name: primitives.name,
    supports,
    prf(algorithm, key) {
      demand(algorithm);
      return buildPrf(algorithm, key, primitives);
    },
    packetCipher(suite, keys) {
      demand(suite.encryption);
      if (suite.integrity === undefined) return packetCipher(suite, keys, primitives, undefined);
      demand(suite.integrity);
      return packetCipher(suite, keys, primitives, macOf(suite.integrity, keys.integrity));
    },
    dhKeyPair(group, random) {
      demand(group);
      return failClosed(primitives.dhKeyPair(group, random));
    },
    sha1: primitives.sha1,
  };
}

/** A wiped private key may be a number that an attacker can guess, so nothing is derived with it. */
function failClosed(pair: DhKeyPair): DhKeyPair {
  let wiped = false;
  return {
    group: pair.group,
    publicValue: pair.publicValue,
    derive(peerPublic) {
      invariant(!wiped, 'a key pair was used after it was wiped');
      return pair.derive(peerPublic);
    },
    wipe() {
      wiped = true;
      pair.wipe();
    },
  };
}

/**
 * One provider from several: each algorithm is served by the first that supports it, each suite by the first that
 * supports both its parts.
 */
export function combineProviders(...providers: readonly CryptoProvider[]): CryptoProvider {
  const name = providers.map((provider) => provider.name).join('+');
  const first = (...algorithms: readonly Algorithm[]): CryptoProvider => {
    const found = providers.find((provider) => algorithms.every((algorithm) => provider.supports(algorithm)));
    if (found === undefined) throw unsupported(name, ...algorithms);
    return found;
  };
  const sha1 = providers[0]?.sha1;
  if (sha1 === undefined) throw new RangeError('no provider to combine');
  return {
    name,
    supports: (algorithm) => providers.some((provider) => provider.supports(algorithm)),
    prf: (algorithm, key) => first(algorithm).prf(algorithm, key),
    packetCipher: (suite, keys) => first(...partsOf(suite)).packetCipher(suite, keys),
    dhKeyPair: (group, random) => first(group).dhKeyPair(group, random),
    sha1,
  };
}

/** Whether it supports whatever packets need: a provider behind it in `combineProviders` is never asked for packets. */
export function isComplete(provider: CryptoProvider): boolean {
  return [...encryptionAlgorithms, ...integrityAlgorithms].every((algorithm) => provider.supports(algorithm));
}

function partsOf({ encryption, integrity }: CipherSuite): Algorithm[] {
  return integrity === undefined ? [encryption] : [encryption, integrity];
}

function unsupported(provider: string, ...algorithms: readonly Algorithm[]): RangeError {
  const names = algorithms.map((algorithm) => algorithm.name).join(' with ');
  return new RangeError(`the crypto provider '${provider}' does not support ${names}`);
}
