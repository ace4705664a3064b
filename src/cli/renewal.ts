/** What of a tunnel that runs stays, and what is replaced, for people: in a plan, and when it is done. */
import { listSome } from '../base/text.ts';
import type { Fate, Renewal } from '../plan/renewal.ts';

/** Children that are named for each fate. */
const MAX_LISTED = 10;

const WORDS: Readonly<Record<Fate, string>> = {
  kept: 'kept',
  rekeyed: 'rekeyed',
  anew: 'negotiated anew',
  added: 'added',
  removed: 'removed',
};

/** `IKE SA kept; CHILD SAs kept: lan; negotiated anew: dmz` */
export function formatRenewal({ device, ikeSas, children }: Renewal): string {
  if (device === 'anew') return 'stopped and started: the device and all SAs made anew';
  const fates = (Object.keys(WORDS) as Fate[]).flatMap((fate) => {
    const names = children.flatMap((child) => (child.fate === fate ? [child.name] : []));
    return names.length === 0 ? [] : [`${WORDS[fate]}: ${listSome(names, MAX_LISTED)}`];
  });
  return [`IKE SA ${WORDS[ikeSas]}`, ...(fates.length === 0 ? [] : [`CHILD SAs ${fates.join('; ')}`])].join('; ');
}
