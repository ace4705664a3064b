import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fromHex, toHex } from '../../src/base/bytes.ts';
import { formatSuite, parseEspProposalString, parseIkeProposalString } from '../../src/crypto/proposal-text.ts';
import {
  acceptEsp,
  acceptIke,
  answerProposal,
  type ChildExchange,
  chooseEsp,
  chooseIke,
  espWireProposals,
  type IkeExchange,
  ikeWireProposals,
} from '../../src/ike/proposals/proposals.ts';
import { explainNoProposal } from '../../src/ike/proposals/report.ts';
import type { WireProposal, WireTransform } from '../../src/ike/wire/payloads/sa.ts';

const ike = (...texts: string[]): ReturnType<typeof parseIkeProposalString>[] => texts.map(parseIkeProposalString);
const esp = (...texts: string[]): ReturnType<typeof parseEspProposalString>[] => texts.map(parseEspProposalString);
const SPI = fromHex('c0ffee01');
const PEER_SPI = fromHex('c0ffee02');

/** What we choose as responder from the peer's proposals, as text; checks the peer's view of the answer too. */
function chosenIke(theirs: string[], ours: string[], exchange: IkeExchange = 'ike-sa-init'): string | undefined {
  const spi = exchange === 'ike-sa-init' ? new Uint8Array(0) : fromHex('0000000000000001');
  const chosen = chooseIke(ikeWireProposals(ike(...theirs), spi), ike(...ours), exchange);
  if (chosen === undefined) return undefined;
  const accepted = acceptIke([answerProposal(chosen, spi)], ike(...theirs), exchange);
  expect(accepted?.suite).toEqual(chosen.suite);
  const { cipher, prf, dh } = chosen.suite;
  return formatSuite({ ...cipher, prf, dh });
}

function chosenEsp(theirs: string[], ours: string[], exchange: ChildExchange = 'create-child'): string | undefined {
  const chosen = chooseEsp(espWireProposals(esp(...theirs), exchange, PEER_SPI), esp(...ours), exchange);
  if (chosen === undefined) return undefined;
  expect(toHex(chosen.peerSpi)).toBe(toHex(PEER_SPI));
  const accepted = acceptEsp([answerProposal(chosen, SPI)], esp(...theirs), exchange);
  expect(accepted?.suite).toEqual(chosen.suite);
  expect(toHex(accepted!.peerSpi)).toBe(toHex(SPI));
  const { cipher, dh, esn } = chosen.suite;
  return formatSuite({ ...cipher, dh, esn });
}

/** A proposal of the peer's as bytes say it, each transform `type:id` or `type:id/bits`. */
function wire(protocol: number, transforms: string, spi: Uint8Array = new Uint8Array(0), number = 1): WireProposal {
  const parse = (text: string): WireTransform => {
    const [, type, id, bits, odd] = /^(\d+):(\d+)(?:\/(\d+))?(\?)?$/.exec(text)!;
    return {
      type: Number(type),
      id: Number(id),
      keyBits: bits === undefined ? undefined : Number(bits),
      unknownAttributes: odd !== undefined,
    };
  };
  return { number, protocol, spi, transforms: transforms.split(' ').map(parse) };
}

describe('proposals on the wire', () => {
  it('of IKE have cipher, integrity, PRF and group', () => {
    expect(ikeWireProposals(ike('aes256-sha256-prfsha384-x25519', 'aes128gcm16-prfsha256-ecp256'))).toEqual([
      wire(1, '1:12/256 3:12 2:6 4:31'),
      wire(1, '1:20/128 2:5 4:19', new Uint8Array(0), 2),
    ]);
  });

  it('of ESP have ESN always, and groups except in IKE_AUTH', () => {
    const configured = esp('aes128gcm16-chacha20poly1305-x25519-esn-noesn');
    expect(espWireProposals(configured, 'create-child', SPI)).toEqual([wire(3, '1:20/128 1:28 4:31 5:1 5:0', SPI)]);
    expect(espWireProposals(configured, 'ike-auth', SPI)).toEqual([wire(3, '1:20/128 1:28 5:1 5:0', SPI)]);
  });
});

