/** What `<ike>` and `<esp>` have in common: proposals and lifetimes. */
import { ProposalError } from '../crypto/proposal-text.ts';
import { completeLifetime, type LifetimeDefault } from './defaults.ts';
import { quote } from './errors.ts';
import type { Issues } from './issues.ts';
import type { LifetimeSettings } from './model.ts';
import { attributeOf, MAX_U32, readInteger } from './values.ts';
import { childElements, type XmlNode } from './xml.ts';

type AlgorithmAttribute = 'encryption' | 'integrity' | 'prf' | 'dh' | 'esn';

export function readProposals<T>(
  issues: Issues,
  parent: XmlNode,
  parse: (text: Partial<Record<AlgorithmAttribute, string>>) => T,
): T[] {
  return childElements(parent, 'proposal').flatMap((node) => {
    const text: Partial<Record<AlgorithmAttribute, string>> = {};
    for (const name of ['encryption', 'integrity', 'prf', 'dh', 'esn'] as const) {
      const value = attributeOf(node, name);
      if (value !== undefined) text[name] = value;
    }
    if (text.encryption === undefined) return [];
    try {
      return [parse(text)];
    } catch (error) {
      if (!(error instanceof ProposalError)) throw error;
      const found = Object.entries(text)
        .map(([name, value]) => `${name}=${quote(value)}`)
        .join(' ');
      issues.add(node, `${found}: ${error.message}`, { found });
      return [];
    }
  });
}

export function readLifetime(issues: Issues, parent: XmlNode | undefined, base: LifetimeDefault): LifetimeSettings {
  const node = parent && childElements(parent, 'lifetime')[0];
  if (node === undefined) return completeLifetime({}, base);
  const soft = readInteger(issues, node, 'soft', { min: 1, max: MAX_U32 });
  const hard = readInteger(issues, node, 'hard', { min: 1, max: MAX_U32 });
  const jitter = readInteger(issues, node, 'jitter', { min: 0, max: MAX_U32 });
  const lifetime = completeLifetime(
    {
      ...(soft === undefined ? {} : { soft }),
      ...(hard === undefined ? {} : { hard }),
      ...(jitter === undefined ? {} : { jitter }),
    },
    base,
  );
  if (lifetime.soft >= lifetime.hard) {
    const why = `rekeying has to begin before the SA ends at hard='${lifetime.hard}'; make soft smaller or hard larger`;
    issues.badValue(node, 'soft', String(lifetime.soft), `less than ${lifetime.hard}`, why);
  } else if (lifetime.jitter >= lifetime.soft) {
    const why = `it is taken off soft='${lifetime.soft}', so it has to be smaller`;
    issues.badValue(node, 'jitter', String(lifetime.jitter), `less than ${lifetime.soft}`, why);
  }
  return lifetime;
}
