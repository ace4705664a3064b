/**
 * Defaults against the defaults of libreswan, past two lifetimes of the CHILD SA and one of the IKE SA, which either
 * rekeys, with packets both ways all the time. libreswan wants a group by default (`pfs=yes`), which IKE_AUTH does not show
 * (RFC 7296 §1.2).
 *
 * Where the two disagree libreswan 4.10 is wrong, and we get along with it: a KE payload without data in an answer without
 * a group (§1.3.1), INVALID_SYNTAX in the place of INVALID_KE_PAYLOAD for another group (§1.3), which it wants to be that of
 * the CHILD SA, not that of the IKE SA since it was rekeyed.
 *
 * All rows at once: each has addresses of its own, for libreswan has one IKE SA between two.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import type { Lab } from '../support/lab/lab.ts';
import { Libreswan } from '../support/lab/libreswan.ts';
import type { Namespace } from '../support/lab/namespace.ts';
import { Ours } from '../support/lab/ours.ts';
import { STARTING, waitFor } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { useLab } from '../support/lab/use-lab.ts';

const PSK = 'interop: a key of 32 characters!';
const KEY = '11111111-2222-3333-4444-555555555512';
/** Of the traffic, in seconds: more than two lifetimes of either side. */
const SECONDS = 32;
const PINGS = SECONDS * 10;

interface Row {
  readonly name: string;
  readonly initiator: 'ours' | 'theirs';
  /** Whose lifetimes are short. */
  readonly rekeys: 'ours' | 'theirs';
  readonly pfs: 'yes' | 'no';
}

const ROWS: readonly Row[] = (['yes', 'no'] as const).flatMap((pfs) =>
  (['ours', 'theirs'] as const).flatMap((initiator) =>
    (['ours', 'theirs'] as const).map((rekeys) => ({
      ...{ initiator, rekeys, pfs },
      name: `${initiator === 'ours' ? 'called' : 'calls'}-${rekeys === 'ours' ? 'rekeyed' : 'rekeys'}-pfs-${pfs}`,
    })),
  ),
);

/** Outer and inner addresses of a row. */
function addresses(row: Row): { near: string; far: string; inside: string; outside: string } {
  const n = 10 + ROWS.indexOf(row);
  return { near: `192.0.2.${n}`, far: `192.0.2.${n + 100}`, inside: `10.1.${n}.1`, outside: `10.2.${n}.1` };
}

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
${row.pfs === 'no' ? '  pfs=no\n' : ''}${row.rekeys === 'theirs' ? SHORT.theirs : ''}`;
}

const SHORT = {
  ours: { ike: "<lifetime soft='15' hard='25' jitter='0'/>", esp: "<lifetime soft='6' hard='10' jitter='0'/>" },
  theirs: '  salifetime=12s\n  ikelifetime=20s\n  rekeymargin=4s\n  rekeyfuzz=0%\n',
};

function document(row: Row): string {
  const { near, far, inside, outside } = addresses(row);
  const { ike, esp } = row.rekeys === 'ours' ? SHORT.ours : { ike: '', esp: '' };
  return `<sectunnel type='ipsec'>
  <name>${row.name}</name>
  <sa>
    <local address='${near}'/>
    <remote address='${far}'/>
    <auth type='psk'><secret uuid='${KEY}'/></auth>
    <ike start='${row.initiator === 'ours' ? 'initiate' : 'respond'}'>${ike}</ike>
    <esp>${esp}</esp>
  </sa>
  <sp name='lan'>
    <src_range address='${inside}'/>
    <dst_range address='${outside}'/>
    <upperspec protocol='any'/>
    <policy direction='both' action='ipsec'><rule protocol='esp' mode='tunnel' level='require'/></policy>
  </sp>
