/** The `sectunneld` program: takes its command line apart, runs a daemon in the foreground until a signal ends it. */
import { isAbsolute } from 'node:path';
import { parseArgs } from 'node:util';
import { SectunnelError } from '../base/error.ts';
import type { Logger } from '../base/log.ts';
import { messageOf } from '../base/text.ts';
import { cryptoChoices, selectCrypto } from '../host/crypto.ts';
import { linuxPlatform } from '../host/linux.ts';
import { chooseWorkers, workerChoices } from '../host/workers/choice.ts';
import { SECRET_SOCKETS } from '../libvirt/secrets.ts';
import { refuseDumps } from '../sys/memory-guard.ts';
import { refusalOf } from './control/refusing.ts';
import type { Daemon } from './daemon.ts';
import { createLog, type LogLevel, logLevels } from './log.ts';
import { ServiceManager } from './notify.ts';
import { Service } from './service.ts';
import { defaultConfigDir, defaultRunDir, sharedRunDir } from './store/folders.ts';
import { LockedError, lockIfPossible, lockNetworkNamespace } from './store/lock.ts';
import { handleUncaught } from './uncaught.ts';
import { version } from './version.ts';
import { raiseFences, wantedNames } from './without-daemon.ts';

const ExitCode = { Ok: 0, Failed: 1, Usage: 2 } as const;

const help = `sectunneld - the sectunnel daemon: negotiates tunnels by IKEv2 and carries their traffic in ESP

Usage
  sectunneld [OPTION …]

Runs in the foreground and logs to standard error: readable lines on a terminal, JSON elsewhere. Each network namespace
has its own daemon, with its own folders. sectunnel(1) defines, starts and watches tunnels.

Options
  --config-dir DIR    definitions, autostart links and secrets (default ${defaultConfigDir()})
  --run-dir DIR       control socket and live state (default ${defaultRunDir()})
  --crypto NAME       cryptographic provider: ${cryptoChoices.join(', ')} (default auto: the
                      fastest one available that passes its self-test; the next one supplies what it lacks)
  --workers PAIRS     ${workerChoices[0]}, or ${workerChoices[1]} to ${workerChoices.at(-1)} (default auto): with 1, two threads carry the packets, one for each
                      direction; more pairs share the flows; with 0 the main thread carries them. auto is 1 where
                      it is possible and faster
  --libvirt-socket S  where to get libvirt's secrets: auto, off, or the socket of virtsecretd or libvirtd (default
                      auto: their sockets in /run/libvirt), only for secrets that are not in DIR/secrets
  --log-level LEVEL   ${logLevels.join(', ')} (default info)
  --log-format FORM   auto, text or json (default auto)
  --hand-over         SIGTERM leaves the SAs to the next daemon, which goes on with them: until it runs, packets are
                      lost. Their state is in the run folder, sealed with a key in the configuration folder
  --raise             install the fences of tunnels with autostart and of those that ran, then exit: for the time at
                      boot when the network is up and the daemon is not
  --help, --version

It needs CAP_NET_ADMIN and /dev/net/tun for its devices, and CAP_NET_BIND_SERVICE for UDP port 500.

Signals
  SIGTERM, SIGINT    delete the SAs, inform the peers, remove the devices, and exit. The fences and rules of running
                     tunnels stay in place, and the next daemon starts these tunnels again. To remove them, use
                     'sectunnel destroy' before, or 'sectunnel release' afterwards. With --hand-over SIGTERM keeps
                     the SAs and informs no peer
  SIGHUP             read the definitions again, as 'sectunnel reload' does; the log says what changed
  SIGUSR1, SIGUSR2   ignored, with a line in the log: Node's inspector, which SIGUSR1 would open, stays closed
  SIGPIPE            ignored

Node's inspector would let every local user run code in the daemon. The daemon does not start with --inspect or another
option of Node that opens it, or that writes memory or the environment to files. It ignores NODE_OPTIONS and all other
NODE_* variables.

Started by a service manager with NOTIFY_SOCKET (systemd: Type=notify), the daemon reports when it is ready and when it
stops, and feeds the watchdog. The package has units for systemd in its folder systemd.

Exit codes
  ${ExitCode.Ok}  ended by a signal
  ${ExitCode.Failed}  could not start, or ended by a bug; the message says why
  ${ExitCode.Usage}  the command line is wrong
`;

