/**
 * Network namespaces and what joins them: veth pairs, addresses, and a router that hides its left side behind its
 * own address (NAT). Names carry the process id of their owner, so that what a killed run left behind is found and
 * removed by the next one.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { NAMESPACE_PREFIX, sweepOnce } from './leftovers.ts';
import { Background, type RunOptions, type RunResult, run } from './process.ts';

/** BOUNDED: by what one test file creates; each leaves when it is deleted. */
const existing = new Set<string>();
let counter = 0;

process.on('exit', () => {
  for (const name of existing) spawnSync('ip', ['netns', 'del', name]);
});

/** Where a program can be run: a namespace, or a guest. */
export interface Host {
  exec(argv: readonly string[], options?: RunOptions): Promise<RunResult>;
}

export class Namespace implements Host {
  readonly name: string;

  private constructor(name: string) {
    this.name = name;
  }

  static async create(label: string): Promise<Namespace> {
    await sweepOnce();
    const name = `${NAMESPACE_PREFIX}${process.pid}-${counter++}-${label}`;
    await run(['ip', 'netns', 'add', name]);
    existing.add(name);
    const namespace = new Namespace(name);
    await namespace.ip(['link set lo up']);
    return namespace;
  }

  /** The command line that runs `argv` inside. */
  command(argv: readonly string[]): string[] {
    return ['ip', 'netns', 'exec', this.name, ...argv];
  }

  exec(argv: readonly string[], options?: RunOptions): Promise<RunResult> {
    return run(this.command(argv), options);
  }

  spawn(name: string, argv: readonly string[], env?: Readonly<Record<string, string>>): Background {
    return new Background(name, this.command(argv), env);
  }

  /** Several `ip` commands in one go; the first that fails ends it with an error. */
  async ip(commands: readonly string[]): Promise<void> {
    await run(['ip', '-n', this.name, '-batch', '-'], { input: `${commands.join('\n')}\n` });
  }

  /** Kernel counters of an interface. */
  async counters(device: string): Promise<{ rxPackets: number; txPackets: number; rxBytes: number; txBytes: number }> {
    const { stdout } = await run(['ip', '-n', this.name, '-j', '-s', 'link', 'show', 'dev', device]);
    const [link] = JSON.parse(stdout) as { stats64: Record<'rx' | 'tx', { packets: number; bytes: number }> }[];
    const { rx, tx } = link!.stats64;
    return { rxPackets: rx.packets, txPackets: tx.packets, rxBytes: rx.bytes, txBytes: tx.bytes };
  }

  async interfaces(): Promise<string[]> {
    const { stdout } = await run(['ip', '-n', this.name, '-j', 'link', 'show']);
    return (JSON.parse(stdout) as { ifname: string }[]).map((link) => link.ifname);
  }

  async delete(): Promise<void> {
    if (!existing.delete(this.name)) return;
    await run(['ip', 'netns', 'del', this.name], { check: false });
  }
}

/** One end of a cable. Addresses carry their prefix length. */
export interface Plug {
  readonly namespace: Namespace;
  readonly device: string;
  readonly addresses: readonly string[];
}

/** `nodad`: an IPv6 address is usable at once. */
export function addressCommand(address: string, device: string): string {
  return `addr add ${address} dev ${device}${address.includes(':') ? ' nodad' : ''}`;
}

/** Joins two namespaces with a veth pair. */
export async function cable(left: Plug, right: Plug): Promise<void> {
  await run([
    ...['ip', 'link', 'add', left.device, 'netns', left.namespace.name, 'type', 'veth'],
    ...['peer', 'name', right.device, 'netns', right.namespace.name],
  ]);
  for (const { namespace, device, addresses } of [left, right]) {
    await namespace.ip([`link set ${device} up`, ...addresses.map((address) => addressCommand(address, device))]);
  }
}

const CHECKSUMS = fileURLToPath(new URL('checksums.mjs', import.meta.url));

/** From now on the kernel computes the checksums of what leaves by a device. */
export async function computeChecksums(namespace: Namespace, device: string): Promise<void> {
  await namespace.exec([process.execPath, CHECKSUMS, device]);
}

/** Makes a namespace forward, and everything that leaves it by `outside` carry the address of that device. */
export async function masquerade(router: Namespace, outside: string): Promise<void> {
  await router.exec([
    'sh',
    '-c',
    'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding',
  ]);
  const rules = `table inet lab {
  chain out { type nat hook postrouting priority srcnat; oifname "${outside}" masquerade random; }
}`;
  await router.exec(['nft', '-f', '-'], { input: rules });
}
