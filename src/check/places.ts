/** The lines of a document that have a say in a matter, and what each says with its defaults filled in. */
import { IKE_PORT } from '../base/ports.ts';
import type { AuthSettings, IdentityText } from '../config/model.ts';
import type { ChildPlan } from '../config/selectors.ts';
import { peerAddressText } from '../config/text.ts';
import type { EspProposal, IkeProposal } from '../crypto/proposal.ts';
import { formatProposal } from '../crypto/proposal-text.ts';
import { formatSelectorPair } from '../policy/selector.ts';
import { type Checked, lineOf, type Place, placeIn } from './report.ts';

export function endPlace(checked: Checked, which: 'local' | 'remote'): Place {
  const { address, port, line } = checked.document.sa[which];
  const ported = port === IKE_PORT ? '' : ` port='${port}'`;
  return placeIn(checked, line, `<${which} address='${peerAddressText(address)}'${ported}>`);
}

export function natPlace(checked: Checked): Place {
  const { nat, line } = checked.document.sa.ike;
  const says = `<nat traversal='${nat.traversal}' encapsulation='${nat.encapsulation}' port='${nat.port}'>`;
  return placeIn(checked, lineOf(checked, 'sa/ike/nat', line), says);
}

export function idText({ type, text }: IdentityText): string {
  return `${type} '${text}'`;
}

export function idElement({ type, text }: IdentityText): string {
  return `<id type='${type}'>${text}</id>`;
}

export function idPlace(checked: Checked, which: 'local' | 'remote'): Place {
  const { id, line } = checked.document.sa[which];
  const own = checked.lines.get(`sa/${which}/id`);
  if (own !== undefined && id !== undefined) return placeIn(checked, own[0]!, idElement(id));
  const says = id === undefined ? `<${which}> without an <id>` : `<${which}>, whose address stands for ${idText(id)}`;
  return placeIn(checked, line, says);
}

export function authPlace(checked: Checked, { type, side, line }: AuthSettings): Place {
  const sided = side === 'both' ? '' : ` side='${side}'`;
  return placeIn(checked, lineOf(checked, 'secret', line), `<auth type='${type}'${sided}>`);
}

export function proposalsOf(
  { document: { sa } }: Checked,
  kind: 'ike' | 'esp',
): readonly (IkeProposal | EspProposal)[] {
  return kind === 'ike' ? sa.ike.proposals : sa.esp.proposals;
}

export function proposalPlace(checked: Checked, kind: 'ike' | 'esp', index: number): Place {
  const { sa } = checked.document;
  const written = checked.lines.has(`sa/${kind}/proposal`);
  const line = lineOf(checked, `sa/${kind}/proposal`, sa[kind].line, index);
  const names = formatProposal(proposalsOf(checked, kind)[index]!);
  return placeIn(
    checked,
    line,
    written ? `<proposal> ${names}` : `<${kind}> without a <proposal>: by default ${names}`,
  );
}

export function rulePlace(checked: Checked, { name, mode, selectors, line }: ChildPlan): Place {
  return placeIn(checked, line, `<rule mode='${mode}'> of '${name}': ${formatSelectorPair(selectors)}`);
}
