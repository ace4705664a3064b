/**
 * Defaults against the defaults of libreswan, which wants a group for a CHILD SA (`pfs=yes`).
 *
 * Where the two disagree libreswan 4.10 is wrong, and we get along with it: a KE payload without data in an answer without
 * a group (§1.3.1), INVALID_SYNTAX in the place of INVALID_KE_PAYLOAD for another group (§1.3), which it wants to be that of
 * the CHILD SA, not that of the IKE SA since it was rekeyed.
 */
import { expect, it } from 'vitest';
import type { Lab } from '../support/lab/lab.ts';
import { Libreswan } from '../support/lab/libreswan.ts';
import type { Namespace } from '../support/lab/namespace.ts';
import { Ours } from '../support/lab/ours.ts';
import { STARTING, waitFor } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { useLab } from '../support/lab/use-lab.ts';
import { addresses, PSK, ROWS, type Row, testDefaults } from './defaults.ts';

/** Rekeyed four seconds before their end. */
const SHORT = '  salifetime=12s\n  ikelifetime=20s\n  rekeymargin=4s\n  rekeyfuzz=0%\n';

/** Its own defaults, but for what a row is about, and its script for routes: the guest has one, and takes seconds for it. */
function connection(row: Row): string {
  const { near, far, inside, outside } = addresses(row);
  return `conn ${row.name}
  left=${far}
  leftsubnet=${outside}/32
  right=${near}
  rightsubnet=${inside}/32
  authby=secret
  ikev2=insist
  auto=add
  leftupdown=%disabled
${row.pfs === 'no' ? '  pfs=no\n' : ''}${row.rekeys === 'theirs' ? SHORT : ''}`;
}

testDefaults({
  name: 'libreswan',
  promise: 'lose nothing, whoever begins, whoever rekeys, with a group and without',
  need: 'libreswan',
  boot: (lab, namespace, guest) => {
    const configuration = ['config setup\n', ...ROWS.map(connection)].join('\n');
    return Libreswan.boot(lab, namespace, { ...guest, configuration, psk: PSK });
  },
  begin: async (peer, rows) => {
    for (const { name } of rows) await peer.initiate(name);
  },
  rekeyed: (peer, { name, rekeys }) => {
    const role = rekeys === 'ours' ? 'responder' : 'initiator';
    const count = (sa: string): number =>
      [...peer.log().matchAll(new RegExp(`^.*"${name}" #\\d+: ${role} rekeyed ${sa} SA`, 'gm'))].length;
    return count('IKE') > 0 && count('Child') > 1;
  },
});

const KEY = '11111111-2222-3333-4444-555555555513';

/** Of a tunnel to a peer that ignores what NAT detection finds. */
const document = (
  nat: string,
  start: 'initiate' | 'respond' = 'initiate',
  name = 'bare',
): string => `<sectunnel type='ipsec'>
  <name>${name}</name>
  <sa>
    <local address='198.18.9.1'/>
    <remote address='198.18.9.2'/>
    <auth type='psk'><secret uuid='${KEY}'/></auth>
    <ike start='${start}'>${nat}</ike>
    <esp/>
  </sa>
  <sp name='lan'>
    <src_range address='10.1.9.1'/>
    <dst_range address='10.2.9.1'/>
    <upperspec protocol='any'/>
    <policy direction='both' action='ipsec'><rule protocol='esp' mode='tunnel' level='require'/></policy>
  </sp>
</sectunnel>
`;

/**
 * libreswan with `encapsulation=no` answers IKE on port 4500, then sends ESP directly over IP, and its kernel drops ESP in UDP
 * (XfrmInStateMismatch). RFC 7296 §2.23 has ESP in UDP where a NAT was detected, and no message that says what a side does.
 */
