/** `npm run bench -- NAME … [--json FILE]`: runs benchmarks, prints a table, writes the rows for programs. */
import { writeFileSync } from 'node:fs';
import { cpus, release } from 'node:os';
import { parseArgs } from 'node:util';
import { codecBench } from './codec.ts';
import { handshakeBench } from './handshake.ts';
import { offloadBench } from './offload.ts';
import { policyBench } from './policy.ts';
import type { BenchRow } from './row.ts';
import { sealBench } from './seal.ts';

const benches: Readonly<Record<string, () => Promise<BenchRow[]>>> = {
  handshake: handshakeBench,
  codec: codecBench,
  seal: sealBench,
  offload: offloadBench,
  policy: policyBench,
};

function table(rows: readonly BenchRow[]): string {
  const cells = rows.map(({ name, value, unit }) => [name, round(value), unit] as const);
  const widths = [0, 1].map((column) => Math.max(...cells.map((row) => row[column]!.length)));
  return cells
    .map(([name, value, unit]) => `${name.padEnd(widths[0]!)}  ${value.padStart(widths[1]!)} ${unit}`)
    .join('\n');
}

/** Three significant digits, and no more than are there. */
function round(value: number): string {
  return value >= 100 ? Math.round(value).toLocaleString('en-US') : value.toPrecision(3);
}

async function main(argv: readonly string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args: [...argv],
    options: { json: { type: 'string' } },
    allowPositionals: true,
  });
  const names = positionals.length === 0 ? Object.keys(benches) : positionals;
  const unknown = names.filter((name) => !Object.hasOwn(benches, name));
  if (unknown.length > 0) {
    process.stderr.write(`unknown benchmark ${unknown.join(', ')}; wanted: ${Object.keys(benches).join(', ')}\n`);
    return 2;
  }
  const machine = `${cpus().length} x ${cpus()[0]?.model ?? 'unknown processor'}, Linux ${release()}, Node ${process.version}`;
  process.stdout.write(`${machine}\n\n`);
  const rows: BenchRow[] = [];
  for (const name of names) {
    const measured = await benches[name]!();
    process.stdout.write(`${table(measured)}\n\n`);
    rows.push(...measured);
  }
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify({ machine, rows }, null, 2)}\n`);
  return 0;
}

process.exitCode = await main(process.argv.slice(2));
