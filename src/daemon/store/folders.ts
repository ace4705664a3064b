/** Where a daemon keeps its files when nothing else is said. */
import { homedir } from 'node:os';
import { join } from 'node:path';

function isRoot(): boolean {
  return process.geteuid?.() === 0;
}

/** Definitions, secrets, autostart links. */
export function defaultConfigDir(): string {
  if (isRoot()) return '/etc/sectunnel';
  return join(process.env.XDG_CONFIG_HOME || join(homedir(), '.config'), 'sectunnel');
}

/** Control socket and live state. */
export function defaultRunDir(): string {
  if (isRoot()) return '/run/sectunnel';
  return join(process.env.XDG_RUNTIME_DIR || join(homedir(), '.cache'), 'sectunnel');
}

/** Of all daemons that may configure the same host: root's has no way around it, others keep to their own. */
export function sharedRunDir(runDir: string): string {
  return isRoot() ? defaultRunDir() : runDir;
}
