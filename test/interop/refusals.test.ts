/** What does not fit between sectunnel and strongSwan is refused by whoever is asked, and our side says why. */
import { beforeEach, expect, it } from 'vitest';
import type { Explanation } from '../../src/explain/explanation.ts';
import { Ours } from '../support/lab/ours.ts';
import { waitFor } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { swanctlConf } from '../support/lab/strongswan.ts';
import type { Tunnel } from '../support/lab/tunnel.ts';
import { useLab } from '../support/lab/use-lab.ts';
import { ALL_CARRIED, agreed, buildRig, exchange, LINE, RIG_NEEDS, RIG_TIMEOUT, type Rig } from './rig.ts';
import { SUITES, suiteTunnel } from './suites.ts';

const NAME = 'refused';

const FITTING = suiteTunnel(NAME, SUITES[0]!);

interface Misfit {
  /** How strongSwan names it, on the wire and in its output. */
  readonly notify: string;
  /** What strongSwan is configured with, where ours has `FITTING`. */
  readonly theirs: Tunnel;
  /** What must stand in our log: both sides of the matter. */
  readonly ourWords: readonly RegExp[];
  /** What of our document `status` points to. */
  readonly inDocument: readonly RegExp[];
  /** What `status` says when we refuse: what did not fit, and how. */
  readonly difference: RegExp;
  /** The IKE SA lives on; only the child is refused. */
  readonly ikeSurvives: boolean;
}

const MISFITS: readonly Misfit[] = [
  {
    notify: 'AUTHENTICATION_FAILED',
    theirs: { ...FITTING, right: { ...FITTING.right, psk: 'another pre-shared key, of no use' } },
    ourWords: [/AUTHENTICATION_FAILED/, /left\.example/, /right\.example/],
    inDocument: [/^line \d+: <id type='fqdn'>left\.example<\/id>$/, /right\.example/, /<auth type='psk'>$/],
    difference: /the identities match, but the pre-shared keys differ$/,
    ikeSurvives: false,
  },
  {
    notify: 'NO_PROPOSAL_CHOSEN',
    theirs: { ...FITTING, ike: { encryption: 'aes256', integrity: 'sha384', prf: 'sha384', dh: 'ecp384' } },
    ourWords: [/NO_PROPOSAL_CHOSEN/, /aes128gcm16/],
    inDocument: [/^line \d+: <proposal> aes128gcm16-/],
    difference: /what differs:[\s\S]*encryption: peer aes256, here aes128gcm16/,
    ikeSurvives: false,
  },
  {
    notify: 'NO_PROPOSAL_CHOSEN',
    theirs: { ...FITTING, esp: { encryption: 'aes256', integrity: 'sha512', esn: 'no' } },
    ourWords: [/NO_PROPOSAL_CHOSEN/, /aes128gcm16/],
    inDocument: [/^line \d+: <proposal> aes128gcm16/, /^line \d+: <rule mode='tunnel'>/],
    difference: /what differs:[\s\S]*encryption: peer aes256, here aes128gcm16/,
    ikeSurvives: true,
  },
  {
    notify: 'TS_UNACCEPTABLE',
    theirs: {
      ...FITTING,
      left: { ...FITTING.left, inner: ['10.77.0.0/24'] },
      right: { ...FITTING.right, inner: ['10.88.0.0/24'] },
    },
    ourWords: [/TS_UNACCEPTABLE/, /10\.1\.0\.0\/24/],
    inDocument: [/^line \d+: <rule mode='tunnel'> of '\w+': 10\.1\.0\.0\/24 === 10\.2\.0\.0\/24$/],
    difference: /local side: proposed 10\.77\.0\.0\/24; configured 10\.1\.0\.0\/24; no address is in both/,
    ikeSurvives: true,
  },
];

function title({ notify, ikeSurvives }: Misfit): string {
  return `${notify} for the ${ikeSurvives ? 'CHILD' : 'IKE'} SA`;
}

