/**
 * Keeps Node's inspector shut, and the diagnostics that write the program's memory to files. Every program of this package
 * imports this file first, for its effect.
 *
 * Any program that reaches the inspector's TCP port can run code as this program's user: the port has no authentication.
 * `bin/launch` gives the inspector an address that cannot be bound, so that no port opens before this file runs. A program
 * that was started without `bin/launch` has a window of about 50 ms, from Node's start to here, in which SIGUSR1 opens the
 * port. When the port is open here the process ends: another user may have entered it.
 */
import { writeSync } from 'node:fs';
import { isRefusedOption } from './node-options.ts';

/** Why the program may not run; `undefined` when it may. */
function objection(): string | undefined {
  const given = process.execArgv.find(isRefusedOption);
  const inherited = (process.env.NODE_OPTIONS ?? '').split(/[\s"']+/).find(isRefusedOption);
  const url = inspectorUrl();
  const advice = 'start the program in bin/, which runs without';
  if (given !== undefined) return `Node was started with ${given}; leave it out, or ${advice}`;
  if (inherited !== undefined) return `NODE_OPTIONS has ${inherited}; unset NODE_OPTIONS, or ${advice}`;
  if (url !== undefined) return `SIGUSR1 opened Node's inspector, at ${url}; ${advice}`;
  return undefined;
}

/** `undefined` while no port is open, and in a Node without inspector. */
function inspectorUrl(): string | undefined {
  return process.features.inspector ? process.getBuiltinModule('node:inspector').url() : undefined;
}

/** Ends the process at once. `process.exit` would wait until all clients of the inspector have gone. */
function end(reason: string): never {
  writeSync(2, `error: other users of this machine could read this program's memory or run code in it: ${reason}\n`);
  if (inspectorUrl() !== undefined) process.kill(process.pid, 'SIGKILL');
  process.exit(1);
}

// Takes the place of Node's own handler.
process.on('SIGUSR1', () => undefined);
const reason = objection();
if (reason !== undefined) end(reason);
// Of NODE_OPTIONS and its kind nothing is for the programs and threads that this one starts.
for (const name of Object.keys(process.env)) if (name.startsWith('NODE_')) delete process.env[name];
