/** Tunnels in VRFs: two routing domains of equal addresses, each with a tunnel of its own. */
import { describe, expect, it } from 'vitest';
import { type IpAddress, parseAddress, prefixRange } from '../../../src/base/address.ts';
import { ELSEWHERE } from '../../../src/hostnet/fence/fence.ts';
import { MemoryHostNetwork } from '../../../src/hostnet/routes/memory.ts';
import type { InstalledRoute } from '../../../src/hostnet/routes/routes.ts';
import type { RoutingPlan } from '../../../src/hostnet/steering/plan.ts';
import { PolicyRouting } from '../../../src/hostnet/steering/policy-routing.ts';
import { claimsOf } from '../../../src/policy/precedence.ts';

const address = (text: string): IpAddress => parseAddress(text)!;
const LAN = address('10.1.0.1');
const GUEST = address('10.1.0.5');
const FAR = address('10.2.0.9');

/** A gateway with equal addresses in the default domain, in blue and in red. */
class Gateway {
  readonly network = new MemoryHostNetwork();
  readonly routing = new PolicyRouting(this.network);
  readonly line = this.network.addLink('eth0', 1500);
  readonly links = new Map<string | undefined, { lan: number; vrf: number | undefined; device: number }>();

  constructor() {
    for (const [name, table] of [
      [undefined, 254],
      ['blue', 10],
      ['red', 20],
    ] as const) {
      const vrf = name === undefined ? undefined : this.network.addLink(name, 1500);
      if (vrf !== undefined) this.network.makeVrf(vrf, table);
      const [lan, device] = [`lan-${name}`, `stun-${name}`].map((link) => this.network.addLink(link, 1500));
      this.links.set(name, { lan: lan!, vrf, device: device! });
      for (const link of [lan!, device!]) {
        this.network.setLink(link, vrf === undefined ? { up: true } : { up: true, master: vrf });
      }
      this.network.addAddress({ linkIndex: lan!, address: LAN, prefixLength: 24 });
      const destination = { address: address('0.0.0.0'), prefixLength: 0 };
      this.network.addRoutes([{ type: 'unicast', destination, linkIndex: lan, table }]);
    }
  }

  of(vrf: string | undefined): { lan: number; vrf: number | undefined; device: number } {
    return this.links.get(vrf)!;
  }

  start(vrf: string | undefined): void {
    this.routing.prepare(plan(vrf), `stun-${vrf}`);
    this.routing.open(`net-${vrf}`, this.of(vrf).device);
  }

  /** By which link a packet leaves: one of a host behind the gateway, or the gateway's own. */
  way(vrf: string | undefined, origin: 'forwarded' | 'own'): string | undefined {
    const { lan, vrf: index } = this.of(vrf);
    const from =
      origin === 'own' ? { source: LAN, outputLinkIndex: index } : { source: GUEST, inputLinkIndex: index ?? lan };
    const answer = this.network.routeTo({ destination: FAR, ...from });
    return answer && this.network.link(answer.linkIndex)?.name;
  }
}

function plan(vrf: string | undefined, change: Partial<RoutingPlan> = {}): RoutingPlan {
  const local = prefixRange(address('10.1.0.0'), 24);
  const box = { local, remote: prefixRange(address('10.2.0.0'), 24), level: 'require', child: 'c' } as const;
  const boxes = [{ ...box, action: 'protect' } as const];
  return {
    ...{ tunnel: `net-${vrf}`, vrf, claims: claimsOf([]), redundancy: undefined, table: undefined },
    ...{ own: ELSEWHERE, outbound: boxes, inbound: boxes, host: undefined },
    ...change,
  };
}

const isFar = ({ destination }: InstalledRoute): boolean => destination.address.value === address('10.2.0.0').value;
const DOMAINS = [undefined, 'blue', 'red'] as const;

