/** What only providers by FFI do: they release native memory, check the versions of libraries, and must never crash. */
import v8 from 'node:v8';
import vm from 'node:vm';
import { describe, expect, it } from 'vitest';
import { PacketBatch } from '../../src/base/batch.ts';
import { toHex } from '../../src/base/bytes.ts';
import { encryptionByName, integrityByName } from '../../src/crypto/algorithms.ts';
import { checkVersion, chooseLevel, commonFlags, ipsecMb, LIBRARIES } from '../../src/crypto/ipsec-mb/library.ts';
import { ipsecMbAead } from '../../src/crypto/ipsec-mb/provider.ts';
import { nobleProvider } from '../../src/crypto/noble/provider.ts';
import { opensslVersionText } from '../../src/crypto/openssl/evp.ts';
import { openOrUnavailable, ProviderUnavailableError } from '../../src/crypto/provider.ts';
import type { CipherSuite, CryptoProvider, PacketCipher } from '../../src/crypto/types.ts';
import { NativeUnavailableError } from '../../src/sys/ffi.ts';
import { allSuites, nativeProviders, need, packetLength, seededRandom, suiteKeys, suiteName } from './support.ts';

/** The part of the WebAssembly interface that is used here. */
declare const WebAssembly: {
  readonly Memory: new (size: {
    initial: number;
    maximum?: number;
    shared?: boolean;
  }) => { readonly buffer: ArrayBuffer };
};

const gcm = { encryption: need(encryptionByName('aes256gcm16')), integrity: undefined };
const cbc = { encryption: need(encryptionByName('aes256')), integrity: need(integrityByName('sha256')) };

function supportsSuite(provider: CryptoProvider, { encryption, integrity }: CipherSuite): boolean {
  return provider.supports(encryption) && (integrity === undefined || provider.supports(integrity));
}

/** A test body for each provider by FFI; a missing one is said, and fails where everything must be there. */
function describeNative(title: string, body: (provider: CryptoProvider, suites: readonly CipherSuite[]) => void): void {
  for (const { name, provider } of nativeProviders) {
    if (typeof provider !== 'string') {
      const suites = allSuites.filter((suite) => supportsSuite(provider, suite));
      describe(`${title}, with ${name}`, () => body(provider, suites));
    } else if (process.env.SECTUNNEL_REQUIRE_INTEROP === '1') {
      it(`${title}, with ${name}: can run`, () => {
        throw new Error(`SECTUNNEL_REQUIRE_INTEROP=1, but ${provider}`);
      });
    } else {
      describe.skip(`${title}, with ${name} (not run: ${provider})`, () => undefined);
    }
  }
}

function collectGarbage(): void {
  v8.setFlagsFromString('--expose-gc');
  (vm.runInNewContext('gc') as () => void)();
}

