/**
 * Which CHILD SA is asked for: what the configuration wants of a child, less what the peer has given already. A peer may
 * take one pair of ranges an SA, or a part of what it is asked for (RFC 7296 §2.9); the rest is then asked for by further
 * CHILD SAs: those of an `initiate` follow one another, others are called for by packets.
 */
import { canNarrow, narrowPair } from '../../policy/narrow.ts';
import { containsPair, makeSelector, type SelectorPair, samePair } from '../../policy/selector.ts';
import { packetFirst, pairsIn, uncovered, uncoveredAround } from '../../policy/uncovered.ts';
import type { ChildConfig } from '../config.ts';
import { NotifyType } from '../wire/iana.ts';
import { type ChildRecord, isPart } from './child.ts';
import type { IkeSession } from './session.ts';

/** A child of a connection that is to be brought up. */
export interface ChildRequest {
  readonly name: string;
  /** Of a child that covers a part of what is configured: that part. */
  readonly selectors?: SelectorPair | undefined;
  /** The packet that calls for it: one selector a side. */
  readonly trigger?: SelectorPair | undefined;
  /** The peer takes one pair of addresses an SA (SINGLE_PAIR_REQUIRED): those of the packet. */
  readonly singlePair?: boolean | undefined;
}

/** What is offered for a request. */
export interface ChildAsk {
  readonly config: ChildConfig;
  /** The packet's first (RFC 7296 §2.9). */
  readonly selectors: SelectorPair;
  /** What the SA is for, where that is not all of what is configured: a refusal says nothing of the rest. */
  readonly part: SelectorPair | undefined;
}

/** Whether one attempt serves both. Of packets that call for one child one does; the others ask again if it was no use. */
export function sameRequest(a: ChildRequest, b: ChildRequest): boolean {
  if (a.name !== b.name || (a.selectors === undefined) !== (b.selectors === undefined)) return false;
  return a.selectors === undefined || samePair(a.selectors, b.selectors!);
}

/** What would bring up such an SA once more. */
export function requestOf(child: ChildRecord): ChildRequest {
  const { config, selectors } = child.facts;
  return { name: config.name, selectors: isPart(child) ? selectors : undefined };
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
  const left = whole && leftOf(whole, request.trigger, sas, session.host.limits.maxChildrenPerIkeSa);
  if (left === undefined) return undefined;
  const { trigger } = request;
  return {
    config,
    selectors: trigger === undefined ? left : packetFirst(trigger, left),
    part: left === config.selectors ? undefined : (request.selectors ?? left),
  };
}

/** The request for the addresses of its packet alone, where the peer takes no more in one SA (RFC 7296 §2.9). */
export function singlePair(request: ChildRequest, notify: number | undefined): ChildRequest | undefined {
  if (notify !== NotifyType.SINGLE_PAIR_REQUIRED || request.trigger === undefined || request.singlePair)
    return undefined;
  return { ...request, singlePair: true };
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
