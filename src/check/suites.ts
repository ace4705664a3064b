/** Which algorithms two documents settle on, or what keeps them apart (RFC 7296 §2.7, §3.3). */

import {
  type ChildExchange,
  chooseEsp,
  chooseIke,
  espWireProposals,
  ikeWireProposals,
} from '../ike/proposals/proposals.ts';
import { compareProposals, type ProposalComparison } from '../ike/proposals/report.ts';
import type { WireProposal } from '../ike/wire/payloads/sa.ts';
import { proposalPlace, proposalsOf } from './places.ts';
import type { Checked, Finding } from './report.ts';

/** Any that is not reserved: nothing is sent. */
const SOME_SPI = Uint8Array.of(0, 0, 1, 0);

export function checkSuites(a: Checked, b: Checked): Finding[] {
  return [...checkIke(a, b), ...checkEsp(a, b)];
}

/** What one side offers and the other has. Which side begins makes no difference to whether they agree. */
function checkIke(a: Checked, b: Checked): Finding[] {
  const offered = ikeWireProposals(a.document.sa.ike.proposals);
  const configured = b.document.sa.ike.proposals;
  if (chooseIke(offered, configured, 'ike-sa-init') !== undefined) return [];
  const { message, places, change } = apart(a, b, 'ike', offered, 'ike');
  return [
    {
      level: 'error',
      topic: 'ike-proposal',
      message: `the two have no IKE proposal in common: ${message}`,
      places,
      change,
    },
  ];
}

function checkEsp(a: Checked, b: Checked): Finding[] {
  const agreed = (exchange: ChildExchange): WireProposal[] | undefined => {
    const offered = espWireProposals(a.document.sa.esp.proposals, exchange, SOME_SPI);
    return chooseEsp(offered, b.document.sa.esp.proposals, exchange) === undefined ? offered : undefined;
  };
  const first = agreed('ike-auth');
  if (first !== undefined) {
    const { message, places, change } = apart(a, b, 'esp', first, 'ike-auth');
    return [
      {
        level: 'error',
        topic: 'esp-proposal',
        message: `the two have no ESP proposal in common: ${message}`,
        places,
        change,
      },
    ];
  }
  const later = agreed('create-child');
  if (later === undefined) return [];
  const { message, places, change } = apart(a, b, 'esp', later, 'create-child');
  const what = `the first CHILD SA comes up, since it is negotiated without a DH group, but it cannot be rekeyed and no second one can be made: ${message}`;
  return [{ level: 'error', topic: 'esp-proposal', message: what, places, change }];
}

/** What separates the two proposals that come closest. */
function apart(
  a: Checked,
  b: Checked,
  kind: 'ike' | 'esp',
  offered: readonly WireProposal[],
  exchange: 'ike' | ChildExchange,
): Pick<Finding, 'message' | 'places' | 'change'> {
  const configured = proposalsOf(b, kind);
  const compared = compareProposals(offered, configured, exchange);
  const least = compared.reduce<ProposalComparison | undefined>(
    (best, next) => (best === undefined || next.differences.length < best.differences.length ? next : best),
    undefined,
  );
  const at = least === undefined ? 0 : compared.indexOf(least);
  const differences = least?.differences ?? [];
  const words = differences.map(
    (found) => `${found.label} is ${found.offered} in ${a.title} and ${found.configured} in ${b.title}`,
  );
  const many = offered.length > 1 || configured.length > 1;
  // The side that lacks something should add it, rather than the other drop it.
  const inA = differences.every((found) => found.configured !== 'none');
  const changes = differences.map(({ label, ...has }) => attribute(label, inA ? has.configured : has.offered));
  return {
    message: `${many ? 'of the two closest proposals, ' : ''}${words.join('; ')}`,
    places: [proposalPlace(a, kind, least?.closest ?? 0), proposalPlace(b, kind, at)],
    change: `make them the same: ${changes.join(' ')} in the <proposal> of ${inA ? a.title : b.title}, or change the other document`,
  };
}

/** As it would be written: several names with spaces between, and none not at all. */
function attribute(label: string, names: string): string {
  return names === 'none' ? `no ${label}` : `${label}='${names.replaceAll(', ', ' ')}'`;
}