describeNative('packets', (provider, suites) => {
  it('has every AES-GCM itself', () => {
    const names = suites.map(({ encryption }) => encryption.name).filter((name) => name.includes('gcm'));
    expect(names).toHaveLength(9);
    expect(suites.some(({ encryption }) => encryption.name.includes('ccm'))).toBe(false);
  });

  it.each([9000, 65_000])('of %i bytes are those of the reference, at odd offsets', (length) => {
    const few = suites.filter((suite) => !suite.encryption.name.match(/192|gcm8|gcm12/));
    const quick = few.filter((suite) => suite.integrity === undefined || suite.integrity.name === 'sha256');
    for (const suite of quick) {
      const keys = suiteKeys(suite, seededRandom(1));
      const cipher = provider.packetCipher(suite, keys);
      const reference = nobleProvider.packetCipher(suite, keys);
      const dataLength = length - (length % cipher.blockSize);
      const original = seededRandom(2)(5 + packetLength(cipher, 8, dataLength) + 3);
      const a = Uint8Array.from(original);
      const b = Uint8Array.from(original);
      cipher.seal(a, 5, 13, dataLength, 1, 2, 3);
      reference.seal(b, 5, 13, dataLength, 1, 2, 3);
      expect(Buffer.compare(a, b), suiteName(suite)).toBe(0);
      expect(cipher.open(a, 5, 13, dataLength, 3), suiteName(suite)).toBe(true);
      const dataAt = 13 + cipher.ivLength;
      expect(
        Buffer.compare(a.subarray(dataAt, dataAt + dataLength), original.subarray(dataAt, dataAt + dataLength)),
      ).toBe(0);
      cipher.wipe();
    }
  });

  it('of every length from 0 to 300 bytes are those of the reference', () => {
    const suite = { encryption: need(encryptionByName('aes128gcm16')), integrity: undefined };
    const keys = suiteKeys(suite, seededRandom(3));
    const cipher = provider.packetCipher(suite, keys);
    const reference = nobleProvider.packetCipher(suite, keys);
    for (let length = 0; length <= 300; length++) {
      const at = length % 67;
      const a = seededRandom(length)(at + packetLength(cipher, 8, length) + 1);
      const b = Uint8Array.from(a);
      cipher.seal(a, at, at + 8, length, 0, length, -1);
      reference.seal(b, at, at + 8, length, 0, length, -1);
      expect(toHex(a)).toBe(toHex(b));
      expect(cipher.open(a, at, at + 8, length, -1)).toBe(true);
    }
  });

  it.each([0, 1, 8, 12, 28, 48, 300])('may have %i bytes of associated data', (front) => {
    for (const suite of suites) {
      const keys = suiteKeys(suite, seededRandom(4));
      const cipher = provider.packetCipher(suite, keys);
      const reference = nobleProvider.packetCipher(suite, keys);
      const a = seededRandom(5)(packetLength(cipher, front, 32));
      const b = Uint8Array.from(a);
      cipher.seal(a, 0, front, 32, 0, 1, -1);
      reference.seal(b, 0, front, 32, 0, 1, -1);
      expect(toHex(a), suiteName(suite)).toBe(toHex(b));
      expect(cipher.open(a, 0, front, 32, -1), suiteName(suite)).toBe(true);
      cipher.wipe();
    }
  });

  it('of an AEAD that are not genuine leave no plaintext behind', () => {
    for (const suite of suites.filter(({ encryption }) => encryption.aead)) {
      const cipher = provider.packetCipher(suite, suiteKeys(suite, seededRandom(6)));
      const buffer = new Uint8Array(packetLength(cipher, 8, 64) + 4).fill(0x5a);
      cipher.seal(buffer, 0, 8, 64, 0, 1, -1);
      const icvAt = 8 + cipher.ivLength + 64;
      buffer[icvAt]! ^= 1;
      const before = Uint8Array.from(buffer);
      expect(cipher.open(buffer, 0, 8, 64, -1)).toBe(false);
      expect(toHex(buffer.subarray(8 + cipher.ivLength, icvAt)), suiteName(suite)).toBe('00'.repeat(64));
      expect(toHex(buffer.subarray(0, 8 + cipher.ivLength))).toBe(toHex(before.subarray(0, 8 + cipher.ivLength)));
      expect(toHex(buffer.subarray(icvAt))).toBe(toHex(before.subarray(icvAt)));
    }
  });

  it('of many SAs at once do not mix', () => {
    const ciphers = Array.from({ length: 300 }, (_, i) => {
      const suite = suites[i % suites.length]!;
      const keys = suiteKeys(suite, seededRandom(100 + i));
      return { cipher: provider.packetCipher(suite, keys), peer: provider.packetCipher(suite, keys) };
    });
    const batch = new Uint8Array(ciphers.length * 256);
    for (let turn = 0; turn < 3; turn++) {
      batch.fill(turn + 1);
      ciphers.forEach(({ cipher }, i) => void cipher.seal(batch, i * 256, i * 256 + 8, 64, turn, i, -1));
      ciphers.forEach(({ peer }, i) => {
        const wrong = ciphers[(i + 1) % ciphers.length]!.peer;
        expect(wrong.open(batch.slice(i * 256, (i + 1) * 256), 0, 8, 64, -1)).toBe(false);
        expect(peer.open(batch, i * 256, i * 256 + 8, 64, -1), `SA ${i}`).toBe(true);
        const dataAt = i * 256 + 8 + peer.ivLength;
        expect(batch.subarray(dataAt, dataAt + 64).every((byte) => byte === turn + 1)).toBe(true);
      });
    }
    for (const { cipher, peer } of ciphers) {
      cipher.wipe();
      peer.wipe();
    }
  });

  it('may lie in a view, in WebAssembly memory and in shared memory', () => {
    const cipher = provider.packetCipher(gcm, suiteKeys(gcm, seededRandom(7)));
    const memories: readonly Uint8Array[] = [
      new Uint8Array(new ArrayBuffer(400), 13, 200),
      new Uint8Array(new WebAssembly.Memory({ initial: 1 }).buffer, 1001, 200),
      new Uint8Array(new WebAssembly.Memory({ initial: 1, maximum: 2, shared: true }).buffer, 1001, 200),
      new Uint8Array(new SharedArrayBuffer(400), 13, 200),
      Buffer.from(new Uint8Array(200)),
    ];
    const packets = memories.map((memory) => {
      cipher.seal(memory, 1, 9, 100, 0, 1, -1);
      return toHex(memory);
    });
    expect(new Set(packets).size).toBe(1);
    for (const memory of memories) expect(cipher.open(memory, 1, 9, 100, -1)).toBe(true);
  });

  it('are refused when their memory has gone elsewhere', () => {
    const cipher = provider.packetCipher(gcm, suiteKeys(gcm, seededRandom(8)));
    const buffer = new Uint8Array(200);
    cipher.seal(buffer, 0, 8, 100, 0, 1, -1);
    const moved = structuredClone(buffer, { transfer: [buffer.buffer] });
    expect(cipher.open(buffer, 0, 8, 100, -1)).toBe(false);
    expect(() => cipher.seal(buffer, 0, 8, 100, 0, 2, -1)).toThrow(/no room/);
    expect(cipher.open(moved, 0, 8, 100, -1)).toBe(true);
  });

  it('stay right while garbage is collected and small buffers are moved about', () => {
    const suite = { encryption: need(encryptionByName('aes128gcm16')), integrity: undefined };
    const keys = suiteKeys(suite, seededRandom(9));
    const ciphers = Array.from({ length: 50 }, () => provider.packetCipher(suite, keys));
    const small = Array.from({ length: 500 }, () => new Uint8Array(48));
    small.forEach((buffer, i) => void ciphers[i % 50]!.seal(buffer, 0, 8, 16, 0, i, -1));
    collectGarbage();
    collectGarbage();
    small.forEach((buffer, i) => {
      expect(ciphers[(i + 7) % 50]!.open(buffer, 0, 8, 16, -1)).toBe(true);
      expect(toHex(buffer.subarray(16, 32))).toBe('00'.repeat(16));
    });
  });
});

