import { expect, it, onTestFinished, vi } from 'vitest';
import { utf8 } from '../../src/base/text.ts';
import { nodeProvider } from '../../src/crypto/node/provider.ts';
import type { EngineEvent } from '../../src/engine/events.ts';
import { TunnelHost } from '../../src/host/host.ts';
import { MemoryDevice } from '../../src/tun/memory.ts';
import { MemoryNetwork } from '../../src/tun/udp/memory.ts';
import { address, eventually } from '../support/daemon.ts';
import { opposite, packet, tunnel } from '../support/engine-net.ts';
import { child, connection } from '../support/ike-pair.ts';

const YEAR = 365 * 24 * 3_600_000;

it('a wall clock that is set changes nothing: neither what is due, nor what carries', async () => {
  const network = new MemoryNetwork();
  const events: EngineEvent[] = [];
  const host = (ip: string): TunnelHost => {
    const made = new TunnelHost({
      network: network.host([address(ip)]),
      crypto: nodeProvider,
      secretFor: () => utf8('a secret'),
      onEvent: (event) => events.push(event),
    });
    onTestFinished(() => made.close());
    return made;
  };
  const [a, b] = [host('192.0.2.1'), host('192.0.2.2')];
  const [left, right] = [new MemoryDevice(), new MemoryDevice()];
  // Everything that a clock could end is there: lifetimes, liveness checks.
  const lifetime = { soft: 3_600_000, hard: 4_000_000, jitter: 0 };
  const config = tunnel({
    connections: [connection({ dpd: { interval: 30_000 }, children: [child('c', { lifetime })] })],
  });
  await b.add(opposite(config), right);
  await a.add(config, left);
  left.inject(packet('10.1.0.1', '10.2.0.1', 'first'));
  await eventually('the tunnel', () => right.takeDelivered().length === 1);
  const [sas, due, told] = [a.engine.ike.status(), a.engine.nextTimeout(), events.length];
  const before = Date.now();
  vi.useFakeTimers({ toFake: ['Date'] });
  onTestFinished(() => void vi.useRealTimers());
  for (const years of [10, -10]) {
    vi.setSystemTime(before + years * YEAR);
    left.inject(packet('10.1.0.1', '10.2.0.1', 'there'));
    await eventually('a packet', () => right.takeDelivered().length === 1);
    right.inject(packet('10.2.0.1', '10.1.0.1', 'and back'));
    await eventually('its answer', () => left.takeDelivered().length === 1);
  }
  expect(events.slice(told)).toEqual([]);
  expect(a.engine.ike.status().map(({ spiInitiator }) => spiInitiator)).toEqual(
    sas.map(({ spiInitiator }) => spiInitiator),
  );
  // Liveness checks move with what is heard of the peer: by moments, not by years.
  expect(Math.abs(a.engine.nextTimeout()! - due!)).toBeLessThan(60_000);
});
