/** Carries out what a new document asks for of the SAs of a tunnel that runs (`plan/renewal.ts`). */
import type { RekeyChoice } from '../engine/sa-operations.ts';
import type { ClosedSas } from '../engine/tunnels/changes.ts';
import type { TunnelHost } from '../host/host.ts';
import type { RekeyResult } from '../host/operations.ts';
import type { Fate, Renewal } from '../plan/renewal.ts';

/** Which SAs do not fit the new document. */
export function closedBy(renewal: Renewal): ClosedSas {
  return renewal.ikeSas === 'anew'
    ? 'all'
    : new Set([...childrenOf(renewal, 'anew'), ...childrenOf(renewal, 'removed')]);
}

function childrenOf({ children }: Renewal, fate: Fate): string[] {
  return children.flatMap((child) => (child.fate === fate ? [child.name] : []));
}

/** A person waits. An SA that the peer has no time for is replaced later. */
const PATIENCE = { patience: 10_000 };
const IKE_SAS: RekeyChoice = { ikeSas: true, children: 'none' };

/**
 * Replaces SAs that stay up and are to have other parameters.
 * @returns which were not replaced, and why, a sentence each: they go on as they were
 */
export async function rekeyAsPlanned({ operations }: TunnelHost, tunnel: string, renewal: Renewal): Promise<string[]> {
  const results: RekeyResult[] = [];
  // First: a CHILD SA waits while its IKE SA is replaced.
  if (renewal.ikeSas === 'rekeyed') results.push(...(await operations.rekeyAny(tunnel, IKE_SAS, PATIENCE)));
  const children = childrenOf(renewal, 'rekeyed').map((name) =>
    operations.rekeyAny(tunnel, { ikeSas: false, children: { name } }, PATIENCE),
  );
  results.push(...(await Promise.all(children)).flat());
  return results.flatMap(({ kind, name, replacedBy, detail }) => {
    if (replacedBy !== undefined) return [];
    const what = kind === 'ike' ? 'the IKE SA' : `CHILD SA ${name}`;
    return [`${what} was not replaced, and goes on with its former parameters: ${detail}`];
  });
}
