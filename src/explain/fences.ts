/**
 * What the other parts of our fence do with a packet: those of networks that tunnels hold, and those of other
 * tunnels, which drop packets that their policies protect and that leave by the wrong device.
 */

import type { BridgeFence, FencePart, TunnelFence } from '../hostnet/fence/fence.ts';
import { Protocol } from '../policy/protocols.ts';
import { explainFence } from './fence.ts';
import type { Obstacle } from './obstacle.ts';
import type { AskedPacket } from './packet.ts';

/** Where a packet is when the fence checks it. */
export interface FencePoint {
  /** The link that it came by; empty for the host's own. */
  readonly inputLink: string;
  /** The link that it leaves by; empty for what is delivered here. */
  readonly outputLink: string;
  /** Delivered: the address is one of the link that it came by. */
  readonly toInputLink: boolean;
  /** The host's own, about to leave by no tunnel and no bridge that a tunnel holds. */
  readonly inClear: boolean;
}

/** Whether the link is the device of a tunnel, or a bridge that one holds. */
export function isHeldLink(parts: ReadonlyMap<string, FencePart>, link: string): boolean {
  return [...parts.values()].some(
    (part) => (part.kind === 'tunnel' && part.device === link) || (part.kind === 'bridge' && part.bridge === link),
  );
}

/**
 * Networks are asked first. If one accepts a packet at its own bridge, no tunnel is asked.
 *
 * @param parts by their keys: `tunnel:NAME`, `network:NAME`, `network-policy:NAME` …
 * @param asked the tunnel of the question, whose own part is explained by itself
 */
export function fenceObstacle(
  parts: ReadonlyMap<string, FencePart>,
  packet: AskedPacket,
  point: FencePoint,
  asked: string,
): Obstacle | undefined {
  for (const [key, part] of parts) {
    if (part.kind !== 'bridge') continue;
    const says = bridgeSays(part, packet, point);
    if (says === 'accept') return undefined;
    if (says !== undefined) return stop(`the fence of network '${nameIn(key)}' ${says}`);
  }
  for (const [key, part] of parts) {
    if (part.kind !== 'tunnel' || key === `tunnel:${asked}` || !isAsked(part, point)) continue;
    const counted = tunnelDrops(part, packet, point);
    if (counted === undefined) continue;
    const whose = key.startsWith('tunnel:') ? 'tunnel' : 'network';
    return stop(`the fence of ${whose} '${nameIn(key)}' drops it (counted as fence-${counted})`);
  }
  return undefined;
}

/** Whether packets on this way keep their sources (no translation). */
export function keepsSource(parts: ReadonlyMap<string, FencePart>, { inputLink, outputLink }: FencePoint): boolean {
  return [...parts.values()].some(
    (part) => part.kind === 'untranslated' && part.bridge === inputLink && part.device === outputLink,
  );
}

/** Which parts judge a packet: all but those with a device that it goes by, their own or one that may carry for them. */
function isAsked({ device, beside }: TunnelFence, { inputLink, outputLink }: FencePoint): boolean {
  return ![device, ...beside].some((link) => link === inputLink || link === outputLink);
}

/** Packets that leave are checked as outbound, delivered ones as inbound, forwarded ones as both. @returns the counter */
function tunnelDrops(
  part: TunnelFence,
  packet: AskedPacket,
  { inputLink, outputLink, inClear }: FencePoint,
): string | undefined {
  const ways = [...(outputLink === '' ? [] : (['out'] as const)), ...(inputLink === '' ? [] : (['in'] as const))];
  for (const direction of ways) {
    const { action } = explainFence(part, { ...packet, direction }, { inClear });
    if (action === 'guard') return direction === 'out' ? 'clear-out' : 'clear-in';
    if (action === 'discard') return 'discarded';
  }
  return undefined;
}

/** What happens to it; `undefined` if it does not concern the bridge. As `bridgeRules` in fence/nft.ts has it. */
function bridgeSays(
  { bridge, devices, closed, dns }: BridgeFence,
  packet: AskedPacket,
  { inputLink, outputLink, toInputLink }: FencePoint,
): string | undefined {
  if (inputLink !== bridge && outputLink !== bridge) return undefined;
  if (outputLink === '') {
    if (dns && asksNames(packet))
      return "drops it: the host's own name server could forward the query in the clear (counted as host)";
    if (toInputLink) return 'accept';
    return closed ? 'drops it: its guests may reach no other address of this host (counted as host)' : undefined;
  }
  if (outputLink === bridge && (inputLink === bridge || inputLink === '')) return 'accept';
  if (!closed) return undefined;
  const other = inputLink === bridge ? outputLink : inputLink;
  if (devices.includes(other)) return undefined;
  return inputLink === bridge
    ? 'rejects it: its guests may send only through the tunnel (counted as forward-out)'
    : 'drops it: its guests are reached only through the tunnel (counted as forward-in)';
}

const DNS_PORTS: readonly (number | undefined)[] = [53, 853];

function asksNames({ protocol, destinationPort }: AskedPacket): boolean {
  return (protocol === Protocol.udp || protocol === Protocol.tcp) && DNS_PORTS.includes(destinationPort);
}

function nameIn(key: string): string {
  return key.slice(key.indexOf(':') + 1);
}

function stop(verdict: string): Obstacle {
  return { effect: 'stop', certain: true, verdict, warning: `${verdict}` };
}
