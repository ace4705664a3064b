/** What a program asks of SAs that are replaced while it is asked. */
import { expect, it } from 'vitest';
import { Operations } from '../../src/host/operations.ts';
import { enginePair, opposite, tunnel } from '../support/engine-net.ts';

it.each<[who: 'a' | 'b', how: string]>([
  ['a', 'and the question waits behind that'],
  ['b', 'and the question is lost'],
])('the peer of an IKE SA that %s rekeys (%s) is asked on the one that takes its place', async (who) => {
  const test = enginePair({ a: tunnel({ start: 'initiate' }), b: opposite(tunnel()) });
  const { net, a } = test;
  net.run(3_000);
  const [before] = a.engine.ike.status();
  let seen = a.events.length;
  const operations = new Operations({ engine: a.engine, now: () => net.now, drain: () => drain() });
  const drain = (): void => {
    net.drain(a);
    while (seen < a.events.length) operations.happened(a.events[seen++]!);
  };
  if (who === 'a') net.act(a, ({ ike }, now) => ike.rekeyIkeSa(now, before!.id));
  else net.filter = () => false;
  const asked = operations.check('t');
  net.filter = () => true;
  const [theirs] = test.b.engine.ike.status();
  if (who === 'b') net.act(test.b, ({ ike }, now) => ike.rekeyIkeSa(now, theirs!.id));
  for (let step = 0; step < 100; step++) {
    net.run(10);
    drain();
  }
  const [after] = a.engine.ike.status();
  expect(after!.id).not.toBe(before!.id);
  expect(await asked).toEqual([{ ikeSaId: after!.id, remote: '192.0.2.2:4500', after: 20, detail: '' }]);
});