describe('choice as responder', () => {
  it('selects what is common', () => {
    expect(chosenIke(['aes256gcm16-prfsha384-ecp384'], ['aes256gcm16-prfsha384-ecp384'])).toBe(
      'aes256gcm16-prfsha384-ecp384',
    );
    expect(chosenIke(['aes128-sha256-x25519'], ['aes128gcm16-prfsha256-x25519', 'aes128-aes256-sha256-x25519'])).toBe(
      'aes128-sha256-x25519',
    );
    expect(chosenEsp(['aes128gcm16-esn-noesn'], ['aes128gcm16-noesn'])).toBe('aes128gcm16');
  });

  it('follows the peer between proposals, ourselves within one', () => {
    const theirs = ['aes128gcm16-prfsha256-x25519', 'aes256gcm16-prfsha256-x25519'];
    expect(chosenIke(theirs, [...theirs].reverse())).toBe('aes128gcm16-prfsha256-x25519');
    expect(
      chosenIke(
        ['aes128gcm16-aes256gcm16-prfsha256-prfsha384-ecp256-x25519'],
        ['aes256gcm16-aes128gcm16-prfsha384-x25519-ecp256'],
      ),
    ).toBe('aes256gcm16-prfsha384-x25519');
    expect(chosenEsp(['aes128gcm16-esn-noesn'], ['aes128gcm16-noesn-esn'])).toBe('aes128gcm16');
    expect(chosenEsp(['aes128gcm16-noesn-esn'], ['aes128gcm16-esn-noesn'])).toBe('aes128gcm16-esn');
  });

  it('answers with the number of the proposal chosen', () => {
    const offered = ikeWireProposals(ike('aes128gcm16-prfsha256-ecp256', 'aes256gcm16-prfsha384-x25519'));
    const chosen = chooseIke(offered, ike('aes256gcm16-prfsha384-x25519'), 'ike-sa-init')!;
    expect(answerProposal(chosen)).toEqual(wire(1, '1:20/256 2:6 4:31', new Uint8Array(0), 2));
  });

  it('does not take another key length, PRF, group or ESN', () => {
    expect(chosenIke(['aes128gcm16-prfsha256-x25519'], ['aes256gcm16-prfsha256-x25519'])).toBeUndefined();
    expect(chosenIke(['aes256gcm16-prfsha256-x25519'], ['aes256gcm16-prfsha384-x25519'])).toBeUndefined();
    expect(chosenIke(['aes256gcm16-prfsha256-x25519'], ['aes256gcm16-prfsha256-ecp256'])).toBeUndefined();
    expect(chosenEsp(['aes128gcm16-esn'], ['aes128gcm16-noesn'])).toBeUndefined();
  });

  it('wants the key length where there is one, and none where there is none', () => {
    const choose = (transforms: string, ours: string): unknown =>
      chooseIke([wire(1, transforms)], ike(ours), 'ike-sa-init')?.suite.cipher.encryption.name;
    expect(choose('1:20/128 2:5 4:31', 'aes128gcm16-prfsha256-x25519')).toBe('aes128gcm16');
    expect(choose('1:20 2:5 4:31', 'aes128gcm16-prfsha256-x25519')).toBeUndefined();
    expect(choose('1:28 2:5 4:31', 'chacha20poly1305-prfsha256-x25519')).toBe('chacha20poly1305');
    expect(choose('1:28/256 2:5 4:31', 'chacha20poly1305-prfsha256-x25519')).toBeUndefined();
    expect(choose('1:20/128 2:5/256 4:31', 'aes128gcm16-prfsha256-x25519')).toBeUndefined();
  });

  it('accepts an AEAD without integrity or with NONE, and then responds with NONE', () => {
    const ours = esp('aes128gcm16-noesn');
    const choose = (transforms: string): string | undefined => {
      const chosen = chooseEsp([wire(3, transforms, PEER_SPI)], ours, 'ike-auth');
      return chosen?.proposal.transforms.map(({ type, id }) => `${type}:${id}`).join(' ');
    };
    expect(choose('1:20/128 5:0')).toBe('1:20 5:0');
    expect(choose('1:20/128 3:0 5:0')).toBe('1:20 3:0 5:0');
    expect(choose('1:20/128 3:12 3:0 5:0')).toBe('1:20 3:0 5:0');
    expect(choose('1:20/128 3:12 5:0')).toBeUndefined();
    expect(choose('1:20/128 3:0? 5:0')).toBeUndefined();
  });

  it('does not take a cipher without integrity', () => {
    expect(chooseEsp([wire(3, '1:12/128 5:0', PEER_SPI)], esp('aes128-sha256'), 'ike-auth')).toBeUndefined();
    expect(chooseEsp([wire(3, '1:12/128 3:0 5:0', PEER_SPI)], esp('aes128-sha256'), 'ike-auth')).toBeUndefined();
    expect(chooseIke([wire(1, '1:12/128 2:5 4:31')], ike('aes128-sha256-x25519'), 'ike-sa-init')).toBeUndefined();
  });

  it('makes ESN, PRF and group mandatory (RFC 7296 §3.3.3)', () => {
    expect(chooseEsp([wire(3, '1:20/128', PEER_SPI)], esp('aes128gcm16'), 'ike-auth')).toBeUndefined();
    expect(chooseIke([wire(1, '1:20/128 4:31')], ike('aes128gcm16-prfsha256-x25519'), 'ike-sa-init')).toBeUndefined();
    expect(chooseIke([wire(1, '1:20/128 2:5')], ike('aes128gcm16-prfsha256-x25519'), 'ike-sa-init')).toBeUndefined();
    expect(
      chooseIke([wire(1, '1:20/128 2:5 4:0')], ike('aes128gcm16-prfsha256-x25519'), 'ike-sa-init'),
    ).toBeUndefined();
  });

  it('refuses proposals with a transform type that it does not know (RFC 7296 §3.3.6)', () => {
    const ours = ike('aes128gcm16-prfsha256-x25519');
    const odd = wire(1, '1:20/128 2:5 4:31 6:35');
    expect(chooseIke([odd], ours, 'ike-sa-init')).toBeUndefined();
    expect(
      chooseIke([odd, wire(1, '1:20/128 2:5 4:31', new Uint8Array(0), 2)], ours, 'ike-sa-init')?.proposal.number,
    ).toBe(2);
    expect(chooseIke([wire(1, '1:20/128 2:5 4:31 5:0')], ours, 'ike-sa-init')).toBeUndefined();
    expect(chooseEsp([wire(3, '1:20/128 2:5 5:0', PEER_SPI)], esp('aes128gcm16'), 'ike-auth')).toBeUndefined();
  });

  it('passes over transforms with attributes that it does not know (RFC 7296 §3.3.6)', () => {
    const ours = ike('aes128gcm16-aes256gcm16-prfsha256-x25519');
    expect(chooseIke([wire(1, '1:20/128? 2:5 4:31')], ours, 'ike-sa-init')).toBeUndefined();
    const other = chooseIke([wire(1, '1:20/128? 1:20/256 2:5 4:31')], ours, 'ike-sa-init');
    expect(other?.suite.cipher.encryption.name).toBe('aes256gcm16');
    expect(chooseIke([wire(1, '1:20/128 2:5? 4:31')], ours, 'ike-sa-init')).toBeUndefined();
  });

  it('settles on a group for PFS, on none, or on NONE', () => {
    const choose = (transforms: string, ours: string): string | undefined => {
      const chosen = chooseEsp([wire(3, transforms, PEER_SPI)], esp(ours), 'create-child');
      return chosen && `${chosen.suite.dh?.name} ${chosen.proposal.transforms.filter(({ type }) => type === 4).length}`;
    };
    expect(choose('1:20/128 4:31 4:19 5:0', 'aes128gcm16-ecp256-x25519')).toBe('ecp256 1');
    expect(choose('1:20/128 5:0', 'aes128gcm16-x25519')).toBeUndefined();
    expect(choose('1:20/128 4:31 5:0', 'aes128gcm16')).toBeUndefined();
    expect(choose('1:20/128 4:31 4:0 5:0', 'aes128gcm16')).toBe('undefined 1');
    expect(choose('1:20/128 4:0 5:0', 'aes128gcm16')).toBe('undefined 1');
    expect(choose('1:20/128 5:0', 'aes128gcm16')).toBe('undefined 0');
  });

  it('does not look at groups in IKE_AUTH (RFC 7296 §1.2)', () => {
    expect(chosenEsp(['aes128gcm16-x25519'], ['aes128gcm16-ecp384'], 'ike-auth')).toBe('aes128gcm16-esn');
    const chosen = chooseEsp([wire(3, '1:20/128 4:14 5:0', PEER_SPI)], esp('aes128gcm16-x25519'), 'ike-auth');
    expect(chosen?.suite.dh).toBeUndefined();
    expect(chosen?.proposal.transforms.map(({ type }) => type)).toEqual([1, 5]);
  });

  it('wants an SPI that can be one', () => {
    const choose = (spi: string): unknown =>
      chooseEsp([wire(3, '1:20/128 5:0', fromHex(spi))], esp('aes128gcm16'), 'ike-auth');
    expect(choose('00000100')).toBeDefined();
    for (const spi of ['', '000000ff', '00000000', 'c0ffee', 'c0ffee0102']) expect(choose(spi), spi).toBeUndefined();
    const rekey = (spi: string): unknown =>
      chooseIke([wire(1, '1:20/128 2:5 4:31', fromHex(spi))], ike('aes128gcm16-prfsha256-x25519'), 'rekey-ike');
    expect(rekey('0000000000000001')).toBeDefined();
    for (const spi of ['', '0000000000000000', '00000001']) expect(rekey(spi), spi).toBeUndefined();
    expect(chosenIke(['aes128gcm16-prfsha256-x25519'], ['aes128gcm16-prfsha256-x25519'], 'rekey-ike')).toBeDefined();
  });

  it('does not mix protocols up', () => {
    expect(chooseEsp([wire(2, '3:12 5:0', PEER_SPI)], esp('aes128-sha256'), 'ike-auth')).toBeUndefined();
    expect(chooseEsp([wire(1, '1:20/128 5:0', PEER_SPI)], esp('aes128gcm16'), 'ike-auth')).toBeUndefined();
    expect(
      chooseIke([wire(3, '1:20/128 2:5 4:31')], ike('aes128gcm16-prfsha256-x25519'), 'ike-sa-init'),
    ).toBeUndefined();
    expect(chooseIke([], ike('aes128gcm16-prfsha256-x25519'), 'ike-sa-init')).toBeUndefined();
  });
});

