/**
 * Two hosts on one line: the left one with two stacks of IP addresses and an empty place for what is tested, the
 * right one with strongSwan, its ESP in userspace or in the kernel of a guest. UDP echo servers answer on both.
 */
import { expect } from 'vitest';
import type { Lab } from '../support/lab/lab.ts';
import { cable, type Host, type Namespace } from '../support/lab/namespace.ts';
import type { Need } from '../support/lab/needs.ts';
import type { Ours } from '../support/lab/ours.ts';
import { waitFor } from '../support/lab/process.ts';
import { StrongSwan, type Swanctl } from '../support/lab/strongswan.ts';
import { type Burst, burst, echoCommand, ping, startEcho } from '../support/lab/traffic.ts';
import type { ChildReport } from '../support/lab/tunnel.ts';
import { UmlStrongSwan } from '../support/lab/uml-strongswan.ts';
import { LEFT, type PeerKind, RIGHT } from './suites.ts';

export const ECHO_PORT = 7007;
export const LINE = 'eth0';

export interface Rig {
  readonly kind: PeerKind;
  readonly left: Namespace;
  /** Where programs run beside the peer. */
  readonly right: Host;
  readonly peer: Swanctl;
}

export const RIG_NEEDS: Readonly<Record<PeerKind, readonly Need[]>> = {
  userspace: ['namespaces', 'strongswan'],
  kernel: ['namespaces', 'strongswan', 'uml'],
};

/** Longest time that building a rig may take: a guest has to boot. */
export const RIG_TIMEOUT = 120_000;

const LEFT_OUTER = [`${LEFT[4].outer}/24`, `${LEFT[6].outer}/64`];
const RIGHT_OUTER = [`${RIGHT[4].outer}/24`, `${RIGHT[6].outer}/64`];
const RIGHT_INNER = [`${RIGHT[4].inner}/24`, `${RIGHT[6].inner}/64`];

/** Gives a host its inner addresses. */
export async function addInner(namespace: Namespace, side: typeof LEFT): Promise<void> {
  await namespace.ip([`addr add ${side[4].inner}/24 dev lo`, `addr add ${side[6].inner}/64 dev lo nodad`]);
}

export async function buildRig(lab: Lab, kind: PeerKind): Promise<Rig> {
  const left = await lab.namespace('left');
  await addInner(left, LEFT);
  await startEcho(lab, left, '::', ECHO_PORT);
  if (kind === 'kernel') {
    const guest = await UmlStrongSwan.boot(lab, left, {
      device: LINE,
      hostAddresses: LEFT_OUTER,
      guestAddresses: RIGHT_OUTER,
      innerAddresses: RIGHT_INNER,
      services: [echoCommand('::', ECHO_PORT)],
    });
    return { kind, left, right: guest, peer: guest };
  }
  const right = await lab.namespace('right');
  await cable(
    { namespace: left, device: LINE, addresses: LEFT_OUTER },
    { namespace: right, device: LINE, addresses: RIGHT_OUTER },
  );
  await addInner(right, RIGHT);
  await startEcho(lab, right, '::', ECHO_PORT);
  return { kind, left, right, peer: await StrongSwan.start(lab, right) };
}

const PINGS = 3;
const DATAGRAMS = 10;

export interface Carried {
  /** Whole answers to the ping and the UDP of the left side, to the ping of the right side. */
  readonly leftPings: number;
  readonly leftEchoes: number;
  readonly rightPings: number;
}

/** What `exchange` returns when nothing was lost. */
export const ALL_CARRIED: Carried = { leftPings: PINGS, leftEchoes: DATAGRAMS, rightPings: PINGS };
/** Packets that one direction carries in an exchange: own requests and the answers to the other's. */
export const EXCHANGE_PACKETS: number = PINGS + DATAGRAMS + PINGS;

/** Ping from either side, UDP with answers from the left. */
export async function exchange(rig: Rig, inner: 4 | 6): Promise<Carried> {
  const [left, right] = [LEFT[inner].inner, RIGHT[inner].inner];
  const leftPings = await ping(rig.left, { source: left, destination: right, count: PINGS });
  const echoes = await burst(rig.left, { source: left, destination: right, port: ECHO_PORT, count: DATAGRAMS });
  const rightPings = await ping(rig.right, { source: right, destination: left, count: PINGS });
  return { leftPings, leftEchoes: echoes.received, rightPings };
}

/** The same SA as the other end counts it: what one side sent is what the other received. */
export function mirrored(child: ChildReport): ChildReport {
  const { spiIn, spiOut, bytesIn, bytesOut, packetsIn, packetsOut } = child;
  return {
    spiIn: spiOut,
    spiOut: spiIn,
    bytesIn: bytesOut,
    bytesOut: bytesIn,
    packetsIn: packetsOut,
    packetsOut: packetsIn,
  };
}

/** The figures of a report alone. */
export function figures({ spiIn, spiOut, bytesIn, bytesOut, packetsIn, packetsOut }: ChildReport): ChildReport {
  return { spiIn, spiOut, bytesIn, bytesOut, packetsIn, packetsOut };
}

/** Asks both ends until they agree on one IKE SA with one CHILD SA, other than those whose SPIs are given. */
export function agreed(
  ours: Ours,
  peer: Swanctl,
  name: string,
  former: { readonly ike?: string; readonly child?: string } = {},
): Promise<{ readonly ike: string; readonly child: string }> {
  return waitFor(`both ends to agree on one new SA of ${name}`, async () => {
    try {
      const [mine, its] = [await ours.single(name), await peer.single()];
      const [ike, child] = [mine.ike.spiInitiator, mine.child.spiIn];
      const same = its.child.spiOut === child && its.child.spiIn === mine.child.spiOut && its.ike.initiatorSpi === ike;
      return same && ike !== former.ike && child !== former.child ? { ike, child } : undefined;
    } catch {
      return undefined; // Two SAs for a moment, or none.
    }
  });
}

/** Datagrams at a steady pace, answered by the other side, while something else happens. */
export async function underTraffic(
  rig: Rig,
  inner: 4 | 6,
  action: () => Promise<unknown>,
  count = 300,
): Promise<Burst> {
  const traffic = burst(rig.left, {
    source: LEFT[inner].inner,
    destination: RIGHT[inner].inner,
    port: ECHO_PORT,
    count,
    pause: 8,
  });
  const [result] = await Promise.all([traffic, action()]);
  return result;
}

/** Fails unless every datagram was answered, and says then what our side dropped and why. */
export async function nothingLost(result: Burst, ours: Ours, name: string): Promise<void> {
  const { counters } = await ours.status();
  const dropped = JSON.stringify({ ...(await ours.tunnel(name)).drops, ...counters });
  expect(result, `our counters: ${dropped}`).toEqual({ sent: result.sent, received: result.sent, damaged: 0 });
}
