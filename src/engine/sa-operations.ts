/** What an operator asks of the SAs of a tunnel, beside bringing it up and down. */
import type { IkeEndpoint } from '../ike/endpoint.ts';
import type { IkeSaStatus } from '../ike/status.ts';
import type { Tunnel } from './tunnel.ts';

/** Which SAs of a tunnel are to be replaced. */
export interface RekeyChoice {
  readonly ikeSas: boolean;
  /** Of all children, of none, or of the child with a name. */
  readonly children: 'all' | 'none' | { readonly name: string };
}

/** An SA that is being replaced. */
export interface RekeyedSa {
  readonly kind: 'ike' | 'child';
  readonly id: number;
  /** Of the child; of an IKE SA, its connection. */
  readonly name: string;
}

/** Asks the peers of a tunnel's IKE SAs, or of one, whether they are there. Returns the IKE SAs. */
export function checkPeers(ike: IkeEndpoint, now: number, tunnel: Tunnel, only?: number): IkeSaStatus[] {
  const sas = establishedSas(ike, tunnel).filter(({ id }) => only === undefined || id === only);
  for (const { id } of sas) ike.checkIkeSa(now, id);
  return sas;
}

/** Those that can be asked for something. */
function establishedSas(ike: IkeEndpoint, { config }: Tunnel): IkeSaStatus[] {
  return config.connections
    .flatMap(({ name }) => ike.status(name))
    .filter(({ state, establishedAt }) => state === 'established' && establishedAt !== undefined);
}

/** Begins to replace SAs: the CHILD SAs first, as they wait while their IKE SA is replaced. */
export function rekeySas(ike: IkeEndpoint, now: number, tunnel: Tunnel, choice: RekeyChoice): RekeyedSa[] {
  const sas = establishedSas(ike, tunnel);
  const begun: RekeyedSa[] = [];
  for (const { id, name, state } of sas.flatMap(({ children }) => children)) {
    if (!isChosen(choice, name) || (state !== 'installed' && state !== 'rekeying')) continue;
    ike.rekeyChild(now, id);
    begun.push({ kind: 'child', id, name });
  }
  for (const { id, connection } of choice.ikeSas ? sas : []) {
    ike.rekeyIkeSa(now, id);
    begun.push({ kind: 'ike', id, name: connection ?? '' });
  }
  return begun;
}

function isChosen({ children }: RekeyChoice, name: string): boolean {
  return children === 'all' || (children !== 'none' && children.name === name);
}

/** An IKE SA that is being replaced, or cannot be. */
export interface ReauthenticatedSa extends RekeyedSa {
  /** Why it cannot be; `undefined` when it is. */
  readonly problem: string | undefined;
}

/** Begins to replace IKE SAs by new ones with a new authentication. */
export function reauthenticateSas(ike: IkeEndpoint, now: number, tunnel: Tunnel): ReauthenticatedSa[] {
  return establishedSas(ike, tunnel).map(({ id, connection = '' }) => {
    return { kind: 'ike', id, name: connection, problem: ike.reauthenticate(now, id) };
  });
}

/** Deletes the CHILD SAs of some children of a tunnel, telling the peer. */
export function closeChildren(ike: IkeEndpoint, now: number, tunnel: Tunnel, names: ReadonlySet<string>): void {
  for (const { summary } of [...tunnel.children.values()]) if (names.has(summary.name)) ike.closeChild(now, summary.id);
}
