/**
 * Reads the definitions again, so that the daemon knows of what stands on the disk what it would know after a restart. Nothing
 * that works is lost by it: of a file that is wrong what was known stays, and tunnels that run, or are to run, go on.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Logger } from '../base/log.ts';
import { differencesOf } from '../config/differences.ts';
import type { SectunnelDocument } from '../config/model.ts';
import { sameDocument } from '../config/same-document.ts';
import type { Reloaded, ReloadResult, TunnelEvent } from '../control/results.ts';
import { renewalOf } from '../plan/renewal.ts';
import type { Advice } from './advice.ts';
import type { Autostart } from './autostart.ts';
import { BROKEN_AUTOSTART, type Catalog } from './store/catalog.ts';
import type { Definitions } from './store/definitions.ts';
import type { Reading } from './store/readings.ts';

export interface ReloadParts {
  readonly catalog: Catalog;
  readonly autostart: Autostart;
  readonly log: Logger;
  readonly advice: Advice;
  /** Whether a tunnel does not run and is to run again. */
  readonly isRetrying: (name: string) => boolean;
  readonly publish: (event: Omit<TunnelEvent, 'time'>) => void;
}

/** A document that is taken over, and the one before it. */
interface Taken {
  readonly document: SectunnelDocument;
  readonly file: string;
  readonly before: SectunnelDocument | undefined;
}

/** What is found while it goes; the lists grow. */
interface Findings {
  readonly taken: Taken[];
  readonly forgotten: Reloaded[];
  readonly problems: string[];
  unchanged: number;
}

/**
 * For one caller at a time, and none that changes tunnels meanwhile.
 * @throws SectunnelError with nothing changed when the folder cannot be read
 */
export async function reloadDefinitions(parts: ReloadParts): Promise<ReloadResult> {
  const { catalog, log, publish } = parts;
  const { definitions } = catalog;
  const found = takeAll(definitions, await readAll(catalog), parts.isRetrying);
  for (const { name } of found.forgotten) publish({ tunnel: name, event: 'undefined', detail: 'its file is gone' });
  for (const { document, file } of found.taken) {
    publish({ tunnel: document.name, event: 'defined', detail: `read from ${file}` });
  }
  startReadable(parts, found.taken);
  const result = await resultOf(parts, definitions, found);
  tell(log, result);
  return result;
}

/** What `reloadDefinitions` would do now, of which it does nothing. @throws SectunnelError as that */
export async function planReload(parts: ReloadParts): Promise<ReloadResult> {
  const { catalog } = parts;
  const tried = catalog.definitions.copy();
  return await resultOf(parts, tried, takeAll(tried, await readAll(catalog), parts.isRetrying));
}

async function resultOf(parts: ReloadParts, definitions: Definitions, found: Findings): Promise<ReloadResult> {
  const { taken, forgotten, unchanged, problems } = found;
  const documents = taken.map(({ document }) => document);
  return {
    defined: taken.flatMap(({ document, before }) => (before === undefined ? [document.name] : [])),
    changed: taken.flatMap(({ document, before }) => {
      if (before === undefined) return [];
      const { name } = document;
      const live = definitions.objects.get(name)?.live;
      const differences = differencesOf(before, document);
      return [{ name, active: live !== undefined, differences, renewal: live && renewalOf(live, document) }];
    }),
    ...{ forgotten, unchanged, problems },
    warnings: await warningsOf(parts, definitions, documents),
  };
}

/** Thousands of documents take seconds: packets and peers have their turn in between. */
async function readAll(catalog: Catalog): Promise<Reading[]> {
  const readings: Reading[] = [];
  for (const reading of catalog.readDefinitions()) {
    readings.push(reading);
    await nextTurn();
  }
  return readings;
}

function takeAll(
  definitions: Definitions,
  readings: readonly Reading[],
  isRetrying: ReloadParts['isRetrying'],
): Findings {
  const found: Findings = { taken: [], forgotten: [], problems: [], unchanged: 0 };
  // First, as another file may have taken over the UUID.
  forgetMissing(definitions, new Set(readings.map(({ name }) => name)), { found, isRetrying });
  for (const reading of readings) takeOver(definitions, reading, found);
  return found;
}

/** Of one that is to run nothing is forgotten: with its document the fence would go, or stand without an owner. */
function forgetMissing(
  definitions: Definitions,
  there: ReadonlySet<string>,
  { found, isRetrying }: Pick<ReloadParts, 'isRetrying'> & { readonly found: Findings },
): void {
  for (const object of definitions.objects.all()) {
    const { name, persistent, live } = object;
    if (persistent === undefined || there.has(name)) continue;
    if (isRetrying(name)) {
      found.problems.push(
        `the file of tunnel ${name} is gone, but the tunnel is waiting to retry: it stays defined until 'sectunnel undefine ${name}'`,
      );
      continue;
    }
    definitions.drop(object);
    found.forgotten.push({ name, active: live !== undefined });
  }
}

function takeOver(definitions: Definitions, reading: Reading, found: Findings): void {
  if ('problem' in reading) {
    found.problems.push(reading.problem);
    return;
  }
  const { document, file } = reading;
  const before = definitions.objects.get(document.name)?.persistent;
  if (before !== undefined && sameDocument(before, document)) {
    found.unchanged++;
    return;
  }
  const problem = definitions.take(document);
  if (problem === undefined) found.taken.push({ document, file, before });
  else found.problems.push(`${file}: ${problem}`);
}

/** What was to run and had no document, or one with which it could not start, is tried when all is done that waits before. */
function startReadable({ catalog, autostart }: ReloadParts, taken: readonly Taken[]): void {
  for (const { document } of taken) {
    const { name } = document;
    if (catalog.unreadable.has(name)) void autostart.begin(name);
    else autostart.hurry(name);
  }
}

async function warningsOf(
  { catalog, advice }: ReloadParts,
  { index }: Definitions,
  documents: readonly SectunnelDocument[],
): Promise<string[]> {
  const warnings = catalog.brokenAutostarts().map((name) => `${name}: ${BROKEN_AUTOSTART}`);
  for (const document of documents) {
    const { refusal, warnings: overlaps } = advice.overlaps(document, index);
    const own = [...(await advice.allWarnings(document, index)), ...(refusal === undefined ? overlaps : [refusal])];
    warnings.push(...own.map((text) => `${document.name}: ${text}`));
  }
  return warnings;
}

function tell(log: Logger, { defined, changed, forgotten, unchanged, problems, warnings }: ReloadResult): void {
  for (const text of warnings) log.warn({}, text);
  for (const text of problems) log.error({}, `definition not read, the previous one stays: ${text}`);
  log.info(
    {
      defined,
      changed: changed.map(({ name }) => name),
      forgotten: forgotten.map(({ name }) => name),
      unchanged,
      problems: problems.length,
    },
    'the definitions were read again',
  );
}
