/**
 * What providers leave of keys in memory: a program holds them in objects of every kind, wipes those, and is searched from
 * outside. What a provider cannot erase is listed here, and nothing else may be found.
 */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { createInterface, type Interface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { expect, it, onTestFinished } from 'vitest';
import { toHex } from '../../src/base/bytes.ts';
import { dhGroups, prfAlgorithms } from '../../src/crypto/algorithms.ts';
import { nobleProvider } from '../../src/crypto/noble/provider.ts';
import { nodeProvider } from '../../src/crypto/node/provider.ts';
import type { CryptoProvider } from '../../src/crypto/types.ts';
import { allSuites, nativeProviders, suiteName } from '../crypto/support.ts';
import { hashKey, roundKeys } from '../support/lab/aes-forms.ts';
import { searchMemory } from '../support/lab/memory-search.ts';
import { describeInterop } from '../support/lab/requirements.ts';

const PROGRAM = fileURLToPath(new URL('../support/lab/hold-keys.mjs', import.meta.url));
const MASK = 0x5a;
/** More than the longest private key that is drawn: an exponent for MODP-8192. */
const PRIVATE_KEY = 80;

/** What a provider cannot erase, and why. */
const LEFT: Readonly<Record<string, readonly string[]>> = {
  // A KeyObject is freed when it is collected, and not before.
  node: ['x25519', 'x448'],
  // Each packet leaves a copy of ChaCha20's key in V8's heap, and a BigInt, which noble computes with, is never overwritten.
  noble: ['chacha20poly1305', ...dhGroups.map(({ name }) => name)],
  openssl: [],
  'ipsec-mb': [],
};

/** A key is held as something else than its bytes: a hash state, or other keys that were derived from it. */
const IN_OTHER_FORM: Readonly<Record<string, RegExp>> = { node: /xcbc$/, noble: /xcbc$|^prfsha/ };

interface Case {
  readonly name: string;
  readonly key: Buffer;
  /** What is made of it, and as secret. */
  readonly derived?: readonly Buffer[];
  readonly words: object;
}

/** Every cipher with some integrity, and every integrity algorithm with some cipher. */
function suiteCases({ supports }: CryptoProvider): Case[] {
  return allSuites
    .filter(({ encryption }) => encryption.keyLength > 0 && supports(encryption))
    .filter(({ integrity }) => integrity === undefined || supports(integrity))
    .map((suite) => {
      const { encryption, integrity } = suite;
      const key = randomBytes(encryption.keyLength + encryption.saltLength + (integrity?.keyLength ?? 0));
      const words = { kind: 'suite', encryption: encryption.name, integrity: integrity?.name };
      const aesKey = key.subarray(0, encryption.keyLength);
      const derived = encryption.name.startsWith('aes') ? [roundKeys(aesKey), hashKey(aesKey)] : [];
      return { name: suiteName(suite), key, derived, words };
    });
}

function prfCases({ supports }: CryptoProvider): Case[] {
  return prfAlgorithms.filter(supports).map(({ name, fixedKey }) => {
    // Longer ones are digested first.
    return { name, key: randomBytes(fixedKey ? 16 : 32), words: { kind: 'prf', algorithm: name } };
  });
}

function dhCases({ supports }: CryptoProvider): Case[] {
  // MODP is one computation with larger and larger numbers: the smallest stands for all.
  const groups = dhGroups.filter(({ name }) => !name.startsWith('modp') || name === 'modp2048');
  return groups.filter(supports).map(({ name }) => {
    const key = randomBytes(PRIVATE_KEY);
    // Below the order of every group.
    key[0] = 1;
    return { name, key, words: { kind: 'dh', algorithm: name } };
  });
}

const DERIVED = ['round keys', 'hash key'] as const;

/** The program, and what it was told of. */
class Holder {
  readonly #child: ChildProcessWithoutNullStreams = spawn(process.execPath, ['--expose-gc', PROGRAM]);
  readonly #lines: Interface = createInterface({ input: this.#child.stdout });
  #errors = '';

  constructor() {
    this.#child.stderr.on('data', (chunk: Buffer) => {
      this.#errors += chunk.toString();
    });
    onTestFinished(() => void this.#child.kill('SIGKILL'));
  }

  /** Has it do the next step. */
  async next(line: string, wanted: string): Promise<void> {
    const told = new Promise((resolve, reject) => {
      this.#lines.once('line', resolve);
      this.#child.once('close', () => reject(new Error(`the program ended:\n${this.#errors}`)));
    });
    this.#child.stdin.write(`${line}\n`);
    expect(await told).toBe(wanted);
  }

  /** The names of the cases of whose keys a part is in its memory. */
  find(cases: readonly Case[]): string[] {
    const needles = new Map<string, Uint8Array>();
    for (const { name, key, derived = [] } of cases) {
      needles.set(name, key);
      for (const [i, bytes] of derived.entries()) needles.set(`${name} ${DERIVED[i]}`, bytes);
      // Numbers of many digits have the last one first.
      needles.set(`${name} backwards`, Buffer.from(key).reverse());
    }
    const found = searchMemory(this.#child.pid!, needles).map(({ name }) => name.replace(' backwards', ''));
    return [...new Set(found)].sort();
  }
}

describeInterop('keys that were wiped', ['build'], () => {
  const providers: ReadonlyMap<string, CryptoProvider | string> = new Map([
    ['node', nodeProvider],
    ['noble', nobleProvider],
    ...nativeProviders.map(({ name, provider }) => [name, provider] as const),
  ]);

  it.each([...providers.keys()])('are found in no memory that %s had them in', async (name) => {
    const provider = providers.get(name)!;
    // Said by the tests of the providers by FFI.
    if (typeof provider === 'string') return;
    const cases = [...suiteCases(provider), ...prfCases(provider), ...dhCases(provider)];
    const sent = cases.map(({ key, words }) => {
      return { ...words, provider: name, masked: toHex(key.map((byte) => byte ^ MASK)) };
    });
    const holder = new Holder();
    await holder.next(JSON.stringify({ mask: MASK, cases: sent }), 'held');
    const visible = cases.filter((entry) => IN_OTHER_FORM[name]?.test(entry.name) !== true);
    const wanted = visible.map((entry) => entry.name);
    if (name === 'openssl') wanted.push('aes256gcm16 round keys', 'aes128-sha256 round keys');
    if (name === 'ipsec-mb') wanted.push('aes256gcm16 round keys');
    expect(holder.find(cases)).toEqual(expect.arrayContaining(wanted));
    await holder.next('', 'wiped');
    const left = holder.find(cases);
    expect(left.filter((found) => !LEFT[name]!.includes(found))).toEqual([]);
    if (name !== 'node') return;
    await holder.next('', 'collected');
    expect(holder.find(cases)).toEqual([]);
  });
});
