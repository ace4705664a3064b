/**
 * strongSwan as a peer: charon-systemd (which needs no systemd) in a namespace with a private folder, driven through
 * swanctl. `configuration` is shared with the User-Mode Linux guest, whose charon is reached over TCP.
 */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Lab } from './lab.ts';
import type { Namespace } from './namespace.ts';
import { type Background, type RunResult, run, STARTING, waitFor } from './process.ts';
import {
  type ChildReport,
  ends,
  type IkeReport,
  type LabIdentity,
  type Side,
  type Tunnel,
  type TunnelEnd,
} from './tunnel.ts';
import { list, parseRaw, type RawValue, section, text } from './vici.ts';

const CHARON = '/usr/sbin/charon-systemd';
const CRYPTO_PLUGINS =
  'random nonce openssl pem pkcs1 pkcs8 x509 revocation constraints pubkey hmac gcm ccm ctr xcbc cmac aes sha2 sha1 ' +
  'curve25519 kdf drbg chapoly';

/** Settings of charon with which a test does not wait long. */
const IMPATIENT = { retransmit_tries: 4, retransmit_timeout: 0.5, retransmit_base: 1.5, half_open_timeout: 10 };

export interface StrongSwanOptions {
  /** UDP port in the place of 4500, for both IKE and ESP. */
  readonly port?: number;
  /** 1 is a line an event, 2 more; 4 would show keys. */
  readonly logLevel?: number;
  /** Of charon, in the place of the lab's own. */
  readonly settings?: Settings;
}

/** strongswan.conf of an instance. `kernel` names the plugin that carries ESP. */
export function strongswanConf(
  kernel: 'kernel-libipsec' | 'kernel-netlink',
  vici: string,
  log: string,
  options: StrongSwanOptions,
): string {
  const data = kernel === 'kernel-libipsec' ? 'kernel-libipsec kernel-netlink' : 'kernel-netlink';
  const lines = [
    'charon-systemd {',
    `  load = ${CRYPTO_PLUGINS} ${data} socket-default vici updown`,
    ...settingLines('  ', options.settings ?? IMPATIENT),
    ...(options.port === undefined ? [] : [`  port_nat_t = ${options.port}`]),
    '  filelog {',
    '    log {',
    `      path = ${log}`,
    `      default = ${options.logLevel ?? 1}`,
    '      flush_line = yes',
    '    }',
    '  }',
    '  plugins {',
    '    vici {',
    `      socket = ${vici}`,
    '    }',
    '    kernel-libipsec {',
    '      allow_peer_ts = yes',
    '    }',
    '  }',
    '}',
    'swanctl {',
    '  load = pem pkcs1 pkcs8 x509 openssl random',
    '}',
  ];
  return `${lines.join('\n')}\n`;
}

function identity(id: LabIdentity): string {
  switch (id.type) {
    case 'address':
      return id.value;
    case 'fqdn':
      return `fqdn:${id.value}`;
    case 'email':
      return `email:${id.value}`;
    case 'dn':
      // Behind a prefix it would be taken for DER.
      return id.value;
    case 'keyid':
      return `keyid:${id.value}`;
  }
}

/** `aes128gcm16-prfsha256-x25519`. */
export function ikeProposal({ encryption, integrity, prf, dh }: Tunnel['ike']): string {
  return [encryption, integrity, `prf${prf}`, dh].filter((part) => part !== undefined).join('-');
}

/** `aes128-sha256-x25519-esn`. */
export function espProposal({ encryption, integrity, dh, esn }: Tunnel['esp']): string {
  const sequence = { yes: ['esn'], no: ['noesn'], either: ['esn', 'noesn'] }[esn];
  return [encryption, integrity, dh, ...sequence].filter((part) => part !== undefined).join('-');
}

function selectors({ transport = 'any' }: Tunnel, { inner }: TunnelEnd): string {
  return inner.map((prefix) => (transport === 'any' ? prefix : `${prefix}[${transport}]`)).join(', ');
}

