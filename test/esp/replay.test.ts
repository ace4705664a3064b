import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MAX_REPLAY_WINDOW, MIN_REPLAY_WINDOW, REPLAYED, ReplayWindow, TOO_OLD } from '../../src/esp/replay.ts';

const TWO_32 = 0x1_0000_0000;

/** What RFC 4303 §3.4.3 says, with a set: the model that the bitmap is compared with. */
class Model {
  top = 0n;
  readonly seen = new Set<bigint>();
  readonly size: bigint;

  constructor(size: number) {
    this.size = BigInt(size);
  }

  receive(sequence: bigint): 'new' | 'replay' | 'old' {
    if (sequence === 0n) return 'replay';
    if (sequence + this.size <= this.top) return 'old';
    if (this.seen.has(sequence)) return 'replay';
    this.seen.add(sequence);
    if (sequence > this.top) this.top = sequence;
    return 'new';
  }
}

/**
 * Receives an authentic packet. An extended number left of the window is taken for one far ahead; its ICV does not
 * fit then, and it is refused as it should be.
 */
function receive(window: ReplayWindow, sequence: bigint): 'new' | 'replay' | 'old' {
  const low = Number(sequence & 0xffff_ffffn);
  const high = window.check(low);
  if (high === REPLAYED) return 'replay';
  if (high === TOO_OLD) return 'old';
  if (BigInt(high) !== sequence >> 32n) return 'old';
  window.accept(high, low);
  return 'new';
}

/** A window whose highest number is `top`, and which has seen nothing else. */
function windowAt(size: number, top: bigint, esn: boolean): ReplayWindow {
  const window = new ReplayWindow({ size, esn });
  window.accept(Number(top >> 32n), Number(top & 0xffff_ffffn));
  return window;
}

const SIZES = [64, 65, 95, 96, 97, 127, 128, 1000, 1024, 4096, 65_535, 65_536];

describe('window sizes', () => {
  it.each([0, 1, 32, 63, 65_537, 100.5, Number.NaN])('refuses %d', (size) => {
    expect(() => new ReplayWindow({ size, esn: false })).toThrow(RangeError);
  });

  it.each(SIZES)('%d: accepts exactly its own width, each number once', (size) => {
    const top = BigInt(size) * 3n + 17n;
    const window = windowAt(size, top, false);
    expect(receive(window, top)).toBe('replay');
    expect(receive(window, top - BigInt(size))).toBe('old');
    for (let back = 1n; back < BigInt(size); back++) {
      if (receive(window, top - back) !== 'new') expect.fail(`${top - back} refused`);
    }
    for (let back = 0n; back < BigInt(size); back++) {
      if (receive(window, top - back) !== 'replay') expect.fail(`${top - back} taken twice`);
    }
  });
});

describe.each([
  ['32-bit numbers', false],
  ['extended numbers', true],
])('%s', (_name, esn) => {
  it('accepts packets in order', () => {
    const window = new ReplayWindow({ size: 64, esn });
    for (let i = 1n; i <= 5000n; i++) {
      expect(receive(window, i)).toBe('new');
      expect(receive(window, i)).toBe('replay');
    }
    expect(window.highest).toBe(5000n);
  });

  it('refuses number 0', () => {
    const window = new ReplayWindow({ size: 64, esn });
    expect(window.check(0)).toBe(REPLAYED);
    receive(window, 1n);
    expect(window.check(0)).toBe(REPLAYED);
  });

  it('accepts the very first packets in any order', () => {
    const window = new ReplayWindow({ size: 64, esn });
    for (const sequence of [64n, 1n, 63n, 2n, 33n, 32n, 31n]) expect(receive(window, sequence)).toBe('new');
    for (const sequence of [64n, 1n, 63n, 2n, 33n, 32n, 31n]) expect(receive(window, sequence)).toBe('replay');
    receive(window, 65n);
    expect(receive(window, 3n)).toBe('new');
    expect(receive(window, 1n)).toBe('old');
  });

  it.each([1, 31, 32, 33, 63, 64, 65, 95, 96, 97, 127, 128, 129, 4095, 4096, 100_000])(
    'forgets nothing and invents nothing over a jump of %d',
    (jump) => {
      for (const start of [1n, 31n, 32n, 33n, 63n, 64n, 65n, 1000n, 1023n, 1024n]) {
        const model = new Model(64);
        const window = new ReplayWindow({ size: 64, esn });
        for (let i = start > 70n ? start - 70n : 1n; i <= start; i += 2n) {
          expect(receive(window, i)).toBe(model.receive(i));
        }
        const top = start + BigInt(jump);
        expect(receive(window, top)).toBe(model.receive(top));
        for (let i = top; i > 0n && i > top - 200n; i--) expect(receive(window, i)).toBe(model.receive(i));
      }
    },
  );

  it('is not moved by a check alone', () => {
    const window = windowAt(64, 100n, esn);
    expect(window.check(1_000_000)).toBe(0);
    expect(window.highest).toBe(100n);
    expect(receive(window, 50n)).toBe('new');
    expect(receive(window, 37n)).toBe('new');
    expect(receive(window, 36n)).toBe('old');
  });

  it('agrees with the model for any arrivals', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: MIN_REPLAY_WINDOW, max: 300 }),
        fc.array(
          fc.oneof(
            { weight: 6, arbitrary: fc.integer({ min: -80, max: 40 }) },
            { weight: 1, arbitrary: fc.integer({ min: -400, max: 1500 }) },
          ),
          { maxLength: 300 },
        ),
        (size, steps) => {
          const model = new Model(size);
          const window = new ReplayWindow({ size, esn });
          let at = 1n;
          for (const step of steps) {
            at += BigInt(step);
            if (at < 1n) at = 1n;
            expect(receive(window, at)).toBe(model.receive(at));
          }
          expect(window.highest).toBe(model.top);
        },
      ),
      { numRuns: 200 },
    );
  });
});

