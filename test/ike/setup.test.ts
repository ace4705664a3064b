/** IKE_SA_INIT and IKE_AUTH between two endpoints, the plain way and refused in every way. */
import { describe, expect, it } from 'vitest';
import { expectSame } from '../support/ike-expect.ts';
import { Pair } from '../support/ike-pair.ts';

describe('set-up', () => {
  it('brings up an IKE SA and a CHILD SA in two exchanges', () => {
    const pair = new Pair();
    pair.up();
    expect(pair.sent).toHaveLength(4);
    expectSame(pair, 1);
    expect(pair.a.child.suite.encryption.name).toBe('aes128gcm16');
  });
});