/** A few numbers may be boxed: addresses above 2^31 are. An object for each packet would be seen. */
const BYTES_PER_PACKET = 100;

describeNative('the packet path', (provider, suites) => {
  const quick = suites.filter(({ encryption }) => encryption.aead || encryption.name === 'aes128');

  it.each(quick.map((suite) => ({ name: suiteName(suite), suite })))('of $name makes no objects', ({ suite }) => {
    const keys = suiteKeys(suite, seededRandom(10));
    const sender = provider.packetCipher(suite, keys);
    const receiver = provider.packetCipher(suite, keys);
    const buffer = new Uint8Array(new WebAssembly.Memory({ initial: 4 }).buffer);
    const deltas: number[] = [];
    let counter = 0;
    for (let round = 0; round < 12; round++) {
      const before = process.memoryUsage().heapUsed;
      for (let i = 0; i < 500; i++) {
        const at = (i % 64) * 256;
        sender.seal(buffer, at, at + 8, 64, 0, counter++, 5);
        if (!receiver.open(buffer, at, at + 8, 64, 5)) throw new Error('a packet was refused');
      }
      deltas.push((process.memoryUsage().heapUsed - before) / 500);
    }
    // A round in which garbage was collected says nothing; the first ones compile.
    const usable = deltas.filter((delta) => delta >= 0).sort((a, b) => a - b);
    expect(usable[2]).toBeLessThan(BYTES_PER_PACKET);
  });
});

