/** What a document in transport mode must say, and what is led into its device. */
import { describe, expect, it } from 'vitest';
import { parseDocument } from '../../src/config/parse.ts';
import type { DevicePlan } from '../../src/plan/device.ts';
import { planTunnel } from '../../src/plan/plan.ts';
import { TRANSPORT_MTU } from '../../src/plan/transport.ts';
import { address } from '../support/daemon.ts';

interface Sp {
  readonly src?: string;
  readonly dst?: string;
  readonly upper?: string;
  readonly mode?: string;
}

function sp(
  { src = "address='192.0.2.1'", dst = "address='192.0.2.2'", upper = "protocol='any'", mode = 'transport' }: Sp,
  n = 0,
): string {
  return `<sp name='s${n}'><src_range ${src}/><dst_range ${dst}/><upperspec ${upper}/><policy direction='both' action='ipsec'><rule protocol='esp' mode='${mode}'/></policy></sp>`;
}

function xml(sps: readonly Sp[], { local = '192.0.2.1', remote = '192.0.2.2', nat = '', device = '' } = {}): string {
  return `<sectunnel type='ipsec'><name>hosts</name>${device}
<sa><local address='${local}'><id type='fqdn'>here.example</id></local><remote address='${remote}'/>
<auth type='psk'><secret usage='k'/></auth>
<ike start='respond'>${nat}</ike></sa>
${sps.map(sp).join('\n')}
</sectunnel>`;
}

const plan = async (...args: Parameters<typeof xml>): Promise<DevicePlan> =>
  (await planTunnel(parseDocument(xml(...args)))).device;
const flows = async (...sps: readonly Sp[]): Promise<object[] | undefined> =>
  (await plan(sps)).routing?.outbound.map(({ protocol, localPorts, remotePorts }) => ({
    protocol,
    localPorts,
    remotePorts,
  }));

describe('a document in transport mode', () => {
  it('leads what its ends send each other into the device', async () => {
    const device = await plan([{}]);
    expect(device).toMatchObject({ tunnel: 'hosts', mtu: TRANSPORT_MTU, netns: undefined });
    const [here, there] = [address('192.0.2.1'), address('192.0.2.2')];
    expect(device.routing).toMatchObject({
      host: here,
      own: { peer: there, ports: [500, 4500], peerPorts: [500, 4500] },
      outbound: [{ action: 'protect', local: { start: here, end: here }, remote: { start: there, end: there } }],
      inbound: [{ action: 'protect', local: { start: here, end: here }, remote: { start: there, end: there } }],
    });
    expect(device.routing?.table).toBeUndefined();
  });

  it('has the MTU, the table and the ports that it says', async () => {
    const own = "<device mtu='1400' table='77'/>";
    expect(await plan([{}], { device: own })).toMatchObject({ mtu: 1400, routing: { table: 77 } });
    expect((await plan([{}], { nat: "<nat traversal='off'/>" })).routing?.own.ports).toEqual([500]);
    expect((await plan([{}], { nat: "<nat port='4501'/>" })).routing?.own.ports).toEqual([500, 4501]);
    expect((await plan([{}], { device: "<device routes='none'/>" })).routing).toBeUndefined();
    expect((await plan([{}], { device: "<device netns='blue'/>" })).netns).toBe('blue');
  });

  it('leads no other protocols and ports than its selectors have', async () => {
    const port = (text: string): string => `address='192.0.2.2' port='${text}'`;
    expect(await flows({ upper: "protocol='icmp'" })).toEqual([
      { protocol: 1, localPorts: undefined, remotePorts: undefined },
    ]);
    expect(await flows({ upper: "protocol='udp'", dst: port('0-99'), src: "address='192.0.2.1' port='53'" })).toEqual([
      { protocol: 17, localPorts: { start: 53, end: 53 }, remotePorts: { start: 0, end: 99 } },
    ]);
    expect((await flows({ dst: port('80') }))?.map((flow) => ('protocol' in flow ? flow.protocol : 0))).toEqual([
      6, 17, 132,
    ]);
  });

  it('serves a peer whose address is only said by its ranges', async () => {
    expect((await plan([{}], { local: 'any', remote: 'any' })).routing?.own.peer).toEqual(address('192.0.2.2'));
  });

  it.each<[string, readonly Sp[], Parameters<typeof xml>[1], string]>([
    [
      'networks',
      [{ dst: "address='192.0.2.0' prefixlen='24'" }],
      {},
      "<rule mode='transport'> on line 5: its ranges are more than one address; each side must be the address of the end itself; or write mode='tunnel'",
    ],
    [
      'another source',
      [{ src: "address='10.0.0.1'" }],
      {},
      'its source is 10.0.0.1; it must be the end itself, 192.0.2.1',
    ],
    [
      'another destination',
      [{ dst: "address='10.0.0.1'" }],
      {},
      'its destination is 10.0.0.1; it must be the end itself, 192.0.2.2',
    ],
    [
      'two peers',
      [{}, { dst: "address='192.0.2.3'" }],
      { remote: 'any' },
      "line 6: its destination is 192.0.2.3; it must be the end itself, 192.0.2.2; or write mode='tunnel'",
    ],
    [
      'both modes',
      [{}, { mode: 'tunnel' }],
      {},
      "<rule mode='transport'> on line 5 beside <rule mode='tunnel'> on line 6; give each mode a document of its own",
    ],
  ])('is refused for %s', async (_what, sps, options, why) => {
    await expect(plan(sps, options)).rejects.toThrow(why);
  });
});
