/**
 * Defaults against the defaults of a peer, past two lifetimes of the CHILD SA and one of the IKE SA, which either rekeys,
 * with packets both ways all the time; and the same where the peer wants a key exchange of its own for each CHILD SA, which
 * IKE_AUTH does not show (RFC 7296 §1.2).
 *
 * The peer is in a guest, for its ESP is the kernel's. All rows at once: each has a network of its own, for between two
 * addresses there is one IKE SA, and not every peer sends from the address that it is told.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import type { Lab } from '../support/lab/lab.ts';
import type { Host, Namespace } from '../support/lab/namespace.ts';
import type { Need } from '../support/lab/needs.ts';
import { Ours } from '../support/lab/ours.ts';
import { type RunResult, STARTING, waitFor } from '../support/lab/process.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import type { GuestOptions } from '../support/lab/uml.ts';
import { useLab } from '../support/lab/use-lab.ts';

export const PSK = 'interop: a key of 32 characters!';
const KEY = '11111111-2222-3333-4444-555555555512';
/** Of the traffic, in seconds: more than two lifetimes of either side. */
const SECONDS = 32;
const PINGS = SECONDS * 10;
/** Of a row's pings of one side, with a peer that loses some. */
const MAX_LOST = 5;

/** A child of these seconds is rekeyed twice while there is traffic, an IKE SA once. */
const SHORT = {
  ike: "<lifetime soft='15' hard='25' jitter='0'/>",
  esp: "<lifetime soft='6' hard='10' jitter='0'/>",
};

export interface Row {
  readonly name: string;
  readonly initiator: 'ours' | 'theirs';
  /** Whose lifetimes are short. */
  readonly rekeys: 'ours' | 'theirs';
  /** Whether the peer wants a group for a CHILD SA ("perfect forward secrecy"). */
  readonly pfs: 'yes' | 'no';
}

export const ROWS: readonly Row[] = (['yes', 'no'] as const).flatMap((pfs) =>
  (['ours', 'theirs'] as const).flatMap((initiator) =>
    (['ours', 'theirs'] as const).map((rekeys) => ({
      ...{ initiator, rekeys, pfs },
      name: `${initiator === 'ours' ? 'called' : 'calls'}-${rekeys === 'ours' ? 'rekeyed' : 'rekeys'}-pfs-${pfs}`,
    })),
  ),
);

/** Outer and inner addresses of a row: `near` and `inside` are ours, `far` and `outside` the peer's. */
export function addresses(row: Row): { near: string; far: string; inside: string; outside: string } {
  const n = 10 + ROWS.indexOf(row);
  return { near: `198.18.${n}.1`, far: `198.18.${n}.2`, inside: `10.1.${n}.1`, outside: `10.2.${n}.1` };
}

export interface DefaultsPeer extends Host {
  log(): string;
}

/** What differs between peers. */
export interface Peering<P extends DefaultsPeer> {
  readonly name: string;
  /** What is tested, as the test is called. */
  readonly promise: string;
  readonly need: Need;
  /** With connections of all rows, none of which it begins yet. */
  boot(lab: Lab, namespace: Namespace, guest: GuestOptions): Promise<P>;
  begin(peer: P, rows: readonly Row[]): Promise<void>;
  /** Whether by the peer's log the side that is to has rekeyed IKE SA and CHILD SA, the latter at least twice. */
  rekeyed(peer: P, row: Row): boolean;
  /**
   * Of a peer that for a moment has no CHILD SA while one replaces another: how many packets its kernel has dropped for
   * that, which no other end can keep from it.
   */
  droppedByIt?(peer: P): Promise<number>;
}

function document(row: Row): string {
  const { near, far, inside, outside } = addresses(row);
  const { ike, esp } = row.rekeys === 'ours' ? SHORT : { ike: '', esp: '' };
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
  ...['ping', '-n', '-c', `${PINGS}`, '-i', '0.1', '-W', '10'],
  ...['-I', source, destination],
];

/** Which of the pings were lost, by their numbers: ten a second. All where it did not send all of them. */
function lost(output: string): number[] {
  const sent = Number(/(\d+) packets transmitted/.exec(output)?.[1]);
  const answered = new Set([...output.matchAll(/ bytes from .* icmp_seq=(\d+) /g)].map(([, number]) => Number(number)));
  const all = Array.from({ length: PINGS }, (_, at) => at + 1);
  return sent === PINGS ? all.filter((number) => !answered.has(number)) : all;
}

/** Where a kernel counts packets that it did not take. */
const KERNEL_COUNTERS = ['cat', '/proc/net/xfrm_stat', '/proc/net/dev'];

