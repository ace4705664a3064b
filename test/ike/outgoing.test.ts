/** Messages in fragments (RFC 7383 §2.5, §2.6): sealed, and put together again. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { encryptionByName, integrityByName } from '../../src/crypto/algorithms.ts';
import { nodeProvider } from '../../src/crypto/node/provider.ts';
import type { PacketCipher } from '../../src/crypto/types.ts';
import { datagramSizes, type Outgoing, sealOutgoing } from '../../src/ike/protect/outgoing.ts';
import { type FragmentPlace, openPart } from '../../src/ike/protect/protect.ts';
import { FragmentBudget, MAX_FRAGMENTS, Reassembly, type Whole } from '../../src/ike/protect/reassembly.ts';
import { ExchangeType, PayloadType } from '../../src/ike/wire/iana.ts';
import { decodeMessage, type IkeHeader } from '../../src/ike/wire/message.ts';
import type { Payload } from '../../src/ike/wire/payload.ts';
import { counting } from './arbitraries.ts';

const HEADER: IkeHeader = {
  initiatorSpi: 1n,
  responderSpi: 2n,
  exchange: ExchangeType.IKE_AUTH,
  initiator: true,
  response: false,
  messageId: 1,
};

function makeCipher(name: string, mac?: string): PacketCipher {
  const encryption = encryptionByName(name)!;
  const integrity = mac === undefined ? undefined : integrityByName(mac)!;
  return nodeProvider.packetCipher(
    { encryption, integrity },
    {
      encryption: counting(encryption.keyLength + encryption.saltLength),
      integrity: counting(integrity?.keyLength ?? 0),
    },
  );
}

const GCM = makeCipher('aes128gcm16');
const CBC = makeCipher('aes128', 'sha256');

function seal(cipher: PacketCipher, lengths: readonly number[], sizes: readonly number[], alive = true): Outgoing {
  let counter = 0;
  const payloads: Payload[] = lengths.map((length) => ({ type: 'vendor', data: counting(length) }));
  const message = { header: HEADER, payloads, cipher, nextCounter: () => counter++, alive: () => alive };
  return sealOutgoing(message, sizes);
}

/** All messages that come out of these datagrams. */
function gather(cipher: PacketCipher, datagrams: readonly Uint8Array[], budget: FragmentBudget): Whole[] {
  const reassembly = new Reassembly(budget);
  return datagrams.flatMap((datagram) => {
    const { header, protectedPart } = decodeMessage(datagram);
    const place = protectedPart!.fragment!;
    if (reassembly.judge(header, place) !== 'new') return [];
    const { message, start, end } = openPart(datagram, protectedPart!, cipher)!;
    const whole = reassembly.add(header, place, protectedPart!.firstPayload, message.subarray(start, end), datagram);
    return typeof whole === 'object' ? [whole] : [];
  });
}

describe('a message', () => {
  it('fits the size that is asked for, fills it, and comes out whole in any order, however often', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(GCM, CBC),
        fc.integer({ min: 0, max: 6_000 }),
        fc.integer({ min: 120, max: 1_400 }),
        fc.array(fc.nat(), { minLength: 120, maxLength: 120 }),
        (cipher, length, size, keys) => {
          const { datagrams } = seal(cipher, [length], [size]);
          expect(Math.max(...datagrams.map((datagram) => datagram.length))).toBeLessThanOrEqual(size);
          if (datagrams.length === 1) {
            expect(decodeMessage(datagrams[0]!).protectedPart!.kind).toBe('sk');
            return;
          }
          for (const [i, datagram] of datagrams.entries()) {
            const part = decodeMessage(datagram).protectedPart!;
            expect(part).toMatchObject({ kind: 'skf', fragment: { number: i + 1, total: datagrams.length } });
            // RFC 7383 §2.5: the type of what is inside stands in the first alone.
            expect(part.firstPayload).toBe(i === 0 ? PayloadType.VENDOR : PayloadType.NONE);
            if (i < datagrams.length - 1) expect(datagram.length).toBeGreaterThan(size - cipher.blockSize);
          }
          const budget = new FragmentBudget();
          const shuffled = [...datagrams, ...datagrams]
            .map((datagram, i) => ({ datagram, key: keys[i % keys.length]! }))
            .sort((a, b) => a.key - b.key)
            .map(({ datagram }) => datagram);
          const [whole] = gather(cipher, shuffled, budget);
          expect(whole!.firstPayload).toBe(PayloadType.VENDOR);
          expect(whole!.content.subarray(4)).toEqual(counting(length));
          expect(whole!.first).toEqual(datagrams[0]);
        },
      ),
      { numRuns: 60 },
    );
  });

  it('becomes more and smaller fragments, until there is nothing smaller', () => {
    const totals: number[] = [];
    const sizes = datagramSizes(9_000, 4);
    expect(sizes).toEqual([8_968, 1_248, 544]);
    let set: Outgoing | undefined = seal(GCM, [5_000], sizes);
    for (; set !== undefined; set = set.smaller()) totals.push(set.datagrams.length);
    expect(totals).toEqual([1, 5, 11]);
    // One that fits the next size too goes on to the one after.
    expect(seal(GCM, [800], sizes).smaller()?.datagrams).toHaveLength(2);
    expect(seal(GCM, [300], sizes).smaller()).toBeUndefined();
    expect(datagramSizes(1_280, 6)).toEqual([1_228]);
    expect(datagramSizes(1_280, 4)).toEqual([1_248, 544]);
    expect(datagramSizes(576, 4)).toEqual([544]);
    expect(datagramSizes(9_000, 4, 1_368)).toEqual([1_368, 1_248, 544]);
    expect(datagramSizes(9_000, 4, 100)).toEqual([544]);
    expect(datagramSizes(576, 4, 1_248)).toEqual([544]);
  });

  it('keeps nothing of what it was made of where there is nothing smaller, as nearly all do', () => {
    const sizes = datagramSizes(1_280, 4);
    expect(seal(GCM, [300], sizes).smaller).toBe(seal(CBC, [200], sizes).smaller);
    expect(seal(GCM, [800], sizes).smaller).not.toBe(seal(GCM, [800], sizes).smaller);
  });

  it('is in one piece where there are to be no fragments: RangeError beyond what SK can carry', () => {
    expect(seal(GCM, [60_000], []).datagrams).toHaveLength(1);
    expect(() => seal(GCM, [60_000, 60_000], [])).toThrow(RangeError);
    expect(seal(GCM, [60_000, 60_000], [1_248]).datagrams).toHaveLength(102);
  });

  it('is not sealed again when the keys are gone', () => {
    expect(seal(GCM, [3_000], datagramSizes(1_280, 4), true).smaller()).toBeDefined();
    expect(seal(GCM, [3_000], datagramSizes(1_280, 4), false).smaller()).toBeUndefined();
  });
});