describe('a tunnel in a VRF', () => {
  it('has routes in the table of its VRF, and no rules', () => {
    const gateway = new Gateway();
    gateway.start('blue');
    expect(gateway.routing.tableOf('net-blue')).toBe(10);
    expect(gateway.network.rules().filter(({ protocol }) => protocol === 83)).toEqual([]);
    expect(gateway.network.routes({ protocol: 83, table: 10 }).filter(isFar)).toMatchObject([
      { type: 'unreachable', metric: 1 },
      { type: 'unicast', metric: 0, linkIndex: gateway.of('blue').device, source: LAN },
    ]);
  });

  it.each(DOMAINS)('gets the packets of its domain, and none of others with the same addresses (%s)', (vrf) => {
    const gateway = new Gateway();
    gateway.start(vrf);
    for (const domain of DOMAINS) {
      for (const origin of ['forwarded', 'own'] as const) {
        expect(gateway.way(domain, origin)).toBe(domain === vrf ? `stun-${vrf}` : `lan-${domain}`);
      }
    }
  });

  it('runs beside tunnels of the same policy in other domains, and leaves nothing when it goes', () => {
    const gateway = new Gateway();
    for (const vrf of DOMAINS) gateway.start(vrf);
    for (const vrf of DOMAINS) expect(gateway.way(vrf, 'forwarded')).toBe(`stun-${vrf}`);
    gateway.routing.release('net-blue');
    expect(DOMAINS.map((vrf) => gateway.way(vrf, 'own'))).toEqual(['stun-undefined', 'lan-blue', 'stun-red']);
    expect(gateway.network.routes({ table: 10 }).filter(isFar)).toEqual([]);
  });

  it('cannot have the destination of another one of its VRF', () => {
    const gateway = new Gateway();
    gateway.start('blue');
    const other = { ...plan('blue'), tunnel: 'other' };
    expect(() => gateway.routing.prepare(other, 'stun-x')).toThrow(
      'in the VRF blue tunnel net-blue has the route to 10.2.0.0/24 already',
    );
    gateway.routing.release('net-blue');
    gateway.routing.prepare(other, 'stun-x');
    expect(gateway.way('blue', 'forwarded')).toBeUndefined();
  });

  it('leaves what an earlier daemon installed for tunnels that are to run again, and nothing else', () => {
    const gateway = new Gateway();
    for (const vrf of ['blue', 'red']) gateway.start(vrf);
    const next = new PolicyRouting(gateway.network);
    next.reconcile([plan('blue')]);
    expect(gateway.network.routes({ table: 10, protocol: 83 }).filter(isFar)).toMatchObject([{ type: 'unreachable' }]);
    expect(gateway.network.routes({ table: 20, protocol: 83 }).filter(isFar)).toEqual([]);
    next.release('net-blue', plan('blue'));
    expect(gateway.network.routes({ table: 10, protocol: 83 }).filter(isFar)).toEqual([]);
  });

  it('refuses without its device, in its domain alone', () => {
    const gateway = new Gateway();
    gateway.start('blue');
    gateway.network.deleteLink(gateway.of('blue').device);
    expect(DOMAINS.map((vrf) => gateway.way(vrf, 'forwarded'))).toEqual(['lan-undefined', undefined, 'lan-red']);
  });

  it('lacks an address that only other domains have', () => {
    const gateway = new Gateway();
    gateway.network.deleteAddress({ linkIndex: gateway.of('blue').lan, address: LAN, prefixLength: 24 });
    for (const vrf of DOMAINS) gateway.start(vrf);
    expect(gateway.routing.lacks('net-blue')[0]).toContain('no address in 10.1.0.0/24');
    expect(gateway.routing.lacks('net-red')).toEqual([]);
  });

  it.each([
    ['green', 'there is no VRF green here: ip link add green type vrf'],
    ['eth0', 'the link eth0 is no VRF'],
  ])('is refused where %s is no VRF', (vrf, text) => {
    const gateway = new Gateway();
    expect(() => gateway.routing.prepare(plan(vrf), 'stun')).toThrow(text);
    expect(gateway.network.rules().filter(({ protocol }) => protocol === 83)).toEqual([]);
  });

  it('is put back when its device left the VRF', async () => {
    const gateway = new Gateway();
    gateway.start('blue');
    const { device, vrf } = gateway.of('blue');
    gateway.network.setLink(device, { master: 0 });
    const { found } = await gateway.routing.mend();
    expect(found).toContain('stun-blue: it was not in the VRF blue');
    expect(gateway.network.link(device)?.master).toBe(vrf);
  });

  it('has its device set down while there is no such VRF', async () => {
    const gateway = new Gateway();
    gateway.start('blue');
    gateway.network.deleteLink(gateway.of('blue').vrf!);
    const { problems } = await gateway.routing.mend();
    expect(problems.get('net-blue')?.[0]).toContain('there is no VRF blue any more, so the device stun-blue is down');
    expect(gateway.network.link(gateway.of('blue').device)?.up).toBe(false);
    const again = gateway.network.addLink('blue', 1500);
    gateway.network.makeVrf(again, 10);
    await gateway.routing.mend();
    expect(gateway.network.link(gateway.of('blue').device)).toMatchObject({ up: true, master: again });
    gateway.network.setLink(gateway.of('blue').lan, { master: again });
    expect((await gateway.routing.mend()).problems.get('net-blue')).toEqual([]);
  });
});
