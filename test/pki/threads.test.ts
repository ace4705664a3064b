/** Threads verify peers: with the same verdicts, one peer at no cost to another, and each within its time limit. */
import { existsSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { afterEach, describe, expect, it } from 'vitest';
import { identityFromText } from '../../src/base/identity.ts';
import { parseCertificate } from '../../src/pki/certificate.ts';
import { parseCrl } from '../../src/pki/revocation/crl.ts';
import { OnlineRevocation } from '../../src/pki/revocation/online.ts';
import { VerifierPool, type VerifierPoolOptions } from '../../src/pki/threads/pool.ts';
import type { PeerAuth, Verdict } from '../../src/pki/types.ts';
import { pathVerifier, type VerifierOptions } from '../../src/pki/verifier.ts';
import { auth, right, root } from './judge.ts';
import { authority, dns, ecKey, make, makeCrl, NOW } from './make.ts';
import { lists } from './make-ocsp.ts';

const BUILT = 'dist/pki/threads/verifier-worker.js';
const end = make({ subject: 'O=Example, CN=gw1', issuer: root, san: [dns('gw1.example')] });
const anchors = [parseCertificate(root.der)];

const pools: VerifierPool[] = [];
afterEach(async () => {
  for (const pool of pools.splice(0)) await pool.close();
});

/** What a pool told of itself, and what it was asked to fetch. */
interface Told {
  readonly trouble: string[];
  readonly failures: string[];
  readonly fetched: string[];
}

function poolOf(spawn: () => Worker, more: Partial<VerifierPoolOptions> = {}): { pool: VerifierPool; told: Told } {
  const told: Told = { trouble: [], failures: [], fetched: [] };
  const pool = new VerifierPool({
    threads: 1,
    fetch: async ({ url }) => {
      told.fetched.push(url);
      throw new Error('nothing is there');
    },
    onFailure: (text) => void told.failures.push(text),
    onTrouble: (text) => void told.trouble.push(text),
    spawn,
    ...more,
  });
  pools.push(pool);
  return { pool, told };
}

/**
 * A thread that speaks the protocol and knows no certificates: `source` says what it does with a auth.
 * `slow`: computes for ever; `crash`: ends; `greedy`: takes memory; others are right at once.
 */
const FAKE = `
  const { parentPort } = require('node:worker_threads');
  parentPort.on('message', ({ type, id, auth }) => {
    if (type !== 'judge') return;
    const kind = auth.source.split(' ')[0];
    if (kind === 'crash') process.exit(7);
    parentPort.postMessage({ type: 'judging', id });
    if (kind === 'slow') for (;;) Math.sqrt(id);
    if (kind === 'greedy') for (const held = []; ; ) held.push(new Array(100_000).fill(held.length));
    parentPort.postMessage({ type: 'judged', id, verdict: { ok: true, subject: auth.source, validUntil: 0 } });
  });
  parentPort.postMessage({ type: 'ready' });
`;
const fake = (): Worker =>
  new Worker(FAKE, { eval: true, execArgv: [], resourceLimits: { maxOldGenerationSizeMb: 16 } });

const text = (verdict: Verdict): string => (verdict.ok ? 'ok' : `${verdict.reason}: ${verdict.detail}`);
const from = (source: string): PeerAuth => auth(end, { source });

describe('a pool of verifier threads', () => {
  it('verifies others although one takes for ever: its thread is ended, and only that peer is refused', async () => {
    const { pool, told } = poolOf(fake, { deadline: 200 });
    const verifier = pool.verifier({ anchors });
    const begun = performance.now();
    const [slow, ...others] = await Promise.all(['slow', 'b', 'c', 'd'].map((source) => verifier.verify(from(source))));
    expect(text(slow!)).toBe(
      'took-too-long: its certificates could not be verified: they were not judged within 0.2 s',
    );
    expect(slow!.spent).toBe(200);
    expect(others.map(text)).toEqual(['ok', 'ok', 'ok']);
    expect(performance.now() - begun).toBeLessThan(5_000);
    expect(told.trouble).toEqual(['the verifier thread ended: they were not judged within 0.2 s']);
  });

  it('leaves the event loop to others while a thread computes', async () => {
    const { pool } = poolOf(fake, { deadline: 400 });
    let turns = 0;
    const ticks = setInterval(() => turns++, 5);
    await pool.verifier({ anchors }).verify(from('slow'));
    clearInterval(ticks);
    // A loop that computed itself would have had none; one on a busy machine has fewer than 80.
    expect(turns).toBeGreaterThan(5);
  });

  it.each(['crash', 'greedy'])('survives a thread that ends by itself: %s', async (kind) => {
    const { pool, told } = poolOf(fake);
    const verifier = pool.verifier({ anchors });
    const [bad, good] = await Promise.all([verifier.verify(from(kind)), verifier.verify(from('b'))]);
    expect(text(bad!)).toMatch(/^took-too-long: the verifier thread ended: /);
    expect(text(good!)).toBe('ok');
    expect(told.trouble).toHaveLength(1);
  });

  it('serves sources in turn, and lets none have more than sixteen wait', async () => {
    const { pool } = poolOf(fake);
    const verifier = pool.verifier({ anchors });
    const order: string[] = [];
    const ask = async (source: string): Promise<void> => {
      const verdict = await verifier.verify(from(source));
      order.push(`${source} ${verdict.ok ? 'ok' : verdict.reason}`);
    };
    await Promise.all([...Array.from({ length: 18 }, () => ask('many')), ask('one'), ask('two')]);
    // One was given to the thread, sixteen waited.
    expect(order.filter((line) => line === 'many overloaded')).toHaveLength(1);
    const judged = order.filter((line) => line.endsWith('ok'));
    expect(judged).toHaveLength(19);
    expect(judged.indexOf('one ok')).toBeLessThanOrEqual(3);
    expect(judged.indexOf('two ok')).toBeLessThanOrEqual(4);
  });

  it('starts no thread before it is asked, and ends them when it is closed: what is open is refused', async () => {
    const { pool } = poolOf(fake);
    const verifier = pool.verifier({ anchors });
    expect(pool.size).toBe(0);
    expect(verifier.authorities).toEqual(pathVerifier({ anchors }).authorities);
    const open = ['slow', 'b', 'c'].map((source) => verifier.verify(from(source)));
    expect(pool.size).toBe(1);
    await pool.close();
    expect((await Promise.all(open)).map(text)).toEqual(new Array(3).fill('overloaded: the program ends'));
    expect(pool.size).toBe(0);
    expect(text(await verifier.verify(from('b')))).toBe('overloaded: the program ends');
    expect(pool.size).toBe(0);
  });

  it.each<[string, () => Worker]>([
    [
      'they cannot be made',
      () => {
        throw new Error('EAGAIN');
      },
    ],
    ['they end before they run', () => new Worker(pathToFileURL('/nowhere/worker.js'), { execArgv: [] })],
  ])('judges in the main thread, one in a turn, where there are no threads: %s', async (_, spawn) => {
    const { pool, told } = poolOf(spawn);
    const verifier = pool.verifier({ anchors });
    const good = await right(end);
    const verdicts = Promise.all([
      verifier.verify({ ...good, source: 'a' }),
      verifier.verify({ ...good, source: 'b', signature: new Uint8Array(70) }),
      verifier.verify({ ...good, source: 'c' }),
    ]);
    expect((await verdicts).map((verdict) => (verdict.ok ? 'ok' : verdict.reason))).toEqual([
      'ok',
      'bad-signature',
      'ok',
    ]);
    expect(told.trouble).toHaveLength(1);
    expect(told.trouble[0]).toMatch(/^no verifier thread can be started \(.+\): the main thread verifies certificates/);
    // Nor is it tried again at once.
    expect(text(await verifier.verify({ ...good, source: 'd' }))).toBe('ok');
    expect(told.trouble).toHaveLength(1);
  });
});

describe.skipIf(!existsSync(BUILT))('a verifier thread', () => {
  const built = (): Worker => new Worker(pathToFileURL(BUILT), { execArgv: [] });
  const middle = authority('O=Example, CN=Middle', { issuer: root });
  const serial = Uint8Array.of(0x55);
  const revoked = make({ subject: 'CN=gone', issuer: root, serial, san: [dns('gw1.example')] });
  const below = make({ subject: 'CN=below', issuer: middle, san: [dns('gw1.example')] });
  const crls = [parseCrl(makeCrl({ issuer: root, revoked: [serial] }))];

  it('has the verdict of `pathVerifier`, for every input and every trust', async () => {
    const { pool, told } = poolOf(built);
    const good = await right(end);
    const auths: PeerAuth[] = [
      good,
      { ...good, signature: new Uint8Array(70) },
      { ...good, certificates: [] },
      { ...good, certificates: [Uint8Array.of(1, 2, 3)] },
      { ...good, id: identityFromText('fqdn', 'gw2.example') },
      { ...good, now: NOW + 10 * 365 * 24 * 3_600_000 },
      await right(revoked),
      await right(below),
      await right(below, { certificates: [below.der, middle.der] }),
      await right(make({ subject: 'CN=x', issuer: authority('CN=Other'), san: [dns('gw1.example')] })),
      await right(make({ subject: 'CN=x', issuer: root, signingKey: ecKey(), san: [dns('gw1.example')] })),
    ];
    const options: VerifierOptions[] = [
      { anchors },
      { anchors, crls },
      { anchors, crls: [], crlPolicy: 'strict' },
      { anchors, intermediates: [parseCertificate(middle.der)] },
      { anchors, allowedDns: ['CN=nobody'] },
    ];
    const seen = new Set<string>();
    for (const option of options) {
      const [inline, threaded] = [pathVerifier(option), pool.verifier(option)];
      for (const given of auths) {
        const wanted = await inline.verify(given);
        const { spent, ...found } = await threaded.verify(given);
        expect(found).toEqual(wanted);
        expect(spent).toBeLessThan(2_000);
        seen.add(wanted.ok ? 'ok' : wanted.reason);
      }
    }
    expect(seen.size).toBeGreaterThan(8);
    expect(pool.size).toBe(1);
    expect(told.trouble).toEqual([]);
  });

  it('has the main thread fetch lists, and verifies others while it waits for one', async () => {
    const LIST = 'http://pki.example/root.crl';
    const listed = make({ subject: 'CN=x', issuer: root, serial, san: [dns('gw1.example')], extra: [lists(LIST)] });
    let give: ((bytes: Uint8Array) => void) | undefined;
    const { pool } = poolOf(built, {
      fetch: () =>
        new Promise((resolve) => {
          give = resolve;
        }),
    });
    const through = new OnlineRevocation({ fetch: () => Promise.reject(new Error('not here')) });
    const asking = pool.verifier({ anchors, online: { through, ocsp: false, lists: true } });
    const waiting = asking.verify(await right(listed));
    expect(text(await pool.verifier({ anchors }).verify(await right(end)))).toBe('ok');
    await expect.poll(() => give).toBeDefined();
    give!(makeCrl({ issuer: root, revoked: [serial] }));
    expect(text(await waiting)).toMatch(/^revoked: 'CN=x' was revoked/);
    // It is kept for all that ask alike.
    give = undefined;
    expect(text(await asking.verify(await right(listed)))).toMatch(/^revoked/);
    expect(give).toBeUndefined();
  });

  it('reports what could not be fetched, and verifies without it', async () => {
    const LIST = 'http://pki.example/root.crl';
    const listed = make({ subject: 'CN=x', issuer: root, san: [dns('gw1.example')], extra: [lists(LIST)] });
    const { pool, told } = poolOf(built);
    const through = new OnlineRevocation({ fetch: () => Promise.reject(new Error('not here')) });
    const online = { through, ocsp: false, lists: true };
    expect(text(await pool.verifier({ anchors, online }).verify(await right(listed)))).toBe('ok');
    const strict = await pool.verifier({ anchors, online, crlPolicy: 'strict' }).verify(await right(listed));
    expect(text(strict)).toMatch(/^revocation-unknown/);
    expect(told.fetched).toEqual([LIST]);
    expect(told.failures).toEqual([`${LIST}: nothing is there`]);
  });
});
