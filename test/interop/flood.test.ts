/**
 * A gateway under floods of senders that have not authenticated: its established tunnels and its control socket. The
 * figures are those that it is to keep at 20,000 packets a second; `npm run bench -- flood` takes longer, and prints them.
 */
import { expect, it } from 'vitest';
import { describeInterop } from '../support/lab/requirements.ts';
import { useLab } from '../support/lab/use-lab.ts';
import { FLOODS, FloodRig, RATE, shortcomings } from './preauth-flood.ts';

/** Of each flood. */
const SECONDS = 2;

describeInterop(`a gateway under ${RATE} packets a second from strangers`, ['namespaces', 'build'], () => {
  let rig: FloodRig;

  useLab(async (lab) => {
    rig = await FloodRig.build(lab);
    // What has never run is slow, and has to be compiled.
    await rig.run('cookies', 1);
  });

  it.each(FLOODS)('keeps its tunnels and answers commands: %s', { retry: 2, timeout: 120_000 }, async (kind) => {
    const figures = await rig.run(kind, SECONDS);
    expect(shortcomings(figures), JSON.stringify(figures, undefined, 1)).toEqual([]);
    expect(figures.childRekeys).toBeGreaterThan(0);
  });
});
