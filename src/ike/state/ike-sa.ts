/**
 * What another process needs to go on with an IKE SA. Only one that is in use is kept: what is being negotiated, replaced or
 * deleted begins anew, or ends. A request of ours that is out is repeated with the same bytes (RFC 7296 §2.1) and its
 * response then only ends the wait for it; so an IKE SA on which an SA is being made is not kept either, as the peer may
 * have that SA already and its keys are not known yet. `IkeEndpoint.settle` lets such exchanges come to their end before.
 */
import {
  bytes,
  type Codec,
  double,
  field,
  flag,
  list,
  optional,
  record,
  secret,
  text,
  u32,
  u64,
  word,
} from '../../base/record/codec.ts';
import { identityCodec, socketAddressCodec } from '../../base/record/values.ts';
import { cipherKeysCodec, cipherSuiteCodec, dhGroupCodec, prfCodec } from '../../crypto/record.ts';
import type { Path } from '../events.ts';
import type { IkeKeys, IkeSuite } from '../keys/keys.ts';
import type { IkeSession, SessionTimer } from '../session/session.ts';
import { isInUse, type Origin, type Peers } from '../session/state.ts';
import type { SavedWindow } from '../session/window.ts';
import { DeleteChildTask } from '../tasks/delete.ts';
import { RekeyIkeTask } from '../tasks/rekey-ike.ts';
import { ExchangeType } from '../wire/iana.ts';
import type { NatStatus } from '../wire/nat.ts';
import { type SavedChild, saveChild, savedChildCodec } from './child-sa.ts';

/** SK_pi and SK_pr have served when an IKE SA is up. */
export type SavedKeys = Pick<IkeKeys, 'd' | 'initiator' | 'responder'>;

/** Times are milliseconds after the moment of the record; those before it are negative. Ids are those of the process. */
export interface SavedIkeSa {
  readonly id: number;
  readonly connection: string;
  readonly initiator: boolean;
  readonly spiInitiator: bigint;
  readonly spiResponder: bigint;
  readonly path: Path;
  readonly nat: NatStatus;
  readonly peers: Peers;
  readonly origin: Origin;
  readonly suite: IkeSuite;
  readonly keys: SavedKeys;
  /** SK payloads that were sealed: the next IV is made of this number. */
  readonly sealed: number;
  readonly window: SavedWindow;
  readonly fragmentation: boolean;
  /** Bytes of the smallest fragments that got through. */
  readonly fragmentSize: number | undefined;
  readonly createdAt: number;
  readonly establishedAt: number;
  readonly lastHeardAt: number | undefined;
  readonly timers: SavedTimers;
  readonly children: readonly SavedChild[];
  /** Our SPIs of CHILD SAs that are to be deleted, and whose DELETE has not been sent. */
  readonly deletes: readonly number[];
}

/** The timers of an IKE SA in use. The others belong to what is not kept. */
type KeptTimer = Extract<SessionTimer, 'rekey' | 'expire' | 'dpd' | 'keepalive' | 'duplicate'>;
const KEPT_TIMERS: readonly KeptTimer[] = ['rekey', 'expire', 'dpd', 'keepalive', 'duplicate'];
export type SavedTimers = { readonly [T in KeptTimer]: number | undefined };

const pathCodec: Codec<Path> = record<Path>({
  local: field(1, socketAddressCodec),
  remote: field(2, socketAddressCodec),
});