describe('32-bit numbers at their end', () => {
  it('does not wrap', () => {
    const window = windowAt(64, 0xffff_ffffn, false);
    expect(window.check(0)).toBe(REPLAYED);
    expect(window.check(1)).toBe(TOO_OLD);
    expect(receive(window, 0xffff_ffffn - 63n)).toBe('new');
    expect(receive(window, 0xffff_ffffn - 64n)).toBe('old');
  });
});

describe('extended numbers across 2^32', () => {
  it.each([64, 65, 1024, MAX_REPLAY_WINDOW])('window %d: agrees with the model around the boundary', (size) => {
    const boundary = BigInt(TWO_32);
    for (const first of [boundary - 40n, boundary - 1n, boundary, boundary + 1n, boundary + BigInt(size) - 2n]) {
      const model = new Model(size);
      const window = windowAt(size, first, true);
      model.receive(first);
      let at = first;
      for (let i = 0; i < 3000; i++) {
        at += BigInt([3, -5, 1, 1, 9, -2, -30, 31, 0, 7][i % 10]!);
        expect(receive(window, at)).toBe(model.receive(at));
      }
      expect(window.highest).toBe(model.top);
    }
  });

  it('accepts late packets of the half-space before, and only within the window', () => {
    const window = windowAt(64, 10n + BigInt(TWO_32), true);
    expect(receive(window, BigInt(TWO_32))).toBe('new');
    expect(receive(window, BigInt(TWO_32) - 1n)).toBe('new');
    expect(receive(window, BigInt(TWO_32) - 53n)).toBe('new');
    expect(receive(window, BigInt(TWO_32) - 53n)).toBe('replay');
    expect(receive(window, BigInt(TWO_32) - 54n)).toBe('old');
  });

  it('goes over the boundary although everything near it was lost', () => {
    const window = windowAt(64, 0xf000_0000n, true);
    expect(receive(window, BigInt(TWO_32) + 0x1000_0000n)).toBe('new');
    expect(window.highest).toBe(BigInt(TWO_32) + 0x1000_0000n);
    expect(receive(window, 0xf000_0000n)).not.toBe('new');
  });

  it('guesses the high half as RFC 4303 appendix A2.2 has it', () => {
    const within = windowAt(64, 5n * BigInt(TWO_32) + 1000n, true);
    expect(within.check(937)).toBe(5);
    expect(within.check(936)).toBe(6);
    expect(within.check(0)).toBe(6);
    expect(within.check(0xffff_ffff)).toBe(5);
    const across = windowAt(64, 5n * BigInt(TWO_32) + 10n, true);
    expect(across.check(0xffff_ffff)).toBe(4);
    expect(across.check(0xffff_ffff - 52)).toBe(4);
    expect(across.check(0xffff_ffff - 53)).toBe(5);
    expect(across.check(11)).toBe(5);
  });

  it('has nothing before the first half-space', () => {
    const window = windowAt(64, 10n, true);
    expect(window.check(0xffff_ffff)).toBe(TOO_OLD);
    expect(window.check(0xffff_0000)).toBe(0);
  });

  it('never goes past 2^64', () => {
    const window = new ReplayWindow({ size: 64, esn: true });
    window.accept(0xffff_ffff, 0xffff_fff0);
    expect(window.check(0xffff_ffff)).toBe(0xffff_ffff);
    expect(window.check(5)).toBe(TOO_OLD);
  });
});

describe('a window that continues from another', () => {
  it.each([0, 1, 30, 31, 32, 63, 64, 1_000, 0xffff_fffe])(
    'refuses all numbers up to %d, and takes those above',
    (last) => {
      for (const esn of [false, true]) {
        const top = new Uint32Array(2);
        const before = new ReplayWindow({ size: 128, esn, top });
        if (last > 0) before.accept(0, last);
        const after = new ReplayWindow({ size: 128, esn, top });
        expect(after.highest).toBe(BigInt(last));
        for (let number = Math.max(0, last - 200); number <= last; number++) expectRefused(after, number);
        const most = Math.min(200, 0xffff_ffff - last);
        // Out of order, as they may come.
        for (let ahead = most; ahead > 0; ahead -= 1 + (ahead & 1)) {
          if (ahead <= most - 128) break;
          const high = after.check(last + ahead);
          expect(high).toBe(0);
          after.accept(high, last + ahead);
          expect(after.check(last + ahead)).toBe(REPLAYED);
        }
        for (let number = Math.max(0, last - 200); number <= last; number++) expectRefused(after, number);
        expect([...top]).toEqual([0, last + most]);
      }
    },
  );
});

/** With ESN the number may stand for one of the next half-space, which the ICV tells. */
function expectRefused(window: ReplayWindow, number: number): void {
  expect([REPLAYED, TOO_OLD, 1]).toContain(window.check(number));
}