describeNative('keys', (provider) => {
  const suites = [gcm, cbc].filter((suite) => supportsSuite(provider, suite));

  /** A batch of short lives; grows resident memory for good when anything is left of them. */
  function liveAndDie(suite: CipherSuite, count: number): void {
    const keys = suiteKeys(suite, seededRandom(11));
    const buffer = new Uint8Array(200);
    for (let i = 0; i < count; i++) {
      const cipher = provider.packetCipher(suite, keys);
      cipher.seal(buffer, 0, 8, 64, 0, i, -1);
      cipher.wipe();
    }
  }

  it.each(suites.map((suite) => ({ name: suiteName(suite), suite })))(
    'of 100,000 $name come and go without a leak',
    { timeout: 120_000 },
    ({ suite }) => {
      liveAndDie(suite, 20_000);
      const growth = (): number => {
        collectGarbage();
        const before = process.memoryUsage().rss;
        liveAndDie(suite, 100_000);
        collectGarbage();
        return (process.memoryUsage().rss - before) / 1e6;
      };
      // A context has some 500 bytes at least: 100,000 would be 50 MB, each time. The heap itself grows now and then.
      let least = growth();
      for (let again = 0; least >= 30 && again < 2; again++) least = Math.min(least, growth());
      expect(least).toBeLessThan(30);
    },
  );

  it('that were not wiped are freed when their cipher is collected', { timeout: 120_000 }, async () => {
    const keys = suiteKeys(gcm, seededRandom(12));
    const round = async (): Promise<number> => {
      for (let i = 0; i < 20_000; i++) provider.packetCipher(gcm, keys);
      collectGarbage();
      // Finalizers run as tasks of the event loop.
      for (let i = 0; i < 5; i++) await new Promise((resolve) => setTimeout(resolve, 2));
      return process.memoryUsage().rss;
    };
    await round();
    await round();
    const before = await round();
    let after = before;
    for (let i = 0; i < 3; i++) after = await round();
    expect((after - before) / 1e6).toBeLessThan(30);
  });

  it('are kept as long as a cipher lives', () => {
    const keys = suiteKeys(gcm, seededRandom(13));
    const kept: PacketCipher[] = [];
    for (let i = 0; i < 2000; i++) {
      const cipher = provider.packetCipher(gcm, keys);
      if (i % 100 === 0) kept.push(cipher);
    }
    collectGarbage();
    const packets = kept.map((cipher) => {
      const buffer = new Uint8Array(packetLength(cipher, 8, 64));
      cipher.seal(buffer, 0, 8, 64, 0, 1, -1);
      return toHex(buffer);
    });
    expect(new Set(packets).size).toBe(1);
  });
});

describe('opening a provider', () => {
  const open = (error: Error) => () =>
    openOrUnavailable(() => {
      throw error;
    }, NativeUnavailableError);

  it('says that it is unavailable when native code is, and why', () => {
    expect(open(new NativeUnavailableError('no koffi'))).toThrow(new ProviderUnavailableError('no koffi'));
  });

  it('passes other errors on', () => {
    expect(open(new RangeError('bug'))).toThrow(RangeError);
  });
});

describe('libraries', () => {
  it('report the version of OpenSSL as text', () => {
    expect(opensslVersionText(0x300000d0)).toBe('3.0.13');
    expect(opensslVersionText(0x30200010)).toBe('3.2.1');
    expect(opensslVersionText(0x1010117f)).toBe('1.1.23');
  });

  it('of ipsec-mb are used only in versions whose structures are known', () => {
    const [second, first] = [need(LIBRARIES[0]), need(LIBRARIES[1])];
    expect(() => checkVersion(first, 0x00010300)).not.toThrow();
    expect(() => checkVersion(first, 0x00010302)).not.toThrow();
    expect(() => checkVersion(second, 0x00020002)).not.toThrow();
    expect(() => checkVersion(first, 0x00010400)).toThrow(/libIPSec_MB\.so\.1 is version 1\.4, required is 1\.3/);
    expect(() => checkVersion(first, 0x00020000)).toThrow(ProviderUnavailableError);
    expect(() => checkVersion(second, 0x00020100)).toThrow(/version 2\.1, required is 2\.0/);
  });
});

