import { onTestFailed } from 'vitest';
import type { Lab } from './lab.ts';

/** To be called in a test: if it fails, what the lab's programs logged since goes to standard error. */
export function showLogsOnFailure(lab: Lab): void {
  const logs = lab.logsSince();
  onTestFailed(() => {
    process.stderr.write(logs());
  });
}
