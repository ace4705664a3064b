import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { run } from '../../src/cli/run.ts';
import { MemoryNetwork } from '../../src/tun/udp/memory.ts';
import { address, oppositeDocument, TestDaemon, temporaryFolder, tunnelDocument } from '../support/daemon.ts';

interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

async function sectunnel(daemon: TestDaemon, ...words: readonly string[]): Promise<Outcome> {
  let [out, err] = ['', ''];
  const code = await run(['--run-dir', daemon.runDir, ...words], {
    out: (text) => {
      out += text;
    },
    err: (text) => {
      err += text;
    },
    readStdin: () => Promise.resolve(Buffer.alloc(0)),
    interrupted: () => Promise.resolve(),
  });
  return { code, out, err };
}

/** Two daemons on one network: the left one has a tunnel that is defined, the right one an answer to it. */
async function pair(rightKey = 'a pre-shared key'): Promise<{ left: TestDaemon; right: TestDaemon }> {
  const network = new MemoryNetwork();
  const left = await TestDaemon.start(network.host([address('192.0.2.1')]));
  const right = await TestDaemon.start(network.host([address('192.0.2.2')]));
  await left.giveSecret();
  await right.giveSecret(rightKey);
  await left.client.call('define', { xml: tunnelDocument({ start: 'initiate' }) });
  await right.client.call('create', { xml: oppositeDocument() });
  return { left, right };
}

describe('start --wait', () => {
  it('returns when the tunnel is up', async () => {
    const { left } = await pair();
    const { code, out } = await sectunnel(left, 'start', '--wait', 'net');
    expect(out).toMatch(/^Tunnel net started on device \S+\nTunnel net is up after \d+\.\d s\n$/);
    expect(code).toBe(0);
    expect((await left.client.call('status', { name: 'net' })).tunnels[0]).toMatchObject({ state: 'up' });
  });

  it('says why it is not up when the time is over, with exit code 4, and the tunnel goes on', async () => {
    const { left } = await pair('another key');
    const { code, out, err } = await sectunnel(left, 'start', '--wait=1', 'net');
    expect(out).toMatch(/^Tunnel net started/);
    expect(err).toMatch(/^net: connecting; last failure: AUTHENTICATION_FAILED: /m);
    expect(err).toMatch(/^error: tunnel net is not up after 1s; see 'sectunnel status net'$/m);
    expect(code).toBe(4);
    expect((await left.client.call('info', { name: 'net' })).active).toBe(true);
  });

  it.each(['soon', '0', '-1', '86401', ''])('refuses to wait for %j, and starts nothing', async (wait) => {
    const { left } = await pair();
    const { code, err } = await sectunnel(left, 'start', `--wait=${wait}`, 'net');
    expect(err).toContain(`start: --wait=${wait}: expected: seconds, at most 86400`);
    expect(code).toBe(2);
    expect((await left.client.call('info', { name: 'net' })).active).toBe(false);
  });

  it('says what a tunnel waits for that waits for traffic', async () => {
    const { left } = await pair();
    await left.client.call('define', { xml: tunnelDocument({ start: 'trap' }) });
    const { code, err } = await sectunnel(left, 'start', 'net', '--wait=0.3');
    expect(err).toContain('net: waiting for traffic or for the peer\n');
    expect(code).toBe(4);
  });
});

describe('restart', () => {
  it('negotiates anew, and takes the document that is defined', async () => {
    const { left } = await pair();
    await sectunnel(left, 'start', '--wait', 'net');
    const spis = async (): Promise<string[]> =>
      (await left.client.call('status', { name: 'net' })).tunnels[0]!.ikeSas.map((sa) => sa.spiInitiator);
    const before = await spis();
    const file = join(temporaryFolder(), 'net.xml');
    writeFileSync(file, tunnelDocument({ start: 'initiate', ike: "<dpd interval='7'/>" }));
    await sectunnel(left, 'define', file);
    const { code, out } = await sectunnel(left, 'restart', '--wait', 'net');
    expect(out).toMatch(/^Tunnel net restarted on device \S+\nTunnel net is up after/);
    expect(code).toBe(0);
    expect(await spis()).not.toEqual(before);
    expect((await left.client.call('dumpxml', { name: 'net', inactive: false })).xml).toMatch(/<dpd interval='7'/);
  });

  it('starts a tunnel that is not active', async () => {
    const { left } = await pair();
    expect(await sectunnel(left, 'restart', 'net')).toMatchObject({ code: 0 });
    expect((await left.client.call('info', { name: 'net' })).active).toBe(true);
  });

  it('leaves a tunnel as it runs when the defined document cannot start', async () => {
    const { left } = await pair();
    await sectunnel(left, 'start', '--wait', 'net');
    const other = tunnelDocument({ start: 'initiate' }).replace(/555555555501/, '555555555599');
    await left.client.call('define', { xml: other });
    const { code, err } = await sectunnel(left, 'restart', 'net');
    expect(code).toBe(1);
    expect(err).toContain('555555555599');
    expect((await left.client.call('status', { name: 'net' })).tunnels[0]).toMatchObject({ state: 'up' });
  });
});
