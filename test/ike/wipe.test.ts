/** Whatever way an IKE SA goes, at its end no key of its own is left: private values, ciphers, PRFs, copies of secrets. */
import { describe, expect, it } from 'vitest';
import { utf8 } from '../../src/base/text.ts';
import { nodeProvider } from '../../src/crypto/node/provider.ts';
import { parseEspProposalString, parseIkeProposalString } from '../../src/crypto/proposal-text.ts';
import type { CryptoProvider } from '../../src/crypto/types.ts';
import { expectSame } from '../support/ike-expect.ts';
import { A, AUTHORITY, B, FakePki, signing, turned } from '../support/ike-fake-pki.ts';
import { child, connection, mirrored, Pair, Wire } from '../support/ike-pair.ts';

const SECRET = utf8('a secret').join();

/** Counts what was made with keys and not wiped. */
class Ledger {
  readonly #alive = new Set<string>();
  readonly #keys: Uint8Array[] = [];
  readonly #secrets: Uint8Array[] = [];
  #made = 0;
  readonly crypto: CryptoProvider = {
    ...nodeProvider,
    prf: (algorithm, key) => {
      if (key.join() === SECRET) this.#secrets.push(key);
      const prf = nodeProvider.prf(algorithm, key);
      const wipe = this.#note(`prf ${algorithm.name}`, () => prf.wipe());
      return { outputLength: prf.outputLength, compute: (...parts) => prf.compute(...parts), wipe };
    },
    dhKeyPair: (group, random) => {
      const pair = nodeProvider.dhKeyPair(group, random);
      return { ...pair, wipe: this.#note(`dh ${group.name}`, () => pair.wipe()) };
    },
    packetCipher: (suite, keys) => {
      this.#keys.push(keys.encryption, keys.integrity);
      const cipher = nodeProvider.packetCipher(suite, keys);
      const { ivLength, icvLength, blockSize } = cipher;
      const wipe = this.#note('cipher', () => cipher.wipe());
      return { ivLength, icvLength, blockSize, seal: cipher.seal.bind(cipher), open: cipher.open.bind(cipher), wipe };
    },
  };

  #note(what: string, wipe: () => void): () => void {
    const name = `${what} #${++this.#made}`;
    this.#alive.add(name);
    return () => {
      this.#alive.delete(name);
      wipe();
    };
  }

