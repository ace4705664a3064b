/** Options of Node itself that no program of this package runs with, and the one that all do. */

/**
 * The argument that leaves Node's inspector no address: Linux binds no TCP socket to a multicast one. `bin/launch` has it
 * too, and tells more.
 */
export const NO_INSPECTOR = '--inspect-port=[ff01::1]:9229';

/** What opens the inspector, or writes memory, keys included, or the environment to files. */
const REFUSED: readonly string[] = [
  '--inspect',
  '--debug',
  '--heapsnapshot',
  '--heap-prof',
  '--cpu-prof',
  '--prof',
  '--perf',
  '--report',
  '--abort-on-uncaught-exception',
  '--tls-keylog',
];

/** Whether a word of Node's command line, or of NODE_OPTIONS, is an option that no program of this package runs with. */
export function isRefusedOption(word: string): boolean {
  // As Node does: --heap_prof is --heap-prof.
  const option = word.replaceAll('_', '-');
  return word !== NO_INSPECTOR && REFUSED.some((start) => option.startsWith(start));
}
