/** V8's precise block coverage of the sources, as bytes of code that have run: what leads the search. */

import type { Profiler } from 'node:inspector';
import { Session } from 'node:inspector';

interface Seen {
  /** By the offset in the function: whether the byte has run. */
  readonly bytes: Uint8Array;
  covered: number;
}

export class Coverage {
  readonly #session = new Session();
  readonly #sources: RegExp;
  /** By script and place of the function. */
  readonly #functions = new Map<string, Seen>();

  /** @param sources the files that lead the search, by their addresses */
  constructor(sources: RegExp) {
    this.#sources = sources;
  }

  /** From now on the process counts. */
  start(): void {
    this.#session.connect();
    this.#session.post('Profiler.enable');
    this.#session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true });
  }

  stop(): void {
    this.#session.disconnect();
  }

  /** How many functions were entered, and what share of their code has run. */
  summary(): { readonly functions: number; readonly covered: number; readonly share: number } {
    let [covered, total] = [0, 0];
    for (const seen of this.#functions.values()) {
      covered += seen.covered;
      total += seen.bytes.length;
    }
    return { functions: this.#functions.size, covered, share: total === 0 ? 0 : covered / total };
  }

  /** Adds what has run since the last call. @returns how many bytes of code ran for the first time */
  take({ keep = true }: { readonly keep?: boolean } = {}): number {
    let found = 0;
    for (const { scriptId, url, functions } of this.#delta()) {
      if (!this.#sources.test(url)) continue;
      for (const { ranges } of functions) found += this.#add(scriptId, ranges, keep);
    }
    return found;
  }

  /** The inspector of one's own thread answers before `post` returns. */
  #delta(): Profiler.ScriptCoverage[] {
    let result: Profiler.ScriptCoverage[] = [];
    this.#session.post('Profiler.takePreciseCoverage', (error, answer) => {
      if (error !== null) throw error;
      ({ result } = answer);
    });
    return result;
  }

  #add(scriptId: string, ranges: readonly Profiler.CoverageRange[], keep: boolean): number {
    const [whole] = ranges;
    if (whole === undefined || ranges.every(({ count }) => count === 0)) return 0;
    const { startOffset: start, endOffset: end } = whole;
    const key = `${scriptId}:${start}:${end}`;
    const seen = this.#functions.get(key) ?? { bytes: new Uint8Array(end - start), covered: 0 };
    // Ranges are nested, outer ones first.
    const ran = new Uint8Array(end - start);
    for (const { startOffset, endOffset, count } of ranges)
      ran.fill(count > 0 ? 1 : 0, startOffset - start, endOffset - start);
    let found = 0;
    for (let at = 0; at < ran.length; at++) if (ran[at] === 1 && seen.bytes[at] === 0) found++;
    if (keep && found > 0) {
      for (let at = 0; at < ran.length; at++) seen.bytes[at] = seen.bytes[at]! | ran[at]!;
      seen.covered += found;
      this.#functions.set(key, seen);
    }
    return found;
  }
}