  get left(): string[] {
    const keys = this.#keys.flatMap((key, i) => (key.some((byte) => byte !== 0) ? [`key ${i}`] : []));
    return [...this.#alive, ...keys];
  }

  /** Copies of the pre-shared key that were made, and those that are left. */
  get secrets(): { readonly made: number; readonly left: number } {
    return { made: this.#secrets.length, left: this.#secrets.filter((bytes) => bytes.join() === SECRET).length };
  }
}

const PFS = connection({ children: [child('c', { proposals: [parseEspProposalString('aes128gcm16-x25519')] })] });
const OTHER_GROUP = connection({ proposals: [parseIkeProposalString('aes128gcm16-prfsha256-ecp256-x25519')] });

interface Scenario {
  readonly run: (pair: Pair, wire: () => Wire) => void;
  readonly a?: ReturnType<typeof connection>;
  readonly b?: ReturnType<typeof connection>;
}

const closeBoth = (pair: Pair): void => {
  for (const host of [pair.a, pair.b]) pair.act(host, (endpoint, now) => endpoint.closeConnection(now, 'net'));
};

const scenarios: Readonly<Record<string, Scenario>> = {
  'comes up, is rekeyed with its child, is closed': {
    a: PFS,
    run: (pair) => {
      pair.up();
      pair.act(pair.a, (endpoint, now) => endpoint.rekeyChild(now, pair.a.child.id));
      pair.run();
      pair.act(pair.b, (endpoint, now) => endpoint.rekeyIkeSa(now, pair.b.ikeSa.id));
      pair.run();
      closeBoth(pair);
    },
  },
  'is rekeyed from both sides at once': {
    a: PFS,
    run: (pair) => {
      pair.up();
      for (const host of [pair.a, pair.b]) {
        pair.act(host, (endpoint, now) => {
          endpoint.rekeyChild(now, host.child.id);
          endpoint.rekeyIkeSa(now, host.ikeSa.id);
        });
      }
      pair.run(10_000);
      closeBoth(pair);
    },
  },
  'begins with a wrong group': {
    a: OTHER_GROUP,
    b: mirrored(connection()),
    run: (pair) => {
      pair.up();
      closeBoth(pair);
    },
  },
  'is refused, for another secret': {
    run: (pair) => {
      pair.b.secret = 'another';
      pair.up();
    },
  },
  'finds no common proposal': {
    b: mirrored(connection({ proposals: [parseIkeProposalString('aes256-sha256-prfsha256-modp2048')] })),
    run: (pair) => pair.up(),
  },
  'is not answered': {
    run: (pair) => {
      pair.filter = () => 'drop';
      pair.up();
    },
  },
  'is not answered in IKE_AUTH': {
    run: (pair, wire) => {
      wire();
      pair.act(pair.a, (endpoint, now) => endpoint.initiate(now, 'net'));
      pair.release();
      pair.release();
      pair.filter = () => 'drop';
    },
  },
  'is closed while IKE_AUTH is out': {
    run: (pair, wire) => {
      const moved = wire();
      pair.act(pair.a, (endpoint, now) => endpoint.initiate(now, 'net'));
      moved.pass(pair.a, pair.b);
      closeBoth(pair);
      moved.open();
    },
  },
  'has no secret': {
    run: (pair) => {
      pair.b.secret = undefined;
      pair.up();
    },
  },
  'waits for a secret that never comes': {
    run: (pair) => {
      pair.a.holdSecrets = true;
      pair.up();
    },
  },
  'is authenticated by a key here and a signature there': {
    a: signing('psk', 'signature'),
    b: turned(signing('psk', 'signature')),
    run: (pair) => {
      pair.a.pki = new FakePki(AUTHORITY, A);
      pair.b.pki = new FakePki(AUTHORITY, B);
      pair.up();
      expectSame(pair, 1);
      closeBoth(pair);
    },
  },
  'is closed while the peer is judged': {
    a: signing('psk', 'signature'),
    b: turned(signing('psk', 'signature')),
    run: (pair) => {
      pair.b.pki = new FakePki(AUTHORITY, B);
      pair.up();
      expect(pair.a.of('need-verification')).toHaveLength(1);
      closeBoth(pair);
    },
  },
  'waits for a signature that never comes, after a verdict': {
    a: signing('signature', 'signature'),
    b: turned(signing('signature', 'signature')),
    run: (pair) => {
      pair.a.pki = new FakePki(AUTHORITY, A);
      pair.up();
    },
  },
  'loses its peer in a rekeying': {
    a: PFS,
    run: (pair) => {
      pair.up();
      pair.filter = () => 'drop';
      pair.act(pair.a, (endpoint, now) => endpoint.rekeyIkeSa(now, pair.a.ikeSa.id));
      pair.act(pair.b, (endpoint, now) => endpoint.rekeyChild(now, pair.b.child.id));
    },
  },
};

describe('an IKE SA that', () => {
  it.each(Object.entries(scenarios))('%s', (_what, { run, a = connection(), b = mirrored(a) }) => {
    const [ofA, ofB] = [new Ledger(), new Ledger()];
    const pair = new Pair({ a, b, aOptions: { crypto: ofA.crypto }, bOptions: { crypto: ofB.crypto } });
    run(pair, () => new Wire(pair));
    pair.run(200_000);
    expect(pair.a.endpoint.status()).toEqual([]);
    expect(pair.b.endpoint.status()).toEqual([]);
    expect({ a: ofA.left, b: ofB.left }).toEqual({ a: [], b: [] });
    expect(ofA.secrets.left).toBe(0);
  });

  it('authenticates keeps no copy of the secret, not even while it is up', () => {
    const ledger = new Ledger();
    const pair = new Pair({ aOptions: { crypto: ledger.crypto } });
    pair.up();
    expect(pair.a.ikeSas.size).toBe(1);
    expect(ledger.secrets).toEqual({ made: 2, left: 0 });
  });
});
