/** Whether each end believes the other: identities and the ways to prove them (RFC 7296 §2.15, §3.5). */
import { type Identity, identityFromText, sameIdentity } from '../base/identity.ts';
import type { AuthSettings, IdentityText } from '../config/model.ts';
import { authPlace, idElement, idPlace, idText } from './places.ts';
import { type Checked, type Finding, lineOf, type Place, placeIn } from './report.ts';

/** Whether a distinguished name, DER, fits a pattern of `<allow>`: known to those who know certificates. */
export type DnMatcher = (name: Uint8Array, pattern: string) => boolean;

export function checkAuthentication(a: Checked, b: Checked, matches: DnMatcher): Finding[] {
  return [
    ...checkIdentity(a, b),
    ...checkIdentity(b, a),
    ...checkMethod(a, b),
    ...checkMethod(b, a),
    ...checkAllowed(a, b, matches),
    ...checkAllowed(b, a, matches),
    ...remarks(a, b),
  ];
}

/** Whether `judge` wants the identity that `prover` has. */
function checkIdentity(prover: Checked, judge: Checked): Finding[] {
  const said = prover.document.sa.local.id;
  const wanted = judge.document.sa.remote.id;
  if (wanted === undefined) return [];
  const places = [idPlace(prover, 'local'), idPlace(judge, 'remote')];
  if (said === undefined) {
    if (methodOf(prover, 'local')?.type !== 'x509') {
      const message = `${prover.title} states no identity, and ${judge.title} expects ${idText(wanted)}`;
      const change = `write ${idElement(wanted)} in <local> of ${prover.title}`;
      return [{ level: 'error', topic: 'identity', message, places, change }];
    }
    const message = `${prover.title} takes its identity from its certificate, and ${judge.title} expects ${idText(wanted)}: the documents do not show whether these are the same`;
    const change = `run 'sectunnel pki-check ${prover.document.name}' where ${prover.title} is defined`;
    return [{ level: 'note', topic: 'identity', message, places, change }];
  }
  if (sameIdentity(identity(said), identity(wanted))) return [];
  const message = `${prover.title} identifies itself as ${idText(said)}, and ${judge.title} expects ${idText(wanted)}`;
  const change = `write ${idElement(said)} in <remote> of ${judge.title}, or ${idElement(wanted)} in <local> of ${prover.title}`;
  return [{ level: 'error', topic: 'identity', message, places, change }];
}

function identity({ type, text }: IdentityText): Identity {
  return identityFromText(type, text);
}

function methodOf({ document }: Checked, which: 'local' | 'remote'): AuthSettings | undefined {
  return document.sa.auths.find(({ side }) => side === 'both' || side === which);
}

/** Whether `judge` wants the kind of proof that `prover` gives. */
function checkMethod(prover: Checked, judge: Checked): Finding[] {
  const given = methodOf(prover, 'local');
  const wanted = methodOf(judge, 'remote');
  if (given === undefined || wanted === undefined || given.type === wanted.type) return [];
  const name = (auth: AuthSettings): string => (auth.type === 'psk' ? 'a pre-shared key' : 'a certificate');
  const message = `${prover.title} authenticates with ${name(given)}, and ${judge.title} expects ${name(wanted)}`;
  const places = [authPlace(prover, given), authPlace(judge, wanted)];
  const change = `write <auth type='${wanted.type}'> for the local side of ${prover.title}, or <auth type='${given.type}'> for the remote side of ${judge.title}`;
  return [{ level: 'error', topic: 'authentication', message, places, change }];
}

/** Whether one of the patterns of `judge` lets the name of `prover` pass, where that is a distinguished name. */
function checkAllowed(prover: Checked, judge: Checked, matches: DnMatcher): Finding[] {
  const { id } = prover.document.sa.local;
  const wanted = methodOf(judge, 'remote');
  if (id?.type !== 'dn' || wanted?.type !== 'x509' || wanted.x509.allow.length === 0) return [];
  const name = identity(id).data;
  if (wanted.x509.allow.some((pattern) => matches(name, pattern))) return [];
  const allowed = wanted.x509.allow.map((pattern, index) =>
    placeIn(judge, lineOf(judge, 'sa/auth/x509/allow', wanted.line, index), `<allow dn='${pattern}'>`),
  );
  const message = `${prover.title} identifies itself as ${idText(id)}, which matches no <allow> of ${judge.title}`;
  const change = `add <allow dn='${id.text}'/> to ${judge.title}, or correct the pattern`;
  return [{ level: 'error', topic: 'authentication', message, places: [idPlace(prover, 'local'), ...allowed], change }];
}

/** What the documents do not hold. */
function remarks(a: Checked, b: Checked): Finding[] {
  const all = [a, b].flatMap((checked) => checked.document.sa.auths.map((auth) => ({ checked, auth })));
  const psk = all.filter(({ auth }) => auth.type === 'psk');
  const x509 = all.filter(({ auth }) => auth.type === 'x509');
  const placesOf = (of: typeof all): Place[] => of.map(({ checked, auth }) => authPlace(checked, auth));
  const note = (message: string, of: typeof all, change: string): Finding[] =>
    of.length === 0 ? [] : [{ level: 'note', topic: 'authentication', message, places: placesOf(of), change }];
  return [
    ...note('the pre-shared key is not in the documents: both sides must hold the same', psk, ''),
    ...note(
      'certificates were not checked: files, authorities and dates',
      x509,
      "run 'sectunnel pki-check' on both sides",
    ),
  ];
}
