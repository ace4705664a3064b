/** Set-ups whose IKE_AUTH does not fit one datagram, for tests and for `npm run bench -- fragments`. */
import { identityFromText } from '../../src/base/identity.ts';
import type { ConnectionConfig } from '../../src/ike/config.ts';
import { connection, Pair } from './ike-pair.ts';

/** A connection whose IKE_AUTH has more than so many bytes in either direction. */
export function large(bytes: number, change: Partial<ConnectionConfig> = {}): ConnectionConfig {
  const { local, remote } = connection();
  const id = (name: string): ReturnType<typeof identityFromText> => identityFromText('keyid', name.repeat(bytes));
  const sized = bytes === 0 ? {} : { local: { ...local, id: id('a') }, remote: { ...remote, id: id('b') } };
  return connection({ ...sized, ...change });
}

/** Both ends after a set-up with so many fragments in IKE_AUTH either way, and so many of all datagrams lost (0 to 1). */
export function lossySetUp(seed: number, fragments: number, loss: number): Pair {
  const pair = new Pair({ seed, a: large(fragments * 240, { fragmentSize: 576 }) });
  pair.delay = () => 5 + pair.random.below(50);
  pair.filter = () => (pair.random.next() < loss ? 'drop' : 'deliver');
  pair.up();
  pair.run(74_000);
  return pair;
}
