/**
 * A gateway of ours under floods of senders that have not authenticated, beside two tunnels of an innocent peer: one that
 * carries traffic and is replaced every few seconds, one that is idle and asked every second whether it lives.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DaemonClient } from '../../src/control/client.ts';
import { nodeProvider } from '../../src/crypto/node/provider.ts';
import { parseIkeProposalString } from '../../src/crypto/proposal-text.ts';
import { ikeWireProposals } from '../../src/ike/proposals/proposals.ts';
import { ExchangeType } from '../../src/ike/wire/iana.ts';
import { encodePlain } from '../../src/ike/wire/message.ts';
import { Random } from '../support/ike-pair.ts';
import type { Lab } from '../support/lab/lab.ts';
import { cable, type Namespace } from '../support/lab/namespace.ts';
import { Ours } from '../support/lab/ours.ts';
import { run } from '../support/lab/process.ts';
import { projectRoot } from '../support/lab/root.ts';
import { LEFT, PSK, RIGHT, SUITES, suiteTunnel } from './suites.ts';

export const FLOODS = ['init', 'cookies', 'garbage', 'esp', 'auth', 'fragments'] as const;
export type FloodKind = (typeof FLOODS)[number];
export const RATE = 20_000;

const PROGRAM = join(projectRoot(), 'test/support/lab/preauth-flood.mjs');
const ATTACKER = '203.0.113.66';
const GATE = '203.0.113.65';
/** Where the target's tunnels end. */
const TARGET = RIGHT[4].outer;
const [BUSY, IDLE] = ['busy', 'idle'] as const;
/** Seconds: lifetimes of the busy tunnel's SAs, and how long the idle one may be quiet. */
const ESP_SOFT = 1;
const IKE_SOFT = 3;
const DPD = 1;
const PING_PAUSE = 0.01;
/** Milliseconds between two commands. */
const COMMAND_PAUSE = 20;
/** Seconds by which a rekey or a liveness check may be late: half of it is how often the daemon is asked, and a busy machine. */
const LATE = 0.5;
/** What runs beside the measurement must not count: the daemons, and what asks them, come first, and the flood after them. */
const FIRST = ['chrt', '--rr', '10'] as const;
const SECOND = ['chrt', '--rr', '5'] as const;

export interface FloodFigures {
  readonly kind: FloodKind;
  /** Packets a second that the flood really sent. */
  readonly rate: number;
  /** Milliseconds that a `status` took: of a hundred all but one, and the longest. */
  readonly command99: number;
  readonly commandMost: number;
  readonly pings: { readonly sent: number; readonly lost: number };
  /** Times that CHILD SAs and IKE SAs of the busy tunnel were replaced, and the most seconds that one of each lived. */
  readonly childRekeys: number;
  readonly ikeRekeys: number;
  readonly oldestChild: number;
  readonly oldestIke: number;
  /** The most seconds without a sign of the idle tunnel's peer; and IKE SAs that ended for another reason than a rekey. */
  readonly quiet: number;
  readonly ended: number;
  /** MiB of the target's process: before, at most, and some seconds after. */
  readonly memory: { readonly before: number; readonly most: number; readonly after: number };
  /** Processor seconds of the target for each second. */
  readonly cpu: number;
  readonly counters: Readonly<Record<string, number>>;
}

export class FloodRig {
  readonly attacker: Namespace;
  readonly target: Namespace;
  readonly peer: Namespace;
  readonly ours: Ours;
  readonly #file: string;

  readonly #launcher: readonly string[];

