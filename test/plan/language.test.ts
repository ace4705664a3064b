/** What documents say of packets, from the text to the packet that came out at the other end. */
import { describe, expect, it } from 'vitest';
import { parseDocument } from '../../src/config/parse.ts';
import { planTunnel } from '../../src/plan/plan.ts';
import { formatFlow } from '../../src/policy/flow-values.ts';
import { flowOf, icmp, type PacketFields, packet, ports } from '../policy/helpers.ts';
import { type EnginePair, enginePair } from '../support/engine-net.ts';

const UUID = '11111111-2222-3333-4444-555555555501';
const RULE = "<rule protocol='esp' mode='tunnel' level='require'/>";
const IPSEC = `<policy direction='both' action='ipsec'>${RULE}</policy>`;

/** Ranges and `<upperspec>` with what is done with such packets. */
function sp(src: string, dst: string, upperspec: string, policies: string = IPSEC, priority = 0): string {
  const range = (element: string, attributes: string): string =>
    attributes
      .split(' + ')
      .map((one) => `<${element} ${one}/>`)
      .join('');
  const ranges = range('src_range', src) + range('dst_range', dst);
  return `<sp priority='${priority}'>${ranges}<upperspec ${upperspec}/>${policies}</sp>`;
}

function document(local: string, remote: string, start: string, sps: string): string {
  return `<sectunnel type='ipsec'><name>t</name>
  <sa><local address='${local}'/><remote address='${remote}'/><auth type='psk'><secret uuid='${UUID}'/></auth>
  <ike version='2' start='${start}'/></sa>${sps}</sectunnel>`;
}

/** The same policies from either end: what is the source here is the destination there. */
async function joined(here: string, there: string): Promise<EnginePair> {
  const plan = async (text: string) => (await planTunnel(parseDocument(text))).tunnel;
  return enginePair({
    a: await plan(document('192.0.2.1', '192.0.2.2', 'trap', here)),
    b: await plan(document('192.0.2.2', '192.0.2.1', 'respond', there)),
  });
}

const A = "address='10.1.0.0' prefixlen='24'";
const B = "address='10.2.0.0' prefixlen='24'";

/** UDP from 10.1.0.1 to 10.2.0.1, unless told otherwise. */
function udp(source: number, destination: number, change: Partial<PacketFields> = {}): PacketFields {
  return { src: '10.1.0.1', dst: '10.2.0.1', protocol: 17, payload: ports(source, destination), ...change };
}

interface Case {
  readonly name: string;
  /** Source, destination, `<upperspec>`. */
  readonly policy: readonly [src: string, dst: string, upperspec: string];
  readonly carried: readonly PacketFields[];
  readonly dropped: readonly PacketFields[];
}

const six = { src: 'fd00:1::1', dst: 'fd00:2::1' };
const CASES: readonly Case[] = [
  {
    name: 'ranges of ports, and ports at their ends',
    policy: [`${A} port='1-1024'`, `${B} port='65534-65535'`, "protocol='udp'"],
    carried: [udp(1, 65535), udp(1024, 65534)],
    dropped: [udp(0, 65535), udp(1025, 65535), udp(1, 65533), udp(1, 0)],
  },
  {
    name: 'any port, 0 and 65535 too',
    policy: [A, B, "protocol='17'"],
    carried: [udp(0, 0), udp(65535, 65535)],
    dropped: [udp(1, 1, { protocol: 6 })],
  },
  {
    name: 'any protocol with a port: those that have ports',
    policy: [A, `${B} port='53'`, "protocol='any'"],
    carried: [udp(9, 53), udp(9, 53, { protocol: 6 }), udp(9, 53, { protocol: 132 })],
    dropped: [udp(9, 54), udp(9, 53, { protocol: 47 }), udp(0, 0, { protocol: 1, payload: icmp(8, 0) })],
  },
  {
    name: 'several ranges, and ranges that are no prefix',
    policy: [`${A} + address='10.9.0.3' end='10.9.0.5'`, "address='10.2.0.1' end='10.2.0.6'", "protocol='any'"],
    carried: [udp(1, 1), udp(1, 1, { src: '10.9.0.3' }), udp(1, 1, { src: '10.9.0.5', dst: '10.2.0.6' })],
    dropped: [udp(1, 1, { src: '10.9.0.2' }), udp(1, 1, { src: '10.9.0.6' }), udp(1, 1, { dst: '10.2.0.7' })],
  },
  {
    name: 'a type of ICMP, and a code',
    policy: [A, B, "protocol='icmp' type='3' code='4'"],
    carried: [udp(0, 0, { protocol: 1, payload: icmp(3, 4) })],
    dropped: [
      udp(0, 0, { protocol: 1, payload: icmp(3, 3) }),
      udp(0, 0, { protocol: 1, payload: icmp(8, 0) }),
      udp(1, 1),
    ],
  },
  {
    name: 'ICMPv6 by number',
    policy: ["address='fd00:1::' prefixlen='64'", "address='fd00:2::' prefixlen='64'", "protocol='58' type='128'"],
    carried: [{ ...six, protocol: 58, payload: icmp(128, 0) }],
    dropped: [
      { ...six, protocol: 58, payload: icmp(129, 0) },
      { ...six, protocol: 17 },
    ],
  },
  {
    name: 'a protocol without ports, by name',
    policy: [A, B, "protocol='gre'"],
    carried: [udp(1, 1, { protocol: 47 })],
    dropped: [udp(1, 1), udp(1, 1, { protocol: 50 })],
  },
  {
    name: 'fragments with their first, and none without where there are ports',
    policy: [A, `${B} port='2000'`, "protocol='udp'"],
    carried: [udp(1, 2000, { id: 7, more: true }), udp(1, 2000, { id: 7, offset: 8, payload: new Uint8Array(8) })],
    dropped: [udp(1, 2000, { id: 8, offset: 8, payload: new Uint8Array(8) }), udp(1, 2001, { id: 9, more: true })],
  },
];