type Settings = Readonly<Record<string, string | number>>;

/** What a connection has beside what its tunnel says. */
export interface SwanctlSettings {
  readonly connection?: Settings;
  readonly child?: Settings;
}

function settingLines(indent: string, settings: Settings = {}): string[] {
  return Object.entries(settings).map(([key, value]) => `${indent}${key} = ${value}`);
}

/**
 * swanctl.conf of one end. The connection and its child both carry the tunnel's name. Of several such texts the sections
 * are merged.
 */
export function swanctlConf(tunnel: Tunnel, side: Side, more: SwanctlSettings = {}): string {
  const { local, remote } = ends(tunnel, side);
  const dpd = tunnel.dpd ?? 0;
  const lines = [
    'connections {',
    `  ${tunnel.name} {`,
    '    version = 2',
    ...(local.address === 'any' ? [] : [`    local_addrs = ${local.address}`]),
    ...(remote.address === 'any' ? [] : [`    remote_addrs = ${remote.address}`]),
    ...(tunnel.port === undefined ? [] : [`    local_port = ${tunnel.port}`, `    remote_port = ${tunnel.port}`]),
    `    encap = ${(tunnel.forceEncapsulation ?? tunnel.encapsulation === undefined) ? 'yes' : 'no'}`,
    `    proposals = ${ikeProposal(tunnel.ike)}`,
    `    dpd_delay = ${dpd}s`,
    '    rekey_time = 0',
    ...settingLines('    ', more.connection),
    '    local {',
    '      auth = psk',
    `      id = "${identity(local.id)}"`,
    '    }',
    '    remote {',
    '      auth = psk',
    `      id = "${identity(remote.id)}"`,
    '    }',
    '    children {',
    `      ${tunnel.name} {`,
    `        local_ts = ${selectors(tunnel, local)}`,
    `        remote_ts = ${selectors(tunnel, remote)}`,
    `        esp_proposals = ${espProposal(tunnel.esp)}`,
    `        mode = ${tunnel.transport === undefined ? 'tunnel' : 'transport'}`,
    '        rekey_time = 0',
    ...(tunnel.tfcPadding === undefined ? [] : [`        tfc_padding = ${tunnel.tfcPadding}`]),
    `        dpd_action = ${tunnel.dpdAction ?? 'clear'}`,
    ...settingLines('        ', more.child),
    '      }',
    '    }',
    '  }',
    '}',
    'secrets {',
    '  ike-1 {',
    `    secret = "${local.psk}"`,
    '  }',
    '}',
  ];
  return `${lines.join('\n')}\n`;
}

/** A charon that listens at `uri`, wherever it runs. */
export class Swanctl {
  readonly folder: string;
  readonly #uri: string;
  readonly #prefix: readonly string[];

  /** @param prefix the command that leads to where `uri` can be reached */
  constructor(folder: string, uri: string, prefix: readonly string[] = []) {
    this.folder = folder;
    this.#uri = uri;
    this.#prefix = prefix;
  }

  /** The file that its configuration is read from. */
  get configFile(): string {
    return join(this.folder, 'swanctl/swanctl.conf');
  }

  get logFile(): string {
    return join(this.folder, 'charon.log');
  }

  log(): string {
    return existsSync(this.logFile) ? readFileSync(this.logFile, 'utf8') : '';
  }

