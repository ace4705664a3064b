/**
 * The lab against itself: strongSwan with strongSwan, and with a kernel's ESP. Where this fails, the fault is not
 * in sectunnel.
 */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Lab } from '../support/lab/lab.ts';
import { cable, type Namespace } from '../support/lab/namespace.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { StrongSwan } from '../support/lab/strongswan.ts';
import { burst, ping, startEcho } from '../support/lab/traffic.ts';
import type { Tunnel } from '../support/lab/tunnel.ts';

const TUNNEL: Tunnel = {
  name: 'selftest',
  left: {
    address: '192.0.2.1',
    id: { type: 'fqdn', value: 'left.example' },
    inner: ['10.1.0.0/24'],
    psk: 'a shared key',
  },
  right: {
    address: '192.0.2.2',
    id: { type: 'fqdn', value: 'right.example' },
    inner: ['10.2.0.0/24'],
    psk: 'a shared key',
  },
  ike: { encryption: 'aes128gcm16', prf: 'sha256', dh: 'x25519' },
  esp: { encryption: 'aes128gcm16', esn: 'no' },
};

describeInterop('the lab: strongSwan to strongSwan in userspace', ['namespaces', 'strongswan'], () => {
  let lab: Lab;
  let a: Namespace;
  let b: Namespace;
  let left: StrongSwan;
  let right: StrongSwan;

  beforeAll(async () => {
    lab = new Lab();
    [a, b] = [await lab.namespace('a'), await lab.namespace('b')];
    await cable(
      { namespace: a, device: 'eth0', addresses: ['192.0.2.1/24'] },
      { namespace: b, device: 'eth0', addresses: ['192.0.2.2/24'] },
    );
    await a.ip(['addr add 10.1.0.1/24 dev lo']);
    await b.ip(['addr add 10.2.0.1/24 dev lo']);
    left = await StrongSwan.start(lab, a);
    right = await StrongSwan.start(lab, b);
    await startEcho(lab, b, '10.2.0.1', 7);
  }, 30_000);

  afterAll(() => lab.dispose(), 30_000);

  it('carries ping and UDP and tells of it in the counters', async () => {
    lab.showLogsOnFailure();
    await left.load(TUNNEL, 'left');
    await right.load(TUNNEL, 'right');
    await left.initiate(TUNNEL.name);
    expect(await ping(a, { source: '10.1.0.1', destination: '10.2.0.1' })).toBe(3);
    expect(await ping(b, { source: '10.2.0.1', destination: '10.1.0.1' })).toBe(3);
    const result = await burst(a, { source: '10.1.0.1', destination: '10.2.0.1', port: 7, count: 10 });
    expect(result).toEqual({ sent: 10, received: 10, damaged: 0 });
    const [here, there] = [(await left.single()).child, (await right.single()).child];
    expect(here.suite).toBe('AES_GCM_16-128');
    expect(here.packetsOut).toBe(16);
    expect([there.packetsIn, there.packetsOut]).toEqual([here.packetsOut, here.packetsIn]);
    expect([there.spiIn, there.spiOut]).toEqual([here.spiOut, here.spiIn]);
  });
});