interface Settings {
  readonly configDir: string;
  readonly runDir: string;
  readonly crypto: string;
  readonly workers: string;
  readonly libvirtSockets: readonly string[];
  readonly logLevel: LogLevel;
  readonly logFormat: 'auto' | 'text' | 'json';
  readonly handOver: boolean;
  readonly raise: boolean;
}

const STAYS =
  "no daemon runs: installed fences and rules stay and drop what they protect ('sectunnel release' removes them). Tunnels that are to run";

class UsageError extends Error {}

function settings(argv: readonly string[]): Settings | 'help' | 'version' {
  const text = { type: 'string' } as const;
  const flag = { type: 'boolean' } as const;
  const { values } = parseArgs({
    args: [...argv],
    options: {
      'config-dir': text,
      'run-dir': text,
      crypto: text,
      workers: text,
      'libvirt-socket': text,
      'log-level': text,
      'log-format': text,
      'hand-over': flag,
      raise: flag,
      help: { ...flag, short: 'h' },
      version: flag,
    },
  });
  if (values.help === true) return 'help';
  if (values.version === true) return 'version';
  return {
    configDir: values['config-dir'] ?? defaultConfigDir(),
    runDir: values['run-dir'] ?? defaultRunDir(),
    crypto: oneOf('--crypto', values.crypto ?? 'auto', cryptoChoices),
    workers: oneOf('--workers', values.workers ?? 'auto', workerChoices),
    libvirtSockets: libvirtSockets(values['libvirt-socket'] ?? 'auto'),
    logLevel: oneOf('--log-level', values['log-level'] ?? 'info', logLevels),
    logFormat: oneOf('--log-format', values['log-format'] ?? 'auto', ['auto', 'text', 'json'] as const),
    handOver: values['hand-over'] === true,
    raise: values.raise === true,
  };
}

function libvirtSockets(choice: string): readonly string[] {
  if (choice === 'auto') return SECRET_SOCKETS;
  if (choice === 'off') return [];
  if (isAbsolute(choice)) return [choice];
  throw new UsageError(`--libvirt-socket ${choice}: expected auto, off, or the path of a socket from / on`);
}

function oneOf<T extends string>(option: string, found: string, allowed: readonly T[]): T {
  const value = allowed.find((candidate) => candidate === found);
  if (value === undefined) throw new UsageError(`${option} ${found}: expected one of ${allowed.join(', ')}`);
  return value;
}

async function run(chosen: Settings): Promise<void> {
  const log = createLog(chosen.logLevel, chosen.logFormat);
  handleUncaught(log, process, () => process.exit(ExitCode.Failed));
  guardMemory(log);
  ignoreSignals(log);
  const heedHangups = reloadOnHangup(log);
  const { configDir, runDir, libvirtSockets, handOver: handsOver } = chosen;
  const { provider: crypto, leftOut } = selectCrypto(chosen.crypto);
  for (const { name, reason } of leftOut) log.info({ provider: name, reason }, 'cryptographic provider not used');
  const ended = signalled();
  const platform = linuxPlatform();
  const workers = chooseWorkers(chosen.workers, platform);
  const lockDir = sharedRunDir(runDir);
  const service = new Service({
    configDir,
    runDir,
    lockDir,
    platform,
    crypto,
    workers,
    handsOver,
    libvirtSockets,
    log,
  });
  const manager = ServiceManager.fromEnvironment(process.env, (error) =>
    log.error({}, `the service manager: ${error.message}`),
  );
  const unlock = lockIfPossible(log, () => lockNetworkNamespace(lockDir));
  await service.open();
  heedHangups(service.daemon);
  manager?.ready();
  log.info(
    { version: version(), pid: process.pid, configDir, runDir, crypto: crypto.name, workers: workers.text },
    'sectunneld is ready',
  );
  const signal = await ended;
  log.info({ signal }, 'ending');
  manager?.stopping();
  await service.close({ handOver: handsOver && signal === 'SIGTERM' });
  unlock();
  manager?.close();
}