  private constructor(
    lab: Lab,
    attacker: Namespace,
    target: Namespace,
    peer: Namespace,
    ours: Ours,
    launcher: readonly string[],
  ) {
    this.#launcher = launcher;
    this.attacker = attacker;
    this.target = target;
    this.peer = peer;
    this.ours = ours;
    this.#file = join(lab.folder, 'flood.json');
    writeFileSync(this.#file, JSON.stringify(templates()));
  }

  static async build(lab: Lab): Promise<FloodRig> {
    const [attacker, target, peer] = [
      await lab.namespace('attacker'),
      await lab.namespace('target'),
      await lab.namespace('peer'),
    ];
    await cable(
      { namespace: target, device: 'outside', addresses: [`${GATE}/30`] },
      { namespace: attacker, device: 'eth0', addresses: [`${ATTACKER}/30`] },
    );
    await cable(
      { namespace: target, device: 'eth0', addresses: [`${RIGHT[4].outer}/24`] },
      { namespace: peer, device: 'eth0', addresses: [`${LEFT[4].outer}/24`] },
    );
    // What forged addresses are answered goes where it came from, and is dropped there.
    await target.ip([`route add default via ${ATTACKER}`]);
    await attacker.ip([
      'route add local 10.66.0.0/16 dev lo',
      'route add blackhole default',
      `route add ${TARGET} via ${GATE}`,
    ]);
    await peer.ip([`addr add ${LEFT[4].inner}/24 dev lo`]);
    await target.ip([`addr add ${RIGHT[4].inner}/24 dev lo`]);
    const launcher = (await comesFirst(lab)) ? FIRST : [];
    const ours = await Ours.start(lab, target, { launcher });
    const other = await Ours.start(lab, peer, { launcher });
    const busy = { ...suiteTunnel(BUSY, SUITES[0]!), dpd: DPD };
    const addresses = [LEFT[4].outer, RIGHT[4].outer] as const;
    const idle = {
      ...busy,
      name: IDLE,
      left: {
        address: addresses[0],
        id: { type: 'fqdn', value: 'idle-left.example' },
        inner: ['10.77.1.0/24'],
        psk: PSK,
      },
      right: {
        address: addresses[1],
        id: { type: 'fqdn', value: 'idle-right.example' },
        inner: ['10.77.2.0/24'],
        psk: PSK,
      },
    } as const;
    const short = {
      espLifetime: { soft: ESP_SOFT, hard: 60 },
      ikeLifetime: { soft: IKE_SOFT, hard: 60 },
    };
    for (const [tunnel, settings] of [
      [busy, short],
      [idle, {}],
    ] as const) {
      await ours.load(tunnel, 'right', { start: 'respond', ...settings });
      await other.load(tunnel, 'left', { start: 'initiate' });
      await ours.up(tunnel.name);
    }
    // A connection for peers from anywhere, so that the attacker is negotiated with.
    await ours.load(anywhere(busy), 'right', { start: 'respond' });
    const second = launcher.length > 0 ? SECOND : [];
    return new FloodRig(lab, attacker, target, peer, ours, second);
  }

  /** Floods for so many seconds, and watches; the memory for some more seconds. */
  async run(kind: FloodKind, seconds: number, after = 0): Promise<FloodFigures> {
    const before = this.#memory();
    const countersBefore = (await this.ours.status()).counters as Readonly<Record<string, number>>;
    const watch = await Watch.start(this.ours);
    const cpuBefore = this.#cpu();
    const flood = this.attacker.exec(
      [...this.#launcher, process.execPath, PROGRAM, ATTACKER, TARGET, String(RATE), String(seconds), kind, this.#file],
      { timeout: seconds * 1_000 + 30_000 },
    );
    const pings = this.#ping(Math.floor(seconds / PING_PAUSE));
    let running = true;
    const memory = (async () => {
      let most = before;
      while (running) {
        most = Math.max(most, this.#memory());
        await pause(50);
      }
      return most;
    })();
    const { sent } = JSON.parse((await flood).stdout) as { sent: number };
    const cpu = (this.#cpu() - cpuBefore) / seconds;
    const figures = await watch.stop();
    const lost = await pings;
    const counters = difference(
      (await this.ours.status()).counters as Readonly<Record<string, number>>,
      countersBefore,
    );
    await pause(after * 1_000);
    running = false;
    return {
      kind,
      rate: sent / seconds,
      ...figures,
      pings: lost,
      memory: { before, most: await memory, after: this.#memory() },
      cpu,
      counters,
    };
  }

  async #ping(count: number): Promise<{ sent: number; lost: number }> {
    const argv = ['ping', '-n', '-q', '-I', LEFT[4].inner, '-i', String(PING_PAUSE), '-c', String(count), '-W', '2'];
    const { stdout } = await this.peer.exec([...argv, RIGHT[4].inner], { check: false, timeout: 120_000 });
    const [, sent, received] = /(\d+) packets transmitted, (\d+) (?:packets )?received/.exec(stdout)!.map(Number);
    return { sent: sent!, lost: sent! - received! };
  }

  /** MiB. */
  #memory(): number {
    const status = readFileSync(`/proc/${this.ours.pid}/status`, 'utf8');
    return Math.round(Number(/^VmRSS:\s+(\d+)/m.exec(status)![1]) / 1024);
  }

  /** Processor seconds. */
  #cpu(): number {
    const fields = readFileSync(`/proc/${this.ours.pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
    return (Number(fields[11]) + Number(fields[12])) / 100;
  }
}

/** Has this process come before others; false where the system does not let it. */
async function comesFirst(lab: Lab): Promise<boolean> {
  const self = String(process.pid);
  const { code } = await run(['chrt', '--all-tasks', '--reset-on-fork', '--rr', '--pid', '10', self], { check: false });
  if (code !== 0) return false;
  lab.defer(() => run(['chrt', '--all-tasks', '--other', '--pid', '0', self]));
  return true;
}

/** What of the figures is not as it is to be, at 20,000 packets a second. */
export function shortcomings(figures: FloodFigures): string[] {
  const { rate, command99, pings, oldestChild, oldestIke, quiet, ended, memory } = figures;
  return [
    ...(rate < 0.95 * RATE ? [`the flood was ${rate} packets a second`] : []),
    ...(command99 >= 100 ? [`commands took ${command99} ms`] : []),
    ...(pings.lost > pings.sent / 100 ? [`${pings.lost} of ${pings.sent} packets of the tunnel were lost`] : []),
    ...(oldestChild > ESP_SOFT + LATE ? [`a CHILD SA was replaced after ${oldestChild} s`] : []),
    ...(oldestIke > IKE_SOFT + LATE ? [`an IKE SA was replaced after ${oldestIke} s`] : []),
    ...(quiet > DPD + LATE ? [`nothing was heard of a peer for ${quiet} s`] : []),
    ...(ended > 0 ? ['a peer was given up'] : []),
    ...(memory.most >= 300 ? [`the daemon had ${memory.most} MiB`] : []),
  ];
}

/** Asks the daemon for its status again and again, and keeps what the answers say and how long each took. */
class Watch {
  readonly #client: DaemonClient;
  readonly #durations: number[] = [];
  readonly #children = new Set<string>();
  readonly #ikeSas = new Set<string>();
  readonly #done: Promise<void>;
  #running = true;
  #figures = { oldestChild: 0, oldestIke: 0, quiet: 0, ended: 0 };

  private constructor(client: DaemonClient) {
    this.#client = client;
    this.#done = this.#watch();
  }

  static async start(ours: Ours): Promise<Watch> {
    return new Watch(await DaemonClient.connect(join(ours.folder, 'run')));
  }

  async stop(): Promise<Pick<FloodFigures, 'command99' | 'commandMost' | 'childRekeys' | 'ikeRekeys'> & FloodSeen> {
    this.#running = false;
    await this.#done;
    this.#client.close();
    const sorted = this.#durations.sort((a, b) => a - b);
    return {
      command99: sorted[Math.floor(sorted.length * 0.99)]!,
      commandMost: sorted.at(-1)!,
      childRekeys: this.#children.size - 1,
      ikeRekeys: this.#ikeSas.size - 1,
      ...this.#figures,
    };
  }

  async #watch(): Promise<void> {
    const idle = new Set<string>();
    while (this.#running) {
      const start = performance.now();
      const { tunnels } = await this.#client.call('status', {});
      this.#durations.push(performance.now() - start);
      for (const { name, ikeSas } of tunnels) {
        const up = ikeSas.filter(({ state }) => state === 'established');
        if (name === IDLE) {
          for (const sa of up) idle.add(sa.spiInitiator);
          this.#figures.quiet = Math.max(this.#figures.quiet, ...up.map(({ lastHeard }) => lastHeard ?? 0));
          this.#figures.ended = idle.size - 1;
        }
        if (name !== BUSY) continue;
        // The newest of each: those that were replaced are received on for a while.
        const ike = newest(up);
        const child = newest(ike?.children ?? []);
        if (ike !== undefined) this.#ikeSas.add(ike.spiInitiator);
        if (child !== undefined) this.#children.add(child.spiIn);
        this.#figures.oldestIke = Math.max(this.#figures.oldestIke, ike?.age ?? 0);
        this.#figures.oldestChild = Math.max(this.#figures.oldestChild, child?.age ?? 0);
      }
      await pause(COMMAND_PAUSE);
    }
  }
}

type FloodSeen = Pick<FloodFigures, 'oldestChild' | 'oldestIke' | 'quiet' | 'ended'>;

function newest<T extends { readonly age: number }>(sas: readonly T[]): T | undefined {
  return [...sas].sort((a, b) => a.age - b.age)[0];
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

function difference(
  after: Readonly<Record<string, number>>,
  before: Readonly<Record<string, number>>,
): Record<string, number> {
  return Object.fromEntries(
    Object.entries(after)
      .map(([name, value]) => [name, value - (before[name] ?? 0)] as const)
      .filter(([, value]) => value !== 0),
  );
}

/** The tunnel once more, for peers at any address. */
function anywhere(tunnel: ReturnType<typeof suiteTunnel>): ReturnType<typeof suiteTunnel> {
  return {
    ...tunnel,
    name: 'anywhere',
    left: { ...tunnel.left, address: 'any', id: { type: 'fqdn', value: 'road.example' }, inner: ['10.78.1.0/24'] },
    right: { ...tunnel.right, inner: ['10.78.2.0/24'] },
  };
}

/** What the flood is made of, in hexadecimal. */
function templates(): Record<string, string> {
  const proposal = parseIkeProposalString('aes128gcm16-prfsha256-x25519');
  const [group] = proposal.dh;
  const header = { initiatorSpi: 1n, responderSpi: 0n, initiator: true, response: false };
  const init = encodePlain({ ...header, exchange: ExchangeType.IKE_SA_INIT, messageId: 0 }, [
    { type: 'sa', proposals: ikeWireProposals([proposal]) },
    { type: 'ke', group: group!.id, data: nodeProvider.dhKeyPair(group!, new Random(9).bytes).publicValue },
    { type: 'nonce', data: new Random(10).bytes(32) },
  ]);
  const encrypted = (payload: number, length: number, placeBytes: number): Uint8Array => {
    const bytes = encodePlain({ ...header, exchange: ExchangeType.IKE_AUTH, messageId: 1 }, []);
    const all = new Uint8Array(bytes.length + length);
    all.set(bytes);
    const view = new DataView(all.buffer);
    view.setUint8(16, payload);
    view.setUint32(24, all.length);
    // IDi comes first in what is encrypted; the length is that of the payload.
    view.setUint8(bytes.length, 35);
    view.setUint16(bytes.length + 2, length);
    if (placeBytes > 0) view.setUint32(bytes.length + 4, 0x0001_0008);
    return all;
  };
  const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
  return { init: hex(init), auth: hex(encrypted(46, 400, 0)), fragment: hex(encrypted(53, 600, 4)) };
}
