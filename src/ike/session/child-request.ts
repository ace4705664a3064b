/** Requests for CHILD SAs: what is to be brought up, and what is offered for it. */
import type { EspProposal } from '../../crypto/proposal.ts';
import type { DhKeyPair } from '../../crypto/types.ts';
import { type SelectorPair, samePair } from '../../policy/selector.ts';
import type { ChildConfig } from '../config.ts';
import type { ChildExchange } from '../proposals/proposals.ts';
import { NotifyType } from '../wire/iana.ts';

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

/** Our half of the negotiation of a CHILD SA as initiator. */
export interface ChildOffer {
  readonly ask: ChildAsk;
  /** Those of the child, as they are offered. */
  readonly proposals: readonly EspProposal[];
  readonly exchange: ChildExchange;
  readonly spiIn: number;
  /** Empty in IKE_AUTH, which uses the nonces of IKE_SA_INIT. */
  readonly nonce: Uint8Array;
  /** None in IKE_AUTH, which has no key exchange for the CHILD SA. */
  readonly keyPair: DhKeyPair | undefined;
}

/** The request for the addresses of its packet alone, where the peer takes no more in one SA (RFC 7296 §2.9). */
export function singlePair(request: ChildRequest, notify: number | undefined): ChildRequest | undefined {
  if (notify !== NotifyType.SINGLE_PAIR_REQUIRED || request.trigger === undefined || request.singlePair)
    return undefined;
  return { ...request, singlePair: true };
}

/** BOUNDED: the children that one set-up is to bring up. */
const MAX_WANTED = 256;

/** Adds requests to those of a set-up, each once. */
export function want(wanted: ChildRequest[], requests: readonly ChildRequest[]): void {
  const missing = requests.filter((request) => !wanted.some((known) => sameRequest(known, request)));
  wanted.push(...missing.slice(0, Math.max(0, MAX_WANTED - wanted.length)));
}
