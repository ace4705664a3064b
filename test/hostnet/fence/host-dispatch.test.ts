/** Which part of the fence is shown the host's own packets for their destination alone. */
import { describe, expect, it } from 'vitest';
import {
  type HostDispatch,
  type HostPart,
  hostAdditions,
  hostDispatch,
  hostRemovals,
  NO_HOST_DISPATCH,
} from '../../../src/hostnet/fence/host-dispatch.ts';
import { range } from '../../policy/helpers.ts';

const part = (id: string, ...destinations: readonly string[]): HostPart => ({
  id,
  destinations: destinations.map(range),
});
const change = (before: HostDispatch, after: HostDispatch): string[] => [
  ...hostRemovals(before, after),
  ...hostAdditions(before, after, { anew: false }),
];
const ALL = '0.0.0.0-255.255.255.255';

describe('the dispatch of the host’s own packets', () => {
  it('finds the part by one look-up where destinations are of one part each', () => {
    const { elements, shared } = hostDispatch([
      part('ta', '10.2.0.0/24', 'fd02::/64'),
      part('tb', '10.3.0.0/24', '10.4.0.0/24'),
    ]);
    expect([...elements]).toEqual([
      [`host4 ${ALL} . 10.2.0.0/24`, 'jump ta_hostany'],
      [`host4 ${ALL} . 10.3.0.0/24`, 'jump tb_hostany'],
      [`host4 ${ALL} . 10.4.0.0/24`, 'jump tb_hostany'],
      ['host6 ::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff . fd02::/64', 'jump ta_hostany'],
    ]);
    expect(shared).toEqual([]);
  });

  it('keeps routing domains apart', () => {
    const { elements, shared, vrfShared } = hostDispatch([
      part('ta', '10.2.0.0/24'),
      { ...part('va', '10.2.0.0/24'), vrf: 'blue' },
      { ...part('vb', '10.0.0.0/8'), vrf: 'red' },
      { ...part('vc', '10.2.0.0/24'), vrf: 'red' },
    ]);
    expect([...elements]).toEqual([
      [`host4 ${ALL} . 10.2.0.0/24`, 'jump ta_hostany'],
      [`vrfhost4 "blue" . ${ALL} . 10.2.0.0/24`, 'jump va_hostany'],
      [`vrfhost4 "red" . ${ALL} . 10.0.0.0/8`, 'jump vrfshared'],
    ]);
    expect(shared).toEqual([]);
    expect(vrfShared).toEqual(['ip daddr 10.0.0.0/8 jump vb_hostany', 'ip daddr 10.2.0.0/24 jump vc_hostany']);
  });

  it('asks all parts whose destinations overlap, and for no other packet', () => {
    const { elements, shared } = hostDispatch([
      part('ta', '10.2.0.0/24'),
      part('tb', '10.0.0.0/8'),
      part('tc', '10.255.0.0/16', '172.16.0.0/12'),
    ]);
    expect([...elements]).toEqual([
      [`host4 ${ALL} . 10.0.0.0/8`, 'jump hostshared'],
      [`host4 ${ALL} . 172.16.0.0/12`, 'jump tc_hostany'],
    ]);
    expect(shared).toEqual([
      'ip daddr 10.0.0.0/8 jump tb_hostany',
      'ip daddr 10.2.0.0/24 jump ta_hostany',
      'ip daddr 10.255.0.0/16 jump tc_hostany',
    ]);
  });

  it('changes what differs, and nothing else', () => {
    const one = hostDispatch([part('ta', '10.2.0.0/24'), part('tb', '10.3.0.0/24')]);
    expect(change(one, one)).toEqual([]);
    expect(change(one, hostDispatch([part('tb', '10.3.0.0/24')]))).toEqual([
      `delete element inet sectunnel host4 { ${ALL} . 10.2.0.0/24 }`,
    ]);
    const overlapping = hostDispatch([part('ta', '10.2.0.0/24'), part('tb', '10.2.0.0/16')]);
    expect(change(one, overlapping)).toEqual([
      `delete element inet sectunnel host4 { ${ALL} . 10.2.0.0/24, ${ALL} . 10.3.0.0/24 }`,
      'flush chain inet sectunnel hostshared',
      'add rule inet sectunnel hostshared ip daddr 10.2.0.0/24 jump ta_hostany',
      'add rule inet sectunnel hostshared ip daddr 10.2.0.0/16 jump tb_hostany',
      `add element inet sectunnel host4 { ${ALL} . 10.2.0.0/16 : jump hostshared }`,
    ]);
  });

  it('shows everything to a part that an earlier program left, which may have no such chain', () => {
    const lines = change(NO_HOST_DISPATCH, hostDispatch([{ id: 'told', destinations: undefined }]));
    expect(lines[0]).toBe('add chain inet sectunnel told_hostany');
    expect(lines.at(-1)).toBe('add rule inet sectunnel host jump told_hostany');
  });
});
