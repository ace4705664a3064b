/** What another process needs to go on with a CHILD SA, as IKE keeps it. Keys and sequence numbers are those of ESP. */
import { type Codec, double, field, flag, optional, record, text, u32, word } from '../../base/record/codec.ts';
import { cipherSuiteCodec } from '../../crypto/record.ts';
import type { RandomSource } from '../../crypto/types.ts';
import { selectorPairCodec, transportHostsCodec } from '../../policy/record.ts';
import type { ChildConfig, ConnectionConfig } from '../config.ts';
import { type ChildFacts, ChildRecord, type ChildTimer } from '../session/child.ts';

/** Times are milliseconds after the moment of the record; those before it are negative. */
export interface SavedChild extends Omit<ChildFacts, 'connection' | 'config' | 'replaces'> {
  /** Of the child in the configuration. */
  readonly name: string;
  /** `rekeyed`: it was replaced, and the peer has not deleted it yet. */
  readonly state: 'installed' | 'rekeyed';
  readonly createdAt: number;
  /** When its timers are due. */
  readonly rekeyAt: number | undefined;
  readonly expiresAt: number | undefined;
  readonly lingersUntil: number | undefined;
  readonly sending: boolean;
  readonly everSent: boolean;
  readonly rekeyRefused: boolean;
}

export const savedChildCodec: Codec<SavedChild> = record<SavedChild>({
  id: field(1, double),
  name: field(2, text),
  state: field(3, word('state', ['installed', 'rekeyed'])),
  spiIn: field(4, u32),
  spiOut: field(5, u32),
  mode: field(6, word('mode', ['tunnel', 'transport'])),
  transport: optional(7, transportHostsCodec),
  suite: field(8, cipherSuiteCodec),
  dhGroup: optional(9, text),
  esn: field(10, flag),
  selectors: field(11, selectorPairCodec),
  offered: optional(12, selectorPairCodec),
  encapsulated: field(13, flag),
  takesPadding: field(14, flag),
  createdAt: field(15, double),
  rekeyAt: optional(16, double),
  expiresAt: optional(17, double),
  lingersUntil: optional(18, double),
  sending: field(19, flag),
  everSent: field(20, flag),
  rekeyRefused: field(21, flag),
});

/** `undefined` for one that is being deleted. @param at the moment of the record */
export function saveChild(child: ChildRecord, at: number): SavedChild | undefined {
  const { state, createdAt, sending, everSent, rekeyRefused } = child;
  if (state === 'deleting' || state === 'closed') return undefined;
  const { connection: _, config, replaces: _old, ...facts } = child.facts;
  const due = (timer: ChildTimer): number | undefined => {
    const time = child.timers.get(timer);
    return time === undefined ? undefined : time - at;
  };
  return {
    ...facts,
    name: config.name,
    state: state === 'rekeyed' ? state : 'installed',
    createdAt: createdAt - at,
    // A rekeying that has not begun begins anew.
    rekeyAt: state === 'rekeying' ? 0 : due('rekey'),
    expiresAt: due('expire'),
    lingersUntil: due('linger'),
    ...{ sending, everSent, rekeyRefused },
  };
}

/** What a saved CHILD SA becomes part of. */
export interface ChildHome {
  readonly ikeSaId: number;
  readonly connection: ConnectionConfig;
  readonly config: ChildConfig;
  readonly random: RandomSource;
}

/** @param id the one that it has from now on; @param at the moment of the record, on the clock of this process */
export function restoreChild(saved: SavedChild, id: number, home: ChildHome, at: number): ChildRecord {
  const {
    name: _,
    state,
    createdAt,
    rekeyAt,
    expiresAt,
    lingersUntil,
    sending,
    everSent,
    rekeyRefused,
    ...facts
  } = saved;
  const { ikeSaId, connection, config, random } = home;
  const whole: ChildFacts = { ...facts, id, connection: connection.name, config, replaces: undefined };
  const child = new ChildRecord(ikeSaId, whole, { now: at + createdAt, sending, random });
  child.everSent = everSent;
  child.rekeyRefused = rekeyRefused;
  if (state === 'rekeyed') child.enter('rekeyed');
  child.timers.clearAll();
  const due: Readonly<Record<ChildTimer, number | undefined>> = {
    rekey: rekeyAt,
    expire: expiresAt,
    linger: lingersUntil,
  };
  for (const [timer, time] of Object.entries(due))
    if (time !== undefined) child.timers.set(timer as ChildTimer, at + time);
  return child;
}
