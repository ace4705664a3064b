/**
 * Our half of an exchange that makes a CHILD SA, as initiator: what is offered (RFC 7296 §1.3.1, §2.9, §2.17), and what a
 * refusal of it may mean.
 */
import { formatProposal } from '../../crypto/proposal-text.ts';
import type { DhGroup } from '../../crypto/types.ts';
import { formatSelectors } from '../../policy/selector.ts';
import { type Failure, failureFrom } from '../failure.ts';
import { NONCE_LENGTH } from '../keys/keys.ts';
import { type ChildExchange, espWireProposals, preferGroup } from '../proposals/proposals.ts';
import { type ChildRecord, childSpiBytes } from '../session/child.ts';
import type { ChildAsk, ChildOffer } from '../session/child-request.ts';
import type { IkeSession } from '../session/session.ts';
import { cryptoOf } from '../session/state.ts';
import { NotifyType } from '../wire/iana.ts';
import type { Payload } from '../wire/payload.ts';
import { type NotifyPayload, notifyPayload } from '../wire/payloads/notify.ts';

/**
 * @param replaced the CHILD SA whose group is offered first, for the peer took it. Without one it is the group of the IKE SA,
 * which the peer has. Since its rekeying that may be another one, to which libreswan (4.10) answers INVALID_SYNTAX in the
 * place of INVALID_KE_PAYLOAD: the end of the IKE SA (RFC 7296 §2.21.3)
 * @param group for the CHILD SA's own key exchange; by default the first that is offered. A peer that chooses a proposal
 * without a group has no use for it.
 */
export function makeOffer(
  session: IkeSession,
  ask: ChildAsk,
  exchange: ChildExchange,
  replaced?: ChildRecord | undefined,
  group?: DhGroup | undefined,
): ChildOffer {
  const { env, registry } = session;
  const proposals = preferGroup(
    ask.config.proposals,
    replaced?.facts.dhGroup ?? cryptoOf(session.state)?.suite.dh.name,
  );
  const ownGroup = group ?? proposals.find(({ dh }) => dh.length > 0)?.dh[0];
  const create = exchange === 'create-child';
  const spiIn = registry.newChildSpi();
  env.emit({ type: 'child-offered', connection: session.connectionName, spiIn });
  return {
    ask,
    proposals,
    exchange,
    spiIn,
    nonce: create ? env.random(NONCE_LENGTH) : new Uint8Array(0),
    keyPair: create && ownGroup !== undefined ? env.crypto.dhKeyPair(ownGroup, env.random) : undefined,
  };
}

export function offerPayloads(offer: ChildOffer): Payload[] {
  const { proposals, exchange, spiIn, nonce, keyPair } = offer;
  const { config, selectors } = offer.ask;
  const payloads: Payload[] = [];
  if (config.mode === 'transport') payloads.push(notifyPayload(NotifyType.USE_TRANSPORT_MODE));
  payloads.push({ type: 'sa', proposals: espWireProposals(proposals, exchange, childSpiBytes(spiIn)) });
  if (exchange === 'create-child') payloads.push({ type: 'nonce', data: nonce });
  if (keyPair !== undefined) payloads.push({ type: 'ke', group: keyPair.group.id, data: keyPair.publicValue });
  payloads.push(
    { type: 'tsi', selectors: selectors.local, unknown: 0 },
    { type: 'tsr', selectors: selectors.remote, unknown: 0 },
  );
  return payloads;
}

/** The peer refused what was offered. */
export function explainRefusal(error: NotifyPayload, offer: ChildOffer): Failure {
  const { config, selectors } = offer.ask;
  switch (error.notify) {
    case NotifyType.NO_PROPOSAL_CHOSEN: {
      const offered = `offered for child ${config.name}: ${offer.proposals.map(formatProposal).join(', ')}`;
      return failureFrom(error, `${offered}${explainGroups(offer)}`, 'child');
    }
    case NotifyType.TS_UNACCEPTABLE:
    case NotifyType.SINGLE_PAIR_REQUIRED: {
      const { local, remote } = selectors;
      const offered = `local ${formatSelectors(local)}, remote ${formatSelectors(remote)}`;
      return failureFrom(error, `offered for child ${config.name}: ${offered}`, 'child');
    }
    default:
      return failureFrom(error, `child ${config.name} was refused`, 'child');
  }
}

/** IKE_AUTH hides whether the two agree about a key exchange of the CHILD SA's own (RFC 7296 §1.2): a peer's "PFS". */
function explainGroups({ exchange, proposals }: ChildOffer): string {
  const groups = [...new Set(proposals.flatMap(({ dh }) => dh))].map(({ name }) => name);
  const without = proposals.some(({ dh }) => dh.length === 0);
  if (exchange === 'ike-auth' || (groups.length > 0 && without)) return '';
  const hidden = '; IKE_AUTH has no groups, so a peer that accepted the same there may refuse it now';
  return without
    ? `${hidden} without a group: where it wants one ("PFS"), name it here, as dh='…' in <proposal> of <esp>`
    : `${hidden} with a group (${groups.join(', ')}): where it wants none, or another ("PFS"), change dh='…' in <proposal> of <esp>`;
}
