/** Two hosts on one machine: network namespaces joined by a cable, a daemon in each. Takes down all that it set up. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const daemonProgram = fileURLToPath(new URL('../../../dist/programs/sectunneld.js', import.meta.url));
const command = fileURLToPath(new URL('../../../dist/programs/sectunnel.js', import.meta.url));
const udpProgram = fileURLToPath(new URL('./udp.js', import.meta.url));

/** Longest time for anything to happen, in milliseconds. */
const PATIENCE = 15_000;

export interface HostPlan {
  readonly name: string;
  readonly outer: string;
  readonly inner: string;
}

export function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

export async function until(what: string, holds: () => boolean): Promise<void> {
  const deadline = performance.now() + PATIENCE;
  while (!holds()) {
    if (performance.now() > deadline) throw new Error(`waited in vain for ${what}`);
    await sleep(50);
  }
}

function ip(...words: readonly string[]): void {
  const { status, stderr } = spawnSync('ip', words, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`ip ${words.join(' ')}: ${stderr.trim()}`);
}

/** One end: a namespace with an address outside, one inside, and a daemon. */
export class DemoHost {
  readonly plan: HostPlan;
  readonly namespace: string;
  readonly #folder: string;
  #daemon: ChildProcess | undefined;
  #log = '';
  #ended: Promise<number | null> | undefined;

  constructor(plan: HostPlan, folder: string) {
    this.plan = plan;
    this.namespace = `sectunnel-demo-${process.pid}-${plan.name}`;
    this.#folder = join(folder, plan.name);
    mkdirSync(this.#folder, { mode: 0o700 });
    ip('netns', 'add', this.namespace);
    ip('-n', this.namespace, 'link', 'set', 'lo', 'up');
    ip('-n', this.namespace, 'address', 'add', `${plan.inner}/32`, 'dev', 'lo');
  }

  get log(): string {
    return this.#log;
  }

  /** Runs the daemon until `stop`. */
  async start(): Promise<void> {
    const folders = ['--config-dir', join(this.#folder, 'config'), '--run-dir', join(this.#folder, 'run')];
    const daemon = this.spawn(process.execPath, [daemonProgram, ...folders, '--log-format', 'text']);
    daemon.stderr?.on('data', (chunk: Buffer) => {
      this.#log += chunk.toString();
    });
    this.#daemon = daemon;
    this.#ended = new Promise((resolve) => daemon.once('exit', (code) => resolve(code)));
    await until(`the daemon of ${this.plan.name}`, () => {
      if (daemon.exitCode !== null) throw new Error(`the daemon of ${this.plan.name} ended:\n${this.#log}`);
      return this.#log.includes('sectunneld is ready');
    });
  }

  /** Asks the daemon to end. Returns its exit code. */
  async stop(): Promise<number | null> {
    this.#daemon?.kill('SIGTERM');
    return (await this.#ended) ?? null;
  }

  /** `sectunnel VERB …`; throws with what it said when it refuses. */
  sectunnel(words: readonly string[], input = ''): string {
    const args = [command, '--run-dir', join(this.#folder, 'run'), ...words];
    const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8', input });
    if (status !== 0) throw new Error(`sectunnel ${words.join(' ')}: ${stderr.trim()}`);
    return stdout;
  }

  /** Keeps a document in a file, as a user would have it. */
  file(name: string, content: string): string {
    const path = join(this.#folder, name);
    writeFileSync(path, content, { mode: 0o600 });
    return path;
  }

  spawn(program: string, args: readonly string[]): ChildProcess {
    return spawn('ip', ['netns', 'exec', this.namespace, program, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  }

  /** Sends datagrams from one port of the inner address to another host's and says what came back. */
  exchange(localPort: number, remote: string, remotePort: number, text: string): string {
    const args = ['netns', 'exec', this.namespace, process.execPath, udpProgram, 'ask'];
    const words = [...args, this.plan.inner, `${localPort}`, remote, `${remotePort}`, text];
    return spawnSync('ip', words, { encoding: 'utf8', timeout: PATIENCE }).stdout.trim();
  }

  /** Answers datagrams on a port of the inner address until killed. */
  async echo(port: number): Promise<ChildProcess> {
    const echo = this.spawn(process.execPath, [udpProgram, 'echo', this.plan.inner, `${port}`]);
    await new Promise((resolve) => echo.stdout?.once('data', resolve));
    return echo;
  }

  remove(): void {
    this.#daemon?.kill('SIGKILL');
    spawnSync('ip', ['netns', 'delete', this.namespace]);
  }
}

/** Two hosts and the cable between them. */
export class DemoNetwork {
  readonly folder: string = mkdtempSync(join(tmpdir(), 'sectunnel-demo-'));
  readonly hosts: DemoHost[] = [];
  readonly #children: ChildProcess[] = [];

  constructor(a: HostPlan, b: HostPlan) {
    try {
      for (const plan of [a, b]) this.hosts.push(new DemoHost(plan, this.folder));
      const [left, right] = this.hosts as [DemoHost, DemoHost];
      ip(
        '-n',
        left.namespace,
        'link',
        'add',
        'cable',
        'type',
        'veth',
        'peer',
        'name',
        'cable',
        'netns',
        right.namespace,
      );
      for (const host of this.hosts) {
        ip('-n', host.namespace, 'address', 'add', `${host.plan.outer}/24`, 'dev', 'cable');
        // The kernel's own IPv6 discovery would stand in the capture.
        ip('-n', host.namespace, 'link', 'set', 'cable', 'addrgenmode', 'none');
        // A batch that leaves by segmentation offload would stand in it as one large frame.
        ip('-n', host.namespace, 'link', 'set', 'cable', 'gso_max_segs', '1');
        ip('-n', host.namespace, 'link', 'set', 'cable', 'up');
      }
    } catch (error) {
      this.remove();
      throw error;
    }
  }

  /** Ends with the demo, whatever happens. */
  keep(child: ChildProcess): ChildProcess {
    this.#children.push(child);
    return child;
  }

  /** Captures what passes on the cable. Returns a function that ends the capture and gives what was captured. */
  async capture(): Promise<() => Promise<Buffer>> {
    const file = join(this.folder, 'cable.pcap');
    // -Z root: tcpdump would give up its rights and could then not write here.
    const tcpdump = this.keep(
      this.hosts[0]!.spawn('tcpdump', ['-i', 'cable', '-n', '-U', '--immediate-mode', '-Z', 'root', '-w', file]),
    );
    let said = '';
    tcpdump.stderr?.on('data', (chunk: Buffer) => {
      said += chunk.toString();
    });
    await until('tcpdump', () => {
      if (tcpdump.exitCode !== null) throw new Error(`tcpdump ended: ${said}`);
      return said.includes('listening on');
    });
    return async () => {
      const ended = new Promise((resolve) => tcpdump.once('exit', resolve));
      tcpdump.kill('SIGINT');
      await ended;
      return readFileSync(file);
    };
  }

  remove(): void {
    for (const child of this.#children) if (child.exitCode === null) child.kill('SIGKILL');
    for (const host of this.hosts) host.remove();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
