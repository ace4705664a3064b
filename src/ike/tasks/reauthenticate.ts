/**
 * Reauthentication (RFC 7296 §2.8.3): a new IKE SA from the beginning, with new CHILD SAs for the traffic of the old one, which is
 * deleted when the new one has them all: make before break. IKE_AUTH has no INITIAL_CONTACT then, as the old one is there, so
 * the peer keeps it.
 */
import type { ConnectionConfig } from '../config.ts';
import { requestOf } from '../session/child-ask.ts';
import type { IkeSession } from '../session/session.ts';
import { isInUse } from '../session/state.ts';
import { openSession } from './open.ts';
import { TakeOverTask, usableChildren } from './successor.ts';

/** Begins to reauthenticate an IKE SA; nothing where that is under way. @returns why it cannot be, in words */
export function reauthenticate(session: IkeSession, now: number): string | undefined {
  const { registry, connectionConfig: config } = session;
  if (!isInUse(session.state) || config === undefined) return 'the IKE SA is not in use';
  const { address } = config.remote;
  if (address === undefined) return 'the document does not say where the peer is: it has to begin';
  const wanted = usableChildren(session).map((child) => requestOf(session, child));
  if (wanted.length === 0) return 'it has no CHILD SA';
  if (isUnderWay(session, config)) return undefined;
  if (!registry.hasRoom()) return 'the limit of IKE SAs is reached';
  const local = { ...session.path.local, port: config.local.port };
  const remote = { address, port: config.remote.port };
  openSession(registry, now, { local, remote }, { config, wanted, reauthenticates: session.id });
  return undefined;
}

function isUnderWay({ id, registry }: IkeSession, { name }: ConnectionConfig): boolean {
  return registry
    .sessionsOf(name)
    .some(
      ({ state, active, queue, deferred }) =>
        ('attempt' in state && state.attempt.reauthenticates === id) ||
        [active, ...queue, ...deferred.map(({ task }) => task)].some(
          (task) => task instanceof TakeOverTask && task.old === id,
        ),
    );
}
