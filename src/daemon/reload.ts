/**
 * Reads the definitions again, so that the daemon knows of what stands on the disk what it would know after a restart. Nothing
 * that works is lost by it: of a file that is wrong what was known stays, and tunnels that run, or are to run, go on.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Logger } from '../base/log.ts';
import { sameDocument } from '../config/dump.ts';
import type { SectunnelDocument } from '../config/model.ts';
import type { Reloaded, ReloadResult, TunnelEvent } from '../control/results.ts';
import type { overlapsWhenKept } from '../plan/overlaps.ts';
import type { Autostart } from './autostart.ts';
import { BROKEN_AUTOSTART, type Catalog } from './store/catalog.ts';
import type { Reading } from './store/readings.ts';

export interface ReloadParts {
  readonly catalog: Catalog;
  readonly autostart: Autostart;
  readonly log: Logger;
  /** Whether a tunnel does not run and is to run again. */
  readonly isRetrying: (name: string) => boolean;
  /** What a document and those of other tunnels both claim. */
  readonly overlapsOf: (document: SectunnelDocument) => ReturnType<typeof overlapsWhenKept>;
  /** What a person should know of a document. */
  readonly warningsOf: (document: SectunnelDocument) => Promise<readonly string[]>;
  readonly publish: (event: Omit<TunnelEvent, 'time'>) => void;
}

/** What is found while it goes; the lists grow. */
interface Findings {
  readonly defined: SectunnelDocument[];
  readonly changed: SectunnelDocument[];
  readonly forgotten: Reloaded[];
  readonly problems: string[];
  unchanged: number;
}

/**
 * For one caller at a time, and none that changes tunnels meanwhile.
 * @throws SectunnelError with nothing changed when the folder cannot be read
 */
export async function reloadDefinitions(parts: ReloadParts): Promise<ReloadResult> {
  const readings = await readAll(parts.catalog);
  const found: Findings = { defined: [], changed: [], forgotten: [], problems: [], unchanged: 0 };
  // First, as another file may have taken over the UUID.
  forgetMissing(parts, new Set(readings.map(({ name }) => name)), found);
  for (const reading of readings) takeOver(parts, reading, found);
  startReadable(parts, [...found.defined, ...found.changed]);
  const warnings = await warningsOf(parts, [...found.defined, ...found.changed]);
  const isActive = (name: string): boolean => parts.catalog.objects.get(name)?.live !== undefined;
  const result: ReloadResult = {
    ...found,
    defined: found.defined.map(({ name }) => name),
    changed: found.changed.map(({ name }) => ({ name, active: isActive(name) })),
    warnings,
  };
  tell(parts.log, result);
  return result;
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

/** Of one that is to run nothing is forgotten: with its document the fence would go, or stand without an owner. */
function forgetMissing(
  { catalog, isRetrying, publish }: ReloadParts,
  there: ReadonlySet<string>,
  found: Findings,
): void {
  for (const object of catalog.objects.all()) {
    const { name, persistent, live } = object;
    if (persistent === undefined || there.has(name)) continue;
    if (isRetrying(name)) {
      found.problems.push(
        `the file of tunnel ${name} is gone, but the tunnel is waiting to retry: it stays defined until 'sectunnel undefine ${name}'`,
      );
      continue;
    }
    catalog.dropPersistent(object);
    found.forgotten.push({ name, active: live !== undefined });
    publish({ tunnel: name, event: 'undefined', detail: 'its file is gone' });
  }
}

function takeOver({ catalog, publish }: ReloadParts, reading: Reading, found: Findings): void {
  if ('problem' in reading) {
    found.problems.push(reading.problem);
    return;
  }
  const { document, file } = reading;
  const known = catalog.objects.get(document.name)?.persistent;
  if (known !== undefined && sameDocument(known, document)) {
    found.unchanged++;
    return;
  }
  const problem = catalog.takePersistent(document);
  if (problem !== undefined) {
    found.problems.push(`${file}: ${problem}`);
    return;
  }
  (known === undefined ? found.defined : found.changed).push(document);
  publish({ tunnel: document.name, event: 'defined', detail: `read from ${file}` });
}

/** What was to run and had no document, or one with which it could not start, is tried when all is done that waits before. */
function startReadable({ catalog, autostart }: ReloadParts, documents: readonly SectunnelDocument[]): void {
  for (const { name } of documents) {
    if (catalog.unreadable.has(name)) void autostart.begin(name);
    else autostart.hurry(name);
  }
}

async function warningsOf(
  { catalog, warningsOf: ownWarnings, overlapsOf }: ReloadParts,
  documents: readonly SectunnelDocument[],
): Promise<string[]> {
  const warnings = catalog.brokenAutostarts().map((name) => `${name}: ${BROKEN_AUTOSTART}`);
  for (const document of documents) {
    const { refusal, warnings: overlaps } = overlapsOf(document);
    const own = [...(await ownWarnings(document)), ...(refusal === undefined ? overlaps : [refusal])];
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
