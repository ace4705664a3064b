/**
 * Two gateways of ours on a cable, the left one with a client behind it: which packets go into tunnels, and which are kept
 * from passing in the clear. Both ends have routes for the inner networks beside the tunnel, so only the policy stops them.
 */
import { Capture } from '../support/lab/capture.ts';
import type { Lab } from '../support/lab/lab.ts';
import { cable, type Namespace } from '../support/lab/namespace.ts';
import { Ours } from '../support/lab/ours.ts';
import type { Background } from '../support/lab/process.ts';

export const KEY = '11111111-2222-3333-4444-555555555502';
export const NAME = 'gate';
export const OUTER = {
  left: { 4: '192.0.2.1', 6: '2001:db8::1' },
  right: { 4: '192.0.2.2', 6: '2001:db8::2' },
} as const;
/** The gateway itself, a client behind it; hosts on the other side. */
export const INNER = {
  4: {
    gateway: '10.1.0.1',
    client: '10.1.0.7',
    far: '10.2.0.9',
    hole: '10.2.0.53',
    left: '10.1.0.0/24',
    right: '10.2.0.0/24',
  },
  6: { gateway: 'fd01::1', client: 'fd01::7', far: 'fd02::9', hole: 'fd02::53', left: 'fd01::/64', right: 'fd02::/64' },
} as const;
export const FAMILIES = [4, 6] as const;

/** Takes away all rules but those that every host has, as a shell has it. */
export const FLUSH_RULES: string = FAMILIES.map(
  (family) => `ip -${family} rule flush; ip -${family} rule add pref 32766 table main`,
).join('; ');

export interface Gateways {
  readonly lab: Lab;
  readonly client: Namespace;
  readonly left: Namespace;
  readonly right: Namespace;
  readonly ours: Ours;
  readonly theirs: Ours;
}

export async function buildGateways(lab: Lab): Promise<Gateways> {
  const [client, left, right] = [
    await lab.namespace('client'),
    await lab.namespace('left'),
    await lab.namespace('right'),
  ];
  await cable(
    { namespace: left, device: 'eth0', addresses: ['192.0.2.1/24', '2001:db8::1/64'] },
    { namespace: right, device: 'eth0', addresses: ['192.0.2.2/24', '2001:db8::2/64'] },
  );
  await cable(
    { namespace: client, device: 'eth0', addresses: ['10.1.0.7/24', 'fd01::7/64'] },
    { namespace: left, device: 'lan0', addresses: ['10.1.0.1/24', 'fd01::1/64'] },
  );
  const far = FAMILIES.flatMap((family) => [INNER[family].far, INNER[family].hole]);
  await right.ip(far.map((address) => `addr add ${address} dev lo${address.includes(':') ? ' nodad' : ''}`));
  await client.ip(['route add default via 10.1.0.1', 'route add default via fd01::1']);
  await left.ip(['route add 10.2.0.0/16 via 192.0.2.2', 'route add fd02::/64 via 2001:db8::2']);
  await right.ip(['route add 10.1.0.0/24 via 192.0.2.1', 'route add fd01::/64 via 2001:db8::1']);
  const forwarding = ['ipv4/ip_forward', 'ipv6/conf/all/forwarding'];
  await left.exec(['sh', '-c', forwarding.map((file) => `echo 1 >/proc/sys/net/${file}`).join('; ')]);
  const [ours, theirs] = [await Ours.start(lab, left), await Ours.start(lab, right)];
  for (const end of [ours, theirs]) await end.secret('a pre-shared key', KEY);
  return { lab, client, left, right, ours, theirs };
}

/** An `<sp>` as the left side has it. */
export interface Entry {
  readonly name: string;
  readonly from: string;
  readonly to: string;
  /** Attributes of the destination, and of its mirror. */
  readonly toMore?: string;
  readonly upper?: string;
  readonly action?: 'none' | 'discard';
  readonly level?: string;
  readonly priority?: number;
}

/** Everything between the inner networks. */
export const NETWORKS: readonly Entry[] = FAMILIES.map((family) => ({
  name: `net${family}`,
  from: INNER[family].left,
  to: INNER[family].right,
}));

function sp(entry: Entry, mirrored: boolean): string {
  const { name, action, level = 'require', toMore = '', upper = "protocol='any'", priority = 0 } = entry;
  const range = (element: string, prefix: string, more = ''): string => {
    const [address, length] = prefix.split('/');
    return `<${element} address='${address}'${length === undefined ? '' : ` prefixlen='${length}'`} ${more}/>`;
  };
  const ranges = mirrored
    ? [range('src_range', entry.to, toMore), range('dst_range', entry.from)]
    : [range('src_range', entry.from), range('dst_range', entry.to, toMore)];
  const policy =
    action === undefined
      ? `<policy direction='both' action='ipsec'><rule protocol='esp' mode='tunnel' level='${level}'/></policy>`
      : `<policy direction='both' action='${action}'/>`;
  return `<sp name='${name}' priority='${priority}'>${ranges.join('')}<upperspec ${upper}/>${policy}</sp>`;
}

