/** Loaded into a daemon by `node --import`: SIGWINCH collects all garbage of the main thread. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
process.on('SIGWINCH', runInNewContext('gc') as () => void);
