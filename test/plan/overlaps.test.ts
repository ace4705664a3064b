/** What the documents of two tunnels of a host both claim: told with both lines, and refused where nothing orders them. */
import { describe, expect, it } from 'vitest';
import type { SectunnelDocument } from '../../src/config/model.ts';
import { parseDocument } from '../../src/config/parse.ts';
import { overlapsAmong, overlapsWhenKept } from '../../src/plan/overlaps.ts';

interface Words {
  readonly device?: string;
  readonly group?: string;
  readonly priority?: number;
}

function document(
  name: string,
  remotes: readonly string[],
  { device = '', group, priority = 0 }: Words = {},
): SectunnelDocument {
  const redundancy = group === undefined ? '' : `<redundancy group='${group}'/>`;
  const sps = remotes.map((remote, at) => {
    const [address, length] = remote.split('/');
    return `<sp name='${name}${at}' priority='${priority}'><src_range address='10.1.0.0' prefixlen='24'/>
      <dst_range address='${address}' prefixlen='${length}'/><upperspec protocol='any'/>
      <policy direction='both' action='ipsec'><rule protocol='esp' mode='tunnel' level='require'/></policy></sp>`;
  });
  return parseDocument(
    `<sectunnel type='ipsec'><name>${name}</name>${device}<sa><auth type='psk'><secret usage='k'/></auth>${redundancy}</sa>
      ${sps.join('\n')}</sectunnel>`,
    { newUuid: () => '11111111-2222-3333-4444-555555555555' },
  );
}

const A = document('a', ['10.2.0.0/24']);

describe('of two tunnels', () => {
  it('nothing is said where they have nothing in common', () => {
    expect(overlapsAmong(A, [document('b', ['10.3.0.0/24']), A])).toEqual({ conflicts: [], warnings: [] });
  });

  it('the same packets are refused, with both lines and what to write', () => {
    expect(overlapsAmong(A, [document('b', ['10.2.0.0/24'])]).conflicts[0]!.text).toBe(
      "line 4: <sp name='a0'>: 10.1.0.0/24 === 10.2.0.0/24: tunnel b protects the same packets (line 4: <sp name='b0'>, 10.1.0.0/24 === 10.2.0.0/24), and nothing decides which of the two carries them: give one of them a priority, or write <redundancy group='…'/> in the <sa> of both, which makes the other a reserve",
    );
  });

  it.each<readonly [string, SectunnelDocument]>([
    ['of one redundancy group', document('b', ['10.2.0.0/24'], { group: 'g' })],
    ['of other namespaces', document('b', ['10.2.0.0/24'], { device: "<device netns='blue'/>" })],
    ['of other routing domains', document('b', ['10.2.0.0/24'], { device: "<device vrf='blue'/>" })],
    ['that lead nothing', document('b', ['10.2.0.0/24'], { device: "<device routes='none'/>" })],
  ])('the same packets are no matter of those %s', (_, other) => {
    expect(overlapsAmong(document('a', ['10.2.0.0/24'], { group: 'g' }), [other])).toEqual({
      conflicts: [],
      warnings: [],
    });
  });

  it.each<readonly [string, SectunnelDocument, string]>([
    ['the wider goes behind', document('w', ['0.0.0.0/0']), 'they go by this one, which is more specific'],
    ['the narrower goes before', document('n', ['10.2.0.7/32']), 'they go by n, which is more specific'],
    [
      'a priority decides',
      document('p', ['10.2.0.0/24'], { priority: 1 }),
      'they go by p, which has the higher priority',
    ],
  ])('%s, and that is told', (_, other, text) => {
    const { conflicts, warnings } = overlapsAmong(A, [other]);
    expect([conflicts, warnings]).toEqual([[], [expect.stringContaining(text)]]);
    expect(warnings[0]).toContain(
      `tunnel ${other.name} matches some of these packets too (line 4: <sp name='${other.name}0'>`,
    );
  });

  it('those that have no order are refused', () => {
    const { conflicts } = overlapsAmong(document('a', ['10.2.0.0/24', '0.0.0.0/0']), [
      document('b', ['10.3.0.0/24', '10.0.0.0/8']),
    ]);
    expect(conflicts[0]!.text).toContain('of two tunnels must come first for all packets that match both');
  });

  it('the same packets are refused beside a tunnel that is to run, and reported beside one that is only defined', () => {
    const overlaps = overlapsAmong(A, [document('b', ['10.2.0.0/24'])]);
    expect(overlapsWhenKept(overlaps, (tunnel) => tunnel === 'b').refusal).toBe(overlaps.conflicts[0]!.text);
    const kept = overlapsWhenKept(overlaps, () => false);
    expect([kept.refusal, kept.warnings]).toEqual([
      undefined,
      [`${overlaps.conflicts[0]!.text}. Only one of the two can be started`],
    ]);
  });

  it('very many are reported in few lines', () => {
    const others = Array.from({ length: 30 }, (_, at) => document(`n${at}`, [`10.2.0.${at}/32`]));
    const { warnings } = overlapsAmong(A, others);
    expect(warnings).toHaveLength(5);
    expect(warnings.at(-1)).toBe('overlaps with the policies of other tunnels that are not listed: 26');
  });
});

