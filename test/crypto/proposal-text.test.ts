import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  defaultEspProposals,
  defaultIkeProposals,
  dhGroupByName,
  dhGroups,
  encryptionAlgorithms,
  encryptionByName,
  integrityAlgorithms,
  prfAlgorithms,
  prfByName,
} from '../../src/crypto/algorithms.ts';
import type { EspProposal, IkeProposal } from '../../src/crypto/proposal.ts';
import {
  formatProposal,
  formatSuite,
  ProposalError,
  type ProposalText,
  parseEspProposal,
  parseEspProposalString,
  parseIkeProposal,
  parseIkeProposalString,
} from '../../src/crypto/proposal-text.ts';
import { need } from './support.ts';

interface Named {
  readonly name: string;
}

function names(proposal: IkeProposal | EspProposal): Record<string, readonly (string | boolean)[]> {
  const list = (entries: readonly Named[]): string[] => entries.map((entry) => entry.name);
  const common = {
    encryption: list(proposal.encryption),
    integrity: list(proposal.integrity),
    dh: list(proposal.dh),
  };
  return 'prf' in proposal ? { ...common, prf: list(proposal.prf) } : { ...common, esn: proposal.esn };
}

describe('a word that is not known', () => {
  it.each([
    ['aes256-gcm', 'aes256gcm16'],
    ['AES-128-GCM', 'aes128gcm16'],
    ['aes-256-ccm', 'aes256ccm16'],
    ['aes265gcm16', 'aes256gcm16'],
    ['chacha20poly1350', 'chacha20poly1305'],
  ])('%s: the name that may have been meant is told', (found, meant) => {
    const message = `'${found.toLowerCase().replace('aes-', 'aes')}' is not a known`;
    for (const parse of [
      () => parseIkeProposal({ encryption: found, prf: 'sha256', dh: 'x25519' }),
      () => parseEspProposalString(`${found}-x25519`),
    ]) {
      expect(parse).toThrow(message);
      expect(parse).toThrow(`(did you mean '${meant}'?)`);
    }
  });

  it('and is near to none is refused without a guess', () => {
    expect(() => parseEspProposalString('twofish-x25519')).toThrow(/'twofish' is not a known algorithm;/);
  });
});

