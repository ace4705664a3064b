/** Which cryptographic providers a daemon takes. */
import { describe, expect, it } from 'vitest';
import { SectunnelError } from '../../src/base/error.ts';
import { encryptionAlgorithms, encryptionByName, integrityAlgorithms } from '../../src/crypto/algorithms.ts';
import { nobleProvider } from '../../src/crypto/noble/provider.ts';
import { nodeProvider } from '../../src/crypto/node/provider.ts';
import type { CryptoProvider } from '../../src/crypto/types.ts';
import { chooseCrypto, cryptoChoices, selectCrypto, testedProviders } from '../../src/host/crypto.ts';

/** Every provider by a stand-in that keeps a log of what is asked of it; those in `missing` are not there. */
function opener(missing: Readonly<Record<string, string>> = {}): {
  open: (name: string) => CryptoProvider | string;
  used: string[];
} {
  const used: string[] = [];
  const open = (name: string): CryptoProvider | string =>
    missing[name] ?? {
      ...nodeProvider,
      name,
      supports: (algorithm) => name !== 'ipsec-mb' || algorithm.name.includes('gcm'),
      packetCipher(suite, keys) {
        used.push(name);
        return nodeProvider.packetCipher(suite, keys);
      },
    };
  return { open, used };
}

function sealWith(provider: CryptoProvider, name: string): void {
  const encryption = encryptionByName(name);
  if (encryption === undefined) throw new Error(`no ${name}`);
  const keys = {
    encryption: new Uint8Array(encryption.keyLength + encryption.saltLength),
    integrity: new Uint8Array(0),
  };
  provider.packetCipher({ encryption, integrity: undefined }, keys).wipe();
}

describe('auto', () => {
  it('joins all that there are, the quickest first', () => {
    const { open, used } = opener();
    const { provider, leftOut } = selectCrypto('auto', open);
    expect(provider.name).toBe('ipsec-mb+openssl+node+noble');
    expect(leftOut).toStrictEqual([]);
    sealWith(provider, 'aes128gcm16');
    sealWith(provider, 'chacha20poly1305');
    expect(used).toStrictEqual(['ipsec-mb', 'openssl']);
  });

  it('does without what is missing, and says why', () => {
    const { open, used } = opener({ 'ipsec-mb': 'libIPSec_MB.so.1: no such file', openssl: 'self-test: …' });
    const { provider, leftOut } = selectCrypto('auto', open);
    expect(provider.name).toBe('node+noble');
    expect(leftOut).toStrictEqual([
      { name: 'ipsec-mb', reason: 'libIPSec_MB.so.1: no such file' },
      { name: 'openssl', reason: 'self-test: …' },
    ]);
    sealWith(provider, 'aes128gcm16');
    expect(used).toStrictEqual(['node']);
  });

  it.each([
    [{}, { 'ipsec-mb': 'packets', openssl: 'packets', node: 'spare', noble: 'spare' }],
    [{ openssl: 'no such library' }, { 'ipsec-mb': 'packets', openssl: 'packets', node: 'packets', noble: 'spare' }],
    [
      { openssl: 'broken', node: 'broken' },
      { 'ipsec-mb': 'packets', openssl: 'packets', node: 'packets', noble: 'packets' },
    ],
  ] as const)('tests all that packets can be given to, and no other: without %j', (missing, uses) => {
    const { open } = opener(missing);
    const asked: Record<string, string> = {};
    selectCrypto('auto', (name, use) => {
      asked[name] = use;
      return open(name);
    });
    expect(asked).toStrictEqual(uses);
  });

  it('ends when nothing works', () => {
    const { open } = opener({ 'ipsec-mb': 'broken', openssl: 'broken', node: 'broken', noble: 'broken' });
    expect(() => selectCrypto('auto', open)).toThrow(/no cryptographic provider works: broken/);
  });

  it('has every algorithm on this machine', () => {
    const provider = chooseCrypto('auto');
    expect(provider.name).toMatch(/^(ipsec-mb\+)?(openssl\+)?node\+noble$/);
    for (const algorithm of [...encryptionAlgorithms, ...integrityAlgorithms])
      expect(provider.supports(algorithm)).toBe(true);
  });
});

describe('a name', () => {
  it.each([
    ['ipsec-mb', 'ipsec-mb+node+noble'],
    ['openssl', 'openssl+node+noble'],
    ['node', 'node+noble'],
    ['noble', 'noble'],
  ])('%s stands for %s', (name, joined) => {
    expect(selectCrypto(name, opener().open).provider.name).toBe(joined);
  });

  it('that is not available is refused with the reason, and not replaced', () => {
    const { open } = opener({ openssl: 'OpenSSL 3 is required, this process has 1.1.1' });
    expect(() => selectCrypto('openssl', open)).toThrow(SectunnelError);
    expect(() => selectCrypto('openssl', open)).toThrow(/--crypto openssl: OpenSSL 3 is required/);
  });

  it('that is unknown is answered with those that there are', () => {
    expect(() => selectCrypto('toString')).toThrow(/expected one of auto, ipsec-mb, openssl, node, noble/);
    expect(cryptoChoices).toStrictEqual(['auto', 'ipsec-mb', 'openssl', 'node', 'noble']);
  });
});

describe('providers', () => {
  it('are tested, each alone, and the pure ones always pass', () => {
    const tested = testedProviders();
    expect([...tested.keys()]).toStrictEqual(['ipsec-mb', 'openssl', 'node', 'noble']);
    expect(tested.get('node')).toBe(nodeProvider);
    expect(tested.get('noble')).toBe(nobleProvider);
    for (const result of tested.values()) expect(result).not.toBe('');
  });
});
