/** How packets of transport mode are led into their device, and those of the tunnel itself are not. */
import { describe, expect, it } from 'vitest';
import { type IpAddress, parseAddress } from '../../src/base/address.ts';
import type { TransportPlan } from '../../src/daemon/platform.ts';
import { Steering } from '../../src/daemon/steering.ts';
import { MemoryHostNetwork } from '../../src/tun/memory-routes.ts';
import type { RouteQuery } from '../../src/tun/routes.ts';

const address = (text: string): IpAddress => parseAddress(text)!;
const HERE = address('192.0.2.1');
const PEER = address('192.0.2.2');

function host(): { network: MemoryHostNetwork; steering: Steering; line: number; device: number } {
  const network = new MemoryHostNetwork();
  const line = network.addLink('eth0', 1500);
  const device = network.addLink('stun', 65_280);
  for (const own of [HERE, address('192.0.2.77'), address('2001:db8::1')]) {
    network.addAddress({ linkIndex: line, address: own, prefixLength: own.family === 4 ? 24 : 64 });
  }
  return { network, steering: new Steering(network), line, device };
}

const plan = (change: Partial<TransportPlan> = {}): TransportPlan => ({
  local: HERE,
  remote: PEER,
  flows: [{ protocol: undefined, sourcePorts: undefined, destinationPorts: undefined }],
  ownPorts: [500, 4500],
  table: 7700,
  ...change,
});

describe('packets between the hosts of a transport mode SA', () => {
  it('are led into the device, but for those of the tunnel itself, of other hosts and from other addresses', () => {
    const { network, steering, line, device } = host();
    steering.lead(plan(), device);
    const way = (change: Partial<RouteQuery>): number | undefined =>
      network.routeTo({ destination: PEER, source: HERE, ...change })?.linkIndex;
    expect(way({ ipProtocol: 6, destinationPort: 80 })).toBe(device);
    expect(way({ ipProtocol: 17, sourcePort: 501 })).toBe(device);
    // Without a source yet: it gets the one of the route.
    expect(network.routeTo({ destination: PEER, ipProtocol: 1 })).toMatchObject({ linkIndex: device, source: HERE });
    for (const own of [{ ipProtocol: 50 }, { ipProtocol: 17, sourcePort: 500 }, { ipProtocol: 17, sourcePort: 4500 }]) {
      expect(way(own)).toBe(line);
    }
    expect(way({ source: address('192.0.2.77') })).toBe(line);
    expect(way({ destination: address('192.0.2.3') })).toBe(line);
  });

  it('are led by protocol and ports', () => {
    const { network, steering, line, device } = host();
    const flow = { protocol: 17, sourcePorts: undefined, destinationPorts: { start: 53, end: 53 } };
    steering.lead(plan({ flows: [flow] }), device);
    const way = (ipProtocol: number, destinationPort: number): number | undefined =>
      network.routeTo({ destination: PEER, ipProtocol, sourcePort: 999, destinationPort })?.linkIndex;
    expect([way(17, 53), way(17, 54), way(6, 53)]).toEqual([device, line, line]);
  });

  it('are led whatever their source in IPv6, where an open one fits no rule', () => {
    const { network, steering, device } = host();
    const [local, remote] = [address('2001:db8::1'), address('2001:db8::2')];
    steering.lead(plan({ local, remote }), device);
    expect(network.routeTo({ destination: remote })).toMatchObject({ linkIndex: device, source: local });
  });

  it('have no way at all when the device is gone', () => {
    const { network, steering, device } = host();
    steering.lead(plan(), device);
    network.deleteLink(device);
    expect(network.routeTo({ destination: PEER, source: HERE, ipProtocol: 6 })).toBeUndefined();
    expect(network.routeTo({ destination: PEER, source: HERE, ipProtocol: 50 })).toBeDefined();
  });

  it('go their normal way afterwards; what tunnels share goes with the last', () => {
    const { network, steering, device } = host();
    const before = [network.rules(), network.routes()];
    const first = steering.lead(plan(), device);
    const flows = [{ protocol: 17, sourcePorts: undefined, destinationPorts: undefined }];
    const second = steering.lead(plan({ table: 7701, flows }), device);
    first();
    expect(network.routeTo({ destination: PEER, ipProtocol: 17, sourcePort: 9 })).toMatchObject({ linkIndex: device });
    expect(network.routeTo({ destination: PEER, ipProtocol: 50 })).not.toMatchObject({ linkIndex: device });
    second();
    expect([network.rules(), network.routes()]).toEqual(before);
  });

  it('are led anew after a crash, without what the document no longer says', () => {
    const { network, steering, device } = host();
    steering.lead(plan(), device);
    const flows = [{ protocol: 6, sourcePorts: undefined, destinationPorts: undefined }];
    const undo = new Steering(network).lead(plan({ flows }), device);
    expect(
      network
        .rules(4)
        .filter(({ priority }) => priority === 6991)
        .map(({ ipProtocol }) => ipProtocol),
    ).toEqual([6, 6]);
    undo();
    expect(network.routes({ own: true }).filter(({ table }) => table === 7700)).toEqual([]);
  });

  it('are not led into two devices, nor from an address that is not of this host; nothing is changed then', () => {
    const { network, steering, device } = host();
    const before = [network.rules(), network.routes()];
    expect(() => steering.lead(plan({ local: address('198.51.100.1') }), device)).toThrow(
      'transport mode is for packets of 198.51.100.1, which is not an address of this host',
    );
    expect(() => steering.lead(plan(), 99)).toThrow('there is no such link');
    expect([network.rules(), network.routes()]).toEqual(before);
    steering.lead(plan(), device);
    expect(() => steering.lead(plan(), device)).toThrow(
      "routing table 7700 is that of another tunnel: give this one a <device table='…'>",
    );
  });
});

describe('what comes in by a bridge', () => {
  it('is led into a table and nowhere else, until that is undone or the bridge forgotten', () => {
    const { network, steering } = host();
    const before = network.rules();
    const undo = steering.leadBridge('virbr9', 7700);
    steering.leadBridge('virbr8', 7701);
    const rules = network.rules(6).filter(({ inputLink }) => inputLink === 'virbr9');
    expect(rules.map(({ action }) => action)).toEqual([{ type: 'table', table: 7700 }, { type: 'unreachable' }]);
    // Another daemon, after a crash, leads it elsewhere.
    const again = new Steering(network).leadBridge('virbr9', 7702);
    expect(network.rules(4).flatMap(({ action }) => (action.type === 'table' ? [action.table] : []))).not.toContain(
      7700,
    );
    again();
    undo();
    expect(network.rules().filter(({ inputLink }) => inputLink === 'virbr9')).toEqual([]);
    new Steering(network).forgetBridges([]);
    expect(network.rules()).toEqual(before);
  });
});
