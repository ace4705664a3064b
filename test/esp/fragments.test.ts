/** Fragments inside the tunnel, from the policy of one end to the selectors of the other (RFC 4301 §7, RFC 8200 §4.5). */
import { describe, expect, it } from 'vitest';
import { writeU32 } from '../../src/base/bytes.ts';
import { namedDrops } from '../../src/esp/drops.ts';
import { InboundPipeline } from '../../src/esp/inbound.ts';
import { OutboundPipeline } from '../../src/esp/outbound.ts';
import { CompiledSelectors } from '../../src/policy/compiled.ts';
import { compilePolicy } from '../../src/policy/database.ts';
import { batchOf, inboundSa, outboundSa, plainPacket, selector } from './support.ts';

const UDP = 17;
const PORT = 2222;
const NET = { 4: ['10.1.0.0/16', '10.2.0.0/16'], 6: ['2001:db8:1::/48', '2001:db8:2::/48'] } as const;
const ENDS = {
  4: { source: '10.1.0.1', destination: '10.2.0.1' },
  6: { source: '2001:db8:1::1', destination: '2001:db8:2::1' },
} as const;
const PAYLOAD = 64;

/** The fragment at `offset` of datagram `id`; the first one shows its ports. */
function fragment(family: 4 | 6, id: number, offset: number, last: boolean, port = PORT): Uint8Array {
  if (family === 4) {
    const packet = plainPacket({ ...ENDS[4], length: 20 + PAYLOAD, destinationPort: port });
    packet[5] = id;
    packet[6] = last ? 0 : 0x20;
    packet[7] = offset / 8;
    return packet;
  }
  const packet = plainPacket({ ...ENDS[6], protocol: 44, length: 40 + 8 + PAYLOAD });
  writeU32(packet, 40, (UDP << 24) | offset | (last ? 0 : 1));
  writeU32(packet, 44, id);
  writeU32(packet, 48, (1111 << 16) | port);
  return packet;
}

/** Both ends of a tunnel for UDP to one port. */
function tunnel(family: 4 | 6): (packet: Uint8Array) => Uint8Array | undefined {
  const [here, there] = NET[family];
  const sending = { local: [selector(here)], remote: [selector(there, UDP, PORT, PORT)] };
  const receiving = { local: sending.remote, remote: sending.local };
  const policy = compilePolicy(
    [{ name: 'p', direction: 'out', action: 'protect', priority: 0, level: 'require', selectors: sending }],
    'out',
  );
  const outbound = new OutboundPipeline(policy, { onMissing: () => expect.fail('there is an SA') });
  outbound.add(0, outboundSa({ selectors: new CompiledSelectors(sending) }), { active: true });
  const inbound = new InboundPipeline();
  inbound.add(inboundSa({ selectors: new CompiledSelectors(receiving) }));
  return (packet) => {
    const batch = batchOf(packet);
    outbound.process(0, batch);
    if (batch.length[0] === 0) return undefined;
    inbound.process(0, batch);
    expect(namedDrops(inbound.drops)).toEqual({});
    return batch.packet(0).slice();
  };
}

describe.each([4, 6] as const)('fragments of IPv%i', (family) => {
  it('are carried as they are, after a first that shows a port that fits', () => {
    const through = tunnel(family);
    for (let id = 1; id < 4; id++) {
      for (const offset of [0, PAYLOAD, 2 * PAYLOAD]) {
        const packet = fragment(family, id, offset, offset > PAYLOAD);
        expect(through(packet)).toEqual(packet);
      }
    }
  });

  it('are not carried after a first with another port, nor without one', () => {
    const through = tunnel(family);
    expect(through(fragment(family, 1, 0, false, 80))).toBeUndefined();
    expect(through(fragment(family, 1, PAYLOAD, true))).toBeUndefined();
    expect(through(fragment(family, 2, PAYLOAD, true))).toBeUndefined();
    expect(through(fragment(family, 2, 0, false))).toBeDefined();
    expect(through(fragment(family, 1, PAYLOAD, true))).toBeUndefined();
  });
});
