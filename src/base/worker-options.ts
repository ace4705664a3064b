/** What every worker thread is made with, whatever it does. */

/**
 * Neither the arguments of Node's own start (an inspector, preloaded modules) nor its environment (NODE_OPTIONS) are for
 * threads.
 */
export const WORKER_OPTIONS: { execArgv: string[]; env: Record<string, string> } = { execArgv: [], env: {} };
