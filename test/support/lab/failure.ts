import { onTestFailed } from 'vitest';
import type { Lab } from './lab.ts';

/** To be called in a test: if it fails, what the lab's programs logged since, and how its hosts are, go to standard error. */
export function showLogsOnFailure(lab: Lab): void {
  const logs = lab.logsSince();
  onTestFailed(async () => {
    process.stderr.write(logs());
    process.stderr.write(await lab.inspections());
  });
}
