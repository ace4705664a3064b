/**
 * Keys leave the daemon's memory with what they are for: all that it may write to is searched from outside, as root, for
 * every key that its peer was given too. The peer records them; nothing is changed in the daemon that is searched.
 */
import { type KeyObject, randomBytes, randomUUID } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it, onTestFinished } from 'vitest';
import { FakeLibvirt } from '../support/fake-libvirt.ts';
import type { Lab } from '../support/lab/lab.ts';
import { type Find, type Needle, type Needles, searchMemory } from '../support/lab/memory-search.ts';
import { cable, type Namespace } from '../support/lab/namespace.ts';
import { Ours, type OursSettings, sectunnelDocument } from '../support/lab/ours.ts';
import { waitFor } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { ping } from '../support/lab/traffic.ts';
import type { Side, Tunnel } from '../support/lab/tunnel.ts';
import { useLab } from '../support/lab/use-lab.ts';
import { certificate, certPem, keyPem, root } from './certified.ts';
import { addInner, LINE } from './rig.ts';
import { LEFT, RIGHT, SUITES, suiteTunnel } from './suites.ts';

const RECORDER = fileURLToPath(new URL('../support/lab/record-keys.mjs', import.meta.url));
/** Milliseconds in which a key is gone. */
const WITHIN = 2_000;
/** For so long an SA that was replaced still receives: `OVERTAKEN` in src/engine/sa-table.ts. */
const OVERTAKEN = 5_000;

interface Recorded {
  readonly kind: string;
  readonly key: Buffer;
}

/** A secret in all the ways in which it could be written down. */
function spelled(name: string, value: Uint8Array): Needles {
  const forms = new Map<string, Uint8Array | Needle>([[name, value]]);
  for (const [encoding, window] of [
    ['latin1', 16],
    ['base64', 16],
    ['hex', 32],
  ] as const) {
    const text = Buffer.from(value).toString(encoding);
    forms.set(`${name} as ${encoding}`, { bytes: Buffer.from(text, 'latin1'), window });
    const wide = { bytes: Buffer.from(text, 'utf16le'), window: 2 * window };
    forms.set(`${name} as ${encoding} of two bytes a character`, wide);
  }
  return forms;
}

function needlesOf(keys: readonly Recorded[]): Needles {
  return new Map(keys.map(({ kind, key }, i) => [`${kind} ${i}`, key]));
}

function found(ours: Ours, needles: Needles): string[] {
  return [...new Set(searchMemory(ours.pid, needles).map(({ name }) => name))];
}

