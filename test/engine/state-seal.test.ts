/** Sealed records of state: who may open them, and why others are refused. */
import { describe, expect, it } from 'vitest';
import { toHex } from '../../src/base/bytes.ts';
import { nobleProvider } from '../../src/crypto/noble/provider.ts';
import { nodeProvider } from '../../src/crypto/node/provider.ts';
import { openState, STATE_KEY_LENGTH, type StateRefusal, sealState } from '../../src/engine/state/seal.ts';
import { chooseCrypto } from '../../src/host/crypto.ts';
import { Random } from '../support/ike-pair.ts';

const random = new Random(1).bytes;
const KEY = { crypto: nodeProvider, key: random(STATE_KEY_LENGTH) };
const HERE = { host: 'a machine', boot: 'its first boot' };

function reasonOf(opened: ReturnType<typeof openState>): StateRefusal['reason'] | undefined {
  return 'reason' in opened ? opened.reason : undefined;
}

describe('a sealed record', () => {
  it.each([0, 1, 1_000, 3_000_000])('of %i bytes is opened where it was written, by any provider', (length) => {
    const state = Uint8Array.from({ length }, (_, at) => at * 7);
    const sealed = sealState(KEY, HERE, state, random);
    for (const crypto of [nodeProvider, nobleProvider, chooseCrypto('auto')]) {
      const opened = openState({ ...KEY, crypto }, HERE, sealed);
      expect('state' in opened && Buffer.compare(opened.state, state)).toBe(0);
    }
  });

  it('shows nothing of what is inside, and is another each time', () => {
    const state = new Uint8Array(64).fill(0x5a);
    const [one, two] = [1, 2].map(() => toHex(sealState(KEY, HERE, state, random)));
    expect(one).not.toContain('5a5a5a5a');
    expect(one!.slice(-160)).not.toBe(two!.slice(-160));
  });

  const sealed = sealState(KEY, HERE, random(100), random);

  it.each<[StateRefusal['reason'], ReturnType<typeof openState>]>([
    ['other-host', openState(KEY, { ...HERE, host: 'another' }, sealed)],
    ['older-than-boot', openState(KEY, { ...HERE, boot: 'its second boot' }, sealed)],
    ['other-key', openState({ ...KEY, key: random(STATE_KEY_LENGTH) }, HERE, sealed)],
    ['other-version', openState(KEY, HERE, sealed.with(9, 2))],
    ['not-a-record', openState(KEY, HERE, sealed.with(0, 0))],
    ['torn', openState(KEY, HERE, sealed.subarray(0, 20))],
    ['torn', openState(KEY, HERE, sealed.subarray(0, -1))],
    ['torn', openState(KEY, HERE, Uint8Array.of(...sealed, 0))],
    ['torn', openState(KEY, HERE, new Uint8Array(0))],
  ])('is refused: %s', (reason, opened) => {
    expect(reasonOf(opened)).toBe(reason);
  });

  it('is refused wherever a bit of it was changed, and wherever it ends', () => {
    for (let at = 0; at < sealed.length; at++) {
      expect(reasonOf(openState(KEY, HERE, sealed.with(at, sealed[at]! ^ 1)))).toBeDefined();
      expect(reasonOf(openState(KEY, HERE, sealed.subarray(0, at)))).toBeDefined();
    }
  });
});