export interface Words {
  readonly outer?: 4 | 6;
  readonly port?: number;
  readonly start?: string;
  readonly device?: string;
  /** The other end as the right side has it. */
  readonly leftAddress?: string;
}

/** The documents of both ends. */
export function documents(entries: readonly Entry[], words: Words = {}): { left: string; right: string } {
  const { outer = 4, port, start = 'initiate', device = '', leftAddress = OUTER.left[outer] } = words;
  const ike = port === undefined ? '' : ` port='${port}'`;
  const document = (right: boolean): string => `<sectunnel type='ipsec'>
  <name>${NAME}</name>${right ? '' : device}
  <sa>
    <local address='${right ? OUTER.right[outer] : OUTER.left[outer]}'${ike}><id type='fqdn'>${right ? 'right' : 'left'}.example</id></local>
    <remote address='${right ? leftAddress : OUTER.right[outer]}'${ike}><id type='fqdn'>${right ? 'left' : 'right'}.example</id></remote>
    <auth type='psk'><secret uuid='${KEY}'/></auth>
    <ike start='${right ? 'respond' : start}'/>
  </sa>
  ${entries.map((entry) => sp(entry, right)).join('\n  ')}
</sectunnel>`;
  return { left: document(false), right: document(true) };
}

/** Defines and starts the tunnel at both ends. */
export async function startBoth(
  { ours, theirs }: Gateways,
  entries: readonly Entry[],
  words: Words = {},
): Promise<void> {
  const { left, right } = documents(entries, words);
  await theirs.defineDocument(NAME, right);
  await theirs.command(['start', NAME]);
  await ours.defineDocument(NAME, left);
  await ours.command(['start', NAME]);
}

/** After a test that failed half-way. */
export async function resetBoth({ ours, theirs }: Gateways): Promise<void> {
  for (const end of [ours, theirs]) await end.reset();
}

export async function stopBoth({ ours, theirs }: Gateways): Promise<void> {
  for (const end of [ours, theirs]) await end.command(['destroy', NAME]);
}

/** All rules, routes and tables of ours in a namespace: empty when nothing is left behind. */
export async function leftovers(namespace: Namespace): Promise<string> {
  const commands = [
    ['ip', '-4', 'rule', 'show'],
    ['ip', '-6', 'rule', 'show'],
    ['ip', '-4', 'route', 'show', 'table', 'all', 'proto', '83'],
    ['ip', '-6', 'route', 'show', 'table', 'all', 'proto', '83'],
    ['nft', 'list', 'ruleset'],
  ];
  const outputs = await Promise.all(commands.map((command) => namespace.exec(command)));
  const lines = outputs.flatMap(({ stdout }) => stdout.split('\n'));
  return lines.filter((line) => line !== '' && !/^(0|32766|32767):/.test(line)).join('\n');
}

/** The number of packets on the cable while `action` runs that a filter of tcpdump picks. */
export async function counted(gateways: Gateways, filter: string, action: () => Promise<unknown>): Promise<number> {
  const capture = await Capture.start(gateways.lab, gateways.left, 'eth0');
  await action();
  await capture.stop();
  return (await capture.packets(filter)).length;
}

/** Packets between the inner networks in the clear. */
export const CLEAR = '(net 10.1.0.0/24 and net 10.2.0.0/24) or (net fd01::/64 and net fd02::/64)';

/** Sends three echo requests, quickly, as no answer is expected. Returns how many were answered. */
export async function knock(from: Namespace, source: string, destination: string): Promise<number> {
  const words = ['-n', '-q', '-c', '3', '-i', '0.05', '-W', '1', '-I', source, destination];
  const { stdout } = await from.exec(['ping', ...words], { check: false });
  return Number(/(\d+) received/.exec(stdout)?.[1] ?? 0);
}

/** Packets of the gateway and of its client, both families, until the returned function is called: how many were answered. */
export function traffic({ lab, left, client }: Gateways): () => Promise<number> {
  const pings = FAMILIES.flatMap((family) => {
    const { far, gateway, client: behind } = INNER[family];
    const ping = (from: Namespace, source: string): Background =>
      from.spawn(`ping ${source}`, ['ping', '-n', '-q', '-i', '0.02', '-W', '1', '-I', source, far]);
    return [ping(left, gateway), ping(client, behind)];
  });
  for (const ping of pings) lab.defer(() => ping.stop('SIGKILL'));
  return async () => {
    await Promise.all(pings.map((ping) => ping.stop('SIGINT')));
    return pings.reduce((sum, { output }) => sum + Number(/(\d+) received/.exec(output)?.[1] ?? 0), 0);
  };
}
