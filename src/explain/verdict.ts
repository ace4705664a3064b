/** The verdict on a packet, from policy, SA and its route through the host, and what prevents the policy from being carried out. */
import { formatAddress } from '../base/address.ts';
import { assertNever } from '../base/assert.ts';
import type { PolicyEntry } from '../policy/database.ts';
import type { FenceExplanation, Outcome } from './explanation.ts';
import type { Obstacle } from './obstacle.ts';
import type { OuterPath } from './outer.ts';
import type { AskedPacket } from './packet.ts';
import { isCertainStop, type Path } from './path.ts';
import type { SaAnswer } from './sa.ts';
import type { Carrier } from './tunnels.ts';

/** What is known about a packet. */
export interface Judging {
  /** Of the tunnel. */
  readonly name: string;
  readonly packet: AskedPacket;
  readonly decides: PolicyEntry | undefined;
  readonly sa: SaAnswer | undefined;
  /** `undefined` if the host's network cannot be read. */
  readonly path: Path | undefined;
  /** Of the ESP packets that carry it. */
  readonly outer: OuterPath;
  /** The tunnel whose device it leaves by. */
  readonly carrier: Carrier | undefined;
  readonly fence: FenceExplanation | undefined;
  /** The tunnel's own fence drops it on its route. */
  readonly fenceStops: boolean;
  /** `undefined` for a tunnel that is not active. */
  readonly device: string | undefined;
  /** The tunnel that such a packet in the device is for, or comes out of. */
  readonly ownerOnDevice: string | undefined;
}

export interface Verdict {
  readonly outcome: Outcome;
  readonly verdict: string;
  readonly warnings: readonly string[];
}

/** BOUNDED: warnings about what may stop a packet. */
const MAX_DOUBTS = 4;

export function judge(judging: Judging): Verdict {
  const found = judgePolicy(judging);
  const { path } = judging;
  return path === undefined ? found : withNotes(judgePath(found, path, judging), path);
}

function withNotes(found: Verdict, { notes }: Path): Verdict {
  return { ...found, warnings: [...found.warnings, ...notes] };
}

/** A packet that policy and SA pass may still be stopped or readdressed on its way. */
function judgePath(found: Verdict, path: Path, judging: Judging): Verdict {
  const { outcome, verdict } = found;
  if (outcome === 'dropped' || outcome === 'not-applied') return found;
  const obstacles = [...path.obstacles, ...judging.outer.obstacles];
  const certain = obstacles.find((obstacle) => obstacle.certain);
  if (certain !== undefined) {
    const warnings = [...found.warnings, certain.warning];
    return { outcome: 'not-applied', verdict: `${intentOf(judging)}, but ${certain.verdict}.`, warnings };
  }
  const unread = [...new Set([...(path.filters?.unread ?? []), ...judging.outer.unread])];
  const doubts = obstacles.map(({ warning }) => `not sure: ${warning}`);
  if (doubts.length === 0 && unread.length === 0) return found;
  const warnings = [
    ...found.warnings,
    ...doubts.slice(0, MAX_DOUBTS),
    ...(doubts.length > MAX_DOUBTS ? [`and ${doubts.length - MAX_DOUBTS} more reasons why it may be stopped`] : []),
    ...unread.map((what) => `not checked: ${what}`),
  ];
  const goesOn = verdict.replace(/^It /, 'it ');
  const [first] = obstacles;
  const text =
    first === undefined ? `As far as could be checked, ${goesOn}` : `Not sure: ${first.verdict}. If not, ${goesOn}`;
  return { outcome: 'unsure', verdict: text, warnings };
}

function intentOf({ packet, decides, fence, sa }: Judging): string {
  if (fence?.action === 'own') return 'It is IKE or ESP of the tunnel itself';
  if (packet.direction === 'in' && sa?.fate === 'carried') return 'It comes out of the tunnel';
  return decides?.action === 'protect' ? 'The policy protects it' : 'The policy lets it pass';
}

/** The verdict of policy, SAs and route alone. */
function judgePolicy(judging: Judging): Verdict {
  const { decides, fence, packet } = judging;
  if (fence?.action === 'own') {
    const verdict = 'It is IKE or ESP of the tunnel itself, and is sent in the clear.';
    return { outcome: 'bypassed', verdict, warnings: [] };
  }
  if (packet.direction === 'in') return judgeInbound(judging);
  if (isOfSharer(judging)) return goesToSharer(judging);
  const action = decides?.action;
  switch (action) {
    case 'protect':
      return judgeProtected(judging);
    case 'bypass':
      return judgeBypassed(judging);
    case 'discard':
    case undefined:
      return judgeDiscarded(judging);
    default:
      return assertNever(action, 'policy action');
  }
}