  command(arguments_: readonly string[], check = true, timeout: number = STARTING): Promise<RunResult> {
    const env = { STRONGSWAN_CONF: join(this.folder, 'strongswan.conf'), SWANCTL_DIR: join(this.folder, 'swanctl') };
    return run([...this.#prefix, 'swanctl', ...arguments_, '--uri', this.#uri], { env, check, timeout });
  }

  async ready(timeout: number = STARTING): Promise<void> {
    await waitFor(
      `charon at ${this.#uri}`,
      async () => ((await this.command(['--stats'], false)).code === 0 ? true : undefined),
      timeout,
    );
  }

  /** Takes the place of everything that was loaded before. */
  async load(tunnel: Tunnel, side: Side): Promise<void> {
    await this.loadConfiguration(swanctlConf(tunnel, side));
  }

  /** The same with a configuration that is written out, and files by their paths in swanctl's folder. */
  async loadConfiguration(text: string, files: Readonly<Record<string, string>> = {}): Promise<void> {
    const folder = join(this.folder, 'swanctl');
    mkdirSync(folder, { recursive: true });
    writeFileSync(this.configFile, text);
    for (const kind of ['x509', 'x509ca', 'x509crl', 'private'])
      rmSync(join(folder, kind), { recursive: true, force: true });
    for (const [path, content] of Object.entries(files)) {
      mkdirSync(join(folder, path, '..'), { recursive: true });
      writeFileSync(join(folder, path), content, { mode: 0o600 });
    }
    await this.command(['--load-all', '--clear']);
  }

  async initiate(tunnel: string): Promise<void> {
    await this.command(['--initiate', '--child', tunnel, '--timeout', '30']);
  }

  /** For an initiation that is expected to fail: its output. */
  async initiateInVain(tunnel: string): Promise<string> {
    const { code, stdout, stderr } = await this.command(['--initiate', '--child', tunnel, '--timeout', '30'], false);
    if (code === 0) throw new Error(`the initiation of ${tunnel} should have failed:\n${stdout}`);
    return stdout + stderr;
  }

  async rekeyChild(tunnel: string): Promise<void> {
    await this.command(['--rekey', '--child', tunnel]);
  }

  async rekeyIke(tunnel: string): Promise<void> {
    await this.command(['--rekey', '--ike', tunnel]);
  }

  async terminateIke(tunnel: string): Promise<void> {
    await this.command(['--terminate', '--ike', tunnel, '--timeout', '5']);
  }

  async terminateChild(tunnel: string): Promise<void> {
    await this.command(['--terminate', '--child', tunnel, '--timeout', '5']);
  }

  /** Ends what is left of former tests, whether the other end answers or not. */
  async reset(): Promise<void> {
    for (const sa of await this.sas()) {
      await this.command(['--terminate', '--ike-id', sa.id, '--force', '--timeout', '2'], false);
    }
  }

  async sas(): Promise<StrongSwanSa[]> {
    const { stdout } = await this.command(['--list-sas', '--raw']);
    return stdout
      .split('\n')
      .filter((line) => line.startsWith('list-sa event'))
      .flatMap((line) => Object.values(parseRaw(line.slice(line.indexOf('{')))).map(toSa));
  }

  /** The one established IKE SA with exactly one installed CHILD SA. */
  async single(): Promise<{ ike: StrongSwanSa; child: StrongSwanChild }> {
    const sas = (await this.sas()).filter((sa) => sa.established);
    const [ike] = sas;
    const children = ike?.children.filter((child) => child.installed) ?? [];
    const [child] = children;
    if (ike === undefined || child === undefined || sas.length > 1 || children.length > 1) {
      throw new Error(`one IKE SA with one CHILD SA was expected: ${JSON.stringify(await this.sas(), undefined, 1)}`);
    }
    return { ike, child };
  }
}

export interface StrongSwanChild extends ChildReport {
  readonly installed: boolean;
  /** `AES_GCM_16-128`, `AES_CBC-128/HMAC_SHA2_256_128/MODP_2048/ESN`. */
  readonly suite: string;
  readonly encapsulated: boolean;
  readonly localTs: readonly string[];
  readonly remoteTs: readonly string[];
}

export interface StrongSwanSa extends IkeReport {
  readonly id: string;
  readonly initiator: boolean;
  readonly suite: string;
  readonly remoteId: string;
  readonly children: readonly StrongSwanChild[];
}

function toSa(value: RawValue): StrongSwanSa {
  const suite = [`${text(value, 'encr-alg')}-${text(value, 'encr-keysize')}`];
  for (const key of ['integ-alg', 'prf-alg', 'dh-group']) if (text(value, key) !== '') suite.push(text(value, key));
  return {
    id: text(value, 'uniqueid'),
    initiator: text(value, 'initiator') === 'yes',
    initiatorSpi: text(value, 'initiator-spi'),
    responderSpi: text(value, 'responder-spi'),
    established: text(value, 'state') === 'ESTABLISHED',
    suite: suite.join('/'),
    remoteId: text(value, 'remote-id'),
    children: Object.values(section(value, 'child-sas')).map(toChild),
  };
}

function toChild(value: RawValue): StrongSwanChild {
  const suite = [`${text(value, 'encr-alg')}-${text(value, 'encr-keysize')}`];
  for (const key of ['integ-alg', 'dh-group']) if (text(value, key) !== '') suite.push(text(value, key));
  if (text(value, 'esn') === '1') suite.push('ESN');
  return {
    installed: text(value, 'state') === 'INSTALLED',
    suite: suite.join('/'),
    encapsulated: text(value, 'encap') === 'yes',
    spiIn: text(value, 'spi-in'),
    spiOut: text(value, 'spi-out'),
    bytesIn: Number(text(value, 'bytes-in')),
    bytesOut: Number(text(value, 'bytes-out')),
    packetsIn: Number(text(value, 'packets-in')),
    packetsOut: Number(text(value, 'packets-out')),
    localTs: list(value, 'local-ts'),
    remoteTs: list(value, 'remote-ts'),
  };
}

/** strongSwan with userspace ESP (kernel-libipsec) in a namespace. */
export class StrongSwan extends Swanctl {
  readonly namespace: Namespace;
  /** Its control socket. */
  readonly socket: string;
  #daemon: Background | undefined;

  private constructor(folder: string, namespace: Namespace) {
    const socket = join(folder, 'charon.vici');
    super(folder, `unix://${socket}`);
    this.socket = socket;
    this.namespace = namespace;
  }

  static async start(lab: Lab, namespace: Namespace, options: StrongSwanOptions = {}): Promise<StrongSwan> {
    const folder = join(lab.folder, namespace.name);
    mkdirSync(join(folder, 'swanctl'), { recursive: true });
    const peer = new StrongSwan(folder, namespace);
    const conf = strongswanConf('kernel-libipsec', `unix://${peer.socket}`, peer.logFile, options);
    writeFileSync(join(folder, 'strongswan.conf'), conf);
    lab.log(`strongSwan in ${namespace.name}`, () => peer.log());
    lab.defer(() => peer.stop());
    await peer.restart();
    return peer;
  }

  /** Starts the daemon, anew if it runs; nothing is loaded then. */
  async restart(): Promise<void> {
    await this.stop();
    this.#daemon = this.namespace.spawn('charon', [CHARON], {
      STRONGSWAN_CONF: join(this.folder, 'strongswan.conf'),
      SWANCTL_DIR: join(this.folder, 'swanctl'),
    });
    await this.ready();
  }

  /** Of the daemon that runs. */
  get pid(): number {
    if (this.#daemon === undefined) throw new Error('charon does not run');
    return this.#daemon.pid;
  }

  /** Ends it in good order: the peer is told. Returns its exit code, `null` when it had to be killed after `grace` milliseconds. */
  async stop(grace?: number): Promise<number | null> {
    const daemon = this.#daemon;
    this.#daemon = undefined;
    return daemon === undefined ? 0 : await daemon.stop('SIGTERM', grace);
  }

  /** Ends it so that the peer hears nothing. */
  async kill(): Promise<void> {
    await this.#daemon?.stop('SIGKILL');
    this.#daemon = undefined;
  }
}
