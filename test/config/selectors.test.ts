import { describe, expect, it } from 'vitest';
import type { SectunnelDocument } from '../../src/config/model.ts';
import { parseDocument } from '../../src/config/parse.ts';
import { sharingProblem, toChildren, toPolicy } from '../../src/config/selectors.ts';
import { compilePolicy, orderPolicy } from '../../src/policy/database.ts';
import { formatSelectorPair, validateSelector } from '../../src/policy/selector.ts';

function document(sps: string): SectunnelDocument {
  return parseDocument(`<sectunnel type='ipsec'>\n<name>t</name><secret usage='k'/>\n${sps}\n</sectunnel>`);
}

function sp(ranges: string, upperspec: string, policies: string, attributes = ''): string {
  return `<sp ${attributes}>${ranges}<upperspec ${upperspec}/>${policies}</sp>`;
}

const LAN = "<src_range address='10.1.0.0' prefixlen='24'/><dst_range address='10.2.0.0' prefixlen='24'/>";
const IPSEC = "<policy direction='both' action='ipsec'><rule protocol='esp' mode='tunnel'/></policy>";
const LEVEL_USE = IPSEC.replace("mode='tunnel'", "mode='tunnel' level='use'");
const NONE = "<policy direction='both' action='none'/>";

/** Direction, action and selectors of each entry. */
function view(doc: SectunnelDocument): string[] {
  return toPolicy(doc).entries.map(
    ({ direction, action, selectors }) => `${direction} ${action} ${formatSelectorPair(selectors)}`,
  );
}

