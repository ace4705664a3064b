/** Native libraries, the addresses of buffers, and memory that is given back once. */
import { describe, expect, it } from 'vitest';
import { NativeUnavailableError, openLibrary } from '../../src/sys/ffi.ts';
import { addressOf, alignedMemory } from '../../src/sys/native-memory.ts';
import { releaseOnce } from '../../src/sys/release.ts';

describe('release', () => {
  it('happens once, however often it is called', () => {
    let released = 0;
    const release = releaseOnce({}, () => void released++);
    expect(released).toBe(0);
    release();
    release();
    expect(released).toBe(1);
  });
});

describe('addresses', () => {
  it.runIf(process.platform === 'linux')('point to the bytes; aligned memory is zeroed', () => {
    const whole = new Uint8Array(5000);
    expect(addressOf(whole.subarray(77))).toBe(addressOf(whole) + 77);
    for (const length of [1, 48, 1168]) {
      const { bytes, address } = alignedMemory(length);
      expect(address % 64).toBe(0);
      expect(address).toBe(addressOf(bytes));
      expect(bytes).toHaveLength(length);
      expect(bytes.every((byte) => byte === 0)).toBe(true);
    }
  });

  it.runIf(process.platform === 'linux')('stay the same when more buffers are asked for in turn', () => {
    const buffers = Array.from({ length: 4 }, () => new Uint8Array(64));
    const first = buffers.map(addressOf);
    expect(new Set(first).size).toBe(4);
    for (const i of [0, 1, 0, 2, 1, 3, 3, 0]) expect(addressOf(buffers[i]!)).toBe(first[i]);
  });
});

describe('libraries', () => {
  it('that are missing, and missing functions, are named', () => {
    expect(() => openLibrary('libno-such-thing.so.7')).toThrow(NativeUnavailableError);
    expect(() => openLibrary('libno-such-thing.so.7')).toThrow(/libno-such-thing/);
    expect(() => openLibrary(null).func('int no_such_function_anywhere(int a)')).toThrow(/no_such_function_anywhere/);
  });
});