export const savedIkeSaCodec: Codec<SavedIkeSa> = record<SavedIkeSa>({
  id: field(1, double),
  connection: field(2, text),
  initiator: field(3, flag),
  spiInitiator: field(4, u64),
  spiResponder: field(5, u64),
  path: field(6, pathCodec),
  nat: field(
    7,
    record<NatStatus>({
      supported: field(1, flag),
      localBehindNat: field(2, flag),
      remoteBehindNat: field(3, flag),
      forced: field(4, flag),
    }),
  ),
  peers: field(
    8,
    record<Peers>({
      localId: field(1, identityCodec),
      remoteId: field(2, identityCodec),
      credential: field(3, word('credential', ['certificate', 'own-key', 'shared-key'])),
    }),
  ),
  origin: field(
    9,
    record<Origin>({
      spi: field(1, u64),
      initiator: field(2, flag),
      id: field(3, double),
      establishedOrder: field(4, double),
      shownAt: optional(5, socketAddressCodec),
    }),
  ),
  suite: field(
    10,
    record<IkeSuite>({ cipher: field(1, cipherSuiteCodec), prf: field(2, prfCodec), dh: field(3, dhGroupCodec) }),
  ),
  keys: field(
    11,
    record<SavedKeys>({
      d: field(1, secret),
      initiator: field(2, cipherKeysCodec),
      responder: field(3, cipherKeysCodec),
    }),
  ),
  sealed: field(12, double),
  window: field(
    13,
    record<SavedWindow>({
      nextRequest: field(1, double),
      nextFromPeer: field(2, double),
      request: optional(3, list(bytes)),
      lastRequest: optional(4, bytes),
      lastResponse: optional(5, list(bytes)),
    }),
  ),
  fragmentation: field(14, flag),
  fragmentSize: optional(15, u32),
  createdAt: field(16, double),
  establishedAt: field(17, double),
  lastHeardAt: optional(18, double),
  timers: field(
    19,
    record<SavedTimers>({
      rekey: optional(1, double),
      expire: optional(2, double),
      dpd: optional(3, double),
      keepalive: optional(4, double),
      duplicate: optional(5, double),
    }),
  ),
  children: field(20, list(savedChildCodec)),
  deletes: field(21, list(u32)),
});

/**
 * Whether nothing is under way on an IKE SA for which it, or a part of it, would not be kept. One that was replaced is needed
 * until its peer is known to have its successor, which the DELETE shows; not one that was redundant from its first moment.
 */
export function isSettled({ state, active, window, children }: IkeSession): boolean {
  if (state.name === 'rekeyed') return window.nextFromPeer === 0 && window.nextRequest === 0;
  if (state.name === 'deleting') return false;
  // The peer sends on a CHILD SA until it reads that this is deleted.
  for (const child of children.values()) if (child.state === 'deleting') return false;
  return state.name !== 'established' || (isInUse(state) && active?.exchange !== ExchangeType.CREATE_CHILD_SA);
}

/** `undefined` for one that is not kept. Its keys are those of the session, not copies. @param at the moment of the record */
export function saveIkeSa(session: IkeSession, at: number): SavedIkeSa | undefined {
  const { state, active, fragments } = session;
  if (!isInUse(state) || active?.exchange === ExchangeType.CREATE_CHILD_SA) return undefined;
  const since = (time: number | undefined): number | undefined => (time === undefined ? undefined : time - at);
  const children = [...session.children.values()];
  const isSent = (spiIn: number): boolean => active instanceof DeleteChildTask && active.spiIn === spiIn;
  const { id, initiator, spiInitiator, spiResponder, path, nat, sealed } = session;
  const { peers, origin, crypto } = state;
  return {
    ...{ id, initiator, spiInitiator, spiResponder, path, nat, sealed, peers, origin },
    connection: state.config.name,
    suite: crypto.suite,
    keys: crypto.keys,
    window: session.window.save(),
    fragmentation: fragments.supported,
    fragmentSize: fragments.learned,
    createdAt: session.createdAt - at,
    establishedAt: (state.establishedAt ?? at) - at,
    lastHeardAt: since(session.lastHeardAt),
    timers: savedTimers(session, since),
    children: children.flatMap((child) => saveChild(child, at) ?? []),
    deletes: children.flatMap(({ state: of, facts: { spiIn } }) =>
      of === 'deleting' && !isSent(spiIn) ? [spiIn] : [],
    ),
  };
}

function savedTimers(
  { timers, queue }: IkeSession,
  since: (time: number | undefined) => number | undefined,
): SavedTimers {
  const kept = Object.fromEntries(KEPT_TIMERS.map((timer) => [timer, since(timers.get(timer))])) as SavedTimers;
  // A rekeying that has not begun begins anew.
  return queue.some((task) => task instanceof RekeyIkeTask) ? { ...kept, rekey: 0 } : kept;
}