describe('toPolicy', () => {
  it('makes an entry for each direction of both, seen from here in both', () => {
    const doc = document(sp(LAN, "protocol='any'", IPSEC, "name='lan' priority='7'"));
    expect(view(doc)).toEqual(['out protect 10.1.0.0/24 === 10.2.0.0/24', 'in protect 10.1.0.0/24 === 10.2.0.0/24']);
    expect(toPolicy(doc).entries[0]).toMatchObject({
      name: 'lan',
      child: 'lan',
      priority: 7,
      level: 'require',
      line: 3,
    });
    expect(toPolicy(doc).warnings).toEqual([]);
  });

  it('takes the ranges of an in policy as those of inbound packets', () => {
    const doc = document(
      sp(LAN, "protocol='any'", "<policy direction='out' action='none'/>") +
        sp(
          "<src_range address='10.2.0.0' prefixlen='24'/><dst_range address='10.1.0.0' prefixlen='24' port='22'/>",
          "protocol='tcp'",
          "<policy direction='in' action='discard'/>",
        ),
    );
    expect(view(doc)).toEqual([
      'out bypass 10.1.0.0/24 === 10.2.0.0/24',
      'in discard 10.1.0.0/24 tcp 22 === 10.2.0.0/24 tcp',
    ]);
    expect(toPolicy(doc).entries.map(({ child }) => child)).toEqual([undefined, undefined]);
  });

  it.each([
    ['default', 'require'],
    ['require', 'require'],
    ['use', 'use'],
    ['unique', 'unique'],
    ['unique:7', 'unique'],
  ])('level %s is %s', (written, level) => {
    const doc = document(sp(LAN, "protocol='any'", IPSEC.replace("mode='tunnel'", `mode='tunnel' level='${written}'`)));
    expect(toPolicy(doc).entries.map((entry) => entry.level)).toEqual([level, level]);
  });

  it('spells any protocol with a port out as TCP, UDP and SCTP, on both sides, and warns', () => {
    const ranges =
      "<src_range address='10.1.0.0' prefixlen='30' port='5000'/><dst_range address='10.2.0.0' prefixlen='30'/>";
    const doc = document(sp(ranges, "protocol='any'", IPSEC, "name='p'"));
    expect(view(doc)[0]).toBe(
      'out protect 10.1.0.0/30 tcp 5000, 10.1.0.0/30 udp 5000, 10.1.0.0/30 sctp 5000 === 10.2.0.0/30 tcp, 10.2.0.0/30 udp, 10.2.0.0/30 sctp',
    );
    expect(toPolicy(doc).warnings).toEqual([
      "line 3: <sp name='p'>: protocol='any' with port 5000 cannot be negotiated (RFC 7296 section 3.13.1); it is taken as tcp, udp, sctp, one selector each. Name the protocol in <upperspec> to have just that one",
    ]);
  });

  it.each([
    ['trap', LEVEL_USE, "with level='use' packets pass in the clear until there is an SA, so start='trap' gets none"],
    ['initiate', LEVEL_USE, undefined],
    ['respond', LEVEL_USE, undefined],
    ['trap', IPSEC, undefined],
    [
      'initiate',
      IPSEC,
      "pfp='yes' takes its SAs from packets, so start='initiate' brings up none of them",
      " pfp='yes'",
    ],
    ['trap', IPSEC, undefined, " pfp='yes'"],
  ])('warns of what start does not do: %s, %s', (start, policies, warning, pfp = '') => {
    const rule = sp(LAN, `protocol='any'${pfp}`, policies, "name='p'");
    const text = `<sa><remote address='192.0.2.2'/><ike start='${start}'/></sa>${rule}`;
    const expected = warning === undefined ? [] : [expect.stringContaining(`line 3: <sp name='p'>: ${warning}`)];
    expect(toPolicy(document(text)).warnings).toEqual(expected);
  });

  it('leaves a range without a port whole where another range of its side has one', () => {
    const ranges =
      "<src_range address='10.1.0.1' port='53'/><src_range address='10.1.0.2'/><dst_range address='10.2.0.0' prefixlen='30'/>";
    expect(view(document(sp(ranges, "protocol='any'", NONE)))[0]).toBe(
      'out bypass 10.1.0.1 tcp 53, 10.1.0.1 udp 53, 10.1.0.1 sctp 53, 10.1.0.2 === 10.2.0.0/30',
    );
  });

  it.each<readonly [string, string, string]>([
    ["protocol='icmp'", LAN, '10.1.0.0/24 icmp === 10.2.0.0/24 icmp'],
    ["protocol='icmp' type='8'", LAN, '10.1.0.0/24 icmp type 8 === 10.2.0.0/24 icmp type 8'],
    ["protocol='icmp' type='3' code='4'", LAN, '10.1.0.0/24 icmp type 3 code 4 === 10.2.0.0/24 icmp type 3 code 4'],
    ["protocol='GRE'", LAN, '10.1.0.0/24 gre === 10.2.0.0/24 gre'],
    ["protocol='200'", LAN, '10.1.0.0/24 200 === 10.2.0.0/24 200'],
    [
      "protocol='udp'",
      "<src_range address='10.1.0.1' port='1000-2000'/><dst_range address='10.2.0.1' end='10.2.0.6' port='any'/>",
      '10.1.0.1 udp 1000-2000 === 10.2.0.1-10.2.0.6 udp',
    ],
    ["protocol='any'", "<src_range address='any'/><dst_range address='fd00::' prefixlen='64'/>", '::/0 === fd00::/64'],
    ["protocol='any'", "<src_range address='any'/><dst_range address='any'/>", '0.0.0.0/0, ::/0 === 0.0.0.0/0, ::/0'],
    ["protocol='ipv6-icmp'", "<src_range address='any'/><dst_range address='any'/>", '::/0 icmpv6 === ::/0 icmpv6'],
    [
      "protocol='any'",
      "<src_range address='any'/><dst_range address='any'/><dst_range address='10.2.0.1'/>",
      '0.0.0.0/0 === 0.0.0.0/0, 10.2.0.1',
    ],
  ])('%s', (upperspec, ranges, expected) => {
    const doc = document(sp(ranges, upperspec, NONE));
    const { entries, warnings } = toPolicy(doc);
    expect(formatSelectorPair(entries[0]!.selectors)).toBe(expected);
    expect(warnings).toEqual([]);
    const all = entries.flatMap(({ selectors }) => [...selectors.local, ...selectors.remote]);
    expect(all.map(validateSelector)).toEqual(all.map(() => undefined));
  });

  it('keeps document order among equals, for the database to ask in', () => {
    const doc = document(
      sp(LAN, "protocol='any'", NONE, "name='a'") +
        sp(LAN, "protocol='tcp'", NONE, "name='b' priority='5'") +
        sp(LAN, "protocol='udp'", NONE, "name='c'"),
    );
    const { entries } = toPolicy(doc);
    expect(compilePolicy(entries, 'out').entries.map(({ name }) => name)).toEqual(['b', 'a', 'c']);
    expect(compilePolicy(entries, 'in').entries.map(({ name }) => name)).toEqual(['b', 'a', 'c']);
  });
});