</sectunnel>
`;
}

const pingWords = (source: string, destination: string): string[] => [
  ...['ping', '-n', '-q', '-c', `${PINGS}`, '-i', '0.1', '-W', '4'],
  ...['-I', source, destination],
];

/** `320 packets transmitted, 320 received`: how many were lost. */
function lost(output: string): number {
  const [, sent, received] = /(\d+) packets transmitted, (\d+) received/.exec(output) ?? [];
  return Number(sent) === PINGS ? Number(sent) - Number(received) : Number.NaN;
}

describeInterop('defaults against those of libreswan', ['namespaces', 'uml', 'libreswan', 'build'], () => {
  let lab: Lab;
  let left: Namespace;
  let peer: Libreswan;
  let ours: Ours;

  useLab(async (made) => {
    lab = made;
    left = await lab.namespace('left');
    const all = ROWS.map(addresses);
    await left.ip(all.map(({ inside }) => `addr add ${inside}/32 dev lo`));
    peer = await Libreswan.boot(lab, left, {
      device: 'eth0',
      hostAddresses: all.map(({ near }) => `${near}/24`),
      guestAddresses: all.map(({ far }) => `${far}/24`),
      innerAddresses: all.map(({ outside }) => `${outside}/32`),
      configuration: ['config setup\n', ...ROWS.map(connection)].join('\n'),
      psk: PSK,
    });
    ours = await Ours.start(lab, left);
    await ours.secret(PSK, KEY);
  });

  async function pingFromHere(row: Row): Promise<number> {
    const { inside, outside } = addresses(row);
    const timeout = SECONDS * 1_000 + STARTING;
    return lost((await left.exec(pingWords(inside, outside), { check: false, timeout })).stdout);
  }

  /** In the background there: the guest runs one command at a time. */
  async function pingFromGuest(row: Row): Promise<number> {
    const { inside, outside } = addresses(row);
    const file = join(lab.folder, `ping-${row.name}`);
    writeFileSync(file, '');
    await peer.exec(['sh', '-c', `${pingWords(outside, inside).join(' ')} >${file} 2>&1 &`]);
    const end = (): string | undefined => {
      const text = readFileSync(file, 'utf8');
      return text.includes('transmitted') ? text : undefined;
    };
    return lost(await waitFor(`the pings of ${row.name} in the guest`, end, SECONDS * 1_000 + STARTING, 200));
  }

  /** The messages of our daemon's log about a tunnel. */
  function messages(row: Row): string[] {
    const lines = ours.log().match(/^\{.*\}$/gm) ?? [];
    const entries = lines.map((line) => JSON.parse(line) as { readonly tunnel?: string; readonly msg: string });
    return entries.filter(({ tunnel }) => tunnel === row.name).map(({ msg }) => msg);
  }

  /** What happened on a row's SAs, by the logs of both. */
  function history(row: Row): Record<string, boolean> {
    const mine = messages(row);
    const role = row.rekeys === 'ours' ? 'responder' : 'initiator';
    const theirs = (sa: string): number =>
      [...peer.log().matchAll(new RegExp(`^.*"${row.name}" #\\d+: ${role} rekeyed ${sa} SA`, 'gm'))].length;
    const count = (pattern: RegExp): number => mine.filter((message) => pattern.test(message)).length;
    const groups = count(/^CHILD SA .* aes256gcm16-(x25519|modp3072), /);
    return {
      'one IKE SA, replaced by rekeying': count(/^IKE SA .* established/) === 1 && count(/^IKE SA .* rekeyed with/) > 0,
      'two lifetimes of the CHILD SA': count(/^CHILD SA .* established/) > 2,
      'rekeyed by the side that is to': theirs('IKE') > 0 && theirs('Child') > 1,
      'with a group where it is wanted': row.pfs === 'yes' ? groups > 1 : groups === 0,
    };
  }

  it('lose nothing, whoever begins, whoever rekeys, with pfs=yes and pfs=no', async () => {
    for (const row of ROWS) {
      await ours.defineDocument(row.name, document(row));
      await ours.command(['start', row.name]);
      if (row.initiator === 'theirs') await peer.initiate(row.name);
    }
    for (const row of ROWS) await ours.up(row.name, STARTING);
    const found = ROWS.map(async (row) => {
      const [lostByThem, lostByUs] = await Promise.all([pingFromGuest(row), pingFromHere(row)]);
      return [row.name, { lostByThem, lostByUs, ...history(row) }];
    });
    const wanted = {
      lostByThem: 0,
      lostByUs: 0,
      'one IKE SA, replaced by rekeying': true,
      'two lifetimes of the CHILD SA': true,
      'rekeyed by the side that is to': true,
      'with a group where it is wanted': true,
    };
    expect(Object.fromEntries(await Promise.all(found))).toEqual(
      Object.fromEntries(ROWS.map(({ name }) => [name, wanted])),
    );
  });
});
