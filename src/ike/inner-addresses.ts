/**
 * The owners of inner addresses (RFC 4301 §4.4.1, RFC 7296 §2.9). The remote selectors of a CHILD SA belong to the peer that
 * first got an SA for them, as long as it has one. A request of another peer is narrowed to what is free, or refused.
 * Two pairs of selectors overlap when one packet fits both, so two peers may own different ports of one address.
 * `peers.ts` defines which IKE SAs have the same peer.
 *
 * Between connections the configuration decides first. An entry (a child of a connection) that lies within an entry of
 * another connection is the more specific one:
 *
 * - A peer of the more specific entry may have what a peer of the other entry owns: a tunnel for 0.0.0.0/0 leaves room
 *   for other tunnels.
 * - A connection that takes any identity gives its peers nothing that a more specific entry of another connection names,
 *   whether that connection is up or not.
 * - A connection that names its peer may have all of its entry, also what peers of more specific entries own: the
 *   configuration gives it to both.
 *
 * As initiator we offer what is configured, and the peer can only take away. Where a connection takes any identity, the
 * answer is checked against the owners too.
 */

import { formatSocketAddress } from '../base/address.ts';
import { formatIdentity } from '../base/identity.ts';
import { listSome } from '../base/text.ts';
import { containsPair, formatSelectors, type SelectorPair, type TrafficSelector } from '../policy/selector.ts';
import { SelectorIndex } from '../policy/selector-index.ts';
import { withoutRemote } from '../policy/without.ts';
import type { ChildConfig, ConnectionConfig } from './config.ts';
import { checkSilent, probe } from './duplicates.ts';
import { isSameClaim } from './peers.ts';
import type { ChildRecord } from './session/child.ts';
import type { Claim } from './session/registry.ts';
import type { IkeSession } from './session/session.ts';
import { isLive } from './session/state.ts';

/** An entry of the configuration. */
interface Entry {
  readonly connection: ConnectionConfig;
  readonly child: ChildConfig;
}

/** BOUNDED: owners that a message names, and that are probed or checked. */
const MAX_LISTED = 4;

export class InnerAddresses {
  /** BOUNDED: the CHILD SAs that there are. */
  readonly #held = new SelectorIndex<ChildRecord>();
  /** BOUNDED: the owner's configuration. */
  readonly #entries = new SelectorIndex<Entry>();
  readonly #entriesOf = new Map<string, ReadonlyMap<string, Entry>>();

  /** Adds a connection, or puts it in the place of the one that has its name. */
  configure(connection: ConnectionConfig): void {
    this.unconfigure(connection.name);
    const entries = new Map(connection.children.map((child) => [child.name, { connection, child }]));
    this.#entriesOf.set(connection.name, entries);
    for (const entry of entries.values()) this.#entries.add(entry.child.selectors, entry);
  }

  unconfigure(connection: string): void {
    const entries = this.#entriesOf.get(connection)?.values() ?? [];
    for (const entry of entries) this.#entries.delete(entry.child.selectors, entry);
    this.#entriesOf.delete(connection);
  }

  hold(child: ChildRecord): void {
    this.#held.add(child.facts.selectors, child);
  }

  /** Does nothing when the child holds no addresses. */
  release(child: ChildRecord): void {
    this.#held.delete(child.facts.selectors, child);
  }

  /** The part of `selectors`, which are within those of a child of the connection, that the session's peer may have. */
  claim(session: IkeSession, now: number, childName: string, selectors: SelectorPair): Claim {
    const entry = this.#entryOf(session, childName);
    const held = this.#held.meeting(selectors, (child) => this.#isOther(session, entry, child));
    const reserved =
      session.connectionConfig?.remote.id === undefined
        ? this.#entries.meeting(selectors, (other) => isReservedFrom(entry, other))
        : [];
    if (held === undefined || reserved === undefined) {
      return {
        free: undefined,
        conflict: 'too many other peers own parts of it; ask for a smaller range',
        undecided: false,
      };
    }
    if (held.length === 0 && reserved.length === 0) return { free: selectors, conflict: '', undecided: false };
    let undecided = false;
    const { registry } = session;
    const holders = new Set(held.map(({ value }) => registry.sessionOf(value)));
    for (const holder of [...holders].slice(0, MAX_LISTED)) {
      if (!isSameClaim(session, holder)) checkSilent(holder, now);
      else if (probe(holder, now) === 'asked') undecided = true;
    }
    const taken = [...held, ...reserved].flatMap(({ remote }) => remote);
    const owners = [
      ...held.map(({ value, remote }) => describeOwner(registry.sessionOf(value), now, value, remote)),
      ...reserved.map(
        ({ value, remote }) => `${formatSelectors(remote)} is reserved for connection ${value.connection.name}`,
      ),
    ];
    const asker = `${nameOf(session)} at ${formatSocketAddress(session.path.remote)}`;
    const conflict = `${listSome(owners, MAX_LISTED)}; ${asker} asked for ${formatSelectors(selectors.remote)}`;
    return { free: withoutRemote(selectors, taken), conflict, undecided };
  }

  /** The entry as it is configured now. */
  #entryOf(session: IkeSession, childName: string): Entry | undefined {
    return this.#entriesOf.get(session.connectionName)?.get(childName);
  }

  /** Whether what a CHILD SA holds is closed to the peer of the session. */
  #isOther(session: IkeSession, asked: Entry | undefined, child: ChildRecord): boolean {
    const holder = session.registry.sessionOf(child);
    if (session.registry.isSamePeer(session, holder)) return false;
    const held = this.#entryOf(holder, child.facts.config.name);
    if (asked === undefined || held === undefined || session.connectionName === holder.connectionName) return true;
    if (isWithin(asked, held)) return false;
    return asked.connection.remote.id === undefined || !isWithin(held, asked);
  }
}

function isReservedFrom(asked: Entry | undefined, other: Entry): boolean {
  return asked !== undefined && asked.connection.name !== other.connection.name && isWithin(other, asked);
}

/** Whether an entry lies within another and is not equal to it. */
function isWithin(inner: Entry, outer: Entry): boolean {
  const [a, b] = [inner.child.selectors, outer.child.selectors];
  return containsPair(b, a) && !containsPair(a, b);
}

function describeOwner(
  session: IkeSession,
  now: number,
  { createdAt }: ChildRecord,
  remote: readonly TrafficSelector[],
): string {
  const seconds = Math.round((now - createdAt) / 1_000);
  const where = `${formatSocketAddress(session.path.remote)}, connection ${session.connectionName}`;
  return `${formatSelectors(remote)} has belonged to ${nameOf(session)} (${where}) for ${seconds} s`;
}

function nameOf({ state }: IkeSession): string {
  return isLive(state) ? formatIdentity(state.peers.remoteId) : 'a peer whose IKE SA is closing';
}
