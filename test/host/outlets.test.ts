import { describe, expect, it } from 'vitest';
import { PacketBatch } from '../../src/base/batch.ts';
import { Outlets } from '../../src/host/outlets.ts';
import type { Path } from '../../src/ike/events.ts';
import type { UdpTarget } from '../../src/tun/udp/udp.ts';
import { at } from '../support/ike-pair.ts';

const path = (remote: string): Path => ({ local: at('192.0.2.1', 4500), remote: at(remote, 4500) });

interface Sent {
  readonly target: UdpTarget;
  readonly slots: readonly [number, number];
}

function setUp(): {
  readonly outlets: Outlets;
  readonly paths: (Path | undefined)[];
  readonly sent: Sent[];
  readonly resolved: UdpTarget[];
  readonly state: { open: boolean; homeless: number };
  send(...tags: number[]): void;
} {
  const paths: (Path | undefined)[] = [path('192.0.2.2'), path('192.0.2.3')];
  const sent: Sent[] = [];
  const resolved: UdpTarget[] = [];
  const state = { open: true, homeless: 0 };
  const socket = {
    sendBatch: (_: PacketBatch, first: number, end: number, target: UdpTarget) => {
      sent.push({ target, slots: [first, end] });
      return end - first;
    },
    resolve: (target: UdpTarget) => {
      resolved.push(target);
      return { ...target };
    },
  };
  const outlets = new Outlets({
    pathOf: (tag) => paths[tag],
    socketOf: () => (state.open ? socket : undefined),
    onHomeless: (packets) => {
      state.homeless += packets;
    },
  });
  const send = (...tags: number[]): void => {
    const batch = new PacketBatch(8, 100);
    for (const tag of tags) batch.tag[batch.push(new Uint8Array(10))] = tag;
    outlets.send(batch);
  };
  return { outlets, paths, sent, resolved, state, send };
}

describe('outlets', () => {
  it('resolve a path once, for all packets of its tag', () => {
    const { send, sent, resolved } = setUp();
    send(0, 0, 1, 0);
    send(0, 1);
    expect(resolved.map(({ to }) => to)).toEqual([at('192.0.2.2', 4500), at('192.0.2.3', 4500)]);
    expect(sent.map(({ slots }) => slots)).toEqual([
      [0, 2],
      [2, 3],
      [3, 4],
      [0, 1],
      [1, 2],
    ]);
    expect(sent[0]!.target).toBe(sent[2]!.target);
  });

  it('resolve a path again when its tag gets another, and when sockets changed', () => {
    const { outlets, paths, send, sent, resolved } = setUp();
    send(0);
    paths[0] = path('192.0.2.9');
    send(0);
    expect(sent.at(-1)!.target.to).toEqual(at('192.0.2.9', 4500));
    outlets.forget();
    send(0);
    expect(resolved).toHaveLength(3);
  });

  it('count packets that have no socket to leave from, and find one that is opened later', () => {
    const { send, sent, state } = setUp();
    state.open = false;
    send(0, 0, 1);
    expect([state.homeless, sent]).toEqual([3, []]);
    state.open = true;
    send(0);
    expect([state.homeless, sent.length]).toEqual([3, 1]);
  });

  it('send nothing of a tag whose SA is gone', () => {
    const { paths, send, sent, state } = setUp();
    paths[0] = undefined;
    send(0);
    expect([sent, state.homeless]).toEqual([[], 0]);
  });
});
