/**
 * Suites that need more than Node. One that cannot run names what is missing in the report and is skipped; with
 * SECTUNNEL_REQUIRE_INTEROP=1 it fails instead.
 */
import { describe, it } from 'vitest';
import { missing, type Need } from './needs.ts';

/** A `describe` that runs only where its needs are met. */
export function describeInterop(name: string, needs: readonly Need[], body: () => void): void {
  const reasons = missing(needs);
  if (reasons.length === 0) {
    describe(name, body);
    return;
  }
  const reason = reasons.join('; ');
  if (process.env.SECTUNNEL_REQUIRE_INTEROP === '1') {
    it(`${name}: can run`, () => {
      throw new Error(`SECTUNNEL_REQUIRE_INTEROP=1, but ${reason}`);
    });
  } else {
    describe.skip(`${name} (not run: ${reason})`, body);
  }
}
