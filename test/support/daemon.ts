/** Daemons on machines in memory: devices and network without root, folders of their own, removed after the test. */
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { type IpAddress, parseAddress } from '../../src/base/address.ts';
import type { Logger } from '../../src/base/log.ts';
import { utf8 } from '../../src/base/text.ts';
import { DaemonClient } from '../../src/control/client.ts';
import type { Daemon } from '../../src/daemon/daemon.ts';
import { Service } from '../../src/daemon/service.ts';
import { chooseCrypto } from '../../src/host/crypto.ts';
import { bridgesIn, type FenceKeeper } from '../../src/hostnet/fence/fence.ts';
import type { ForeignTables } from '../../src/hostnet/foreign/tables.ts';
import { MemoryHostNetwork } from '../../src/hostnet/routes/memory.ts';
import { PolicyRouting } from '../../src/hostnet/steering/policy-routing.ts';
import type { HostView } from '../../src/hostnet/view.ts';
import type { Fetch } from '../../src/pki/revocation/online.ts';
import type { DevicePlan } from '../../src/plan/device.ts';
import { MemoryDevice } from '../../src/tun/memory.ts';
import type { UdpNetwork } from '../../src/tun/udp/udp.ts';
import { temporaryFolder } from './folder.ts';

export { temporaryFolder };

export function address(text: string): IpAddress {
  const parsed = parseAddress(text);
  if (parsed === undefined) throw new Error(`not an address: ${text}`);
  return parsed;
}

export interface LogLine {
  readonly level: string;
  readonly fields: object;
  readonly text: string;
}

export function recordingLog(lines: LogLine[]): Logger {
  const record = (level: string) => (fields: object, text: string) => void lines.push({ level, fields, text });
  return {
    trace: record('trace'),
    debug: record('debug'),
    info: record('info'),
    warn: record('warn'),
    error: record('error'),
  };
}

export const SECRET_UUID = '11111111-2222-3333-4444-555555555501';

/** A daemon, its client and what a test wants to see of them. */
export class TestDaemon {
  readonly folder: string;
  readonly lines: LogLine[] = [];
  readonly devices: Map<string, MemoryDevice> = new Map();
  readonly plans: DevicePlan[] = [];
  /** What its machine was told of fences and devices: `keep NAME,…`, `raise NAME`, `open NAME`, `steer NAME`, `release NAME`. */
  readonly told: string[] = [];
  /** Its machine has devices only then. */
  devicesFrom: Promise<void> = Promise.resolve();
  /** Sockets of libvirt, for the next time that it opens. */
  libvirtSockets: readonly string[] = [];
  /** It hands its SAs over to the next one when it is closed. */
  handsOver = false;
  /** What its machine knows of every path. */
  pathMtu: number | undefined;
  /** What it can fetch of revocation. */
  fetch: Fetch = ({ url }) => Promise.reject(new Error(`no ${url} here`));
  /** Its machine has no devices for it. */
  refuseDevices = false;
  /** Its machine takes no other rules for a tunnel that runs. */
  refuseSteering = false;
  /** Its machine sleeps, for so many milliseconds: its clock goes on, timers do not. */
  sleep: (asleep: number) => void = () => undefined;
  #slept = 0;
  /** Of its machine; to be given before it is opened. */
  fence: FenceKeeper | undefined;
  /** Its machine's links, routes and rules: empty, and not touched by its devices. */
  readonly hostNetwork: MemoryHostNetwork = new MemoryHostNetwork();
  /** Its machine's settings of `net`. */
  readonly sysctls: Map<string, string> = new Map();
  /** What stands in its machine's nftables; left out: it has none. */
  foreign: ForeignTables | undefined;
  readonly #routing = new PolicyRouting(this.hostNetwork);
  readonly #network: UdpNetwork;
  #service: Service | undefined;
  #client: DaemonClient | undefined;

  constructor(network: UdpNetwork, folder: string = temporaryFolder()) {
    this.#network = network;
    this.folder = folder;
  }

  static async start(network: UdpNetwork, folder?: string): Promise<TestDaemon> {
    const test = new TestDaemon(network, folder);
    await test.open();
    onTestFinished(() => test.close());
    return test;
  }

  get configDir(): string {
    return join(this.folder, 'config');
  }

  get runDir(): string {
    return join(this.folder, 'run');
  }

