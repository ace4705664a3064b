/**
 * Certificates that cost as much as they may, from an address that has proved nothing: commands, liveness and packets of a
 * tunnel that is up wait for none of it, memory comes back, and an honest peer at the same address is let in.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { expect, it } from 'vitest';
import { derElement } from '../../src/base/asn1/der.ts';
import { fromHex } from '../../src/base/bytes.ts';
import { authority, directory, dns, ecKey, extension, type Made, make } from '../pki/make.ts';
import type { Lab } from '../support/lab/lab.ts';
import { cable, type Namespace } from '../support/lab/namespace.ts';
import { Ours, sectunnelDocument } from '../support/lab/ours.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { projectRoot } from '../support/lab/root.ts';
import { type Burst, burst, startEcho } from '../support/lab/traffic.ts';
import type { Side } from '../support/lab/tunnel.ts';
import { useLab } from '../support/lab/use-lab.ts';
import { certificate, certifiedTunnel, certPem, fqdn, keyPem, root, year } from './certified.ts';
import { addInner, ECHO_PORT, LINE } from './rig.ts';
import { LEFT, RIGHT, SUITES, suiteTunnel } from './suites.ts';

const PROGRAM = fileURLToPath(new URL('../support/lab/certificate-flood.mjs', import.meta.url));
const ATTACKER = '192.0.2.66';
const NAME = 'innocent';
const SECONDS = 6;

const times = <T>(count: number, one: (at: number) => T): T[] => Array.from({ length: count }, (_, at) => one(at));
const key = ecKey();

/** What passes the limits, and what does not: each as costly as it can be. */
function hostileChains(): Made[][] {
  const purposes = derElement(0x30, ...times(6_500, () => fromHex('06012a')));
  const own = make({ subject: 'CN=x', key, san: times(100, () => directory('CN=x')), ...year });
  const forged = times(9, (at) =>
    authority('CN=x', { issuer: root, signingKey: key, san: times(20, () => dns(`a${at}`)), ...year }),
  );
  return [
    [own, ...forged],
    [make({ subject: 'CN=x', key, extra: [extension('551d25', false, purposes)], ...year })],
    times(10, (at) => make({ subject: `CN=x${at}`, key, extra: [extension('551d25', false, purposes)], ...year })),
  ];
}