describeInterop('libreswan that does not encapsulate', ['namespaces', 'uml', 'libreswan', 'build'], () => {
  let left: Namespace;
  let peer: Libreswan;
  let ours: Ours;

  useLab(async (lab: Lab) => {
    left = await lab.namespace('left');
    await left.ip(['addr add 10.1.9.1/32 dev lo']);
    const connection =
      'conn bare\n  left=198.18.9.2\n  leftsubnet=10.2.9.1/32\n  right=198.18.9.1\n  rightsubnet=10.1.9.1/32\n' +
      '  authby=secret\n  ikev2=insist\n  auto=add\n  leftupdown=%disabled\n  encapsulation=no\n';
    peer = await Libreswan.boot(lab, left, {
      device: 'eth0',
      hostAddresses: ['198.18.9.1/24'],
      guestAddresses: ['198.18.9.2/24'],
      innerAddresses: ['10.2.9.1/32'],
      configuration: `config setup\n\n${connection}`,
      psk: PSK,
    });
    ours = await Ours.start(lab, left);
    await ours.secret(PSK, KEY);
  });

  const ping = async (): Promise<number> => {
    const words = ['ping', '-n', '-c', '3', '-i', '0.2', '-W', '1', '-I', '10.1.9.1', '10.2.9.1'];
    const { stdout } = await left.exec(words, { check: false });
    return Number(/(\d+) received/.exec(stdout)?.[1]);
  };

  it('is up without a packet, which status, list, info and log say and why, until ESP goes as it does', async () => {
    await ours.defineDocument('bare', document(''));
    await ours.command(['start', 'bare']);
    await ours.up('bare', STARTING);
    expect([await ping(), (await ours.tunnel('bare')).nothingReceived]).toEqual([0, []]);
    const told = (): Promise<string> =>
      waitFor('nothing to be received', async () => (await ours.tunnel('bare')).nothingReceived[0], 20_000);
    const silent = await told();
    expect(silent).toMatch(
      /^CHILD SA #\d+ lan has sent 3 packets and never received one, while IKE works; .* 198\.18\.9\.2 sends and accepts ESP in UDP \(its encapsulation setting\)/,
    );
    const { state, degraded } = await ours.tunnel('bare');
    expect([state, degraded]).toEqual(['up', []]);
    expect((await ours.command(['list'])).stdout).toContain('active (up, nothing received)');
    expect((await ours.command(['status', 'bare'])).stdout).toContain(`\n  nothing received: ${silent}\n`);
    expect((await ours.command(['info', 'bare'])).stdout).toMatch(/^Nothing received: +CHILD SA/m);
    expect(ours.log()).toContain('has sent 3 packets and never received one');

    await peer.exec(['ping', '-c', '1', '-W', '1', '-I', '10.2.9.1', '10.1.9.1']);
    const named = await waitFor('its ESP to be seen', async () => (/directly/.test(await told()) ? told() : undefined));
    expect(named).toMatch(/^198\.18\.9\.2 sends the ESP of CHILD SA #\d+ lan directly over IP \(protocol 50\)/);

    await ours.command(['destroy', 'bare']);
    await ours.defineDocument('bare', document("<nat encapsulation='needed'/>"));
    await ours.command(['start', 'bare']);
    await ours.up('bare', STARTING);
    expect([await ping(), (await ours.tunnel('bare')).nothingReceived]).toEqual([3, []]);
    await ours.command(['destroy', 'bare']);
  }, 120_000);

  it('is degraded where its ESP is received, as the socket is open for another tunnel', async () => {
    const other = document("<nat encapsulation='needed'/>", 'respond', 'other');
    await ours.defineDocument('other', other.replace('198.18.9.2', '198.18.9.7').replace('10.2.9.1', '10.2.9.7'));
    await ours.command(['start', 'other']);
    await ours.defineDocument('bare', document(''));
    await ours.command(['start', 'bare']);
    await ours.up('bare', STARTING);
    await peer.exec(['ping', '-c', '3', '-W', '1', '-I', '10.2.9.1', '10.1.9.1']);
    const told = await waitFor('its ESP to be seen', async () => (await ours.tunnel('bare')).degraded[0], 20_000);
    expect(told).toMatch(/^198\.18\.9\.2 sends the ESP of CHILD SA #\d+ lan directly over IP \(protocol 50\)/);
    const { nothingReceived, ikeSas } = await ours.tunnel('bare');
    expect(nothingReceived).toEqual([]);
    expect(ikeSas[0]?.children[0]?.encapsulated).toBe(true);
    expect(await ping()).toBe(0);
    for (const name of ['bare', 'other']) await ours.command(['destroy', name]);
  }, 120_000);

  // The last: libreswan goes on calling.
  it('gets no CHILD SA when it calls, as it stays on port 500, which status says', async () => {
    await ours.defineDocument('bare', document('', 'respond'));
    await ours.command(['start', 'bare']);
    await peer.initiate('bare');
    const failure = await waitFor('its call to fail', async () => (await ours.tunnel('bare')).lastFailure, STARTING);
    expect(failure).toMatchObject({
      reason: 'no-esp-path',
      detail: expect.stringMatching(
        /sends IKE to port 500, which carries no ESP: .*; or, .* encapsulation 'needed' here$/,
      ),
      inDocument: [expect.stringContaining("encapsulation='always'")],
    });
    expect((await ours.status()).counters['path-refused']).toBeGreaterThan(0);
    expect((await ours.command(['status', 'bare'])).stdout).toContain('no-esp-path');
    await ours.command(['destroy', 'bare']);
  });
});
