/** What peers that have proved nothing may have us spend on their certificates. */
import { describe, expect, it } from 'vitest';
import { type IpAddress, parseAddress } from '../../src/base/address.ts';
import { VerificationBudget } from '../../src/ike/half-open/verification-budget.ts';
import { expectSame } from '../support/ike-expect.ts';
import { pairOf, pkiOf } from '../support/ike-fake-pki.ts';

const address = (text: string): IpAddress => parseAddress(text)!;
const PEER = address('192.0.2.1');

/** Opens and closes a verification that takes `spent` milliseconds. */
function spend(budget: VerificationBudget, from: IpAddress, milliseconds: number): void {
  budget.close(budget.open(from, 0), milliseconds);
}

describe('the budget of an address', () => {
  it('is empty when its certificates took 600 ms, and comes back with 60 ms a second', () => {
    const budget = new VerificationBudget();
    spend(budget, PEER, 599);
    expect(budget.refusal(0, PEER)).toBeUndefined();
    spend(budget, PEER, 61);
    expect(budget.refusal(0, PEER)).toMatch(/of its address have used up the time/);
    expect(budget.refusal(990, PEER)).toMatch(/of its address/);
    expect(budget.refusal(1_010, PEER)).toBeUndefined();
    // Never more than at first.
    budget.refusal(10_000_000, PEER);
    spend(budget, PEER, 600);
    expect(budget.refusal(10_000_000, PEER)).toMatch(/of its address/);
  });

  it('is charged the estimated cost at first, and the real cost afterwards', () => {
    const budget = new VerificationBudget();
    // 1 ms, and 1 ms for each 32 KiB.
    for (let i = 0; i < 200; i++) budget.close(budget.open(PEER, 65_536));
    expect(budget.refusal(0, PEER)).toMatch(/of its address/);
    const other = new VerificationBudget();
    for (let i = 0; i < 199; i++) other.close(other.open(PEER, 65_536));
    expect(other.refusal(0, PEER)).toBeUndefined();
  });

  it('is never in debt for longer than ten seconds, whatever one verification took', () => {
    const budget = new VerificationBudget();
    spend(budget, PEER, 2_000);
    expect(budget.refusal(9_990, PEER)).toBeDefined();
    expect(budget.refusal(10_010, PEER)).toBeUndefined();
  });

  it('is shared by an IPv6 network of 64 bits, and by no other', () => {
    const budget = new VerificationBudget();
    spend(budget, address('2001:db8:1:1::1'), 600);
    expect(budget.refusal(0, address('2001:db8:1:1:ffff::2'))).toMatch(/of its address/);
    expect(budget.refusal(0, address('2001:db8:1:2::1'))).toBeUndefined();
    // Of the same number, but IPv4.
    expect(budget.refusal(0, PEER)).toBeUndefined();
  });

  it.each([
    ['IPv4, 24 bits', (i: number) => `198.51.100.${i}`, '198.51.100.200', '198.51.101.1'],
    ['IPv6, 48 bits', (i: number) => `2001:db8:7:${i}::1`, '2001:db8:7:ff::1', '2001:db8:8::1'],
  ])('has a part of its network: %s', (_, member, another, outside) => {
    const budget = new VerificationBudget();
    for (let i = 0; i < 3; i++) spend(budget, address(member(i)), 400);
    expect(budget.refusal(0, address(another))).toMatch(/of its network/);
    expect(budget.refusal(0, address(outside))).toBeUndefined();
  });

  it('has a part of what all have; the last quarter is for networks that spent little', () => {
    const budget = new VerificationBudget();
    for (let i = 0; i < 4; i++) spend(budget, address(`10.0.${i}.1`), 590);
    const busy = address('10.0.0.2');
    expect(budget.refusal(0, busy)).toBeUndefined();
    // Its network has spent more than half of its own by now.
    spend(budget, busy, 100);
    expect(budget.refusal(0, busy)).toMatch(/of all peers/);
    expect(budget.refusal(0, PEER)).toBeUndefined();
    spend(budget, address('10.9.0.1'), 590);
    expect(budget.refusal(0, PEER)).toMatch(/of all peers/);
    expect(budget.refusal(1_000, PEER)).toBeUndefined();
  });

  it('has eight open at a time, and all have 64', () => {
    const budget = new VerificationBudget();
    const open = Array.from({ length: 8 }, () => budget.open(PEER, 0));
    expect(budget.refusal(0, PEER)).toBe('8 of its certificates are being verified');
    expect(budget.refusal(0, address('192.0.2.2'))).toBeUndefined();
    budget.close(open.pop()!);
    expect(budget.refusal(0, PEER)).toBeUndefined();
    for (let i = 0; i < 57; i++) open.push(budget.open(address(`10.0.${i}.1`), 0));
    expect(budget.refusal(0, address('192.0.2.2'))).toBe('64 certificates of all peers are being verified');
    for (const verification of open) budget.close(verification);
    expect(budget.refusal(0, PEER)).toBeUndefined();
  });

  it('is kept for 4,096 addresses; one that has certificates open when it is forgotten is not owed anything', () => {
    const budget = new VerificationBudget();
    const verification = budget.open(PEER, 0);
    for (let i = 0; i < 5_000; i++) budget.refusal(0, address(`10.${i >> 8}.${i & 255}.1`));
    expect(budget.size).toBe(4_096);
    budget.close(verification);
    expect(budget.refusal(0, PEER)).toBeUndefined();
  });
});

describe('a peer whose address has spent its budget', () => {
  it('ignores its request as if it had been lost, and accepts the retransmission', () => {
    const pair = pairOf('signature', 'signature');
    const pki = pkiOf(pair.b);
    const verify = pki.verify.bind(pki);
    // Another one behind the same NAT, say, had a certificate judged for a second.
    pki.verify = () => ({ ok: false, reason: 'untrusted', detail: 'of the other', spent: 650 });
    pair.up();
    expect(pair.b.of('failed')).toMatchObject([{ detail: expect.stringMatching(/of the other/) }]);
    pki.verify = verify;
    pair.up();
    const counters = (): Readonly<Record<string, number>> => pair.b.endpoint.counters();
    expect(counters()['authentication-deferred']).toBe(1);
    expect(pair.b.of('need-verification')).toHaveLength(1);
    expect(pair.b.of('note')).toMatchObject([
      { level: 'warn', text: expect.stringMatching(/is deferred: the certificates of its/) },
    ]);
    expect(pair.b.of('ike-up')).toEqual([]);
    pair.run(2_000);
    expectSame(pair, 1);
    expect(pair.b.of('need-verification')).toHaveLength(2);
    expect(counters()['old-message-id']).toBe(0);
  });

  it('is accepted in fragments too, and with a pre-shared key at once', () => {
    const pair = pairOf('signature', 'signature');
    const [own] = pkiOf(pair.a).certificates;
    pkiOf(pair.a).certificates = [own!, new Uint8Array(9_000)];
    const pki = pkiOf(pair.b);
    const verify = pki.verify.bind(pki);
    pki.verify = () => ({ ok: false, reason: 'untrusted', detail: 'of the other', spent: 650 });
    pair.up();
    pki.verify = verify;
    pair.up();
    expect(pair.b.endpoint.counters()['authentication-deferred']).toBe(1);
    pair.run(2_000);
    expectSame(pair, 1);
  });
});
