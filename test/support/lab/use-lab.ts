/** The laboratory of a test file. */
import { afterAll, beforeAll, beforeEach } from 'vitest';
import { showLogsOnFailure } from './failure.ts';
import { Lab } from './lab.ts';

const BUILD_TIMEOUT = 120_000;
const DISPOSE_TIMEOUT = 60_000;

/** Builds one before the first test and removes it after the last; a test that fails shows what its programs logged. */
export function useLab(build: (lab: Lab) => Promise<void>, timeout: number = BUILD_TIMEOUT): void {
  let lab: Lab;
  beforeAll(async () => {
    lab = new Lab();
    await build(lab);
  }, timeout);
  afterAll(() => lab.dispose(), DISPOSE_TIMEOUT);
  beforeEach(() => showLogsOnFailure(lab));
}