/** Whether it reaches the device, and is there for another tunnel that shares it. */
function isOfSharer({ name, path, carrier }: Judging): boolean {
  return path?.route.reachesTunnel === true && carrier !== undefined && carrier.name !== name;
}

function goesToSharer({ name, device, carrier }: Judging): Verdict {
  const verdict = `Tunnel '${carrier!.name}', which shares the device ${device}, gets it, not '${name}': ${fateIn(carrier!)}.`;
  return { outcome: OUTCOMES[carrier!.sa?.fate ?? 'dropped'], verdict, warnings: [] };
}

function judgeProtected(judging: Judging): Verdict {
  const { decides, sa, path, carrier } = judging;
  if (sa === undefined) return judgeInactive(judging);
  if (path !== undefined && !path.route.reachesTunnel) {
    const { early } = path;
    if (early !== undefined) {
      const verdict = `The policy protects it, but ${early.verdict}.`;
      return { outcome: 'not-applied', verdict, warnings: [early.warning] };
    }
    if (decides?.level === 'use' && sa.fate !== 'carried' && carrier === undefined) {
      const verdict = `It is sent in the clear while there is no SA: level='use'${byLink(path)}.`;
      return { outcome: 'bypassed', verdict, warnings: [] };
    }
    return passesBy(path, judging);
  }
  switch (sa.fate) {
    case 'carried':
      return { outcome: 'protected', verdict: `It is encrypted and sent to ${sa.carries!.peer}.`, warnings: [] };
    case 'held':
      return { outcome: 'held', verdict: 'It waits until an SA is negotiated, and is then encrypted.', warnings: [] };
    case 'dropped':
      return { outcome: 'dropped', verdict: 'It is dropped: no SA carries it.', warnings: [] };
    default:
      return assertNever(sa.fate, 'fate');
  }
}

function judgeInactive({ name, fenceStops, carrier }: Judging): Verdict {
  const warnings = [
    `tunnel ${name} is not active, so nothing protects this packet; start it with 'sectunnel start ${name}'`,
  ];
  const dropped = fenceStops ? ': the fence drops it until the tunnel is started' : '';
  const other = carrier === undefined ? '' : `; tunnel '${carrier.name}' gets it: ${fateIn(carrier)}`;
  const verdict = `The policy protects it, but the tunnel is not active${dropped === '' ? other : dropped}.`;
  return { outcome: 'not-applied', verdict, warnings };
}

/** A packet that the policy protects does not leave by the tunnel's device. */
function passesBy(path: Path, { name, fenceStops, device, carrier }: Judging): Verdict {
  const { route, obstacles } = path;
  const by = route.rule === undefined ? '' : ` (${route.foreign ? "another program's " : ''}rule ${route.rule})`;
  const goes = route.link === undefined ? route.text : `it leaves by ${route.link}`;
  const stops = obstacles.filter(isCertainStop);
  const warnings = [
    `this packet does not reach the tunnel: ${goes}${by}; the tunnel's device is ${device}`,
    ...stops.map(({ warning }) => warning),
  ];
  const stopped = fenceStops ? `the fence${carrier === undefined ? '' : ` of '${name}'`} drops it` : stops[0]?.verdict;
  const result = (verdict: string): Verdict => ({ outcome: 'not-applied', verdict, warnings });
  if (carrier !== undefined) {
    const verdict = `Tunnel '${carrier.name}' gets it, not '${name}': ${stopped ?? fateIn(carrier)}.`;
    // By the order of tunnels another one protects it.
    return stopped === undefined
      ? { outcome: OUTCOMES[carrier.sa?.fate ?? 'dropped'], verdict, warnings: [] }
      : result(verdict);
  }
  const missed = 'The policy protects it, but it does not reach the tunnel';
  if (route.link === undefined) return result(`${missed}: no route leads anywhere.`);
  return result(`${missed}: ${stopped ?? 'it leaves in the clear'}.`);
}

const OUTCOMES = { carried: 'protected', held: 'held', dropped: 'dropped' } as const;

function fateIn({ sa }: Carrier): string {
  if (sa === undefined) return 'there it is dropped, as its policy does not protect it';
  switch (sa.fate) {
    case 'carried':
      return `there it is encrypted and sent to ${sa.carries!.peer}`;
    case 'held':
      return 'there it waits until an SA is negotiated';
    case 'dropped':
      return 'there it is dropped, as no SA carries it';
    default:
      return assertNever(sa.fate, 'fate');
  }
}

