/** Moves this thread, and the programs that it starts, into a network namespace of its own; Linux and root only. */
import { spawn, spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';

const CLONE_NEWNET = 0x4000_0000;
const O_RDONLY_CLOEXEC = 0o2000000;

/** Returns the way back. The namespace ends when nothing of it is open any more. */
export function enterNewNamespace(): () => void {
  const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi');
  const library = koffi.load(null);
  const open = library.func('int open(const char *path, int flags)');
  const unshare = library.func('int unshare(int flags)');
  const setns = library.func('int setns(int fd, int type)');
  const close = library.func('int close(int fd)');
  const home: number = open('/proc/thread-self/ns/net', O_RDONLY_CLOEXEC);
  if (home < 0 || unshare(CLONE_NEWNET) !== 0) throw new Error(`unshare: errno ${koffi.errno()}`);
  return () => {
    if (setns(home, CLONE_NEWNET) !== 0) throw new Error(`setns: errno ${koffi.errno()}`);
    close(home);
  };
}

/** Runs a command of iproute2 in this thread's namespace and returns what it prints. */
export function ipCommand(...words: readonly string[]): string {
  return run('ip', words);
}

/** Runs ping in this thread's namespace; resolves with its exit status. */
export function ping(...words: readonly string[]): Promise<number | null> {
  return start('ping', ['-n', '-q', ...words]);
}

function run(program: string, words: readonly string[]): string {
  const result = spawnSync(program, words, { encoding: 'utf8', timeout: 10_000 });
  if (result.status !== 0) throw new Error(`${program} ${words.join(' ')}: ${result.stderr}`);
  return result.stdout;
}

function start(program: string, words: readonly string[]): Promise<number | null> {
  const child = spawn(program, words, { stdio: 'ignore', timeout: 20_000 });
  return new Promise((resolve) => child.on('close', resolve));
}
