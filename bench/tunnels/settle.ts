/** Loaded into a daemon by `node --import`: SIGWINCH collects all garbage of the main thread. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;
// Without arguments: with those of a listener it collects the youngest alone.
process.on('SIGWINCH', () => collect());
