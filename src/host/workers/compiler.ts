/**
 * Flags with which V8 compiles the code of workers early, and inlines more of it.
 *
 * By V8's own thresholds, made for web pages, the way of a packet is interpreted for thousands of packets, and again for
 * thousands after each case that it had not met before: a tunnel with little traffic never gets compiled code. And a packet
 * after a pause finds none of the code in the processor's caches: few large pieces are fetched sooner than many small
 * ones. Measured with Node 20: a ping through daemons that never carried anything else takes 0.7 ms in place of 1.5 after
 * the first hundred, one after TCP 0.53 in place of 0.64, and TCP at full rate is a sixth faster.
 *
 * The flags hold for the whole process. They change when and how code is compiled, not what it does. V8 prints an error for
 * an unknown flag and cannot be asked which it knows: a flag that later versions dropped is set only for the version that
 * has it.
 */
import { setFlagsFromString } from 'node:v8';

const FLAGS: readonly string[] = [
  '--always-sparkplug',
  '--no-lazy-feedback-allocation',
  // Bytes of bytecode that a function, and all together, may have to be put into another; V8's own are 460 and 920.
  '--max-inlined-bytecode-size=1500',
  '--max-inlined-bytecode-size-cumulative=4000',
];

/** Bytes of bytecode that a function goes through until it is optimized; V8's own are 135,168. Node 22 and later have none. */
const BUDGET = '--interrupt-budget=4000';
/** Node 20. */
const BUDGET_VERSION = '11.3.';

/** @param version of V8, as `process.versions.v8` has it */
export function compilerFlags(version: string): readonly string[] {
  return version.startsWith(BUDGET_VERSION) ? [...FLAGS, BUDGET] : FLAGS;
}

for (const flag of compilerFlags(process.versions.v8)) setFlagsFromString(flag);
