/** What the tests of ESP straight over IP and of transport mode share. */
import { expect } from 'vitest';
import type { Capture } from '../support/lab/capture.ts';
import type { Host } from '../support/lab/namespace.ts';
import { type Burst, burst } from '../support/lab/traffic.ts';
import type { Tunnel } from '../support/lab/tunnel.ts';
import { ECHO_PORT } from './rig.ts';
import { LEFT, PSK, RIGHT } from './suites.ts';

export const NAME = 'direct';

export function rawTunnel(outer: 4 | 6, inner: 4 | 6, encapsulation: 'needed' | 'never'): Tunnel {
  return {
    name: NAME,
    left: {
      address: LEFT[outer].outer,
      id: { type: 'fqdn', value: 'left.example' },
      inner: [LEFT[inner].network],
      psk: PSK,
    },
    right: {
      address: RIGHT[outer].outer,
      id: { type: 'fqdn', value: 'right.example' },
      inner: [RIGHT[inner].network],
      psk: PSK,
    },
    ike: { encryption: 'aes128gcm16', prf: 'sha256', dh: 'x25519' },
    esp: { encryption: 'aes128gcm16', esn: 'yes' },
    encapsulation,
  };
}

/** What passed on the line was IKE, by its marker where it is not on port 500, and ESP as protocol 50. */
export async function onlyRaw(line: Capture, outer: 4 | 6, least: number): Promise<void> {
  await line.stop();
  const [esp, marker] = outer === 4 ? ['ip proto 50', 'udp[8:4]'] : ['ip6 proto 50', 'ip6[48:4]'];
  expect((await line.packets(esp)).length).toBeGreaterThanOrEqual(least);
  const strange = `udp and not port 500 and ${marker} != 0 and host ${LEFT[outer].outer}`;
  expect(await line.packets(strange)).toEqual([]);
}

export function hostTunnel(outer: 4 | 6, transport: string, how: 'udp' | 'raw'): Tunnel {
  const bits = outer === 4 ? 32 : 128;
  const [left, right] = [LEFT[outer].outer, RIGHT[outer].outer];
  return {
    name: NAME,
    left: { address: left, id: { type: 'fqdn', value: 'left.example' }, inner: [`${left}/${bits}`], psk: PSK },
    right: { address: right, id: { type: 'fqdn', value: 'right.example' }, inner: [`${right}/${bits}`], psk: PSK },
    ike: { encryption: 'aes128gcm16', prf: 'sha256', dh: 'x25519' },
    esp: { encryption: 'aes256gcm16', esn: 'no' },
    transport,
    ...(how === 'raw' ? { encapsulation: 'needed' } : {}),
  };
}

/** UDP to the other end's own address, and back. */
export function talk(
  from: Host,
  outer: 4 | 6,
  count: number,
  options: { size?: number; pause?: number } = {},
): Promise<Burst> {
  return burst(from, {
    source: LEFT[outer].outer,
    destination: RIGHT[outer].outer,
    port: ECHO_PORT,
    count,
    ...options,
  });
}

export const whole = (count: number): Burst => ({ sent: count, received: count, damaged: 0 });

/** What must never be seen on the line: our echoes in the clear. In fragments there are no ports. */
export const CLEAR: string = `port ${ECHO_PORT}`;

export function reversePathFilter(value: 0 | 1): string[] {
  return ['sh', '-c', `echo ${value} >/proc/sys/net/ipv4/conf/all/rp_filter`];
}
