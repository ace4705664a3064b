/**
 * The units for systemd: what systemd thinks of them, and a daemon with no more capabilities than they give, told of by
 * sd_notify's protocol as it is there. Nothing here is run by systemd itself.
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeEach, expect, it } from 'vitest';
import { showLogsOnFailure } from '../support/lab/failure.ts';
import { Lab } from '../support/lab/lab.ts';
import { cable } from '../support/lab/namespace.ts';
import { Ours } from '../support/lab/ours.ts';
import { run, waitFor } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { builtProgram, projectRoot } from '../support/lab/root.ts';
import { ping } from '../support/lab/traffic.ts';
import type { Tunnel } from '../support/lab/tunnel.ts';
import { NotifySocket } from '../support/notify-socket.ts';
import { LINE } from './rig.ts';

const NOBODY = 65_534;
/** How the kernel writes CAP_NET_BIND_SERVICE (10), CAP_NET_ADMIN (12) and CAP_NET_RAW (13). */
const CAPABILITIES = '0000000000003400';

const TUNNEL: Tunnel = {
  name: 'lan',
  left: { address: '192.0.2.1', id: { type: 'fqdn', value: 'l.example' }, inner: ['10.1.0.0/24'], psk: 'a key' },
  right: { address: '192.0.2.2', id: { type: 'fqdn', value: 'r.example' }, inner: ['10.2.0.0/24'], psk: 'a key' },
  ike: { encryption: 'aes128gcm16', prf: 'sha256', dh: 'x25519' },
  esp: { encryption: 'aes128gcm16', esn: 'no' },
  encapsulation: 'never',
};

function unit(name: string): string {
  return readFileSync(join(projectRoot(), 'systemd', name), 'utf8');
}

function setting(text: string, name: string): string {
  const found = new RegExp(`^${name}=(.*)$`, 'm').exec(text)?.[1];
  if (found === undefined) throw new Error(`the unit has no ${name}=`);
  return found;
}

/** `setpriv` with the capabilities of a unit and no others. */
function withUnitsRights(name: string, user: number): string[] {
  const names = setting(unit(name), 'CapabilityBoundingSet').toLowerCase().split(' ');
  const set = ['-all', ...names.map((name) => name.replace(/^cap_/, '+'))].join(',');
  const identity = user === 0 ? [] : ['--reuid', `${user}`, '--regid', `${user}`, '--clear-groups'];
  const rights = ['--bounding-set', '--inh-caps', '--ambient-caps'].flatMap((option) => [option, set]);
  return ['setpriv', ...identity, ...rights, '--no-new-privs'];
}

/** Not where the sources lie in the home of root. */
function readableByNobody(): boolean {
  const asNobody = ['--reuid', `${NOBODY}`, '--regid', `${NOBODY}`, '--clear-groups'];
  return spawnSync('setpriv', [...asNobody, process.execPath, builtProgram('daemon'), '--version']).status === 0;
}

describeInterop('units for systemd', ['namespaces', 'systemd', 'build'], () => {
  const lab = new Lab();

  afterAll(() => lab.dispose(), 60_000);

  beforeEach(() => showLogsOnFailure(lab));

  it('are as systemd wants them', async () => {
    const folder = join(lab.folder, 'units');
    mkdirSync(folder);
    const programs = {
      sectunneld: `${process.execPath} ${builtProgram('daemon')}`,
      sectunnel: `${process.execPath} ${builtProgram('cli')}`,
    };
    for (const name of ['sectunneld.service', 'sectunnel-fence.service', 'sectunnel@.service']) {
      const text = unit(name).replace(/^(Exec\w+)=(sectunneld?) /gm, (_all, key, program: keyof typeof programs) => {
        return `${key}=${programs[program]} `;
      });
      writeFileSync(join(folder, name), text);
    }
    for (const name of ['sectunneld.service', 'sectunnel-fence.service', 'sectunnel@lan.service']) {
      const { stdout, stderr } = await run(['systemd-analyze', 'verify', '--man=no', join(folder, name)]);
      expect(stdout + stderr).toBe('');
    }
  });

  it.each([
    ['root', 0],
    ['another user', NOBODY],
  ])('give all the rights that a daemon of %s needs', async (_who, wanted) => {
    const user = wanted === 0 || readableByNobody() ? wanted : 0;
    const [left, right] = [await lab.namespace(`left${wanted}`), await lab.namespace(`right${wanted}`)];
    await cable(
      { namespace: left, device: LINE, addresses: ['192.0.2.1/24'] },
      { namespace: right, device: LINE, addresses: ['192.0.2.2/24'] },
    );
    await left.ip(['addr add 10.1.0.1/24 dev lo']);
    await right.ip(['addr add 10.2.0.1/24 dev lo']);
    chmodSync(lab.folder, 0o711);
    const name = join(lab.folder, `notify${wanted}`);
    const manager = NotifySocket.open(name);
    chmodSync(name, 0o666);
    const launcher = withUnitsRights('sectunneld.service', user);
    const env = { NOTIFY_SOCKET: name, WATCHDOG_USEC: '200000' };
    const ours = await Ours.start(lab, left, { launcher, owner: user, env });
    const other = await Ours.start(lab, right);

    const status = readFileSync(`/proc/${ours.pid}/status`, 'utf8');
    for (const set of ['CapPrm', 'CapEff', 'CapBnd', 'CapAmb']) {
      expect(status).toMatch(new RegExp(`^${set}:\t${CAPABILITIES}$`, 'm'));
    }
    expect(status).toMatch(new RegExp(`^Uid:\t${user}\t`, 'm'));

    // No core dump, and none but root may read the keys in its memory: files of one that may be dumped are its user's.
    expect(readFileSync(`/proc/${ours.pid}/limits`, 'utf8')).toMatch(/^Max core file size +0 +0 /m);
    expect(statSync(`/proc/${ours.pid}/mem`).uid).toBe(0);

    // A device with routes, UDP port 500, and ESP straight over IP.
    await other.load(TUNNEL, 'right', { start: 'respond' });
    await ours.load(TUNNEL, 'left', { start: 'initiate' });
    await ours.up(TUNNEL.name);
    expect(await ping(left, { source: '10.1.0.1', destination: '10.2.0.1', count: 2 })).toBe(2);

    const told: string[] = [];
    await waitFor('the watchdog to be fed', () => {
      told.push(...manager.receive());
      return told.filter((state) => state === 'WATCHDOG=1').length >= 2 ? true : undefined;
    });
    expect(await ours.stop()).toBe(0);
    told.push(...manager.receive());
    expect(told[0]).toBe('READY=1');
    expect(told.filter((state) => state !== 'WATCHDOG=1')).toEqual(['READY=1', 'STOPPING=1']);
    expect(await left.interfaces()).toEqual(['lo', LINE]);

    // The unit for boot has fewer rights.
    const rights = withUnitsRights('sectunnel-fence.service', user);
    await left.exec(['sh', '-c', 'nft flush ruleset; ip rule flush; ip rule add pref 32766 lookup main']);
    await ours.raise(rights);
    expect((await left.exec(['nft', 'list', 'ruleset'])).stdout).toContain('table inet sectunnel');
    expect((await left.exec(['ip', 'rule', 'show'])).stdout).toContain('7000:\tfrom 10.1.0.0/24');
  });
});