describe('answers, checked as initiator', () => {
  const offered = ike('aes256gcm16-aes128gcm16-prfsha256-x25519-ecp256', 'aes128-sha256-x25519');
  const accept = (...answer: WireProposal[]): string | undefined =>
    acceptIke(answer, offered, 'ike-sa-init')?.suite.cipher.encryption.name;

  it('are exactly one proposal of ours with one transform of each type', () => {
    expect(accept(wire(1, '1:20/128 2:5 4:31'))).toBe('aes128gcm16');
    expect(accept(wire(1, '1:12/128 3:12 2:5 4:31', new Uint8Array(0), 2))).toBe('aes128');
  });

  it('are refused when they are none, several, of another number, or leave a choice', () => {
    const good = wire(1, '1:20/128 2:5 4:31');
    expect(accept()).toBeUndefined();
    expect(accept(good, good)).toBeUndefined();
    for (const number of [0, 2, 3, 255]) expect(accept({ ...good, number })).toBeUndefined();
    expect(accept(wire(1, '1:20/128 1:20/256 2:5 4:31'))).toBeUndefined();
    expect(accept(wire(1, '1:20/128 2:5 4:31 4:19'))).toBeUndefined();
    expect(accept(wire(1, '1:20/128 2:5'))).toBeUndefined();
  });

  it('are refused with what was not offered', () => {
    expect(accept(wire(1, '1:20/192 2:5 4:31'))).toBeUndefined();
    expect(accept(wire(1, '1:20/128 2:6 4:31'))).toBeUndefined();
    expect(accept(wire(1, '1:20/128 2:5 4:14'))).toBeUndefined();
    expect(accept(wire(1, '1:20/128 3:12 2:5 4:31'))).toBeUndefined();
    expect(accept(wire(1, '1:12/128 3:12 2:5 4:31'))).toBeUndefined();
    expect(accept(wire(1, '1:20/128? 2:5 4:31'))).toBeUndefined();
    const child = esp('aes128gcm16-x25519');
    expect(acceptEsp([wire(3, '1:20/128 4:31 5:0', SPI)], child, 'ike-auth')).toBeUndefined();
    expect(acceptEsp([wire(3, '1:20/128 4:0 5:0', SPI)], child, 'ike-auth')).toBeDefined();
    expect(acceptEsp([wire(3, '1:20/128 4:0 5:0', SPI)], child, 'create-child')).toBeUndefined();
    expect(acceptEsp([wire(3, '1:20/128 5:0', SPI)], child, 'create-child')).toBeUndefined();
    expect(acceptEsp([wire(3, '1:20/128 5:0', SPI)], child, 'ike-auth')).toBeDefined();
  });
});

