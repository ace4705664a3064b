/** Tunnels that share a device: one policy decides which of them a packet is for, and may come out of. */
import { describe, expect, it } from 'vitest';
import { namedDrops } from '../../src/esp/drops.ts';
import { packet } from '../support/engine-net.ts';
import { type HubTunnel, Road } from '../support/road.ts';

const spoke = (name: string, remote: string, change: Partial<HubTunnel> = {}): HubTunnel => ({
  ...{ name, remote, peer: name, device: 'hub' },
  ...change,
});

/** Two spokes that are up, of which the second has a part of what the first has. */
function road(...more: readonly HubTunnel[]): Road {
  const made = new Road(spoke('wide', '10.2.0.0/16'), spoke('narrow', '10.2.3.0/24', { priority: 5 }), ...more);
  made.call('wide', '192.0.2.2', '10.2.0.0/16', { secret: 'key of wide' });
  made.call('narrow', '192.0.2.3', '10.2.3.0/24', { secret: 'key of narrow' });
  return made;
}

/** What comes out at the hub of what a peer sends. */
function arrives(made: Road, peer: string, source: string): boolean {
  const text = `from ${source} at ${made.net.now}`;
  const from = made.net.peers.find(({ name }) => name === peer)!;
  made.net.send(from, [packet(source, '10.1.0.1', text)]);
  made.net.run(100);
  return [...made.hub.delivered.values()].flat().includes(text);
}

describe('tunnels on one device', () => {
  it('each get their packets, whichever of them the device is read for', () => {
    const made = road();
    for (const name of ['wide', 'narrow']) {
      expect(['10.2.0.1', '10.2.3.1', '10.2.4.1'].map((to) => made.reaches(to, name))).toEqual([
        ['wide'],
        ['narrow'],
        ['wide'],
      ]);
    }
  });

  it('count their own packets, and the device those that are for none', () => {
    const made = road();
    made.net.send(made.hub, [packet('10.1.0.1', '10.9.0.1', 'none'), Uint8Array.of(0x45, 0, 0)], 'narrow');
    expect([made.hub.drops('wide'), made.hub.drops('narrow')]).toEqual([{}, {}]);
    const { drops, tunnels } = made.hub.engine.deviceOf(made.hub.tunnel('wide'));
    expect(namedDrops(drops)).toEqual({ 'no-policy': 1, 'bad-inner-packet': 1 });
    expect(tunnels.size).toBe(2);
    // The sender is told, as by a tunnel of its own device.
    expect(made.hub.engine.pollDeviceWrite() ?? made.hub.lastPacket).toBeDefined();
  });

  it('let nothing out that is to come out of another', () => {
    const made = road();
    expect(arrives(made, 'wide', '10.2.4.1')).toBe(true);
    expect(arrives(made, 'narrow', '10.2.3.1')).toBe(true);
    expect(arrives(made, 'wide', '10.2.3.1')).toBe(false);
    expect(made.hub.drops('wide')).toEqual({ 'policy-mismatch': 1 });
  });

  it('follow tunnels that come and go', () => {
    const made = new Road(spoke('wide', '10.2.0.0/16'));
    made.call('wide', '192.0.2.2', '10.2.0.0/16', { secret: 'key of wide' });
    expect([made.reaches('10.2.3.1', 'wide'), arrives(made, 'wide', '10.2.3.1')]).toEqual([['wide'], true]);
    made.serve(spoke('narrow', '10.2.3.0/24', { priority: 5 }));
    expect([made.reaches('10.2.3.1', 'wide'), arrives(made, 'wide', '10.2.3.1')]).toEqual([[], false]);
    made.call('narrow', '192.0.2.3', '10.2.3.0/24', { secret: 'key of narrow' });
    expect(made.reaches('10.2.3.1', 'wide')).toEqual(['narrow']);
    made.net.act(made.hub, (engine, now) => engine.removeTunnel(now, 'narrow'));
    expect([made.reaches('10.2.3.1', 'wide'), arrives(made, 'wide', '10.2.3.1')]).toEqual([['wide'], true]);
    made.net.act(made.hub, (engine, now) => engine.removeTunnel(now, 'wide'));
    made.serve(spoke('narrow', '10.2.3.0/24'));
    expect(made.hub.engine.deviceOf(made.hub.tunnel('narrow')).tunnels.size).toBe(1);
  });

  it('are apart from those on other devices', () => {
    const made = road(spoke('other', '10.7.0.0/16', { device: 'another' }));
    made.call('other', '192.0.2.4', '10.7.0.0/16', { secret: 'key of other' });
    expect([made.reaches('10.7.0.1', 'wide'), made.reaches('10.7.0.1', 'other')]).toEqual([[], ['other']]);
  });
});