describe('toChildren', () => {
  it('makes one child of each rule, named as its sp', () => {
    const doc = document(
      sp(LAN, "protocol='any'", NONE) +
        sp(
          LAN.replace("prefixlen='24'/>", "prefixlen='24' pfp='yes'/>"),
          "protocol='tcp' pfp='yes'",
          IPSEC,
          "name='web'",
        ) +
        sp(LAN, "protocol='udp'", IPSEC.replace("mode='tunnel'", "mode='transport' level='unique:9'")),
    );
    const children = toChildren(doc);
    expect(children.map(({ name, mode, level, pfp }) => ({ name, mode, level, pfp }))).toEqual([
      {
        name: 'web',
        mode: 'tunnel',
        level: { kind: 'require' },
        pfp: { localAddress: true, remoteAddress: false, protocol: true, localPort: false, remotePort: false },
      },
      {
        name: 'sp2',
        mode: 'transport',
        level: { kind: 'unique', group: 9 },
        pfp: undefined,
      },
    ]);
    const protect = toPolicy(doc).entries.filter(({ action }) => action === 'protect');
    for (const { child, selectors } of protect) {
      expect(children.find(({ name }) => name === child)?.selectors).toEqual(selectors);
    }
    expect(protect).toHaveLength(4);
  });

  it('takes the ports of a range from packets where the range names some, and the protocol with them', () => {
    const flagsOf = (src: string, dst: string, upper: string): unknown =>
      toChildren(
        document(sp(`<src_range address='10.1.0.1' ${src}/><dst_range address='any' ${dst}/>`, upper, IPSEC)),
      )[0]!.pfp;
    const none = { localAddress: false, remoteAddress: false, protocol: false, localPort: false, remotePort: false };
    expect(flagsOf("pfp='no'", '', "protocol='udp'")).toBeUndefined();
    expect(flagsOf('', "pfp='yes'", "protocol='udp'")).toEqual({ ...none, remoteAddress: true });
    expect(flagsOf('', "pfp='yes' port='1-65535'", "protocol='udp'")).toEqual({
      ...none,
      remoteAddress: true,
      protocol: true,
      remotePort: true,
    });
    expect(flagsOf("port='53'", '', "protocol='any' pfp='yes'")).toEqual({ ...none, protocol: true });
  });

  it('joins the rules that give the same number into one child, and leaves each policy its own selectors', () => {
    const other = LAN.replaceAll('10.1.', '10.3.').replaceAll('10.2.', '10.4.');
    const shared = (level: string): string => IPSEC.replace("mode='tunnel'", `mode='tunnel' level='${level}'`);
    const doc = document(
      sp(LAN, "protocol='tcp'", shared('unique:7'), "name='a'") +
        sp(LAN, "protocol='udp'", shared('unique:8'), "name='b'") +
        sp(other, "protocol='any'", shared('unique:7'), "name='c'") +
        sp(LAN, "protocol='icmp'", shared('unique'), "name='d'") +
        sp(LAN, "protocol='gre'", shared('unique'), "name='e'"),
    );
    expect(sharingProblem(doc)).toBeUndefined();
    expect(toChildren(doc).map(({ name, selectors }) => `${name} ${formatSelectorPair(selectors)}`)).toEqual([
      'a 10.1.0.0/24 tcp, 10.3.0.0/24 === 10.2.0.0/24 tcp, 10.4.0.0/24',
      'b 10.1.0.0/24 udp === 10.2.0.0/24 udp',
      'd 10.1.0.0/24 icmp === 10.2.0.0/24 icmp',
      'e 10.1.0.0/24 gre === 10.2.0.0/24 gre',
    ]);
    const out = toPolicy(doc).entries.filter(({ direction }) => direction === 'out');
    expect(out.map(({ name, child, selectors }) => `${name} ${child} ${formatSelectorPair(selectors)}`)).toEqual([
      'a a 10.1.0.0/24 tcp === 10.2.0.0/24 tcp',
      'b b 10.1.0.0/24 udp === 10.2.0.0/24 udp',
      'c a 10.3.0.0/24 === 10.4.0.0/24',
      'd d 10.1.0.0/24 icmp === 10.2.0.0/24 icmp',
      'e e 10.1.0.0/24 gre === 10.2.0.0/24 gre',
    ]);
  });

  it('says why rules cannot share an SA', () => {
    const shared = (mode: string): string => IPSEC.replace("mode='tunnel'", `mode='${mode}' level='unique:7'`);
    const modes = document(
      sp(LAN, "protocol='tcp'", shared('tunnel')) + sp(LAN, "protocol='udp'", shared('transport')),
    );
    expect(sharingProblem(modes)).toMatch(
      /^the rules on lines \d+ and \d+ share an SA \(level='unique:7'\), which has one mode: write mode='tunnel' for both/,
    );
    const flows = LAN.replace("prefixlen='24'/>", "prefixlen='24' pfp='yes'/>");
    const populated = document(
      sp(LAN, "protocol='tcp'", shared('tunnel')) + sp(flows, "protocol='udp'", shared('tunnel')),
    );
    expect(sharingProblem(populated)).toContain("pfp='yes' makes an SA of each flow");
    expect(sharingProblem(document(sp(flows, "protocol='udp'", shared('tunnel'))))).toBeUndefined();
  });
});

