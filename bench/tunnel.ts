/**
 * `npm run bench -- tunnel` (as root): ours, strongSwan's userspace ESP, wireguard-go and the bare cable between two
 * network namespaces, in turn, for some rounds. bench/README.md tells what is measured how.
 */
import { loadavg } from 'node:os';
import type { BenchOptions, BenchReport } from './row.ts';
import { usable } from './system.ts';
import { FULL, QUICK, type Sample, takeTurn } from './tunnel/measures.ts';
import { tunnelPanels, tunnelRows, tunnelTable, wantedTable } from './tunnel/report.ts';
import { allSystems, SUITE, versions } from './tunnel/systems.ts';
import { leastDisturbed } from './tunnel/undisturbed.ts';

export async function tunnelBench(options: BenchOptions): Promise<BenchReport> {
  const failures: string[] = [];
  const systems = usable(allSystems(), options.only, failures);
  const load = loadavg()[0]!;
  const pace = options.quick ? QUICK : FULL;
  const rounds = options.quick ? 1 : options.rounds;
  const samples = new Map<string, Sample[]>(systems.map(({ name }) => [name, []]));
  for (let round = 0; round < rounds; round++) {
    // Back and forth, so that a drift during a round favours no system.
    for (const system of round % 2 === 0 ? systems : [...systems].reverse()) {
      const step = (what: string): string => `round ${round + 1} of ${rounds}, ${system.name}, ${what}`;
      const take = (): Promise<Sample> =>
        takeTurn(system, {
          pace,
          onStep: (what) => progress(step(what)),
          onFailure: (what, why) => {
            progress(`${step(what)} failed: ${why}`);
            failures.push(`${step(what)}: ${why.split('\n')[0]}`);
          },
        });
      const onDisturbed = (stolen: number): void => progress(step(`again: the host took ${stolen.toFixed()} %`));
      samples.get(system.name)?.push(options.quick ? await take() : await leastDisturbed(take, onDisturbed));
    }
  }
  return {
    rows: tunnelRows(samples),
    conditions: { ...(await versions()), suite: SUITE, rounds: String(rounds), 'load before': load.toFixed(2) },
    text: `${tunnelTable(samples)}\n\n${wantedTable(samples)}`,
    panels: tunnelPanels(samples),
    failures,
  };
}

function progress(text: string): void {
  process.stderr.write(`${text}\n`);
}
