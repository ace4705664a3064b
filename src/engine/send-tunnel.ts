/** What the sending half of the data plane has of a tunnel: its pipeline, and the packets that wait for an SA. */
import type { PacketBatch } from '../base/batch.ts';
import { SetMap } from '../base/set-map.ts';
import { OutboundPipeline } from '../esp/outbound.ts';
import type { CompiledPolicy, PolicyEntry } from '../policy/database.ts';
import type { Flow } from '../policy/flow.ts';
import { type SendCommand, SendCounter, type TunnelCounters } from './commands.ts';
import { IcmpReplies } from './icmp-replies.ts';
import type { SendDevice } from './send-device.ts';
import { Waiting, type WaitingOptions } from './waiting.ts';

export type AddTunnel = Extract<SendCommand, { type: 'add-tunnel' }>;

/** One tunnel. */
export interface SendTunnel {
  readonly index: number;
  /** By which it was added. */
  readonly command: AddTunnel;
  readonly device: SendDevice<SendTunnel>;
  /** Indexes of the entries that a child carries. BOUNDED: by the policy. */
  readonly entries: SetMap<string, number>;
  readonly outbound: OutboundPipeline;
  readonly waiting: Waiting;
  readonly counters: TunnelCounters;
  /** As `#wake` has it; `Infinity` for never. */
  wakeAt: number;
}

export interface SendTunnelMeans {
  readonly device: SendDevice<SendTunnel>;
  readonly policy: CompiledPolicy;
  /** The time of the call that is being served. */
  readonly now: () => number;
  /** Takes a packet for the device. */
  readonly write: (packet: Uint8Array) => void;
  /** As `OutboundPipelineOptions` has it. */
  readonly onMissing: (entry: number, batch: PacketBatch, slot: number, flow: Flow) => boolean;
  readonly ask: WaitingOptions['ask'];
}

export function newSendTunnel(
  command: AddTunnel,
  { device, policy, now, write, onMissing, ask }: SendTunnelMeans,
): SendTunnel {
  const { tunnel: index, counters, hold } = command;
  const entries = entriesByChild(policy.entries);
  const replies = new IcmpReplies(write);
  const outbound = new OutboundPipeline(policy, {
    drops: counters.outboundDrops,
    reader: device.reader,
    onMissing,
    onDenied: (batch, slot, flow) => replies.unreachable(now(), batch, slot, flow, 'prohibited'),
    onTooBig: (batch, slot, flow, mtu) => replies.tooBig(now(), batch, slot, flow, mtu),
  });
  const waiting = new Waiting({ entries: policy.entries, entriesOf: entries, hold, replies, ask });
  // A worker that replaces another continues its counters; packets that waited in the other are lost.
  outbound.bypassed = counters.sending[SendCounter.bypassed]!;
  waiting.hold.released = counters.sending[SendCounter.released]!;
  return { index, command, device, entries, outbound, waiting, counters, wakeAt: Number.POSITIVE_INFINITY };
}

function entriesByChild(entries: readonly PolicyEntry[]): SetMap<string, number> {
  const found = new SetMap<string, number>();
  for (const [index, { child }] of entries.entries()) if (child !== undefined) found.add(child, index);
  return found;
}

/** Writes the counters of a tunnel that the control plane reads. */
export function writeCounters({ counters: { sending }, outbound, waiting: { hold } }: SendTunnel): void {
  sending[SendCounter.bypassed] = outbound.bypassed;
  sending[SendCounter.held] = hold.length;
  sending[SendCounter.released] = hold.released;
}
