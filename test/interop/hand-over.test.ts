/**
 * A daemon that hands its SAs over to the next one, by threads of their own and by the event loop: strongSwan sees the same
 * SAs before and after, and packets are lost only while no daemon runs.
 */
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import type { Lab } from '../support/lab/lab.ts';
import { cable, type Namespace } from '../support/lab/namespace.ts';
import { Ours } from '../support/lab/ours.ts';
import { waitFor } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { StrongSwan } from '../support/lab/strongswan.ts';
import { ping } from '../support/lab/traffic.ts';
import { useLab } from '../support/lab/use-lab.ts';
import { LINE } from './rig.ts';
import { LEFT, RIGHT, SUITES, suiteTunnel } from './suites.ts';

const TUNNEL = suiteTunnel('kept', SUITES[0]!);
const { name: NAME } = TUNNEL;
/** Seconds without an answer, at most: a busy machine takes a while to start a daemon. */
const LONGEST_GAP = 15;

/** Programs for `node -e`: one sends back what it gets, one sends a line again and again and prints what comes back. */
const ECHO = `require('node:net').createServer((one) => one.pipe(one)).listen(7007, process.argv[1], () => console.log('listening'))`;
const TICK = `const [host, localAddress] = process.argv.slice(1);
const socket = require('node:net').connect({ host, port: 7007, localAddress });
setInterval(() => socket.write('tick\\n'), 20);
socket.on('data', (data) => process.stdout.write(data));`;

for (const workers of ['1', '0']) {
  describeInterop(`a hand-over with --workers ${workers}`, ['namespaces', 'strongswan', 'build'], () => {
    let left: Namespace;
    let peer: StrongSwan;
    let ours: Ours;

    useLab(async (lab: Lab) => {
      left = await lab.namespace('left');
      const right = await lab.namespace('right');
      await cable(
        { namespace: left, device: LINE, addresses: [`${LEFT[4].outer}/24`] },
        { namespace: right, device: LINE, addresses: [`${RIGHT[4].outer}/24`] },
      );
      await left.ip([`addr add ${LEFT[4].inner}/24 dev lo`]);
      await right.ip([`addr add ${RIGHT[4].inner}/24 dev lo`]);
      peer = await StrongSwan.start(lab, right);
      ours = await Ours.start(lab, left, { arguments: ['--workers', workers, '--hand-over'] });
      await peer.load(TUNNEL, 'right');
      await ours.load(TUNNEL, 'left', { start: 'initiate' });
      await ours.up(NAME);
    });

    const ends = { source: LEFT[4].inner, destination: RIGHT[4].inner };
    const file = (): string => join(ours.folder, 'run', 'state');

    /** What both ends say of their SAs. */
    async function sas(): Promise<unknown> {
      const [own, theirs] = [await ours.single(NAME), await peer.single()];
      const { spiInitiator, spiResponder, suite } = own.ike;
      return {
        ...{ spiInitiator, spiResponder, suite },
        own: [own.child.spiIn, own.child.spiOut],
        theirs: [theirs.ike.id, theirs.child.spiIn, theirs.child.spiOut],
      };
    }

    it('leaves the SAs as they are, under traffic', async () => {
      const before = await sas();
      const pings = left.spawn('ping', ['ping', '-n', '-D', '-i', '0.02', '-I', ends.source, ends.destination]);
      const answers = (): number[] =>
        [...pings.output.matchAll(/^\[(\d+\.\d+)\] \d+ bytes/gm)].map((one) => Number(one[1]));
      await waitFor('answers', () => (answers().length > 20 ? true : undefined));
      expect(await ours.stop()).toBe(0);
      expect(statSync(file()).mode & 0o777).toBe(0o600);
      await ours.startDaemon();
      expect(existsSync(file())).toBe(false);
      const restarted = Date.now() / 1_000;
      await waitFor('answers again', () => (answers().filter((at) => at > restarted).length > 20 ? true : undefined));
      await pings.stop('SIGINT');
      expect(await sas()).toEqual(before);
      const times = answers();
      const gaps = times.slice(1).map((at, index) => at - times[index]!);
      expect(Math.max(...gaps)).toBeLessThan(LONGEST_GAP);
    });

    it('keeps a TCP connection', async () => {
      const server = peer.namespace.spawn('TCP echo', [process.execPath, '-e', ECHO, ends.destination]);
      await waitFor('the server', () => (server.output.includes('listening') ? true : undefined));
      const client = left.spawn('TCP client', [process.execPath, '-e', TICK, ends.destination, ends.source]);
      const echoed = (): number => client.output.split('\n').filter((line) => line === 'tick').length;
      try {
        await waitFor('echoes', () => (echoed() > 10 ? true : undefined));
        await ours.stop();
        await ours.startDaemon();
        const before = echoed();
        await waitFor('echoes again', () => (echoed() > before + 10 ? true : undefined), 20_000);
        expect(client.output).not.toContain('Error');
      } finally {
        await client.stop('SIGKILL');
        await server.stop('SIGKILL');
      }
    });

    it('lets both sides rekey afterwards', async () => {
      const before = await ours.single(NAME);
      await peer.rekeyChild(NAME);
      await waitFor('a new CHILD SA', async () => {
        const sas = (await ours.tunnel(NAME)).ikeSas.flatMap(({ children }) => children);
        return sas.length === 1 && sas[0]!.spiIn !== before.child.spiIn ? true : undefined;
      });
      await ours.command(['rekey', NAME, '--ike']);
      await waitFor('a new IKE SA', async () => {
        const [ike, another] = (await ours.tunnel(NAME)).ikeSas.filter(({ state }) => state === 'established');
        return another === undefined && ike!.spiInitiator !== before.ike.spiInitiator ? true : undefined;
      });
      expect(await ping(left, { ...ends, count: 3 })).toBe(3);
    });

    it('is not made on SIGINT: the peer is told', async () => {
      await ours.stop('SIGINT');
      expect(existsSync(file())).toBe(false);
      await waitFor('the peer to forget', async () => ((await peer.sas()).length === 0 ? true : undefined));
      await ours.startDaemon();
      await ours.up(NAME);
    });
  });
}
