/** A message that another implementation made: an independent check of codec, NAT hashes, proposals and rules. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { parseAddress } from '../../src/base/address.ts';
import { fromHex, toHex } from '../../src/base/bytes.ts';
import { dhGroupById, encryptionById, integrityById, prfById } from '../../src/crypto/algorithms.ts';
import { nodeProvider } from '../../src/crypto/node/provider.ts';
import { parseIkeProposalString } from '../../src/crypto/proposal-text.ts';
import { chooseIke } from '../../src/ike/proposals/proposals.ts';
import { TransformType } from '../../src/ike/wire/iana.ts';
import { decodeMessage, encodePlain } from '../../src/ike/wire/message.ts';
import { detectNat } from '../../src/ike/wire/nat.ts';
import { findPayload } from '../../src/ike/wire/payload.ts';
import { checkRules } from '../../src/ike/wire/rules.ts';

const vector = JSON.parse(readFileSync(new URL('../../vectors/ike-strongswan.json', import.meta.url), 'utf8')) as {
  message: string;
};
const { header, payloads } = decodeMessage(fromHex(vector.message));
const proposals = findPayload(payloads, 'sa')!.proposals;

describe('IKE_SA_INIT of strongSwan', () => {
  it('is read, and written again byte for byte', () => {
    expect(payloads.map((payload) => payload.type)).toEqual(['sa', 'ke', 'nonce', ...Array(5).fill('notify')]);
    expect(toHex(encodePlain(header, payloads))).toBe(vector.message);
  });

  it('fits the rules', () => {
    expect(checkRules({ ...header, encrypted: false }, payloads)).toBeUndefined();
  });

  it('has the NAT hashes that we compute', () => {
    const from = { address: parseAddress('10.9.9.1')!, port: 500 };
    const to = { address: parseAddress('10.9.9.2')!, port: 5500 };
    expect(detectNat(nodeProvider, header, to, from, payloads)).toEqual({
      supported: true,
      localBehindNat: false,
      remoteBehindNat: false,
    });
    expect(detectNat(nodeProvider, header, to, { ...from, port: 501 }, payloads).remoteBehindNat).toBe(true);
  });

  it('offers algorithms that are in our table, but for Camellia', () => {
    const unknown = proposals
      .flatMap((proposal) => proposal.transforms)
      .filter(({ type, id, keyBits }) => {
        switch (type) {
          case TransformType.ENCR:
            return encryptionById(id, keyBits) === undefined;
          case TransformType.INTEG:
            return integrityById(id) === undefined;
          case TransformType.PRF:
            return prfById(id) === undefined;
          default:
            return dhGroupById(id) === undefined;
        }
      });
    expect([...new Set(unknown.map(({ id }) => id))]).toEqual([23, 24, 3]);
  });

  it('is chosen from', () => {
    const chosen = chooseIke(proposals, [parseIkeProposalString('aes256gcm16-prfsha384-x25519')], 'ike-sa-init');
    expect(chosen?.proposal).toMatchObject({
      number: 2,
      transforms: [{ id: 20, keyBits: 256 }, { id: 6 }, { id: 31 }],
    });
  });
});
