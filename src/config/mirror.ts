/**
 * Directions. An SA comes in pairs, so an `out` policy with action `ipsec` goes together with the `in` policy that is
 * its mirror. `direction='both'` says so in one policy; a document that writes both out (as setkey does, and the seed)
 * is brought to that form here, and refused where the two are not each other's mirror.
 */
import { formatRange, intersectRanges } from '../base/address.ts';
import { Protocol } from '../policy/protocols.ts';
import { formatPorts } from '../policy/selector.ts';
import type { Issues } from './issues.ts';
import type { EndPoint, PacketRange, PolicySettings, RuleSettings, SecurityPolicy } from './model.ts';
import { levelText, peerAddressText } from './text.ts';
import type { XmlNode } from './xml.ts';

/** An `sp` whose name may still be missing, with the elements to complain about. */
export interface SpDraft extends Omit<SecurityPolicy, 'name' | 'policies'> {
  readonly name: string | undefined;
  readonly policies: readonly PolicyDraft[];
  readonly node: XmlNode;
}

export interface PolicyDraft {
  readonly settings: PolicySettings;
  readonly node: XmlNode;
}

/** One `ipsec` policy that was written for one direction. */
interface Half {
  readonly sp: SpDraft;
  readonly policy: PolicyDraft;
  readonly rule: RuleSettings;
}

export function joinDirections(issues: Issues, drafts: readonly SpDraft[]): SpDraft[] {
  for (const draft of drafts) checkDirections(issues, draft);
  const ins = new Set(halves(drafts, 'in'));
  // BOUNDED: by the policies of one document.
  const byMirror = new Map<string, Half[]>();
  for (const half of ins) byMirror.set(mirrorKey(half), [...(byMirror.get(mirrorKey(half)) ?? []), half]);
  // BOUNDED: by the policies of one document.
  const partners = new Map<PolicyDraft, Half>();
  const alone: Half[] = [];
  for (const out of halves(drafts, 'out')) {
    const mirror = byMirror.get(mirrorKey(out))?.shift();
    if (mirror === undefined) {
      alone.push(out);
    } else {
      ins.delete(mirror);
      partners.set(out.policy, mirror);
    }
  }
  reportUnpaired(issues, alone, [...ins]);
  const absorbed = new Set([...partners.values()].map((half) => half.policy));
  checkOrder(issues, drafts, partners, absorbed);
  return drafts.flatMap((draft) => {
    const policies = draft.policies
      .filter((policy) => !absorbed.has(policy))
      .map((policy) => (partners.has(policy) ? bothWays(policy) : policy));
    if (policies.length === 0) return [];
    const names = draft.policies.map((policy) => partners.get(policy)?.sp.name);
    return [{ ...draft, name: draft.name ?? names.find((name) => name !== undefined), policies }];
  });
}

function bothWays({ settings, node }: PolicyDraft): PolicyDraft {
  return { settings: { ...settings, direction: 'both' }, node };
}

function halves(drafts: readonly SpDraft[], direction: 'in' | 'out'): Half[] {
  return drafts.flatMap((sp) =>
    sp.policies.flatMap((policy) => {
      const { settings } = policy;
      return settings.action === 'ipsec' && settings.direction === direction
        ? [{ sp, policy, rule: settings.rule }]
        : [];
    }),
  );
}

/** In one sp a second policy for a direction would never be reached. */
function checkDirections(issues: Issues, { policies }: SpDraft): void {
  for (const direction of ['out', 'in'] as const) {
    const [first, second] = policies.filter(
      ({ settings }) => settings.direction === direction || settings.direction === 'both',
    );
    if (first === undefined || second === undefined) continue;
    const found = second.settings.direction;
    const message = `direction='${found}': the policy on line ${first.node.line} is for direction '${direction}' already, so this one would never apply there; remove one`;
    issues.add(second.node, message, { attribute: 'direction', found });
    return;
  }
}

function reportUnpaired(issues: Issues, outs: readonly Half[], ins: readonly Half[]): void {
  for (let i = 0; i < Math.max(outs.length, ins.length); i++) {
    const out = outs[i];
    const inward = ins[i];
    if (out !== undefined && inward !== undefined) {
      const message = `the policy direction='in' on line ${inward.policy.node.line} is not the mirror of the policy direction='out' on line ${out.policy.node.line}: ${difference(out, inward)}. Make them mirror each other, or write one policy with direction='both'`;
      const allowed = 'the mirror of the out policy, or both';
      issues.add(inward.policy.node, message, { attribute: 'direction', found: 'in', allowed });
    } else if (out !== undefined) {
      reportAlone(issues, out, 'out', 'in');
    } else if (inward !== undefined) {
      reportAlone(issues, inward, 'in', 'out');
    }
  }
}

function reportAlone(issues: Issues, { policy }: Half, found: string, other: string): void {
  const message = `direction='${found}': there is no policy with direction='${other}' that mirrors this one, and SAs come in pairs. Write direction='both', or add the mirror`;
  issues.add(policy.node, message, { attribute: 'direction', found, allowed: 'both' });
}

