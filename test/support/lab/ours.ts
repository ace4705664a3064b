/**
 * sectunnel itself as one end: `sectunneld` from dist/ in a namespace with private folders, driven with the
 * `sectunnel` command as its users do, but without a process for each command line.
 */
import { randomUUID } from 'node:crypto';
import { chownSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run as runCommand } from '../../../src/cli/run.ts';
import type { StatusResult } from '../../../src/control/results.ts';
import type { ChildStatus, IkeStatus, TunnelStatus } from '../../../src/host/status.ts';
import type { Lab } from './lab.ts';
import type { Namespace } from './namespace.ts';
import { type Background, type RunOptions, type RunResult, STARTING, waitFor } from './process.ts';
import { builtProgram, projectRoot } from './root.ts';
import { type EspSuite, ends, type IkeSuite, type Side, type Tunnel } from './tunnel.ts';

/** As users start it; and where Node is to have arguments. */
const COMMAND = join(projectRoot(), 'bin/sectunneld');
const CLIENT = join(projectRoot(), 'bin/sectunnel');
const DAEMON = builtProgram('daemon');

export interface OursOptions {
  /** Of the daemon, behind its folders. */
  readonly arguments?: readonly string[];
  /** Of the node process that runs it. */
  readonly nodeArguments?: readonly string[];
  /** In front of that process: what gives it another user, or fewer rights. */
  readonly launcher?: readonly string[];
  /** Number of the user that its folders belong to. */
  readonly owner?: number;
  readonly env?: Readonly<Record<string, string>>;
}

export interface LifetimeWords {
  readonly soft: number;
  readonly hard: number;
}

export interface OursSettings {
  readonly start: 'initiate' | 'trap' | 'respond';
  /** Name of the TUN device; by default one of the tunnel's own. */
  readonly device?: string;
  /** Seconds; the defaults are hours. */
  readonly ikeLifetime?: LifetimeWords;
  readonly espLifetime?: LifetimeWords;
  /** More elements of `<esp>`. */
  readonly esp?: string;
}

function attributes(values: Readonly<Record<string, string | number | undefined>>): string {
  return Object.entries(values)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => ` ${name}='${value}'`)
    .join('');
}

function escapeXml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
}

function ikeProposal({ encryption, integrity, prf, dh }: IkeSuite): string {
  return `<proposal${attributes({ encryption, integrity, prf, dh })}/>`;
}

function espProposals({ encryption, integrity, dh, esn }: EspSuite): string {
  const values = esn === 'either' ? ['yes', 'no'] : [esn];
  return values.map((value) => `<proposal${attributes({ encryption, integrity, dh, esn: value })}/>`).join('');
}

function lifetime(words: LifetimeWords | undefined): string {
  return words === undefined ? '' : `<lifetime soft='${words.soft}' hard='${words.hard}' jitter='0'/>`;
}

/** An inner prefix is `10.1.0.0/24`; narrower ones have documents of their own. */
function range(element: 'src_range' | 'dst_range', prefix: string): string {
  const [address, prefixlen] = prefix.split('/');
  return `<${element}${attributes({ address, prefixlen })}/>`;
}

function natAttributes({ forceEncapsulation = true, encapsulation }: Tunnel): string {
  if (encapsulation === 'never') return attributes({ traversal: 'off' });
  if (encapsulation === 'needed') return attributes({ traversal: 'auto', encapsulation });
  return attributes({ traversal: forceEncapsulation ? 'force' : 'auto' });
}

/** The `<sectunnel>` document of one end. */
export function sectunnelDocument(tunnel: Tunnel, side: Side, settings: OursSettings, secret: string): string {
  const { local, remote } = ends(tunnel, side);
  const { port } = tunnel;
  const peer = (element: string, end: typeof local): string =>
    `<${element}${attributes({ address: end.address, port })}><id type='${end.id.type}'>${escapeXml(end.id.value)}</id></${element}>`;
  return `<sectunnel type='ipsec'>
  <name>${tunnel.name}</name>
  ${settings.device === undefined ? '' : `<device name='${settings.device}'/>`}
  <sa>
    ${peer('local', local)}
    ${peer('remote', remote)}
    <auth type='psk'><secret uuid='${secret}'/></auth>
    <ike version='2' start='${settings.start}'>
      ${ikeProposal(tunnel.ike)}
      ${lifetime(settings.ikeLifetime)}
      <dpd${attributes({ interval: tunnel.dpd ?? 0, action: tunnel.dpdAction })}/>
      <nat${natAttributes(tunnel)}/>
    </ike>
    <esp>
      ${espProposals(tunnel.esp)}
      ${lifetime(settings.espLifetime)}
      ${settings.esp ?? ''}
    </esp>
  </sa>
  <sp name='inner'>
    ${local.inner.map((prefix) => range('src_range', prefix)).join('')}
    ${remote.inner.map((prefix) => range('dst_range', prefix)).join('')}
    <upperspec protocol='${tunnel.transport ?? 'any'}'/>
    <policy direction='both' action='ipsec'>
      <rule protocol='esp' mode='${tunnel.transport === undefined ? 'tunnel' : 'transport'}' level='require'>
        <src address='${local.address}'/>
        <dst address='${remote.address}'/>
      </rule>
    </policy>
  </sp>
</sectunnel>
`;
}

