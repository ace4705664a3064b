/**
 * `npm run demo`: the seed's own document becomes a working tunnel. As root in two network namespaces with a daemon
 * each; without root in one process with devices in memory. Leaves nothing behind; the last line counts what was proved.
 */
import { Checks } from './demo/checks.ts';
import { memoryDemo } from './demo/memory.ts';
import { namespaceDemo, whyNotHere } from './demo/namespaces.ts';

const checks = new Checks();
const obstacle = whyNotHere();
try {
  if (obstacle === undefined) {
    await namespaceDemo(checks);
  } else {
    process.stdout.write(`demo: ${obstacle}; the same runs in one process, with devices in memory\n`);
    await memoryDemo(checks);
  }
} catch (error) {
  checks.check('the demo ran to its end', false, error instanceof Error ? error.message : String(error));
}
process.stdout.write(`\n${checks.summary()}\n`);
process.exit(checks.failed === 0 ? 0 : 1);
