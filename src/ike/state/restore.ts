/**
 * Goes on with IKE SAs of another process: each as it was, where the configuration still wants it so. SPIs, keys and message IDs
 * stay; the ids that the owner knows SAs by are new ones, in the old order.
 */
import { sameAddress } from '../../base/address.ts';
import { sameIdentity } from '../../base/identity.ts';
import { secretCopy } from '../../base/secret-bytes.ts';
import type { EspProposal, IkeProposal } from '../../crypto/proposal.ts';
import type { CipherKeys, CipherSuite } from '../../crypto/types.ts';
import { containsPair } from '../../policy/selector.ts';
import type { ChildConfig, ConnectionConfig } from '../config.ts';
import type { ChildSa } from '../events.ts';
import { bindKeys } from '../keys/ike-crypto.ts';
import type { IkeKeys, IkeSuite } from '../keys/keys.ts';
import { credentialOf } from '../session/credential.ts';
import { IkeSession, type SessionTimer } from '../session/session.ts';
import { newLife } from '../session/state.ts';
import { MessageWindow } from '../session/window.ts';
import type { SessionRegistry } from '../session-registry.ts';
import { DeleteChildTask } from '../tasks/delete.ts';
import { probeLiveness } from '../timeouts.ts';
import { restoreChild, type SavedChild } from './child-sa.ts';
import type { SavedIkeSa, SavedKeys } from './ike-sa.ts';

/** An SA that is not gone on with: its tunnel negotiates another. */
export interface RestoreRefusal {
  readonly connection: string;
  /** Of a CHILD SA. */
  readonly child?: string | undefined;
  /** For people. */
  readonly detail: string;
}

export interface Resumption {
  /** The moment of the record, on the owner's clock. */
  readonly at: number;
  /** The keys that ESP has for our SPI of a CHILD SA. The owner gets them back with the CHILD SA, and wipes them. */
  readonly keysOf: (spiIn: number) => Pick<ChildSa, 'keysIn' | 'keysOut'> | undefined;
}

/** Milliseconds after which a peer may have given up an IKE SA whose other end was away: it is asked. */
const LONG_AWAY = 10_000;

/** The owner is told of each SA as of one that was negotiated. Returns what was refused. */
export function restoreIkeSas(
  registry: SessionRegistry,
  now: number,
  saved: readonly SavedIkeSa[],
  { at, keysOf }: Resumption,
): RestoreRefusal[] {
  const newId = renumber(saved, () => registry.env.nextId());
  const refusals: RestoreRefusal[] = [];
  for (const sa of saved) {
    const { connection } = sa;
    const config = registry.env.connection(connection);
    const detail = config === undefined ? 'it is not configured any more' : whyNot(registry, sa, config);
    if (config === undefined || detail !== undefined) {
      refusals.push({ connection, detail: detail! });
      continue;
    }
    const session = resume(registry, now, sa, { config, at, newId });
    for (const child of sa.children) {
      const refusal = resumeChild(session, child, { config, at, newId, keysOf });
      if (refusal === undefined) continue;
      refusals.push({ connection, child: child.name, detail: refusal });
      session.enqueue(now, new DeleteChildTask(child.spiIn, 'requested'));
    }
    if (now - at >= LONG_AWAY) probeLiveness(session, now);
    for (const spi of sa.deletes) session.enqueue(now, new DeleteChildTask(spi, 'rekeyed'));
  }
  return refusals;
}

/** New ids for all that stand in the records, in the order of the old ones: later ones are larger. */
function renumber(saved: readonly SavedIkeSa[], nextId: () => number): (old: number) => number {
  const ids = saved.flatMap(({ id, origin, children }) => [
    id,
    origin.id,
    origin.establishedOrder,
    ...children.map((child) => child.id),
  ]);
  const sorted = [...new Set(ids)].sort((a, b) => a - b);
  const renumbered = new Map(sorted.map((old) => [old, nextId()]));
  return (old) => renumbered.get(old)!;
}

interface Home {
  readonly config: ConnectionConfig;
  readonly at: number;
  readonly newId: (old: number) => number;
}

function resume(registry: SessionRegistry, now: number, saved: SavedIkeSa, { config, at, newId }: Home): IkeSession {
  const { env } = registry;
  const { initiator, spiInitiator, spiResponder, path, peers, suite, sealed } = saved;
  const crypto = bindKeys(env.crypto, suite, ownKeys(saved.keys), initiator ? 'initiator' : 'responder');
  const { id, establishedOrder } = saved.origin;
  const origin = { ...saved.origin, id: newId(id), establishedOrder: newId(establishedOrder) };
  const establishedAt = at + saved.establishedAt;
  const life = newLife({ config, crypto, peers, origin, establishedAt, replaces: undefined });
  const session = new IkeSession(registry, {
    ...{ initiator, spiInitiator, spiResponder, path },
    state: { name: 'established', ...life },
    window: MessageWindow.resume(env.retransmit, now, saved.window),
    now: at + saved.createdAt,
    resumed: { id: newId(saved.id), sealed },
  });
  session.nat = saved.nat;
  session.fragments.inherit({ supported: saved.fragmentation, learned: saved.fragmentSize });
  session.lastHeardAt = saved.lastHeardAt === undefined ? undefined : at + saved.lastHeardAt;
  for (const [timer, time] of Object.entries(saved.timers)) {
    if (time !== undefined) session.timers.set(timer as SessionTimer, at + time);
  }
  registry.addSession(session);
  session.announce();
  return session;
}