/** Of two halves that mirror each other it is the same. */
function mirrorKey({ sp, policy, rule }: Half): string {
  const [local, remote] = [rangesText(sp.srcRanges), rangesText(sp.dstRanges)];
  const [src, dst] = [endText(rule.src), endText(rule.dst)];
  const sides = policy.settings.direction === 'out' ? [local, remote, src, dst] : [remote, local, dst, src];
  return JSON.stringify([...sides, sp.upperspec, sp.priority, rule.mode, levelText(rule.level)]);
}

/** What keeps `inward` from being the mirror of `out`; `undefined` when it is. */
function difference(out: Half, inward: Half): string | undefined {
  const pairs: [what: string, outText: string, inText: string][] = [
    ['src_range of out and dst_range of in', rangesText(out.sp.srcRanges), rangesText(inward.sp.dstRanges)],
    ['dst_range of out and src_range of in', rangesText(out.sp.dstRanges), rangesText(inward.sp.srcRanges)],
    ['upperspec', JSON.stringify(out.sp.upperspec), JSON.stringify(inward.sp.upperspec)],
    ['priority', String(out.sp.priority), String(inward.sp.priority)],
    ['mode', out.rule.mode, inward.rule.mode],
    ['level', levelText(out.rule.level), levelText(inward.rule.level)],
    ['src of the out rule and dst of the in rule', endText(out.rule.src), endText(inward.rule.dst)],
    ['dst of the out rule and src of the in rule', endText(out.rule.dst), endText(inward.rule.src)],
  ];
  const found = pairs.find(([, a, b]) => a !== b);
  if (found === undefined) return undefined;
  const [what, a, b] = found;
  return what === 'upperspec' ? 'their upperspec differs' : `${what} differ (${a} and ${b})`;
}

function rangesText(ranges: readonly PacketRange[]): string {
  return ranges
    .map(({ range, ports, pfp }) => {
      const port = formatPorts({ protocol: Protocol.any, ...ports });
      return `${formatRange(range)}${port === '' ? '' : ` port ${port}`}${pfp ? ' pfp' : ''}`;
    })
    .sort()
    .join(', ');
}

function endText({ address, port }: EndPoint): string {
  return `${peerAddressText(address)}${port === undefined ? '' : ` port ${port}`}`;
}

/** A policy for inbound packets: where it stands as written and when joined, and which packets it is for. */
interface Inbound {
  readonly before: number;
  readonly after: number;
  readonly priority: number;
  readonly src: readonly PacketRange[];
  readonly dst: readonly PacketRange[];
  readonly node: XmlNode;
}

/**
 * A joined policy takes the position of its `out` half. Refused when that moves its `in` half past another inbound policy
 * of the same priority that speaks of the same packets: it would change what happens to them.
 */
function checkOrder(
  issues: Issues,
  drafts: readonly SpDraft[],
  partners: ReadonlyMap<PolicyDraft, Half>,
  absorbed: ReadonlySet<PolicyDraft>,
): void {
  const places = new Map(drafts.map((sp, place) => [sp, place]));
  const inbound = drafts.flatMap((sp, after) =>
    sp.policies.flatMap((policy): Inbound[] => {
      const half = partners.get(policy);
      if (half !== undefined) return [inboundOf(half.sp, half.policy, places.get(half.sp)!, after)];
      return policy.settings.direction === 'out' || absorbed.has(policy) ? [] : [inboundOf(sp, policy, after, after)];
    }),
  );
  const moved = inbound.filter(({ before, after }) => before !== after);
  for (const a of moved) {
    const b = inbound.find((other) => swapped(a, other) && overlap(a, other));
    if (b === undefined) continue;
    const message = `the inbound policies on lines ${a.node.line} and ${b.node.line} speak of the same packets, but stand in another order than their outbound mirrors; write them in the same order in both directions, or with direction='both'`;
    issues.add(a.node, message, { attribute: 'direction' });
    return;
  }
}

function inboundOf(sp: SpDraft, { settings, node }: PolicyDraft, before: number, after: number): Inbound {
  const { priority, srcRanges, dstRanges } = sp;
  const mirrored = settings.direction === 'both';
  return {
    before,
    after,
    priority,
    src: mirrored ? dstRanges : srcRanges,
    dst: mirrored ? srcRanges : dstRanges,
    node,
  };
}

function swapped(a: Inbound, b: Inbound): boolean {
  return a.priority === b.priority && Math.sign(a.before - b.before) * Math.sign(a.after - b.after) < 0;
}

function overlap(a: Inbound, b: Inbound): boolean {
  const meet = (left: readonly PacketRange[], right: readonly PacketRange[]): boolean =>
    left.some((one) => right.some((other) => intersectRanges(one.range, other.range) !== undefined));
  return meet(a.src, b.src) && meet(a.dst, b.dst);
}