describeInterop('refusals with strongSwan', [...RIG_NEEDS.userspace, 'build'], () => {
  let rig: Rig;
  let ours: Ours;

  useLab(async (lab) => {
    rig = await buildRig(lab, 'userspace');
    ours = await Ours.start(lab, rig.left);
  }, RIG_TIMEOUT);

  beforeEach(async () => {
    await ours.reset();
    await rig.peer.reset();
  });

  /** What we have logged since. */
  function logSince(): () => string {
    const start = ours.log().length;
    return () => ours.log().slice(start);
  }

  it.each(MISFITS.map((misfit) => [title(misfit), misfit] as const))(
    'we initiate: %s',
    async (_title, misfit) => {
      const log = logSince();
      await rig.peer.load(misfit.theirs, 'right');
      await ours.load(FITTING, 'left', { start: 'initiate' });
      await waitFor(`our log to say ${misfit.notify}`, () => log().includes(misfit.notify) || undefined);
      for (const words of misfit.ourWords) expect(log()).toMatch(words);
      const tunnel = await ours.tunnel(NAME);
      expect(tunnel.state).not.toBe('up');
      expect(`${tunnel.lastFailure?.reason} ${tunnel.lastFailure?.detail}`).toContain(misfit.notify);
      expect(tunnel.lastFailure?.inDocument).toEqual(misfit.inDocument.map((place) => expect.stringMatching(place)));

      // The tunnel is wanted: when the peer is put right, it comes up by itself.
      await rig.peer.reset();
      await rig.peer.load(FITTING, 'right');
      await ours.up(NAME, 45_000);
      await agreed(ours, rig.peer, NAME);
      expect(await exchange(rig, 4)).toEqual(ALL_CARRIED);
    },
    90_000,
  );

  it.each(MISFITS.map((misfit) => [title(misfit), misfit] as const))(
    'the peer initiates: %s',
    async (_title, misfit) => {
      const log = logSince();
      await rig.peer.load(misfit.theirs, 'right');
      await ours.load(FITTING, 'left', { start: 'respond' });
      expect(await rig.peer.initiateInVain(NAME)).toContain(misfit.notify);
      await waitFor(`our log to say ${misfit.notify}`, () => log().includes(misfit.notify) || undefined);
      for (const words of misfit.ourWords) expect(log()).toMatch(words);
      expect((await ours.tunnel(NAME)).ikeSas).toHaveLength(misfit.ikeSurvives ? 1 : 0);
      const { state, lastFailure } = await ours.tunnel(NAME);
      expect(state).not.toBe('up');
      expect(lastFailure?.detail).toMatch(misfit.difference);
      expect(lastFailure?.inDocument).toEqual(misfit.inDocument.map((place) => expect.stringMatching(place)));
    },
  );

  it('of the kernel are found by explain: a packet that is routed past the tunnel', async () => {
    await rig.peer.load(FITTING, 'right');
    await ours.load(FITTING, 'left', { start: 'initiate' });
    await ours.up(NAME);
    const { child } = await ours.single(NAME);
    const ask = async (): Promise<Explanation> => {
      const words = ['--src', '10.1.0.1:4000', '--dst', '10.2.0.1:53', '--proto', 'udp', '--json'];
      const { stdout } = await ours.command(['explain', NAME, ...words], { check: false });
      return JSON.parse(stdout) as Explanation;
    };
    const { device } = await ours.tunnel(NAME);
    expect(await ask()).toMatchObject({
      outcome: 'protected',
      sa: { carries: { spi: child.spiOut } },
      route: { link: device!.name, reachesTunnel: true, rule: expect.stringMatching(/^70\d\d: from .* lookup \d+$/) },
      fence: { action: 'guard' },
      warnings: [],
    });
    // Our own rules would be put back at once; another program's in front of them stays.
    await rig.left.exec(['ip', 'rule', 'add', 'pref', '100', 'to', '10.2.0.0/24', 'lookup', 'main']);
    await rig.left.exec(['ip', 'route', 'add', '10.2.0.0/24', 'dev', LINE]);
    expect(await ask()).toMatchObject({
      outcome: 'not-applied',
      verdict: 'The policy protects it, but it does not reach the tunnel: the fence drops it.',
      route: { link: LINE, rule: '100: from all to 10.2.0.0/24 lookup main', reachesTunnel: false },
    });
    await rig.left.exec(['ip', 'route', 'del', '10.2.0.0/24', 'dev', LINE]);
    await rig.left.exec(['ip', 'rule', 'del', 'pref', '100']);
  });

  it('of any CHILD SA in IKE_AUTH: it is made in an exchange of its own, at the next attempt, which is at once', async () => {
    const conf = swanctlConf(FITTING, 'right').replace('    version = 2\n', '    version = 2\n    childless = force\n');
    await rig.peer.loadConfiguration(conf);
    await ours.load(FITTING, 'left', { start: 'initiate' });
    const began = performance.now();
    await agreed(ours, rig.peer, NAME);
    expect(performance.now() - began).toBeLessThan(15_000);
    expect(await exchange(rig, 4)).toEqual(ALL_CARRIED);
    expect(ours.log()).toContain('the next attempt, at once, makes the CHILD SA in an exchange of its own');
  });

  it('of one peer leave the tunnel of another alone', async () => {
    await rig.peer.load(FITTING, 'right');
    await ours.load(FITTING, 'left', { start: 'initiate' });
    await agreed(ours, rig.peer, NAME);
    // What is no message at all: empty, a lone non-ESP marker, a header that is cut short, noise.
    const noise = ['', '00000000', '00'.repeat(20), 'ff'.repeat(400), `00000000${'5a'.repeat(64)}`];
    const source = `const s = require('node:dgram').createSocket('udp4');
      const all = ${JSON.stringify(noise)}.flatMap((hex) => [500, 4500].map((port) => [Buffer.from(hex, 'hex'), port]));
      let left = all.length * 20;
      for (let i = 0; i < 20; i++) for (const [data, port] of all) s.send(data, port, '192.0.2.1', () => { if (--left === 0) s.close(); });`;
    await rig.right.exec([process.execPath, '-e', source]);
    expect(await exchange(rig, 4)).toEqual(ALL_CARRIED);
    const { counters } = await ours.status();
    expect(Object.values(counters).reduce((sum, count) => sum + count, 0)).toBeGreaterThan(0);
  });
});
