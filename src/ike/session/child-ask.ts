/**
 * Which CHILD SA is asked for: what the configuration wants of a child, less what the peer has given already. A peer may
 * take one pair of ranges an SA, or a part of what it is asked for (RFC 7296 §2.9); the rest is then asked for by further
 * CHILD SAs: those of an `initiate` follow one another, others are called for by packets.
 */
import { canNarrow, narrowPair, pairable } from '../../policy/narrow.ts';
import { containsPair, makeSelector, type SelectorPair } from '../../policy/selector.ts';
import { packetFirst, pairsIn, uncovered, uncoveredAround } from '../../policy/uncovered.ts';
import type { ChildConfig } from '../config.ts';
import type { ChildRecord } from './child.ts';
import type { ChildAsk, ChildRequest } from './child-request.ts';
import type { IkeSession } from './session.ts';

/** What would bring up such an SA once more. */
export function requestOf(session: IkeSession, child: ChildRecord): ChildRequest {
  const { config, selectors } = child.facts;
  return { name: config.name, selectors: isPart(session, child) ? selectors : undefined };
}

/**
 * Whether the SA covers a part of what is configured: the values of one packet, what one of many peers asked for, or what a
 * peer takes in one SA. Its successor covers the same part (RFC 7296 §2.9.2).
 */
export function isPart({ connectionConfig }: IkeSession, { facts: { config, selectors } }: ChildRecord): boolean {
  if (config.pfp !== undefined || connectionConfig?.remote.id === undefined) return true;
  return !containsPair(selectors, pairable(config.selectors));
}

/**
 * What to offer for a request now; `undefined` when it is served, there is no such child, or the child lacks the packet
 * that it is populated from.
 */
export function askFor(session: IkeSession, request: ChildRequest): ChildAsk | undefined {
  const config = session.connectionConfig?.children.find(({ name }) => name === request.name);
  if (config === undefined || (request.selectors === undefined && config.pfp !== undefined)) return undefined;
  const sas = [...session.children.values()].filter(
    ({ state, facts }) => state !== 'deleting' && facts.config.name === request.name,
  );
  const whole = wholeOf(request, config);
  const left = whole && leftOf(whole, request.trigger, sas, session.env.limits.maxChildrenPerIkeSa);
  if (left === undefined) return undefined;
  const { trigger } = request;
  return {
    config,
    selectors: trigger === undefined ? left : packetFirst(trigger, left),
    part: left === config.selectors ? undefined : (request.selectors ?? left),
  };
}

/** All that the request may be answered with. */
function wholeOf({ selectors, trigger, singlePair }: ChildRequest, config: ChildConfig): SelectorPair | undefined {
  const all = selectors ?? config.selectors;
  if (trigger !== undefined && !containsPair(all, trigger)) return undefined;
  if (trigger === undefined || singlePair !== true) return all;
  const hosts = { local: [makeSelector(trigger.local[0]!.range)], remote: [makeSelector(trigger.remote[0]!.range)] };
  const narrowed = narrowPair(all, hosts);
  return narrowed.ok ? narrowed.selectors : undefined;
}

/**
 * What of `whole` no SA covers, the same object when none covers anything.
 * @param most SAs that are asked for without a packet
 */
function leftOf(
  whole: SelectorPair,
  trigger: SelectorPair | undefined,
  sas: readonly ChildRecord[],
  most: number,
): SelectorPair | undefined {
  const meeting = sas.filter(({ facts }) => canNarrow(whole, facts.selectors));
  const covered = meeting.map(({ facts }) => facts.selectors);
  if (covered.length === 0) return whole;
  if (trigger !== undefined) {
    return covered.some((one) => containsPair(one, trigger)) ? undefined : uncoveredAround(whole, covered, trigger);
  }
  // BOUNDED: one SA for each pair of ranges. A peer that takes less of a pair has said all that it will.
  const asked = meeting.filter(({ facts }) => facts.offered !== undefined).length;
  return asked >= Math.min(pairsIn(whole), most) ? undefined : uncovered(whole, covered);
}
