/** Lifetimes, which are not negotiated (RFC 7296 §2.8): each side ends its SAs by its own. */
import type { LifetimeSettings } from '../config/model.ts';
import { type Checked, type Finding, lineOf, type Place, placeIn } from './report.ts';

const KINDS = { ike: 'IKE SAs', esp: 'CHILD SAs' } as const;

export function checkLifetimes(a: Checked, b: Checked): Finding[] {
  return (['ike', 'esp'] as const).flatMap((kind) => [...checkLifetime(kind, a, b), ...checkLifetime(kind, b, a)]);
}

/** A side whose rekeying would come after the other has ended the SA never begins one. */
function checkLifetime(kind: 'ike' | 'esp', late: Checked, early: Checked): Finding[] {
  const { soft, jitter } = late.document.sa[kind].lifetime;
  const ends = early.document.sa[kind].lifetime;
  if (soft - jitter < ends.hard) return [];
  const message = `${late.title} rekeys ${KINDS[kind]} after ${soft - jitter} s at the earliest, but ${early.title} ends them at ${ends.hard} s: only ${early.title} rekeys them, at ${ends.soft} s`;
  const places = [lifetimePlace(late, kind), lifetimePlace(early, kind)];
  const change = `write a lifetime with soft below ${ends.hard} in ${late.title}, or a longer one in ${early.title}`;
  return [{ level: 'warning', topic: 'lifetime', message, places, change }];
}

function lifetimePlace(checked: Checked, kind: 'ike' | 'esp'): Place {
  const { lifetime, line }: { readonly lifetime: LifetimeSettings; readonly line: number } = checked.document.sa[kind];
  const says = `<lifetime soft='${lifetime.soft}' hard='${lifetime.hard}' jitter='${lifetime.jitter}'>`;
  return placeIn(checked, lineOf(checked, `sa/${kind}/lifetime`, line), `${says} of <${kind}>`);
}