export class Ours {
  readonly namespace: Namespace;
  readonly folder: string;
  readonly #options: OursOptions;
  #daemon: Background | undefined;
  /** UUIDs of the keys that were set. BOUNDED: by the test file. */
  readonly #secrets = new Map<string, string>();
  /** Tunnels that were defined. BOUNDED: by the test file. */
  readonly #defined = new Set<string>();
  /** Of daemons that were stopped. */
  #formerLog = '';

  private constructor(folder: string, namespace: Namespace, options: OursOptions) {
    this.folder = folder;
    this.namespace = namespace;
    this.#options = options;
  }

  static async start(lab: Lab, namespace: Namespace, options: OursOptions = {}): Promise<Ours> {
    const folder = join(lab.folder, `sectunnel-${namespace.name}`);
    for (const part of ['config', 'run', 'documents']) mkdirSync(join(folder, part), { recursive: true, mode: 0o700 });
    if (options.owner !== undefined) {
      for (const part of ['.', 'config', 'run']) chownSync(join(folder, part), options.owner, options.owner);
    }
    const ours = new Ours(folder, namespace, options);
    lab.log(`sectunneld in ${namespace.name}`, () => ours.log());
    lab.defer(() => ours.stop());
    await ours.startDaemon();
    return ours;
  }

  async startDaemon(): Promise<void> {
    const { nodeArguments = [], arguments: more = [], launcher = [], env } = this.#options;
    const program = nodeArguments.length === 0 ? [COMMAND] : [process.execPath, ...nodeArguments, DAEMON];
    const argv = [...launcher, ...program, ...this.#folders(), ...more];
    const daemon = this.namespace.spawn('sectunneld', argv, env);
    this.#daemon = daemon;
    await waitFor(
      'sectunneld to answer',
      async () => {
        if (!daemon.alive) throw new Error(`sectunneld ended with ${daemon.exitCode}:\n${daemon.output}`);
        return (await this.command(['list'], { check: false })).code === 0 ? true : undefined;
      },
      STARTING,
    );
  }

  get runDir(): string {
    return join(this.folder, 'run');
  }

  #folders(): string[] {
    return ['--config-dir', join(this.folder, 'config'), '--run-dir', join(this.folder, 'run')];
  }

