/** Whether libvirt's own rules for a network stand: by those that its two back ends write. */
import { describe, expect, it } from 'vitest';
import { type FirewallRule, isRuled, LIBVIRT_CHAINS, wantsRules } from '../../src/libvirt/firewall.ts';
import { type LibvirtNetwork, readNetwork } from '../../src/libvirt/network.ts';

const INDEX = 7;
const V6 = "<ip family='ipv6' address='fd00:1::1' prefix='64'/>";

function network(mode: string, more = V6): LibvirtNetwork {
  return readNetwork(
    `<network><name>lan</name><bridge name='virbr9'/><forward mode='${mode}'/><ip address='10.1.0.1' prefix='24'/>${more}</network>`,
  );
}

function rule(family: 4 | 6, table: string, chain: string, what: string): FirewallRule {
  const jump = what.startsWith('→ ') ? what.slice(2) : undefined;
  return { family, table, chain, jump, constants: jump === undefined ? [what] : [] };
}

/** As `nft -ae insert rule ip libvirt_network …` leaves them. */
const NFTABLES = ([4, 6] as const).flatMap((family) => {
  const of = (chain: string, what: string): FirewallRule => rule(family, 'libvirt_network', chain, what);
  return [
    of('forward', '→ guest_input'),
    of('forward', '→ guest_output'),
    of('guest_input', '07000000'),
    of('guest_output', '07000000'),
    ...(family === 4 ? [of('guest_nat', '0a0100')] : []),
  ];
});

/** As iptables leaves them: names with their end, or filled up. */
const IPTABLES = ([4, 6] as const).flatMap((family) => [
  rule(family, 'filter', 'FORWARD', '→ LIBVIRT_FWI'),
  rule(family, 'filter', 'FORWARD', '→ LIBVIRT_FWO'),
  rule(family, 'filter', 'LIBVIRT_FWI', '76697262723900'),
  rule(family, 'filter', 'LIBVIRT_FWO', '76697262723900000000000000000000'),
  ...(family === 4
    ? [rule(family, 'nat', 'POSTROUTING', '→ LIBVIRT_PRT'), rule(family, 'nat', 'LIBVIRT_PRT', '0a010000')]
    : []),
]);

describe.each([
  ['nftables', NFTABLES],
  ['iptables', IPTABLES],
])("libvirt's rules of %s", (_, rules) => {
  it('stand when all of them do', () => {
    expect(isRuled(network('nat'), INDEX, rules)).toBe(true);
    expect(isRuled(network('route'), INDEX, rules)).toBe(true);
    expect(isRuled(network('nat'), INDEX, [])).toBe(false);
  });

  it('do not when one is missing, in one family or in the chain that leads there', () => {
    for (const one of rules) {
      const rest = rules.filter((other) => other !== one);
      expect([one, isRuled(network('nat'), INDEX, rest)]).toEqual([one, false]);
    }
  });

  it('are not wanted where the network has no such packets', () => {
    const forV4 = rules.filter(({ family }) => family === 4);
    expect(isRuled(network('nat', ''), INDEX, forV4)).toBe(true);
    expect(isRuled(network('nat'), INDEX, forV4)).toBe(false);
    const untranslated = rules.filter(({ table, chain }) => table !== 'nat' && chain !== 'guest_nat');
    expect(isRuled(network('route'), INDEX, untranslated)).toBe(true);
  });

  it('are in chains that are looked at', () => {
    for (const { family, table, chain } of rules) expect(LIBVIRT_CHAINS).toContainEqual({ family, table, chain });
  });
});

it('those of another bridge, or half of each back end, are none', () => {
  expect(isRuled(network('route'), INDEX + 1, NFTABLES)).toBe(false);
  const half = [
    ...NFTABLES.filter(({ chain }) => chain !== 'guest_input'),
    ...IPTABLES.filter(({ chain }) => chain !== 'LIBVIRT_FWO'),
  ];
  expect(isRuled(network('route'), INDEX, half)).toBe(false);
});

it('libvirt writes none where it leaves the rules to others', () => {
  expect(['nat', 'route', 'open', 'bridge'].map((mode) => wantsRules(network(mode)))).toEqual([
    true,
    true,
    false,
    false,
  ]);
});
