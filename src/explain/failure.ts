/** Which lines of a tunnel's document matter for a failed negotiation: where to look first. */
import { authPlace, endPlace, idPlace, natPlace, proposalPlace, proposalsOf, rulePlace } from '../check/places.ts';
import type { Checked, Place } from '../check/report.ts';
import type { SectunnelDocument } from '../config/model.ts';
import { toChildren } from '../config/selectors.ts';
import type { EngineEvent } from '../engine/events.ts';
import { asPrinted } from './as-printed.ts';

type Failed = Extract<EngineEvent, { readonly type: 'failed' }>;

/** BOUNDED: lines that are named. */
const MAX_PLACES = 8;

/** `line 12: <proposal> aes256gcm16-prfsha384-ecp384`, of the document as `dumpxml` prints it; none where none matters. */
export function placesOfFailure(failed: Pick<Failed, 'reason' | 'child'>, document: SectunnelDocument): string[] {
  const places = placesOf(failed, asPrinted(document)).map(({ line, says }) => `line ${line}: ${says}`);
  const more = places.length - MAX_PLACES;
  return more > 0 ? [...places.slice(0, MAX_PLACES), `and ${more} more`] : places;
}

function placesOf({ reason, child }: Pick<Failed, 'reason' | 'child'>, checked: Checked): Place[] {
  switch (reason) {
    case 'NO_PROPOSAL_CHOSEN':
    case 'INVALID_KE_PAYLOAD':
      // For a child the modes may differ, too.
      return child === undefined ? proposals(checked, 'ike') : [...proposals(checked, 'esp'), ...rules(checked, child)];
    case 'TS_UNACCEPTABLE':
    case 'SINGLE_PAIR_REQUIRED':
      return rules(checked, child);
    case 'AUTHENTICATION_FAILED':
    case 'no-signature':
    case 'no-verdict':
      return [idPlace(checked, 'local'), idPlace(checked, 'remote'), ...authPlaces(checked)];
    case 'no-esp-path':
      return [natPlace(checked)];
    case 'no-secret':
      return authPlaces(checked);
    case 'timeout':
    case 'no-route':
      return [endPlace(checked, 'local'), endPlace(checked, 'remote')];
    default:
      return [];
  }
}

function proposals(checked: Checked, kind: 'ike' | 'esp'): Place[] {
  return proposalsOf(checked, kind).map((_, index) => proposalPlace(checked, kind, index));
}

/** Of one child; as responder any of them may have been meant. */
function rules(checked: Checked, child: string | undefined): Place[] {
  const all = toChildren(checked.document);
  return all.filter(({ name }) => child === undefined || name === child).map((rule) => rulePlace(checked, rule));
}

function authPlaces(checked: Checked): Place[] {
  return checked.document.sa.auths.map((auth) => authPlace(checked, auth));
}