describe('Reassembly', () => {
  const piece = counting(10);
  const place = (number: number, total: number): FragmentPlace => ({ number, total });

  it('knows what it has, an older set, and what there is no place for', () => {
    const reassembly = new Reassembly(new FragmentBudget());
    expect(reassembly.judge(HEADER, place(1, MAX_FRAGMENTS))).toBe('new');
    expect(reassembly.judge(HEADER, place(1, MAX_FRAGMENTS + 1))).toBe('refused');
    reassembly.add(HEADER, place(2, 3), 0, piece, piece);
    expect(reassembly.judge(HEADER, place(2, 3))).toBe('known');
    expect(reassembly.judge(HEADER, place(1, 3))).toBe('new');
    expect(reassembly.judge(HEADER, place(1, 2))).toBe('known');
    expect(reassembly.judge(HEADER, place(1, 4))).toBe('new');
    expect(reassembly.judge({ ...HEADER, exchange: ExchangeType.INFORMATIONAL }, place(1, 3))).toBe('refused');
    expect(reassembly.judge({ ...HEADER, messageId: 2 }, place(2, 3))).toBe('new');
  });

  it('starts anew for a larger total, and for another message', () => {
    const budget = new FragmentBudget();
    const reassembly = new Reassembly(budget);
    reassembly.add(HEADER, place(1, 2), PayloadType.IDi, piece, piece);
    // The first is kept as a datagram too.
    expect(budget.held).toBe(20);
    expect(reassembly.add(HEADER, place(2, 3), 0, piece, piece)).toBeUndefined();
    expect(budget.held).toBe(10);
    expect(reassembly.add(HEADER, place(3, 3), 0, piece, piece)).toBeUndefined();
    const next = { ...HEADER, messageId: 2 };
    expect(reassembly.add(next, place(2, 2), 0, piece, piece)).toBeUndefined();
    const whole = reassembly.add(next, place(1, 2), PayloadType.IDi, piece, piece);
    expect(whole).toMatchObject({ firstPayload: PayloadType.IDi, first: piece });
    expect(budget.held).toBe(0);
    expect(reassembly.isEmpty).toBe(true);
  });

  it('holds no more than a message may have, nor than all may have together', () => {
    const budget = new FragmentBudget();
    const reassembly = new Reassembly(budget);
    const big = new Uint8Array(0x8000);
    const results = Array.from({ length: 9 }, (_, i) => reassembly.add(HEADER, place(i + 2, 12), 0, big, big));
    expect(results).toEqual([...new Array(8).fill(undefined), 'full']);
    reassembly.drop();
    expect(budget.held).toBe(0);
    for (let i = 0; i < 0x400; i++) expect(budget.take(0x8000, 0)).toBe(true);
    expect(reassembly.add(HEADER, place(1, 2), 0, piece, piece)).toBe('full');
    reassembly.drop();
    expect(budget.held).toBe(0x200_0000);
  });

  it('keeps half of the room for messages of the usual size', () => {
    const budget = new FragmentBudget();
    const big = new Uint8Array(0x7000);
    const flood = Array.from({ length: 200 }, () => {
      const reassembly = new Reassembly(budget);
      for (let number = 2; number < 10; number++) if (reassembly.add(HEADER, place(number, 12), 0, big, big)) break;
      return reassembly;
    });
    expect(budget.held).toBeLessThan(0x200_0000);
    const usual = new Reassembly(budget);
    for (let number = 2; number <= 4; number++) {
      expect(usual.add(HEADER, place(number, 4), 0, new Uint8Array(1_200), piece)).toBeUndefined();
    }
    expect(usual.add(HEADER, place(1, 4), PayloadType.IDi, piece, piece)).toMatchObject({ first: piece });
    for (const reassembly of flood) reassembly.drop();
    expect(budget.held).toBe(0);
  });
});
