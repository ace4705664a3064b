import { randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { keyWeakness } from '../../src/base/key-strength.ts';
import { utf8 } from '../../src/base/text.ts';

describe('a pre-shared key', () => {
  it.each([
    ['', 'it has 0 bytes'],
    ['secret', 'it has 6 bytes'],
    ['Tr0ub4dor&3', 'it has 11 bytes'],
    ['nineteen bytes long', 'it has 19 bytes'],
    ['a'.repeat(64), 'it repeats itself after 1 bytes'],
    ['S3cr3t!'.repeat(8), 'it repeats itself after 7 bytes'],
    ['abababababababababababa', 'it repeats itself after 2 bytes'],
    ['0110100010111000110101100101111', 'it is made of 2 different bytes'],
    ['12345678901234567890a', 'it is worth about'],
    ['abcdefghijklmnopqrstuvwxyz0123456789', 'it is worth about'],
    ['correct horse battery staple', 'it is worth about'],
    ['CorrectHorseBatteryStaple', 'it is worth about'],
    ['Password1234567890!!x', 'it is worth about'],
    ['mycompany-vpn-shared-key', 'it is worth about'],
    ['31415926535897932384', 'it is worth about'],
  ])('such as %s can be guessed: %s', (key, why) => {
    const found = keyWeakness(utf8(key));
    expect(found).toContain(why);
    if (key !== '') expect(found).not.toContain(key);
  });

  it.each([
    ['seven words of a die', 'mauve trench onto pebble gimmick rush wigwam'],
    ['32 hexadecimal digits', '9f86d081884c7d659a2feaa0c55ad015'],
    ['24 characters of a generator', 'vJ7$kQ2m#Zr9!wXb4@Tn6^Ls'],
    ['the least length', 'h7Kp2Xr9Qm4Zt6Wb8Yn3'],
  ])('of %s cannot', (_what, key) => {
    expect(keyWeakness(utf8(key))).toBeUndefined();
  });

  it('of random bytes cannot, as they are or in base64 or hexadecimal digits', () => {
    for (let i = 0; i < 2_000; i++) {
      const bytes = randomBytes(32);
      expect(keyWeakness(bytes)).toBeUndefined();
      expect(keyWeakness(utf8(bytes.toString('base64')))).toBeUndefined();
      expect(keyWeakness(utf8(bytes.toString('hex')))).toBeUndefined();
    }
  });
});