describe('IPv6 beside a policy for all IPv4', () => {
  const all = "<src_range address='10.1.0.0' prefixlen='24'/><dst_range address='0.0.0.0' prefixlen='0'/>";
  const six = "<src_range address='::' prefixlen='0'/><dst_range address='::' prefixlen='0'/>";
  const warned = (text: string): boolean => toPolicy(document(text)).warnings.some((line) => line.includes('IPv6'));

  it('is warned of, with the line and both ways out', () => {
    expect(toPolicy(document(sp(all, "protocol='any'", IPSEC, "name='all'"))).warnings).toEqual([
      "line 3: <sp name='all'>: all IPv4 is protected, and IPv6 goes past the tunnel in the clear, where this host or its network has it; add an <sp> with ::/0, or write <device ipv6='block'/>",
    ]);
  });

  it('is not warned of when a policy is for IPv6, when it is blocked, or when not all IPv4 is protected', () => {
    const whole = sp(all, "protocol='any'", IPSEC);
    expect(warned(whole)).toBe(true);
    expect(warned(whole + sp(six, "protocol='any'", NONE))).toBe(false);
    expect(warned(`<device ipv6='block'/>${whole}`)).toBe(false);
    expect(warned(sp(all, "protocol='any'", NONE))).toBe(false);
    expect(warned(sp(LAN, "protocol='any'", IPSEC))).toBe(false);
  });

  it('is discarded behind all that the document says, when it is blocked', () => {
    const last = sp(
      six.replaceAll("prefixlen='0'", "prefixlen='64'"),
      "protocol='tcp'",
      NONE,
      "priority='-2147483648'",
    );
    const doc = document(`<device ipv6='block'/>${sp(all, "protocol='any'", IPSEC)}${last}`);
    expect(view(doc).slice(-2)).toEqual(['out discard ::/0 === ::/0', 'in discard ::/0 === ::/0']);
    const outbound = orderPolicy(toPolicy(doc).entries, 'out').map(({ name, action }) => `${action} ${name}`);
    expect(outbound).toEqual(['protect sp1', 'bypass sp2', "discard device ipv6='block'"]);
    expect(toChildren(doc)).toHaveLength(1);
  });

  it('cannot be blocked without a fence', () => {
    expect(() => document(`<device routes='none' ipv6='block'/>${sp(all, "protocol='any'", IPSEC)}`)).toThrow(
      "with routes='none' the tunnel has no fence",
    );
  });
});