/** Its counters of XFRM that are not zero, and those of devices that have refused packets or received bad ones. */
function counted({ stdout }: RunResult): string {
  return stdout.match(/^Xfrm.*\s[1-9]\d*$|^ *\S+:(?: +\d+){2}(?! +0 +0 +0 ).*$/gm)?.join('; ') ?? '';
}

function notZero(counters: Readonly<Record<string, number>>): [string, number][] {
  return Object.entries(counters).filter(([, count]) => count > 0);
}

export function testDefaults<P extends DefaultsPeer>(peering: Peering<P>): void {
  const needs = ['namespaces', 'uml', peering.need, 'build'] as const;
  describeInterop(`defaults against those of ${peering.name}`, needs, () => {
    let lab: Lab;
    let left: Namespace;
    let peer: P;
    let ours: Ours;

    useLab(async (made) => {
      lab = made;
      left = await lab.namespace('left');
      const all = ROWS.map(addresses);
      await left.ip(all.map(({ inside }) => `addr add ${inside}/32 dev lo`));
      peer = await peering.boot(lab, left, {
        device: 'eth0',
        hostAddresses: all.map(({ near }) => `${near}/24`),
        guestAddresses: all.map(({ far }) => `${far}/24`),
        innerAddresses: all.map(({ outside }) => `${outside}/32`),
      });
      ours = await Ours.start(lab, left);
      await ours.secret(PSK, KEY);
    });

    async function pingFromHere(row: Row): Promise<number[]> {
      const { inside, outside } = addresses(row);
      const timeout = SECONDS * 1_000 + STARTING;
      return lost((await left.exec(pingWords(inside, outside), { check: false, timeout })).stdout);
    }

    /** In the background there: the guest runs one command at a time. */
    async function pingFromGuest(row: Row): Promise<number[]> {
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
      const count = (pattern: RegExp): number => mine.filter((message) => pattern.test(message)).length;
      const groups = count(/^CHILD SA .*-(x25519|modp3072),/);
      return {
        'one IKE SA, replaced by rekeying':
          count(/^IKE SA .* established/) === 1 && count(/^IKE SA .* rekeyed with/) > 0,
        'two lifetimes of the CHILD SA': count(/^CHILD SA .* established/) > 2,
        'rekeyed by the side that is to': peering.rekeyed(peer, row),
        'with a group where it is wanted': row.pfs === 'yes' ? groups > 1 : groups === 0,
      };
    }

    /** By both sides, for the one who has to find out where a packet went. */
    async function whatWasDropped(): Promise<string> {
      const { tunnels, counters } = await ours.status();
      const drops = tunnels.flatMap(({ name, drops }) => notZero(drops).map((drop) => [name, ...drop]));
      const here = counted(await left.exec(KERNEL_COUNTERS, { check: false }));
      const there = counted(await peer.exec(KERNEL_COUNTERS));
      return `here ${JSON.stringify([...drops, ...notZero(counters)])} ${here}; there ${there}`;
    }

    it(peering.promise, async () => {
      // Those that the peer calls wait for it before it begins.
      for (const initiator of ['theirs', 'ours'] as const) {
        const rows = ROWS.filter((row) => row.initiator === initiator);
        for (const row of rows) {
          await ours.defineDocument(row.name, document(row));
          await ours.command(['start', row.name]);
        }
        if (initiator === 'theirs') await peering.begin(peer, rows);
      }
      for (const row of ROWS) await ours.up(row.name, STARTING);
      const found = ROWS.map(async (row) => {
        const [lostByThem, lostByUs] = await Promise.all([pingFromGuest(row), pingFromHere(row)]);
        return [row.name, { lostByThem, lostByUs, ...history(row) }] as const;
      });
      const rows = Object.fromEntries(await Promise.all(found));
      const few: unknown = expect.toSatisfy((lost: number[]) => lost.length <= MAX_LOST, `${MAX_LOST} at most`);
      const lossless = peering.droppedByIt === undefined;
      const wanted = {
        lostByThem: lossless ? [] : few,
        lostByUs: lossless ? [] : few,
        'one IKE SA, replaced by rekeying': true,
        'two lifetimes of the CHILD SA': true,
        'rekeyed by the side that is to': true,
        'with a group where it is wanted': true,
      };
      expect(rows, await whatWasDropped()).toEqual(Object.fromEntries(ROWS.map(({ name }) => [name, wanted])));
      const losses = Object.values(rows).flatMap(({ lostByThem, lostByUs }) => [...lostByThem, ...lostByUs]).length;
      expect(losses).toBeLessThanOrEqual((await peering.droppedByIt?.(peer)) ?? 0);
    });
  });
}