/** @returns false when not all fences stand */
function raise({ configDir, runDir, logLevel, logFormat }: Settings): Promise<boolean> {
  const log = createLog(logLevel, logFormat);
  return raiseFences({ configDir, runDir, platform: linuxPlatform(), log });
}

/** Before there is a key in it. Elsewhere than on Linux there are no tunnels either, which is said later. */
function guardMemory(log: Logger): void {
  if (process.platform !== 'linux') return;
  try {
    refuseDumps();
  } catch (error) {
    log.warn({}, `core dumps of this process, which may contain keys, cannot be disabled: ${messageOf(error)}`);
  }
}

/** Signals that would end the process or open Node's inspector: they are logged. */
const IGNORED_SIGNALS: Readonly<Record<'SIGUSR1' | 'SIGUSR2', string>> = {
  SIGUSR1: "SIGUSR1 ignored: Node's inspector stays closed",
  SIGUSR2: 'SIGUSR2 ignored',
};

function ignoreSignals(log: Logger): void {
  for (const [name, text] of Object.entries(IGNORED_SIGNALS)) process.on(name, () => log.info({}, text));
}

/** SIGHUP has the definitions read again; one that comes before the daemon is ready is heeded then. @returns what tells it that it is */
function reloadOnHangup(log: Logger): (daemon: Daemon) => void {
  let ready: Daemon | undefined;
  let isEarly = false;
  const reload = async (daemon: Daemon): Promise<void> => {
    log.info({ signal: 'SIGHUP' }, 'reading the definitions again');
    try {
      await daemon.reload();
    } catch (error) {
      if (!(error instanceof SectunnelError)) throw error;
      log.error({}, `the definitions were not read again, the previous ones stay: ${error.message}`);
    }
  };
  process.on('SIGHUP', () => {
    if (ready === undefined) isEarly = true;
    else void reload(ready);
  });
  return (daemon) => {
    ready = daemon;
    if (isEarly) void reload(daemon);
  };
}

/** Also one that comes while the daemon starts ends it in good order. */
function signalled(): Promise<string> {
  return new Promise((resolve) => {
    for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, () => resolve(name));
  });
}

function isParseArgsError(error: unknown): boolean {
  return error instanceof TypeError && 'code' in error && String(error.code).startsWith('ERR_PARSE_ARGS');
}

/** A sentence; of a bug where it happened, too. */
function failureText(error: unknown): string {
  const bug = error instanceof Error ? error.stack : undefined;
  return refusalOf(error)?.message ?? bug ?? messageOf(error);
}

async function main(argv: readonly string[]): Promise<number> {
  let folders: Settings | undefined;
  try {
    const chosen = settings(argv);
    if (chosen === 'help') process.stdout.write(help);
    else if (chosen === 'version') process.stdout.write(`${version()}\n`);
    else if (chosen.raise) return (await raise(chosen)) ? ExitCode.Ok : ExitCode.Failed;
    else {
      folders = chosen;
      await run(chosen);
    }
    return ExitCode.Ok;
  } catch (error) {
    const usage = error instanceof UsageError || isParseArgsError(error);
    process.stderr.write(`error: ${usage ? messageOf(error) : failureText(error)}\n`);
    // Packets are dropped for a reason that is not in sight, unless another daemon runs.
    const tunnels = folders === undefined || error instanceof LockedError ? [] : wantedNames(folders);
    if (tunnels.length > 0) process.stderr.write(`${STAYS}: ${tunnels.join(', ')}\n`);
    return usage ? ExitCode.Usage : ExitCode.Failed;
  }
}

const code = await main(process.argv.slice(2));
// What was opened before a start that failed must not keep the process alive.
if (code === ExitCode.Ok) process.exitCode = code;
else process.exit(code);