describe('an IKE proposal', () => {
  it.each<[ProposalText, Record<string, readonly string[]>]>([
    [
      { encryption: 'aes256gcm16', prf: 'sha384', dh: 'ecp384' },
      { encryption: ['aes256gcm16'], integrity: [], prf: ['prfsha384'], dh: ['ecp384'] },
    ],
    [
      { encryption: 'aes256', integrity: 'sha256', prf: 'sha256', dh: 'x25519' },
      { encryption: ['aes256'], integrity: ['sha256'], prf: ['prfsha256'], dh: ['x25519'] },
    ],
    [
      { encryption: 'aes256, aes128', integrity: 'sha384 sha256', dh: 'curve25519-ecp256' },
      {
        encryption: ['aes256', 'aes128'],
        integrity: ['sha384', 'sha256'],
        prf: ['prfsha384', 'prfsha256'],
        dh: ['x25519', 'ecp256'],
      },
    ],
    [
      { encryption: 'aes128-cbc', integrity: 'aesxcbc', dh: 'modp2048' },
      { encryption: ['aes128'], integrity: ['aesxcbc'], prf: ['prfaesxcbc'], dh: ['modp2048'] },
    ],
    [
      { encryption: 'aes128gcm16', dh: 'x25519' },
      {
        encryption: ['aes128gcm16'],
        integrity: [],
        prf: ['prfsha256', 'prfsha384', 'prfsha512'],
        dh: ['x25519'],
      },
    ],
    [
      { encryption: 'aes128-sha256-x25519' },
      { encryption: ['aes128'], integrity: ['sha256'], prf: ['prfsha256'], dh: ['x25519'] },
    ],
  ])('is read from %o', (text, expected) => {
    expect(names(parseIkeProposal(text))).toStrictEqual(expected);
  });

  it.each([
    ['aes128-sha256-x25519', ['aes128'], ['sha256'], ['prfsha256'], ['x25519']],
    ['aes128gcm16-prfsha256-x25519', ['aes128gcm16'], [], ['prfsha256'], ['x25519']],
    ['aes256gcm128-sha384-ecp384', ['aes256gcm16'], [], ['prfsha384'], ['ecp384']],
    ['AES256-SHA512-PRFSHA384-MODP4096', ['aes256'], ['sha512'], ['prfsha384'], ['modp4096']],
    ['chacha20poly1305-prfsha512-curve448', ['chacha20poly1305'], [], ['prfsha512'], ['x448']],
    ['aes128ctr-aescmac-prfaescmac-ecp256bp', ['aes128ctr'], ['aescmac'], ['prfaescmac'], ['ecp256bp']],
  ])('is read from %s', (text, encryption, integrity, prf, dh) => {
    expect(names(parseIkeProposalString(text))).toStrictEqual({ encryption, integrity, prf, dh });
  });

  it.each<[ProposalText, RegExp]>([
    [
      { encryption: 'aes257', integrity: 'sha256', dh: 'x25519' },
      /'aes257' is not a known encryption algorithm \(did you mean 'aes256'\?\);.*aes128gcm16/,
    ],
    [
      { encryption: 'sha256', dh: 'x25519' },
      /'sha256' is not a known encryption algorithm \(it is a name for integrity\)/,
    ],
    [
      { encryption: '3des', integrity: 'sha256', dh: 'x25519' },
      /'3des' is not supported: it is too weak; allowed in encryption/,
    ],
    [
      { encryption: 'aes128', integrity: 'sha256', dh: 'modp1024' },
      /'modp1024' is not supported.*allowed in dh: x25519/,
    ],
    [{ encryption: 'aes128gcm16', integrity: 'sha256', dh: 'x25519' }, /has its own integrity.*'prfsha256'/],
    [{ encryption: 'aes128', dh: 'x25519' }, /'aes128' has no integrity of its own.*sha256/],
    [{ encryption: 'aes128,aes128gcm16', dh: 'x25519' }, /cannot stand in one proposal.*one proposal for each/],
    [{ encryption: 'null', integrity: 'sha256', dh: 'x25519' }, /'null'.*ESP only/],
    [{ encryption: 'aes128', integrity: 'sha256' }, /needs a key exchange group in dh: x25519/],
    [{ integrity: 'sha256', dh: 'x25519' }, /needs an encryption algorithm/],
    [{}, /needs an encryption algorithm/],
    [{ encryption: 'aes128', integrity: 'sha256', dh: ' ' }, /dh is empty/],
    [{ encryption: 'aes128gcm16', dh: 'x25519', esn: 'yes' }, /esn belongs to ESP/],
    [{ encryption: 'aes128-sha256-frob' }, /'frob' is not a known algorithm; encryption: .*; prf: .*; dh: /],
    [{ encryption: 'aes128-md5-modp1024' }, /'md5' is not supported: it is too weak/],
  ])('is refused with a reason: %o', (text, message) => {
    expect(() => parseIkeProposal(text)).toThrow(ProposalError);
    expect(() => parseIkeProposal(text)).toThrow(message);
  });
});

describe('an ESP proposal', () => {
  it.each<[ProposalText, Record<string, readonly (string | boolean)[]>]>([
    [
      { encryption: 'aes256gcm16', dh: 'x25519', esn: 'yes' },
      { encryption: ['aes256gcm16'], integrity: [], dh: ['x25519'], esn: [true] },
    ],
    [
      { encryption: 'aes128 aes256', integrity: 'sha1', esn: 'no' },
      { encryption: ['aes128', 'aes256'], integrity: ['sha1'], dh: [], esn: [false] },
    ],
    [
      { encryption: 'null', integrity: 'sha256', dh: 'none' },
      { encryption: ['null'], integrity: ['sha256'], dh: [], esn: [true, false] },
    ],
    [
      { encryption: 'aes128gcm16-ecp256', esn: 'yes' },
      { encryption: ['aes128gcm16'], integrity: [], dh: ['ecp256'], esn: [true] },
    ],
  ])('is read from %o', (text, expected) => {
    expect(names(parseEspProposal(text))).toStrictEqual(expected);
  });

  it.each([
    ['aes128gcm16', ['aes128gcm16'], [], [], [true, false]],
    ['aes256-sha256-modp2048-noesn', ['aes256'], ['sha256'], ['modp2048'], [false]],
    ['aes128ccm8-esn-noesn', ['aes128ccm8'], [], [], [true, false]],
  ])('is read from %s', (text, encryption, integrity, dh, esn) => {
    expect(names(parseEspProposalString(text))).toStrictEqual({ encryption, integrity, dh, esn });
  });

  it.each<[ProposalText, RegExp]>([
    [{ encryption: 'aes128gcm16', prf: 'sha256' }, /prf belongs to IKE/],
    [{ encryption: 'aes128gcm16-prfsha256' }, /'prfsha256' is not a known algorithm/],
    [{ encryption: 'aes128gcm16', integrity: 'sha256' }, /has its own integrity/],
    [{ encryption: 'aes128' }, /needs an integrity algorithm/],
    [{ encryption: 'null' }, /'null' has no integrity of its own/],
    [{ encryption: 'aes128gcm16', esn: 'maybe' }, /esn='maybe' is not known; write 'yes', 'no'/],
  ])('is refused with a reason: %o', (text, message) => {
    expect(() => parseEspProposal(text)).toThrow(ProposalError);
    expect(() => parseEspProposal(text)).toThrow(message);
  });
});