/** What is still there when the time is up, with its place. */
async function leftAfter(ours: Ours, needles: Needles, time: number): Promise<readonly Find[]> {
  const end = performance.now() + time;
  for (;;) {
    const finds = searchMemory(ours.pid, needles);
    if (finds.length === 0 || performance.now() >= end) return finds;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

describeInterop('keys in the memory of the daemon', ['namespaces', 'build'], () => {
  let lab: Lab;
  let left: Namespace;
  let peer: Ours;
  let file: string;
  let tunnels = 0;

  useLab(async (made) => {
    lab = made;
    left = await lab.namespace('left');
    const right = await lab.namespace('right');
    await cable(
      { namespace: left, device: LINE, addresses: [`${LEFT[4].outer}/24`] },
      { namespace: right, device: LINE, addresses: [`${RIGHT[4].outer}/24`] },
    );
    await addInner(left, LEFT);
    await addInner(right, RIGHT);
    file = join(lab.folder, 'keys');
    writeFileSync(file, '');
    const options = { nodeArguments: ['--import', RECORDER], env: { KEYS_FILE: file } };
    peer = await Ours.start(lab, right, { ...options, arguments: ['--crypto', 'node', '--workers', '0'] });
  });

  /** The daemon that is searched, for one test. */
  async function start(...words: readonly string[]): Promise<Ours> {
    writeFileSync(file, '');
    const ours = await Ours.start(lab, left, { arguments: words });
    onTestFinished(async () => {
      await ours.reset();
      await peer.reset();
      await ours.stop();
    });
    return ours;
  }

  /** A tunnel of its own, with a key that nobody else has. */
  function tunnel(): Tunnel & { readonly psk: Buffer } {
    const { left: ours, right: theirs, ...rest } = suiteTunnel(`keys${tunnels++}`, SUITES[0]!);
    const psk = randomBytes(36).toString('base64');
    return { ...rest, left: { ...ours, psk }, right: { ...theirs, psk }, psk: Buffer.from(psk) };
  }

  const recorded = (): Recorded[] =>
    readFileSync(file, 'utf8')
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => line.split(' ') as [string, string])
      .map(([kind, hex]) => ({ kind, key: Buffer.from(hex, 'hex') }));

  /** Waits for the tunnel, sends something through it, and shows that its keys are found while it is up. */
  async function bringUp(ours: Ours, name: string): Promise<Recorded[]> {
    await ours.up(name);
    const carried = await ping(left, { source: LEFT[4].inner, destination: RIGHT[4].inner, count: 2 });
    expect(carried).toBe(2);
    const keys = recorded();
    const visible = found(ours, needlesOf(keys));
    const ciphers = keys.flatMap(({ kind }, i) => (kind.startsWith('aes') ? [`${kind} ${i}`] : []));
    // Both directions of IKE and of ESP; SK_d, SK_pi and SK_pr.
    expect(ciphers).toHaveLength(4);
    expect(visible).toEqual(expect.arrayContaining(ciphers));
    expect(visible.filter((key) => key.startsWith('prf')).length).toBeGreaterThanOrEqual(3);
    return keys;
  }

  /** @param erasable what of the keys the provider can erase */
  async function expectGone(ours: Ours, name: string, secrets: Needles, erasable = /./): Promise<void> {
    await ours.command(['destroy', name]);
    const needles = new Map([...needlesOf(recorded()), ...secrets].filter(([key]) => erasable.test(key)));
    expect(await leftAfter(ours, needles, WITHIN)).toEqual([]);
  }

  async function load(
    ours: Ours,
    { psk, ...words }: ReturnType<typeof tunnel>,
    more: Partial<OursSettings>,
  ): Promise<void> {
    await peer.load(words, 'right', { start: 'respond' });
    await ours.load(words, 'left', { start: 'initiate', ...more });
  }

  it.each([
    ['auto', 1],
    ['node', 1],
    ['noble', 0],
  ])('are gone after destroy, with --crypto %s --workers %d', async (crypto, workers) => {
    const ours = await start('--crypto', crypto, '--workers', `${workers}`, '--libvirt-socket', 'off');
    const words = tunnel();
    await load(ours, words, {});
    await bringUp(ours, words.name);
    // noble computes with BigInts, which cannot be erased: the results of key exchanges stay.
    const erasable = crypto === 'noble' ? /^(?!dh)/ : /./;
    await expectGone(ours, words.name, spelled('the pre-shared key', words.psk), erasable);
  });

  it('are gone after they were replaced, those that receive as soon as nothing can come for them', async () => {
    // With copies for a hand-over, which are to be gone, too.
    const ours = await start('--libvirt-socket', 'off', '--hand-over');
    const words = tunnel();
    const lifetime = { soft: 3, hard: 600 };
    await load(ours, words, { espLifetime: lifetime, ikeLifetime: lifetime });
    const first = await bringUp(ours, words.name);
    const { ike, child } = await ours.single(words.name);
    await waitFor('both SAs to be replaced', async () => {
      const now = await ours.single(words.name).catch(() => undefined);
      return now && now.ike.spiInitiator !== ike.spiInitiator && now.child.spiIn !== child.spiIn ? true : undefined;
    });
    expect(await leftAfter(ours, needlesOf(first), OVERTAKEN + WITHIN)).toEqual([]);
    expect(recorded().length).toBeGreaterThan(first.length);
    await expectGone(ours, words.name, spelled('the pre-shared key', words.psk));
  });

  it('are gone after destroy, where the daemon before this one handed them over', async () => {
    const ours = await start('--libvirt-socket', 'off', '--hand-over');
    const words = tunnel();
    await load(ours, words, {});
    const keys = await bringUp(ours, words.name);
    const { child } = await ours.single(words.name);
    await ours.stop();
    await ours.startDaemon();
    await ours.up(words.name);
    expect((await ours.single(words.name)).child.spiIn).toBe(child.spiIn);
    const inUse = needlesOf(keys.filter(({ kind }) => kind.startsWith('aes')));
    expect(found(ours, inUse)).toHaveLength(4);
    await expectGone(ours, words.name, spelled('the pre-shared key', words.psk));
  });

  it('are gone after destroy, the pre-shared key that libvirt keeps too', async () => {
    const libvirt = await FakeLibvirt.start(join(lab.folder, 'libvirt-sock'));
    const ours = await start('--workers', '0', '--libvirt-socket', libvirt.path);
    const words = tunnel();
    const uuid = randomUUID();
    libvirt.secrets.push({ uuid, value: words.psk.toString() });
    await peer.load(words, 'right', { start: 'respond' });
    await ours.defineDocument(words.name, sectunnelDocument(words, 'left', { start: 'initiate' }, uuid));
    await ours.command(['start', words.name]);
    await bringUp(ours, words.name);
    expect(libvirt.count(145)).toBeGreaterThan(0);
    await expectGone(ours, words.name, spelled('the pre-shared key', words.psk));
  });

  it('are gone after destroy, where certificates authenticate; of a private key only what is used is there', async () => {
    const ours = await start('--libvirt-socket', 'off');
    const words = tunnel();
    const made = { left: certificate('left'), right: certificate('right') };
    const documentOf = (side: Side, end: Ours): string => {
      const folder = join(end.folder, words.name);
      mkdirSync(folder, { mode: 0o700 });
      const put = (name: string, text: string): string => {
        writeFileSync(join(folder, name), text, { mode: 0o600 });
        return join(folder, name);
      };
      const files = `<ca file='${put('ca.pem', certPem(root))}'/><cert file='${put('cert.pem', certPem(made[side]))}'/>
        <key file='${put('key.pem', keyPem(made[side].key))}'/>`;
      const settings = { start: side === 'left' ? 'initiate' : 'respond' } as const;
      return sectunnelDocument(words, side, settings, 'none').replace(
        /<auth type='psk'>.*<\/auth>/,
        `<auth type='x509'><x509 source='file'>${files}</x509></auth>`,
      );
    };
    await peer.defineDocument(words.name, documentOf('right', peer));
    await peer.command(['start', words.name]);
    await ours.defineDocument(words.name, documentOf('left', ours));
    await ours.command(['start', words.name]);
    await bringUp(ours, words.name);
    const { inUse, texts } = privateKeyForms(made.left.key);
    expect(found(ours, inUse)).toEqual([...inUse.keys()]);
    expect(await leftAfter(ours, texts, WITHIN)).toEqual([]);
    await expectGone(ours, words.name, texts);
  });

  it('that are kept in memory are there until they are undefined', async () => {
    const ours = await start('--libvirt-socket', 'off');
    const psk = randomBytes(36).toString('base64');
    const uuid = randomUUID();
    const needles = spelled('the pre-shared key', Buffer.from(psk));
    await ours.command(['secret-define', '-'], { input: `<secret ephemeral='yes'><uuid>${uuid}</uuid></secret>` });
    await ours.command(['secret-set-value', uuid], { input: Buffer.from(psk).toString('base64') });
    expect(found(ours, needles)).toEqual(['the pre-shared key as base64']);
    await ours.command(['secret-undefine', uuid]);
    expect(await leftAfter(ours, needles, WITHIN)).toEqual([]);
  });
});

/** The scalar of an EC key, as OpenSSL computes with it; and the text and bytes that it was read from. */
function privateKeyForms(key: KeyObject): { readonly inUse: Needles; readonly texts: Needles } {
  const scalar = Buffer.from(key.export({ format: 'jwk' }).d!, 'base64url');
  const lines = keyPem(key).split('\n').slice(1, -2);
  const texts = lines.filter((line) => line.length >= 16).map((line, i) => [`line ${i}`, Buffer.from(line)] as const);
  return {
    inUse: new Map([['scalar', Buffer.from(scalar).reverse()]]),
    texts: new Map([...texts, ['DER', scalar]]),
  };
}