describe('any two configurations', () => {
  const text = fc
    .record({
      ciphers: fc.subarray(['aes128gcm16', 'aes256gcm16', 'chacha20poly1305'], { minLength: 1 }),
      prfs: fc.subarray(['prfsha256', 'prfsha384'], { minLength: 1 }),
      groups: fc.subarray(['x25519', 'ecp256', 'modp3072'], { minLength: 1 }),
    })
    .map(({ ciphers, prfs, groups }) => [...ciphers, ...prfs, ...groups].join('-'));

  it('either agree on what both have, or one says why not', () => {
    fc.assert(
      fc.property(
        fc.array(text, { minLength: 1, maxLength: 3 }),
        fc.array(text, { minLength: 1, maxLength: 3 }),
        (theirs, ours) => {
          const chosen = chosenIke(theirs, ours);
          const has = (list: string[]): boolean =>
            list.some((entry) => chosen!.split('-').every((name) => entry.split('-').includes(name)));
          if (chosen !== undefined) expect(has(theirs) && has(ours)).toBe(true);
          else
            expect(explainNoProposal(ikeWireProposals(ike(...theirs)), ike(...ours), 'ike')).toMatch(
              /: peer .*, here /,
            );
        },
      ),
      { seed: 33, numRuns: 300 },
    );
  });
});