describe('the level of ipsec-mb', () => {
  const all =
    'cmov sse4_1 sse4_2 aes pclmulqdq avx avx2 bmi2 avx512f avx512dq avx512cd avx512bw avx512vl vaes vpclmulqdq gfni ' +
    'avx512ifma sha_ni';
  const without = (...missing: string[]): Set<string> =>
    new Set(all.split(' ').filter((flag) => !missing.includes(flag)));

  it.each([
    ['vaes_avx512', []],
    ['avx512', ['vaes']],
    ['avx512', ['sha_ni']],
    ['avx_gen4', ['avx512vl']],
    ['avx_gen2', ['avx2']],
    ['avx_gen2', ['bmi2']],
    ['sse', ['avx']],
    [undefined, ['aes']],
    [undefined, ['pclmulqdq']],
  ] as const)('is %s without %j', (level, missing) => {
    expect(chooseLevel(need(LIBRARIES[1]), without(...missing))).toBe(level);
    // Version 2.0 has nothing between sse and avx_gen4.
    expect(chooseLevel(need(LIBRARIES[0]), without(...missing))).toBe(level === 'avx_gen2' ? 'sse' : level);
  });

  it('is one that all processors have', () => {
    const cpuinfo = `processor\t: 0\nflags\t\t: ${all}\nbugs\t: x\n\nprocessor\t: 1\nflags\t\t: ${[...without('vaes')].join(' ')}\n`;
    expect(chooseLevel(need(LIBRARIES[0]), commonFlags(cpuinfo))).toBe('avx512');
    expect(chooseLevel(need(LIBRARIES[0]), commonFlags(''))).toBeUndefined();
    expect(chooseLevel(need(LIBRARIES[0]), commonFlags('Features\t: fp asimd aes\n'))).toBeUndefined();
  });
});

const ipsecMbThere = typeof need(nativeProviders[1]).provider !== 'string';

describe.runIf(ipsecMbThere)('ipsec-mb', () => {
  it('works at a level that the library has', () => {
    expect(ipsecMb().level).toMatch(/^(vaes_avx512|avx512|avx_gen4|avx_gen2|sse)$/);
    expect([...ipsecMb().gcm.keys()]).toStrictEqual([16, 24, 32]);
  });

  it('holds nothing of a key after wipe: any two wiped ciphers are the same', () => {
    const sealWith = (seed: number): string => {
      const aead = ipsecMbAead(gcm.encryption, seededRandom(seed)(32));
      const seal = (): string => {
        const buffer = new Uint8Array(600);
        aead.seal(new Uint8Array(12), new Uint8Array(8), buffer, 0, 584);
        return toHex(buffer);
      };
      const living = seal();
      aead.wipe();
      const wiped = seal();
      expect(wiped).not.toBe(living);
      return wiped;
    };
    expect(sealWith(20)).toBe(sealWith(21));
  });
});

describeNative('a batch', (provider) => {
  it('is sealed and opened in its slots', () => {
    const keys = suiteKeys(gcm, seededRandom(22));
    const cipher = provider.packetCipher(gcm, keys);
    const batch = new PacketBatch(64, 1500);
    for (let slot = 0; slot < 64; slot++) batch.push(new Uint8Array(20 + slot * 20).fill(slot));
    const front = 8 + cipher.ivLength;
    for (let slot = 0; slot < 64; slot++) {
      const at = batch.offset[slot]! - front;
      cipher.seal(batch.buffer, at, at + 8, batch.length[slot]!, 0, slot, -1);
    }
    for (let slot = 0; slot < 64; slot++) {
      const at = batch.offset[slot]! - front;
      expect(cipher.open(batch.buffer, at, at + 8, batch.length[slot]!, -1)).toBe(true);
      expect(batch.packet(slot).every((byte) => byte === slot)).toBe(true);
    }
  });
});
