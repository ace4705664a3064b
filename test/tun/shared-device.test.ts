import { describe, expect, it } from 'vitest';
import { PacketBatch } from '../../src/base/batch.ts';
import { MemoryDevice } from '../../src/tun/memory.ts';
import { SharedDevice } from '../../src/tun/shared-device.ts';

describe('a device that is shared', () => {
  it('ends with the last share, and tells each share once', async () => {
    const device = new MemoryDevice({ name: 'hub' });
    const shared = new SharedDevice(device);
    const shares = [shared.share(), shared.share()] as const;
    const told: string[] = [];
    device.onClosed(() => told.push('device'));
    for (const [at, share] of shares.entries()) share.onClosed((reason) => told.push(`share ${at} ${reason?.message}`));
    await shares[0].close();
    await shares[0].close();
    expect([told, shared.isEnded]).toEqual([['share 0 undefined'], false]);
    await shares[1].close();
    expect([told.sort(), shared.isEnded]).toEqual([['device', 'share 0 undefined', 'share 1 undefined'], true]);
    await shared.whenEnded();
    expect(() => shared.share()).toThrow('device hub is closed');
  });

  it('is one device to all that use it', () => {
    const device = new MemoryDevice({ name: 'hub', mtu: 1300 });
    const shared = new SharedDevice(device);
    const [one, other] = [shared.share(), shared.share()];
    expect([one.shareOf, other.shareOf, one.name, one.mtu]).toEqual([device, device, 'hub', 1300]);
    const batch = new PacketBatch(1, 100);
    batch.push(Uint8Array.of(0x45, ...new Array<number>(19).fill(0)));
    one.write(batch);
    expect(other.counters.writtenPackets).toBe(1);
    // A device in memory has no descriptors that threads could use.
    expect(one.handOver).toBeUndefined();
  });

  it('that is taken away tells why', () => {
    const device = new MemoryDevice({ name: 'hub' });
    const shared = new SharedDevice(device);
    const reasons: (string | undefined)[] = [];
    for (const share of [shared.share(), shared.share()]) share.onClosed((reason) => reasons.push(reason?.message));
    device.fail(new Error('deleted'));
    expect([reasons, shared.isEnded]).toEqual([['deleted', 'deleted'], true]);
  });
});