/** In memory of their own: the record is erased. */
function ownKeys({ d, initiator, responder }: SavedKeys): IkeKeys {
  const none = new Uint8Array(0);
  const keys = { d: secretCopy(d), initiator: copyKeys(initiator), responder: copyKeys(responder) };
  const all = [keys.d, ...[keys.initiator, keys.responder].flatMap((one) => [one.encryption, one.integrity])];
  return {
    ...{ ...keys, pi: none, pr: none },
    wipe: () => {
      for (const key of all) key.fill(0);
    },
  };
}

function copyKeys({ encryption, integrity }: CipherKeys): CipherKeys {
  return { encryption: secretCopy(encryption), integrity: secretCopy(integrity) };
}

/** Why not, if it is not. */
function resumeChild(
  session: IkeSession,
  saved: SavedChild,
  { config: connection, at, newId, keysOf }: Home & Resumption,
): string | undefined {
  const { registry, env } = session;
  const config = connection.children.find(({ name }) => name === saved.name);
  if (config === undefined) return 'it is not configured any more';
  const keys = keysOf(saved.spiIn);
  if (keys === undefined) return 'the record has no keys of it';
  if (!registry.isChildSpiFree(saved.spiIn)) return 'there is another CHILD SA with its SPI';
  const misfit = childMisfit(saved, config);
  if (misfit !== undefined) return misfit;
  const child = restoreChild(
    saved,
    newId(saved.id),
    { ikeSaId: session.id, connection, config, random: env.random },
    at,
  );
  session.children.set(saved.spiIn, child);
  registry.addChild(child);
  env.emit({
    type: 'child-up',
    child: { ...child.facts, ikeSaId: session.id, path: session.path, ...keys },
    sendNow: child.sending,
  });
  registry.stateChanged(session);
  return undefined;
}

function whyNot(registry: SessionRegistry, saved: SavedIkeSa, config: ConnectionConfig): string | undefined {
  const { sessions, env } = registry;
  if (!registry.hasRoom()) return 'the limit of IKE SAs is reached';
  if (sessions.has(saved.initiator ? saved.spiInitiator : saved.spiResponder)) return 'there is an IKE SA with its SPI';
  return ikeMisfit(saved, config) ?? unsupported(saved.suite, (algorithm) => env.crypto.supports(algorithm));
}

function unsupported(
  { cipher, prf, dh }: IkeSuite,
  supports: SessionRegistry['env']['crypto']['supports'],
): string | undefined {
  const lacking = [cipher.encryption, cipher.integrity, prf, dh].find((one) => one !== undefined && !supports(one));
  return lacking && `${lacking.name} is not supported here`;
}

/** What of an IKE SA is not as it is configured now. Its peer may have moved, or have another address by now. */
function ikeMisfit(
  { peers, suite, path }: SavedIkeSa,
  { local, remote, proposals }: ConnectionConfig,
): string | undefined {
  if (!sameIdentity(peers.localId, local.id)) return 'its local identity is not the one that is configured now';
  if (remote.id !== undefined && !sameIdentity(peers.remoteId, remote.id)) {
    return "the peer's identity is not the one that is configured now";
  }
  if (peers.credential !== credentialOf(remote)) return 'the peer is to authenticate in another way now';
  if (!proposals.some((proposal) => proposes(proposal, suite))) return 'its algorithms are not configured any more';
  if (local.address !== undefined && !sameAddress(local.address, path.local.address))
    return 'the local address is another now';
  if (local.vrf !== path.local.vrf) return 'the VRF is another now';
  return undefined;
}

function proposes(proposal: IkeProposal, { cipher, prf, dh }: IkeSuite): boolean {
  return hasCipher(proposal, cipher) && proposal.prf.includes(prf) && proposal.dh.includes(dh);
}

function hasCipher({ encryption, integrity }: IkeProposal | EspProposal, cipher: CipherSuite): boolean {
  if (!encryption.includes(cipher.encryption)) return false;
  return cipher.integrity === undefined || integrity.includes(cipher.integrity);
}

/** What of a CHILD SA is not as it is configured now. */
function childMisfit(
  { mode, suite, esn, selectors }: SavedChild,
  { proposals, ...config }: ChildConfig,
): string | undefined {
  if (mode !== config.mode) return `it is in ${mode} mode, and ${config.mode} mode is configured`;
  if (!proposals.some((one) => hasCipher(one, suite) && one.esn.includes(esn)))
    return 'its algorithms are not configured any more';
  return containsPair(config.selectors, selectors)
    ? undefined
    : 'its selectors are not within those that are configured now';
}