describe('of two tunnels on one device', () => {
  const hub = "<device name='hub'/>";
  const A = document('a', ['10.2.0.0/24'], { device: hub });
  const conflict = (other: SectunnelDocument, one: SectunnelDocument = A): string | undefined =>
    overlapsWhenKept(overlapsAmong(one, [other]), () => false).refusal;

  it('nothing is said where they have nothing in common', () => {
    expect(overlapsAmong(A, [document('b', ['10.3.0.0/24'], { device: hub })])).toEqual({
      conflicts: [],
      warnings: [],
    });
  });

  it.each<readonly [string, readonly string[]]>([
    ['the same packets', ['10.2.0.0/24']],
    ['more', ['0.0.0.0/0']],
    ['a part of them', ['10.2.0.7/32']],
  ])('%s are refused without a priority, active or not', (_, remotes) => {
    expect(conflict(document('b', remotes, { device: hub }))).toMatch(
      /^line 4: <sp name='a0'>: .* tunnel b on the same device hub protects some of these packets too \(line 4: <sp name='b0'>, .* no priority decides/,
    );
  });

  it('priorities order what both claim, entry by entry', () => {
    const both = document('b', ['10.2.0.0/24', '10.3.0.0/24'], { device: hub, priority: 3 });
    expect(overlapsAmong(A, [both]).conflicts).toEqual([]);
    expect(overlapsAmong(A, [both]).warnings).toEqual([
      expect.stringContaining('they go by b, which has the higher priority'),
    ]);
  });

  it.each([
    ["<device name='hub' mtu='1300'/>", "device hub has no mtu in the document of a and mtu='1300' in that of b"],
    ["<device name='hub' table='7'/>", "no table in the document of a and table='7' in that of b"],
    ["<device name='hub' netns='blue'/>", "no netns in the document of a and netns='blue' in that of b"],
    ["<device name='hub' routes='none'/>", "routes='auto' in the document of a and routes='none' in that of b"],
  ])('another %s is refused, with both names', (device, text) => {
    expect(conflict(document('b', ['10.3.0.0/24'], { device }))).toContain(text);
  });

  it('a name that one of them has by default is refused', () => {
    const written = document('b', ['10.3.0.0/24'], { device: "<device name='stun-a'/>" });
    const byDefault = document('a', ['10.2.0.0/24']);
    expect(conflict(written, byDefault)).toContain(
      'device stun-a is the one that this tunnel has by default, and b too',
    );
    expect(conflict(byDefault, written)).toContain('device stun-a is the one that tunnel a has by default');
  });

  it('a redundancy group is refused', () => {
    const [one, other] = ['a', 'b'].map((name) => document(name, ['10.2.0.0/24'], { device: hub, group: 'g' })) as [
      SectunnelDocument,
      SectunnelDocument,
    ];
    expect(conflict(other, one)).toContain('of which each needs a device of its own');
  });
});