  /** A start with more options that cannot succeed. */
  failToStart(options: readonly string[]): Promise<RunResult> {
    return this.namespace.exec([COMMAND, ...this.#folders(), ...options], { check: false });
  }

  /** `sectunneld --raise`, as the unit for boot has it. */
  raise(launcher: readonly string[] = []): Promise<RunResult> {
    return this.namespace.exec([...launcher, COMMAND, ...this.#folders(), '--raise']);
  }

  /** `sectunnel release`, which takes no daemon and so has to be in the namespace itself. */
  release(options?: RunOptions): Promise<RunResult> {
    const [run, config] = ['run', 'config'].map((part) => join(this.folder, part));
    return this.namespace.exec([CLIENT, '--run-dir', run!, 'release', '--config-dir', config!], options);
  }

  /** Of the daemon that runs. */
  get pid(): number {
    if (this.#daemon === undefined) throw new Error('sectunneld does not run');
    return this.#daemon.pid;
  }

  log(): string {
    return this.#formerLog + (this.#daemon?.output ?? '');
  }

  /** Ends the daemon in good order. Returns its exit code, `null` when it had to be killed after `grace` milliseconds. */
  async stop(signal: NodeJS.Signals = 'SIGTERM', grace?: number): Promise<number | null> {
    const daemon = this.#daemon;
    if (daemon === undefined) return 0;
    this.#daemon = undefined;
    const code = await daemon.stop(signal, grace);
    this.#formerLog += daemon.output;
    return code;
  }

  /** `sectunnel VERB …`; throws with its output when it fails, unless `check` is false. */
  async command(
    words: readonly string[],
    { input = '', check = true }: { input?: string; check?: boolean } = {},
  ): Promise<RunResult> {
    let [stdout, stderr] = ['', ''];
    const code = await runCommand(['--run-dir', join(this.folder, 'run'), ...words], {
      out: (text) => {
        stdout += text;
      },
      err: (text) => {
        stderr += text;
      },
      readStdin: async () => Buffer.from(input),
      interrupted: () => new Promise(() => undefined),
    });
    if (check && code !== 0) throw new Error(`sectunnel ${words.join(' ')} ended with ${code}\n${stdout}${stderr}`);
    return { code, stdout, stderr };
  }

  /** Keeps a pre-shared key and returns its UUID. */
  async secret(psk: string, uuid: string = randomUUID()): Promise<string> {
    const xml = `<secret ephemeral='no' private='yes'>
  <uuid>${uuid}</uuid>
  <description>a pre-shared key of the lab</description>
</secret>
`;
    await this.command(['secret-define', '-'], { input: xml });
    await this.command(['secret-set-value', uuid, '--plain'], { input: psk });
    return uuid;
  }

  /** Defines the document of a tunnel as it is and returns the command's output. */
  async defineDocument(name: string, xml: string): Promise<string> {
    const file = join(this.folder, 'documents', `${name}.xml`);
    writeFileSync(file, xml);
    const { stdout, stderr } = await this.command(['define', file]);
    this.#defined.add(name);
    return stdout + stderr;
  }

  /** Defines the tunnel as seen from `side` and starts it. */
  async load(tunnel: Tunnel, side: Side, settings: OursSettings): Promise<void> {
    const { local } = ends(tunnel, side);
    const secret = this.#secrets.get(local.psk) ?? (await this.secret(local.psk));
    this.#secrets.set(local.psk, secret);
    await this.defineDocument(tunnel.name, sectunnelDocument(tunnel, side, settings, secret));
    await this.command(['start', tunnel.name]);
  }

  async destroy(name: string): Promise<void> {
    await this.command(['destroy', name]);
  }

  /** Stops every tunnel that was defined and forgets it. */
  async reset(): Promise<void> {
    for (const name of this.#defined) {
      await this.command(['destroy', name], { check: false });
      await this.command(['undefine', name], { check: false });
    }
    this.#defined.clear();
  }

  async status(): Promise<StatusResult> {
    const { stdout } = await this.command(['status', '--json']);
    return JSON.parse(stdout) as StatusResult;
  }

  async tunnel(name: string): Promise<TunnelStatus> {
    const found = (await this.status()).tunnels.find((tunnel) => tunnel.name === name);
    if (found === undefined) throw new Error(`no tunnel ${name}`);
    return found;
  }

  /** Waits until every rule of the tunnel has an SA. */
  up(name: string, timeout = 10_000): Promise<TunnelStatus> {
    return waitFor(
      `${name} to come up`,
      async () => {
        const tunnel = await this.tunnel(name);
        return tunnel.state === 'up' ? tunnel : undefined;
      },
      timeout,
    );
  }

  /** Waits until the tunnel has no IKE SA. */
  down(name: string, timeout = 10_000): Promise<TunnelStatus> {
    return waitFor(
      `${name} to lose its IKE SA`,
      async () => {
        const tunnel = await this.tunnel(name);
        return tunnel.ikeSas.length === 0 ? tunnel : undefined;
      },
      timeout,
    );
  }

  /** The one established IKE SA of the tunnel with exactly one CHILD SA. One that is being deleted does not count. */
  async single(name: string): Promise<{ ike: IkeStatus; child: ChildStatus }> {
    const ikeSas = (await this.tunnel(name)).ikeSas.filter((sa) => sa.state === 'established');
    const [ike] = ikeSas;
    const [child] = ike?.children ?? [];
    if (ike === undefined || child === undefined || ikeSas.length > 1 || ike.children.length > 1) {
      throw new Error(`one IKE SA with one CHILD SA was expected: ${JSON.stringify(ikeSas, undefined, 1)}`);
    }
    return { ike, child };
  }
}
