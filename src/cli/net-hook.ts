/**
 * The verb that puts our hook where libvirt looks for it: a script that libvirt calls for every network, and that asks
 * the daemon about those that name a tunnel.
 *
 * A shell starts in a millisecond, Node in fifty to a hundred. So the shell looks whether a network is our business at
 * all, which no daemon is needed for, and Node is started only for those that are; it has no parts that parse XML.
 */
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { messageOf } from '../base/text.ts';
import { makeFolders } from '../daemon/store/make-folders.ts';
import { removeFile, removeLeftovers, replaceFile } from '../daemon/store/replace-file.ts';
import { TUNNEL_NAMESPACE } from '../libvirt/namespace.ts';
import { NO_INSPECTOR } from '../sys/node-options.ts';
import { APPARMOR, apparmorProblem } from './apparmor.ts';
import { type Arguments, type LocalVerbSpec, RefusedInputError, type Terminal, UsageError } from './verb.ts';

const HOOKS = '/etc/libvirt/hooks/network.d';
const FILE = '50-sectunnel';
export const DEFAULT_HOOK: string = join(HOOKS, FILE);
const PROGRAM = fileURLToPath(new URL('network-hook.js', import.meta.url));
/** Seconds that the daemon may take: it starts a tunnel, whose peer may have a name to be resolved. */
const PATIENCE = 10;
const MARK = '# Installed by sectunnel:';

export const netHook: LocalVerbSpec = {
  group: 'Networks',
  usage: 'install|remove|print',
  summary: 'install the libvirt hook that starts networks with their tunnels',
  details:
    `libvirt finds a new hook when its daemon starts or reloads: systemctl reload libvirtd (or virtnetworkd). The hook is\n` +
    `the file ${FILE}; other hooks stay as they are. It asks the daemon of this command's --run-dir;\n` +
    'networks that name no tunnel start without a daemon. print writes the hook to standard output.',
  options: { dir: { type: 'string' }, timeout: { type: 'string' } },
  optionHelp: {
    dir: `the folder of hooks (default ${HOOKS})`,
    timeout: `seconds that the daemon may take to reply (default ${PATIENCE})`,
  },
  positionals: [1, 1],
  runLocally: (args, terminal, runDir) => {
    const [action] = args.positionals;
    const folder = typeof args.options.dir === 'string' ? args.options.dir : HOOKS;
    const script = hookScript(resolve(runDir), patience(args));
    if (action === 'print') terminal.out(script);
    else if (action === 'install') install(folder, script, terminal);
    else if (action === 'remove') remove(folder, terminal);
    else throw new UsageError(`hook wants install, remove or print, not '${action}'`, 'hook');
    return Promise.resolve(undefined);
  },
};

function patience({ options: { timeout } }: Arguments): number {
  const seconds = timeout === undefined ? PATIENCE : Number(timeout);
  if (seconds >= 0.1 && seconds <= 600) return seconds;
  throw new UsageError(`--timeout ${timeout}: expected 0.1 to 600 seconds`, 'hook');
}

/** Nothing of it asks libvirt: inside of a start, libvirt would wait for itself. */
function hookScript(runDir: string, seconds: number): string {
  const command = [process.execPath, NO_INSPECTOR, PROGRAM, runDir, String(seconds)].map(shellQuoted).join(' ');
  return `#!/bin/sh
${MARK} https://libvirt.org/hooks.html
# Only a start can be refused. A network that names no tunnel starts at once, also without the daemon.
case $2 in start | stopped) ;; *) exit 0 ;; esac
unset NODE_OPTIONS NODE_PATH
xml=$(cat)
case $xml in *${TUNNEL_NAMESPACE}*) ;; *) exit 0 ;; esac
printf '%s\\n' "$xml" | ${command} "$1" "$2" && exit 0
[ "$2" != start ] || exit 1
`;
}

function shellQuoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function install(folder: string, script: string, terminal: Terminal): void {
  const path = join(folder, FILE);
  checkOurs(path);
  try {
    makeFolders(folder, 0o755);
    // libvirt runs what it finds in that folder, whatever its name.
    removeLeftovers(folder, FILE);
    replaceFile(path, script, 0o755);
  } catch (error) {
    throw new RefusedInputError(`the hook cannot be written: ${messageOf(error)}`);
  }
  terminal.out(`Hook ${path} installed\n`);
  const problem = apparmorProblem(process.execPath, APPARMOR);
  if (problem !== undefined) terminal.err(`warning: ${problem}\n`);
  terminal.err('libvirt finds it when it reloads: systemctl reload libvirtd (or virtnetworkd)\n');
}

function remove(folder: string, terminal: Terminal): void {
  const path = join(folder, FILE);
  if (!checkOurs(path)) throw new RefusedInputError(`there is no hook ${path}`);
  removeFile(path);
  terminal.out(`Hook ${path} removed\n`);
}

/** False when there is no such file. @throws RefusedInputError when another program or a user wrote it */
function checkOurs(path: string): boolean {
  let found: string;
  try {
    found = readFileSync(path, 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return false;
    throw new RefusedInputError(`${path} cannot be read: ${messageOf(error)}`);
  }
  if (found.includes(MARK)) return true;
  throw new RefusedInputError(`${path} was not written by sectunnel; move it away first`);
}