  get client(): DaemonClient {
    if (this.#client === undefined) throw new Error('the daemon is not open');
    return this.#client;
  }

  get daemon(): Daemon {
    if (this.#service === undefined) throw new Error('the daemon is not open');
    return this.#service.daemon;
  }

  async open(): Promise<void> {
    this.#service = new Service({
      configDir: this.configDir,
      runDir: this.runDir,
      crypto: chooseCrypto('auto'),
      libvirtSockets: this.libvirtSockets,
      handsOver: this.handsOver,
      log: recordingLog(this.lines),
      fetch: (request) => this.fetch(request),
      platform: {
        network: this.#network,
        view: (netns) => (netns === undefined ? this.#view() : undefined),
        routeBridge: async (bridge, own, tunnel) => {
          const undo = this.#routing.routeBridge(bridge, own, tunnel);
          return async () => undo();
        },
        fence: this.fence,
        now: () => performance.now() + this.#slept,
        watchSleep: (onWake) => {
          this.sleep = (asleep) => {
            this.#slept += asleep;
            onWake(asleep);
          };
          return { close: () => Promise.resolve() };
        },
        localAddressFor: () => undefined,
        pathMtuFor: () => this.pathMtu,
        raiseFences: async (plans) => {
          this.told.push(`fence ${plans.map(({ tunnel }) => tunnel).join()}`);
          return new Map();
        },
        raise: async ({ tunnel }) => void this.told.push(`raise ${tunnel}`),
        steer: async ({ tunnel }) => {
          this.told.push(`steer ${tunnel}`);
          if (this.refuseSteering) throw new Error('no rules today');
        },
        release: async (tunnel) => void this.told.push(`release ${tunnel}`),
        reconcile: async (tunnels) => void this.told.push(`keep ${tunnels.map(({ tunnel }) => tunnel).join()}`),
        openDevice: async (plan) => {
          this.told.push(`open ${plan.tunnel}`);
          await this.devicesFrom;
          if (this.refuseDevices) throw new Error('no device today');
          this.plans.push(plan);
          const device = new MemoryDevice({ name: plan.name, mtu: plan.mtu });
          this.devices.set(plan.name, device);
          return device;
        },
      },
    });
    await this.#service.open();
    this.#client = await DaemonClient.connect(this.runDir);
  }

  #view(): HostView {
    const { foreign } = this;
    return {
      routing: this.hostNetwork,
      fences: this.fence?.parts,
      bridges: bridgesIn(this.fence?.parts ?? new Map()),
      sysctl: (name) => this.sysctls.get(name),
      ...(foreign === undefined ? {} : { foreignTables: () => Promise.resolve(foreign) }),
    };
  }

  async close(): Promise<void> {
    this.#client?.close();
    await this.#service?.close({ handOver: this.handsOver });
    this.#client = undefined;
    this.#service = undefined;
  }

  /** Defines the secret that the documents of the tests refer to. */
  async giveSecret(value = 'a pre-shared key'): Promise<void> {
    await this.client.call('secret-define', { xml: `<secret><uuid>${SECRET_UUID}</uuid></secret>` });
    await this.client.setSecret(SECRET_UUID, utf8(value));
  }
}

export interface DocumentWords {
  readonly name?: string;
  readonly local?: string;
  readonly remote?: string;
  readonly inner?: readonly [string, string];
  /** The peer's FQDN where it is not its address. */
  readonly remoteId?: string;
  readonly start?: string;
  readonly ike?: string;
  readonly esp?: string;
  readonly extra?: string;
}

/** A `<sectunnel>` document between 192.0.2.1 and 192.0.2.2. */
export function tunnelDocument(words: DocumentWords = {}): string {
  const { name = 'net', local = '192.0.2.1', remote = '192.0.2.2', inner = ['10.1.0.0', '10.2.0.0'] } = words;
  return `<sectunnel type='ipsec'>
  <name>${name}</name>${words.extra ?? ''}
  <sa>
    <local address='${local}'/>
    <remote address='${remote}'>${words.remoteId === undefined ? '' : `<id type='fqdn'>${words.remoteId}</id>`}</remote>
    <auth type='psk'><secret uuid='${SECRET_UUID}'/></auth>
    <ike start='${words.start ?? 'trap'}'>${words.ike ?? ''}</ike>
    <esp>${words.esp ?? ''}</esp>
  </sa>
  <sp name='lan'>
    <src_range address='${inner[0]}' prefixlen='24'/>
    <dst_range address='${inner[1]}' prefixlen='24'/>
    <upperspec protocol='any'/>
    <policy direction='both' action='ipsec'>
      <rule protocol='esp' mode='tunnel' level='require'><src address='any'/><dst address='any'/></rule>
    </policy>
  </sp>
</sectunnel>`;
}

/** The same tunnel for the other end. */
export function oppositeDocument(words: DocumentWords = {}): string {
  return tunnelDocument({
    start: 'respond',
    local: '192.0.2.2',
    remote: '192.0.2.1',
    inner: ['10.2.0.0', '10.1.0.0'],
    ...words,
  });
}

/** Waits until something holds; fails with what it was. */
export async function eventually(
  what: string,
  holds: () => boolean | Promise<boolean>,
  patience = 15_000,
): Promise<void> {
  const deadline = performance.now() + patience;
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`waited in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
