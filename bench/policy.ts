/**
 * Policy look-ups a second with 1 to 100,000 policies, without and with the flow cache, the time to compile them, and to
 * explain one packet.
 */
import { performance } from 'node:perf_hooks';
import { type IpAddress, prefixRange } from '../src/base/address.ts';
import { type CompiledPolicy, compilePolicy, type PolicyEntry } from '../src/policy/database.ts';
import { explainFlow } from '../src/policy/explain.ts';
import { Flow } from '../src/policy/flow.ts';
import { FlowCache } from '../src/policy/flow-cache.ts';
import { Protocol } from '../src/policy/protocols.ts';
import { makeSelector } from '../src/policy/selector.ts';
import type { BenchRow } from './row.ts';

const SIZES = [1, 100, 10_000, 100_000] as const;
/** Packets that are decided in turn; they belong to so many flows. */
const FLOWS = 1024;
const ROUND_MS = 150;
const ROUNDS = 5;

export async function policyBench(): Promise<BenchRow[]> {
  const rows: BenchRow[] = [];
  for (const family of [4, 6] as const) {
    for (const size of SIZES) {
      const entries = makeEntries(family, size);
      const start = performance.now();
      const policy = compilePolicy(entries, 'out');
      const compiled = performance.now() - start;
      const flows = makeFlows(family, size);
      const cache = new FlowCache(4 * FLOWS);
      const name = (what: string): string => `policy/${what}/ipv${family}-${size}`;
      rows.push({ name: name('lookup'), value: perSecond(policy, flows, (flow) => policy.lookup(flow)), unit: '1/s' });
      rows.push({
        name: name('lookup-cached'),
        value: perSecond(policy, flows, (flow) => cache.lookup(policy, flow)),
        unit: '1/s',
      });
      rows.push({ name: name('compile'), value: compiled, unit: 'ms' });
      rows.push({ name: name('explain'), value: millisecondsToExplain(policy, flows), unit: 'ms' });
    }
  }
  return rows;
}

/** As many entries as `sectunnel explain` lists. */
const LISTED = 8;

/** The median of packets of policies from all over the list. */
function millisecondsToExplain(policy: CompiledPolicy, flows: readonly Flow[]): number {
  const asked = flows.filter((_, i) => i % 32 === 31);
  const times = asked.map((flow) => {
    const start = performance.now();
    if (explainFlow(policy, flow, LISTED).decides === undefined) throw new Error('nothing decides a packet');
    return performance.now() - start;
  });
  return times.sort((a, b) => a - b)[times.length >>> 1]!;
}

/** Branch offices: each policy joins one network here with one there, every other one for one port only. */
function makeEntries(family: 4 | 6, count: number): PolicyEntry[] {
  return Array.from({ length: count }, (_, i) => ({
    name: `p${i}`,
    direction: 'out',
    action: 'protect',
    priority: 0,
    level: 'require',
    selectors: {
      local: [makeSelector(prefixRange(localNetwork(family, i), family === 4 ? 24 : 64))],
      remote: [
        i % 2 === 0
          ? makeSelector(prefixRange(remoteNetwork(family, i), family === 4 ? 24 : 64))
          : makeSelector(prefixRange(remoteNetwork(family, i), family === 4 ? 24 : 64), Protocol.udp, {
              startPort: 5000,
              endPort: 5000 + (i % 100),
            }),
      ],
    },
  }));
}

function localNetwork(family: 4 | 6, i: number): IpAddress {
  const index = BigInt(i % 1000);
  return family === 4
    ? { family, value: 0x0a000000n | (index << 8n) }
    : { family, value: (0xfd0000n << 104n) | (index << 64n) };
}

function remoteNetwork(family: 4 | 6, i: number): IpAddress {
  const index = BigInt(i);
  return family === 4
    ? { family, value: 0xa0000000n + (index << 8n) }
    : { family, value: (0xfd0001n << 104n) | (index << 64n) };
}

/** Packets of policies from all over the list. */
function makeFlows(family: 4 | 6, count: number): Flow[] {
  return Array.from({ length: FLOWS }, (_, i) => {
    const policy = Math.floor((i * count) / FLOWS);
    const flow = new Flow();
    flow.family = family;
    flow.protocol = Protocol.udp;
    flow.srcPort = 1024 + i;
    flow.dstPort = 5000;
    putAddress(flow, 0, localNetwork(family, policy), i & 0xff);
    putAddress(flow, 4, remoteNetwork(family, policy), i & 0xff);
    return flow;
  });
}

function putAddress(flow: Flow, at: number, { family, value }: IpAddress, host: number): void {
  const words = family === 4 ? 1 : 4;
  for (let i = 0; i < words; i++) {
    flow.words[at + i] = Number(((value + BigInt(host)) >> BigInt(32 * (words - 1 - i))) & 0xffffffffn);
  }
}

/** The median of some rounds. Throws when a packet is not decided: nothing would have been measured. */
function perSecond(policy: CompiledPolicy, flows: readonly Flow[], decide: (flow: Flow) => number): number {
  for (const flow of flows) {
    if (decide(flow) < 0) throw new Error(`no entry of ${policy.entries.length} matches a packet of the benchmark`);
  }
  const rounds = Array.from({ length: ROUNDS }, () => {
    const start = performance.now();
    let done = 0;
    let elapsed = 0;
    while (elapsed < ROUND_MS) {
      for (const flow of flows) decide(flow);
      done += flows.length;
      elapsed = performance.now() - start;
    }
    return (done / elapsed) * 1000;
  });
  return rounds.sort((a, b) => a - b)[ROUNDS >>> 1]!;
}
