/**
 * The fence in a kernel against the engine's own parser and policy: random and adversarial header chains and sets of
 * fragments, forwarded, for the gateway and its own. Nothing that is put together behind it into a packet that the policy
 * protects has passed in the clear, and nothing plain is dropped that the policy lets pass.
 */
import { describe, expect, it } from 'vitest';
import type { PolicyEntry } from '../../src/policy/database.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { useLab } from '../support/lab/use-lab.ts';
import { Judge, type Path } from './differential/judge.ts';
import { Dice } from './differential/packets.ts';
import { LOCAL, policy, REMOTE } from './differential/policies.ts';
import { DEVICE, PEER, Range, type Score, type Shooting } from './differential/range.ts';

/** Packets of all tests together. */
const PACKETS = Number(process.env.SECTUNNEL_FENCE_PACKETS ?? 400_000);
const SEED = Number(process.env.SECTUNNEL_FENCE_SEED ?? 1);

/** Whether a forwarded packet goes in or out does not show in its addresses: fragments of it are not held apart. */
const MIRRORED = 'what is on either side';
const sides = [...LOCAL, ...REMOTE];
/** The gateway has no such address: what it sends itself is judged by its destination. */
const away = { local: ['10.7.0.0/24', 'fd07::/64'] };

const POLICIES: Readonly<Record<string, readonly PolicyEntry[]>> = {
  everything: policy({}),
  'one protocol': policy({ upper: 'udp' }),
  'ports of either side': policy({ upper: 'udp 7007' }, { upper: 'tcp', localUpper: 'tcp 4000-5000' }),
  'types of ICMP': policy(
    { upper: 'icmp type 8', families: [4] },
    { upper: 'icmpv6 type 128', families: [6] },
    { upper: 'icmpv6 type 1', families: [6] },
  ),
  'exceptions before everything': policy(
    { upper: 'tcp', action: 'bypass' },
    { upper: 'udp 53', action: 'bypass' },
    { upper: 'icmp type 0', families: [4], action: 'bypass' },
    { upper: 'icmpv6 type 129', families: [6], action: 'bypass' },
    { upper: '200', action: 'bypass' },
    { upper: 'ah', action: 'bypass' },
    {},
  ),
  [MIRRORED]: policy({ local: sides, remote: sides, upper: 'udp' }),
  'several entries': policy(
    { upper: 'udp 4444', action: 'bypass' },
    { upper: 'udp 53', action: 'discard' },
    { upper: 'tcp 7000-7999' },
    { upper: 'udp', action: 'bypass', remote: ['10.2.0.10/32', 'fd02::a/128'] },
    { upper: 'udp' },
    { upper: 'esp' },
  ),
  'everything of other sources': policy(away),
  'several entries of other sources': policy(
    { ...away, upper: 'udp 4444', action: 'bypass' },
    { ...away, upper: 'udp 53', action: 'discard' },
    { ...away, upper: 'udp' },
    { upper: 'tcp 7000-7999', action: 'bypass' },
    { ...away, upper: 'tcp' },
    { ...away, upper: 'icmp type 8', families: [4] },
    { ...away, upper: 'icmpv6 type 128', families: [6] },
  ),
};

const PATHS: Readonly<Record<string, Path>> = {
  'that come in through the gateway': { outbound: false, host: false },
  'that come in for the gateway': { outbound: false, host: true },
  'that leave through the gateway': { outbound: true, host: false },
  'of the gateway’s own': { outbound: true, host: true },
};

describeInterop('the fence and the engine judge alike', ['namespaces', 'nftables'], () => {
  let range: Range;
  useLab(async (lab) => {
    range = await Range.build(lab);
  });

  const each = Math.ceil(PACKETS / (2 * (Object.keys(POLICIES).length * (Object.keys(PATHS).length + 2) - 1)));
  let run = 0;
  const track = async (tracked: boolean): Promise<void> => {
    const chain = 'add chain inet track in { type filter hook prerouting priority 0; }';
    const rules = tracked ? `; ${chain}; add rule inet track in ct state new accept` : '';
    await range.gateway.exec(['nft', `add table inet track; delete table inet track; add table inet track${rules}`]);
  };
  const shoot = async (judge: Judge, how: Pick<Shooting, 'path' | 'tracked' | 'mixed'>): Promise<Score> => {
    await range.fence.set('tunnel:t', judge.fence);
    const score = await range.shoot({ ...how, judge, dice: new Dice(SEED + 1000 * run++) }, each);
    for (const key of ['packets', 'passed', 'delivered'] as const) total[key] += score[key];
    return score;
  };
  const total = { packets: 0, passed: 0, delivered: 0 };

  for (const tracked of [false, true]) {
    describe(tracked ? 'with connections tracked' : 'without tracking of connections', () => {
      for (const [name, entries] of Object.entries(POLICIES)) {
        it(`where ${name} is in the policy`, async () => {
          await track(tracked);
          for (const [index, path] of Object.values(PATHS).entries()) {
            const judge = new Judge(
              entries,
              { peer: PEER[index % 2 === 0 ? 4 : 6], ports: [500, 4500], peerPorts: [500, 4500] },
              DEVICE,
            );
            await shoot(judge, { path, tracked });
          }
        }, 600_000);
      }

      it('joins no fragment in the clear with those from the tunnel', async () => {
        await track(tracked);
        for (const [name, entries] of Object.entries(POLICIES)) {
          for (const host of name === MIRRORED ? [true] : [false, true]) {
            const judge = new Judge(entries, { peer: PEER[4], ports: [500, 4500], peerPorts: [500, 4500] }, DEVICE);
            const { delivered } = await shoot(judge, { path: { outbound: false, host }, tracked, mixed: true });
            expect(delivered, name).toBeGreaterThan(0);
          }
        }
      }, 600_000);
    });
  }

  it('counts', () => {
    console.info(JSON.stringify(total));
    expect(total.packets).toBeGreaterThanOrEqual(PACKETS);
  });
});