function judgeBypassed({ name, path, device, carrier }: Judging): Verdict {
  if (path?.route.reachesTunnel === true) {
    const warnings = [
      `the policy lets it pass in the clear, but its route leads into ${device}, which sends nothing in the clear: it is dropped (counted as bypass-in-tunnel); give it a route of its own`,
    ];
    const verdict = 'The policy lets it pass in the clear, but it is routed into the tunnel and dropped.';
    return { outcome: 'not-applied', verdict, warnings };
  }
  if (carrier !== undefined && carrier.name !== name) {
    const verdict = `The policy lets it pass in the clear, but tunnel '${carrier.name}' gets it: ${fateIn(carrier)}.`;
    return { outcome: 'not-applied', verdict, warnings: [] };
  }
  return { outcome: 'bypassed', verdict: `It is sent in the clear, as the policy says${byLink(path)}.`, warnings: [] };
}

/** Discarded by an entry, or for lack of one (RFC 4301 §5.1) if it is routed into the tunnel; otherwise a fence or a rule drops it. */
function judgeDiscarded(judging: Judging): Verdict {
  const { decides, path, fence, fenceStops, device, packet } = judging;
  const why = decides === undefined ? 'no policy entry matches it' : 'the policy discards it';
  const stop = path?.obstacles.find(isCertainStop);
  const routedIn = device !== undefined && path?.route.reachesTunnel !== false;
  const stopped = decides !== undefined && (fence?.action === 'discard' || (path !== undefined && isDeadEnd(path)));
  if (routedIn || stopped) return { outcome: 'dropped', verdict: `It is dropped: ${why}.`, warnings: [] };
  if (decides === undefined && fenceStops) {
    const verdict = `It is dropped: ${why}, and the policy protects its destination${byLink(path)}.`;
    const [source, destination] = [packet.source, packet.destination].map(formatAddress);
    const way = `the fence drops what this host itself sends to protected destinations in the clear; an <sp> with action='none' from ${source} to ${destination} lets it pass`;
    return { outcome: 'dropped', verdict, warnings: [way] };
  }
  if (stop !== undefined) {
    return { outcome: 'dropped', verdict: `It is dropped: ${why}, and ${stop.verdict}.`, warnings: [stop.warning] };
  }
  if (decides === undefined) return judgeUnmatched(why, judging);
  const past = path?.route.text ?? 'the tunnel is not active';
  const warnings = [`the policy discards this packet, but nothing on this host drops it: ${past}`];
  return { outcome: 'not-applied', verdict: 'The policy discards it, but this host lets it pass.', warnings };
}

/** A packet that does not concern the tunnel; the warnings say what may happen to it elsewhere. */
function judgeUnmatched(why: string, { path, carrier }: Judging): Verdict {
  if (path?.route.refusal !== undefined) {
    return { outcome: 'dropped', verdict: `It is dropped: ${why}, and no route leads to it.`, warnings: [] };
  }
  const ours = carrier === undefined ? '' : `; tunnel '${carrier.name}' gets it: ${fateIn(carrier)}`;
  const verdict = `It does not concern the tunnel: ${why}, and it is not routed into the tunnel${ours === '' ? byLink(path) : ours}.`;
  const changes = (path?.obstacles ?? []).map(({ certain, warning }: Obstacle) =>
    certain ? warning : `not sure: ${warning}`,
  );
  return { outcome: 'dropped', verdict, warnings: changes.slice(0, MAX_DOUBTS) };
}

function isDeadEnd({ route: { link, table } }: Path): boolean {
  return link === undefined && table === undefined;
}

function byLink(path: Path | undefined): string {
  return path?.route.link === undefined ? '' : `; its route: ${path.route.text}`;
}

function judgeInbound({ name, decides, sa, device, ownerOnDevice }: Judging): Verdict {
  const done = (outcome: Outcome, verdict: string): Verdict => ({ outcome, verdict, warnings: [] });
  const action = decides?.action;
  switch (action) {
    case 'bypass':
      return done('bypassed', 'It is accepted in the clear, as the policy says.');
    case 'discard':
      return done('dropped', 'It is dropped: the policy discards it.');
    case undefined:
      return done('dropped', 'It does not concern the tunnel: no policy entry matches it.');
    case 'protect':
      break;
    default:
      return assertNever(action, 'policy action');
  }
  if (sa === undefined) {
    const warnings = [
      `tunnel ${name} is not active, so this packet cannot come out of it; start it with 'sectunnel start ${name}'`,
    ];
    return {
      outcome: 'not-applied',
      verdict: 'The policy accepts it from the tunnel only, but the tunnel is not active.',
      warnings,
    };
  }
  if (ownerOnDevice !== undefined && ownerOnDevice !== name) {
    const verdict = `It is dropped: by their priorities it is to come out of tunnel '${ownerOnDevice}', which shares the device ${device}.`;
    return done('dropped', verdict);
  }
  if (sa.fate === 'carried')
    return done('protected', `It is accepted from the tunnel (peer ${sa.carries!.peer}), not in the clear.`);
  return done('dropped', 'It cannot arrive: no SA carries it.');
}