describe('a document', () => {
  it.each(CASES)('carries $name', async ({ policy: [src, dst, upper], carried, dropped }) => {
    const { net, a, b } = await joined(sp(src, dst, upper), sp(dst, src, upper));
    for (const fields of [...dropped, ...carried]) net.send(a, [packet(fields)]);
    net.run();
    expect(a.tunnel().children.size).toBe(1);
    for (const fields of carried) {
      const before = b.texts().length;
      net.send(a, [packet(fields)]);
      net.run(50);
      expect([formatFlow(flowOf(fields)), b.texts().length - before]).toEqual([formatFlow(flowOf(fields)), 1]);
    }
    for (const fields of dropped) {
      const before = net.sent.length;
      net.send(a, [packet(fields)]);
      expect([formatFlow(flowOf(fields)), net.sent.length - before]).toEqual([formatFlow(flowOf(fields)), 0]);
    }
    expect(b.texts()).toHaveLength(2 * carried.length);
    expect(Object.values(a.drops()).reduce((sum, count) => sum + count, 0)).toBe(2 * dropped.length);
    expect(b.drops()).toEqual({});
  });

  it('lets entries of higher priority take parts away, one direction by itself', async () => {
    const never = (direction: string): string => `<policy direction='${direction}' action='discard'/>`;
    const all = (src: string, dst: string): string => sp(src, dst, "protocol='any'");
    const { net, a, b } = await joined(
      all(A, B) + sp(A, `${B} port='23'`, "protocol='udp'", never('out'), 5),
      all(B, A) + sp(`${A}`, `${B} port='24'`, "protocol='udp'", never('in'), 5),
    );
    net.send(a, [udp(1, 22), udp(1, 23), udp(1, 24)].map(packet));
    net.run();
    expect(b.texts()).toHaveLength(1);
    expect([a.drops(), b.drops()]).toEqual([{ 'discarded-by-policy': 1 }, { 'policy-mismatch': 1 }]);
    // The other way round both are free.
    net.send(
      b,
      [udp(22, 1), udp(23, 1), udp(24, 1)].map((fields) => packet({ ...fields, src: fields.dst, dst: fields.src })),
    );
    net.run();
    expect(a.texts()).toHaveLength(3);
  });

  it('with two policies of one number has one SA, with pfp one for each flow', async () => {
    const shared = IPSEC.replace("level='require'", "level='unique:3'");
    const { net, a, b } = await joined(
      sp(A, `${B} port='80'`, "protocol='tcp'", shared) + sp(A, `${B} port='53'`, "protocol='udp'", shared),
      sp(B, A, "protocol='any'"),
    );
    net.send(a, [udp(1, 53), udp(1, 80, { protocol: 6 }), udp(1, 80)].map(packet));
    net.run();
    expect([b.texts().length, a.tunnel().children.size, a.drops()]).toEqual([2, 1, { 'no-policy': 1 }]);

    const flows = await joined(sp(A, `${B} port='1-65535' pfp='yes'`, "protocol='udp'"), sp(B, A, "protocol='any'"));
    flows.net.send(flows.a, [udp(1, 53), udp(2, 53), udp(1, 54)].map(packet));
    flows.net.run();
    expect([flows.b.texts().length, flows.a.tunnel().children.size, flows.a.drops()]).toEqual([3, 2, {}]);
  });
});
