/** What must hold between two endpoints that are at rest. */
import { expect } from 'vitest';
import { toHex } from '../../src/base/bytes.ts';
import type { ChildSa } from '../../src/ike/events.ts';
import type { Host, Pair } from './ike-pair.ts';

interface View {
  readonly spis: string;
  readonly suite: string;
  readonly keys: string;
}

/** A CHILD SA as its other side must see it too. */
function view(child: ChildSa, turned: boolean): View {
  const [spiIn, spiOut] = turned ? [child.spiOut, child.spiIn] : [child.spiIn, child.spiOut];
  const [keysIn, keysOut] = turned ? [child.keysOut, child.keysIn] : [child.keysIn, child.keysOut];
  return {
    spis: `${spiIn} ${spiOut}`,
    suite: `${child.suite.encryption.name} ${child.suite.integrity?.name} ${child.dhGroup} ${child.esn} ${child.mode}`,
    keys: `${toHex(keysIn.encryption)} ${toHex(keysIn.integrity)} ${toHex(keysOut.encryption)} ${toHex(keysOut.integrity)}`,
  };
}

function views(host: Host, turned: boolean): View[] {
  return [...host.children.values()].map((child) => view(child, turned)).sort((x, y) => x.spis.localeCompare(y.spis));
}

/** Both sides have the same IKE SAs and the same CHILD SAs, with the same keys, and send on the same one. */
export function expectSame(pair: Pair, children: number, ikeSas = 1): void {
  const { a, b } = pair;
  expect(views(a, false)).toEqual(views(b, true));
  expect(a.children.size).toBe(children);
  for (const host of [a, b]) {
    const status = host.endpoint.status().filter((sa) => sa.state !== 'closed');
    expect(status.map((sa) => sa.state)).toEqual(new Array(ikeSas).fill('established'));
    expect(new Set(status.map((sa) => sa.id))).toEqual(host.ikeSas);
    expect(status.flatMap((sa) => sa.children.map((child) => child.id)).sort()).toEqual(
      [...host.children.keys()].sort(),
    );
    expect(host.endpoint.counters().bug).toBe(0);
    const names = new Set([...host.children.values()].map((child) => child.config.name));
    expect(new Set(host.sending.keys())).toEqual(names);
  }
  const spis = (host: Host): string[] =>
    host.endpoint
      .status()
      .filter((sa) => sa.state === 'established')
      .map((sa) => `${sa.spiInitiator} ${sa.spiResponder}`)
      .sort();
  expect(spis(a)).toEqual(spis(b));
  for (const [name, id] of a.sending) {
    const theirs = b.children.get(b.sending.get(name)!)!;
    expect(a.children.get(id)!.spiIn).toBe(theirs.spiOut);
  }
}

/**
 * From now on each side has an SA to send on for each of its children, at every moment, on which the other receives: no
 * packet is lost.
 */
export function expectUnbroken(pair: Pair): void {
  const names = [...pair.a.sending.keys()];
  pair.watch = () => {
    for (const host of [pair.a, pair.b]) {
      for (const name of names) {
        const { spiOut } = host.children.get(host.sending.get(name)!)!;
        const receives = [...pair.peer(host).children.values()].map(({ spiIn }) => spiIn);
        expect(receives, `${host.name} sends ${name} on what the other has not`).toContain(spiOut);
      }
    }
  };
}

/** All is closed by one side, and nothing is left of it. */
export function expectClosed(pair: Pair): void {
  pair.watch = () => {};
  pair.act(pair.a, (endpoint, now) => endpoint.closeConnection(now, 'net'));
  pair.run(61_000);
  expectNothing(pair);
}

/** Nothing is left on either side, not even an SA that lingers. */
export function expectNothing(pair: Pair): void {
  for (const host of [pair.a, pair.b]) {
    expect(host.endpoint.status()).toEqual([]);
    expect(host.children.size).toBe(0);
    expect(host.ikeSas.size).toBe(0);
    expect(host.endpoint.nextTimeout()).toBeUndefined();
    expect(host.endpoint.counters().bug).toBe(0);
  }
}