describe('text of proposals', () => {
  const aeads = encryptionAlgorithms.filter((cipher) => cipher.aead);
  const plain = encryptionAlgorithms.filter((cipher) => !cipher.aead && !cipher.espOnly);
  const some = <T>(table: readonly T[]): fc.Arbitrary<T[]> => fc.shuffledSubarray([...table], { minLength: 1 });
  const ciphers = fc.oneof(
    fc.record({ encryption: some(aeads), integrity: fc.constant([]) }),
    fc.record({ encryption: some(plain), integrity: some(integrityAlgorithms) }),
  );

  it('is read back to an equal IKE proposal', () => {
    fc.assert(
      fc.property(ciphers, some(prfAlgorithms), some(dhGroups), (cipher, prf, dh) => {
        const proposal = { ...cipher, prf, dh };
        expect(parseIkeProposalString(formatProposal(proposal))).toStrictEqual(proposal);
      }),
    );
  });

  it('is read back to an equal ESP proposal', () => {
    const esns = fc.constantFrom([true], [false], [true, false], [false, true]);
    fc.assert(
      fc.property(ciphers, fc.shuffledSubarray([...dhGroups]), esns, (cipher, dh, esn) => {
        const proposal = { ...cipher, dh, esn };
        expect(parseEspProposalString(formatProposal(proposal))).toStrictEqual(proposal);
      }),
    );
  });

  it('never throws anything but its own error', () => {
    const word = fc.oneof(
      fc.string(),
      fc.constantFrom(...encryptionAlgorithms, ...integrityAlgorithms, ...dhGroups).map(({ name }) => name),
    );
    fc.assert(
      fc.property(
        fc.array(word).map((list) => list.join('-')),
        (text) => {
          for (const parse of [parseIkeProposalString, parseEspProposalString]) {
            try {
              parse(text);
            } catch (error) {
              expect(error).toBeInstanceOf(ProposalError);
            }
          }
        },
      ),
    );
  });

  it('survives for the defaults', () => {
    for (const proposal of defaultIkeProposals) {
      expect(parseIkeProposalString(formatProposal(proposal))).toStrictEqual(proposal);
    }
    for (const proposal of defaultEspProposals) {
      expect(parseEspProposalString(formatProposal(proposal))).toStrictEqual(proposal);
    }
  });

  it('of one suite is as strongSwan writes it', () => {
    const encryption = need(encryptionByName('aes256gcm16'));
    const prf = need(prfByName('prfsha384'));
    const dh = need(dhGroupByName('ecp384'));
    expect(formatSuite({ encryption, prf, dh })).toBe('aes256gcm16-prfsha384-ecp384');
    expect(formatSuite({ encryption, esn: true })).toBe('aes256gcm16-esn');
    expect(formatSuite({ encryption, esn: false })).toBe('aes256gcm16');
    const cbc = parseIkeProposalString('aes128-sha256-x25519');
    expect(
      formatSuite({
        encryption: need(cbc.encryption[0]),
        integrity: cbc.integrity[0],
        prf: cbc.prf[0],
        dh: cbc.dh[0],
      }),
    ).toBe('aes128-sha256-x25519');
  });
});