describeInterop('a flood of certificates', ['namespaces', 'build'], () => {
  let lab: Lab;
  let left: Namespace;
  let right: Namespace;
  let ours: Ours;

  useLab(async (made) => {
    lab = made;
    [left, right] = [await lab.namespace('left'), await lab.namespace('right')];
    await cable(
      { namespace: left, device: LINE, addresses: [`${LEFT[4].outer}/24`] },
      { namespace: right, device: LINE, addresses: [`${RIGHT[4].outer}/24`, `${ATTACKER}/24`] },
    );
    await addInner(left, LEFT);
    await addInner(right, RIGHT);
    await startEcho(lab, right, '::', ECHO_PORT);
    ours = await Ours.start(lab, left);
    const theirs = await Ours.start(lab, right);
    const innocent = { ...suiteTunnel(NAME, SUITES[0]!), dpd: 2 };
    await theirs.load(innocent, 'right', { start: 'respond' });
    await ours.load(innocent, 'left', { start: 'initiate' });
    await ours.up(NAME);
    await ours.defineDocument('road', document('left'));
    await ours.command(['start', 'road']);
  });

  /** How a side proves itself, with files of its own. */
  function auth(side: Side): string {
    const mine = certificate(side);
    const file = (name: string, text: string): string => {
      writeFileSync(join(lab.folder, `${side}-${name}`), text, { mode: 0o600 });
      return join(lab.folder, `${side}-${name}`);
    };
    const elements = [
      `<ca file='${file('ca.pem', certPem(root))}'/>`,
      `<cert file='${file('cert.pem', certPem(mine))}'/>`,
      `<key file='${file('key.pem', keyPem(mine.key))}'/>`,
    ];
    return `<auth type='x509'><x509 source='file'>${elements.join('')}</x509></auth>`;
  }

  /** A tunnel for peers from anywhere, and the same as such a peer has it. */
  function document(side: Side): string {
    const tunnel = certifiedTunnel(fqdn('left'), fqdn('right'));
    const there = { ...tunnel.right, address: ATTACKER, inner: ['10.66.0.0/24'] };
    const ends = { ...tunnel, name: 'road', left: { ...tunnel.left, inner: ['10.65.0.0/24'] }, right: there };
    const text = sectunnelDocument(ends, side, { start: side === 'left' ? 'respond' : 'initiate' }, 'none')
      .replace(/<auth type='psk'>.*<\/auth>/, auth(side))
      .replace(/<src address=.*\/>\s*<dst address=.*\/>/, '');
    return side === 'left' ? text.replace(/<remote address='[^']*'>.*<\/remote>/, "<remote address='any'/>") : text;
  }

  const program = async (job: object, seconds: number): Promise<{ up: number; failed: number; sent: number }> => {
    const file = join(lab.folder, 'job.json');
    const common = {
      dist: pathToFileURL(join(projectRoot(), 'dist')).href,
      document: document('right'),
      ...{ local: ATTACKER, remote: LEFT[4].outer, port: 4_666, seconds },
    };
    writeFileSync(file, JSON.stringify({ ...common, ...job }));
    const { stdout } = await right.exec([process.execPath, PROGRAM, file], { timeout: (seconds + 30) * 1_000 });
    return JSON.parse(stdout);
  };
  const base64 = (chain: readonly Made[]): string[] => chain.map(({ der }) => Buffer.from(der).toString('base64'));
  const memory = (): number => {
    const [, kilobytes] = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${ours.pid}/status`, 'utf8')) ?? [];
    return Number(kilobytes) / 1_024;
  };

  /** How long the control socket takes to answer, milliseconds. */
  const asked = (): Promise<number> =>
    new Promise((resolve, reject) => {
      const begun = performance.now();
      const socket = connect(join(ours.folder, 'run', 'sectunneld.sock'), () =>
        socket.write('{"id":1,"verb":"list"}\n'),
      );
      socket.once('error', reject);
      socket.once('data', () => {
        resolve(performance.now() - begun);
        socket.destroy();
      });
    });

  /** Seconds of processor time that the main thread of the daemon has used. */
  const mainThread = (): number => {
    const text = readFileSync(`/proc/${ours.pid}/task/${ours.pid}/stat`, 'utf8');
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    return (Number(fields[11]) + Number(fields[12])) / 100;
  };

  /** How long the control socket takes nine times out of ten, milliseconds, while something else happens. */
  async function answers<T>(meanwhile: Promise<T>): Promise<{ ninth: number; result: T }> {
    const taken: number[] = [];
    let over = false;
    const watching = (async () => {
      while (!over) {
        taken.push(await asked());
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    })();
    try {
      const result = await meanwhile;
      return { ninth: taken.sort((a, b) => a - b)[Math.floor(taken.length * 0.9)]!, result };
    } finally {
      over = true;
      await watching;
    }
  }

  it('holds up no command, no packet and no other peer, and costs no memory for long', async () => {
    const inner = { source: LEFT[4].inner, destination: RIGHT[4].inner, port: ECHO_PORT };
    const traffic = (seconds: number): Promise<Burst> => burst(left, { ...inner, count: seconds * 100, pause: 10 });
    const [before, sa, used] = [memory(), (await ours.single(NAME)).ike.spiInitiator, mainThread()];
    const chains = hostileChains().map(base64);
    const { ninth, result } = await answers(
      Promise.all([program({ parallel: 24, key: keyPem(key), chains }, SECONDS), traffic(SECONDS)]),
    );
    const [flood, carried] = result;
    const { counters } = await ours.status();
    expect(flood.up).toBe(0);
    expect(counters['authentication-failed']).toBeGreaterThan(5);
    // 10 ms on a machine that does nothing else. Without threads and limits half took longer than two seconds, and the main
    // thread all there was; here it takes a twentieth.
    expect(ninth).toBeLessThan(1_000);
    expect(mainThread() - used).toBeLessThan(0.3 * SECONDS);
    expect(carried.received).toBeGreaterThanOrEqual(carried.sent * 0.99);
    expect((await ours.single(NAME)).ike.spiInitiator).toBe(sa);
    expect(memory() - before).toBeLessThan(100);
    // An honest peer behind the same address waits until its account has something again.
    const honest = certificate('right');
    const road = await program({ parallel: 1, key: keyPem(honest.key), chains: [base64([honest])] }, 30);
    expect(road).toMatchObject({ up: 1 });
  });
});