describe('explanation', () => {
  it('shows both lists, transform by transform, and what differs', () => {
    const offered = [wire(1, '1:3 3:2 2:2 4:2'), wire(1, '1:12/256 3:12 2:5 4:14', new Uint8Array(0), 2)];
    expect(explainNoProposal(offered, ike('aes256gcm16-prfsha384-ecp384', 'aes256-sha256-x25519'), 'ike')).toBe(
      [
        'offered by the peer:',
        '  1: IKE with encryption 3des; integrity sha1; prf prfsha1; dh modp1024',
        '  2: IKE with encryption aes256; integrity sha256; prf prfsha256; dh modp2048',
        'configured here:',
        '  1: aes256gcm16-prfsha384-ecp384',
        '  2: aes256-sha256-x25519',
        'what differs:',
        "  1: from the peer's 1: encryption: peer 3des, here aes256gcm16; integrity: peer sha1, here none; " +
          'prf: peer prfsha1, here prfsha384; dh: peer modp1024, here ecp384',
        "  2: from the peer's 2: dh: peer modp2048, here x25519",
      ].join('\n'),
    );
  });

  const differing = (transforms: string, ours: string, exchange: ChildExchange = 'create-child', spi = SPI): string =>
    explainNoProposal([wire(3, transforms, spi)], esp(ours), exchange).split('what differs:\n')[1]!;

  it('names PFS on one side only, ESN, unknown types, attributes, protocols and SPIs', () => {
    expect(differing('1:20/128 4:31 5:0', 'aes128gcm16-noesn')).toContain('dh: peer x25519, here none');
    expect(differing('1:20/128 5:0', 'aes128gcm16-x25519-noesn')).toContain('dh: peer none, here x25519');
    expect(differing('1:20/128 5:1', 'aes128gcm16-noesn')).toContain('esn: peer yes, here no');
    expect(differing('1:20/128', 'aes128gcm16-noesn')).toContain('esn: peer none, here no');
    expect(differing('1:20/128 4:31 6:35 5:0', 'aes128gcm16-x25519-noesn')).toContain(
      'additional key exchange 1 (mlkem512): peer offers it, here not supported for ESP',
    );
    expect(differing('1:20/128 4:31 13:1 5:0', 'aes128gcm16-x25519-noesn')).toContain(
      'transform type 13: peer offers it, here not supported for ESP',
    );
    expect(differing('1:20/128? 5:0', 'aes128gcm16-noesn')).toContain('peer aes128gcm16 with unknown attributes');
    expect(differing('1:99/17 5:0', 'aes128gcm16-noesn')).toContain('encryption: peer id 99/17, here aes128gcm16');
    expect(differing('1:20/128 5:0', 'aes128gcm16-noesn', 'ike-auth', fromHex('00000001'))).toContain('SPI');
    const ah = explainNoProposal([wire(2, '3:12 5:0', SPI)], esp('aes128gcm16'), 'ike-auth');
    expect(ah).toContain('protocol: peer AH, here ESP');
    expect(explainNoProposal([], esp('aes128gcm16'), 'ike-auth')).toContain('the peer offers nothing');
  });

  it('is bounded, whatever the peer offers', () => {
    const huge = wire(1, Array.from({ length: 255 }, (_, i) => `1:${i + 100} ${i}:1`).join(' '));
    const report = explainNoProposal(
      new Array<WireProposal>(255).fill(huge),
      ike('aes128gcm16-prfsha256-x25519'),
      'ike',
    );
    expect(report.split('\n').length).toBeLessThan(30);
    expect(report.length).toBeLessThan(25_000);
    expect(report).toContain('and 239 more');
  });
});
