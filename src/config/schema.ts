/**
 * The RELAX NG schema, as a net behind the checks that explain themselves: nothing is accepted that
 * `schema/sectunnel.rng` does not allow. Read and compiled when it is first needed, then kept.
 */
import { readFileSync } from 'node:fs';
import { RelaxNGValidator, XmlDocument, XmlValidateError } from 'libxml2-wasm';
import type { DocumentIssue } from './errors.ts';

/** The same from `src/config` and from `dist/config` of an installed package. */
const SCHEMA_FILE = new URL('../../schema/sectunnel.rng', import.meta.url);

let compiled: RelaxNGValidator | undefined;

function validator(): RelaxNGValidator {
  if (compiled === undefined) {
    const schema = XmlDocument.fromBuffer(readFileSync(SCHEMA_FILE));
    try {
      compiled = RelaxNGValidator.fromDoc(schema);
    } finally {
      schema.dispose();
    }
  }
  return compiled;
}

/** What the schema has against a document; `undefined` when nothing. */
export function checkSchema(document: XmlDocument): DocumentIssue | undefined {
  try {
    validator().validate(document);
    return undefined;
  } catch (error) {
    if (!(error instanceof XmlValidateError)) throw error;
    // libxml2 reports the innermost error first, then those that follow from it further out; not each has a line.
    const where = error.details.find(({ xpath }) => xpath !== undefined);
    const path = where?.xpath ?? '/';
    const reason = (error.details[0]?.message ?? error.message).trim().replace(/\s+/g, ' ');
    return {
      kind: 'invalid',
      line: where === undefined ? undefined : where.line & 0xffff,
      path,
      element: /([^/[\]]+)(\[[0-9]+\])?$/.exec(path)?.[1] ?? '',
      attribute: undefined,
      found: undefined,
      allowed: undefined,
      message: `it does not fit schema/sectunnel.rng: ${reason}`,
    };
  }
}
