/** How results look on a terminal. */

import type { NetworkInfo, SecretInfo, StatusResult, TunnelEvent, TunnelInfo } from '../control/results.ts';
import type { ChildStatus, DeviceStatus, IkeStatus, SecretStatus, TunnelStatus } from '../host/status.ts';
import { MORE_DESCRIPTORS } from '../sys/shortage.ts';

/** A table in the manner of virsh: a header, a rule, a row a line. */
export function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = header.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]!.length)));
  const line = (cells: readonly string[]): string =>
    ` ${cells.map((cell, column) => cell.padEnd(widths[column]!)).join('   ')}`.trimEnd();
  const rule = '-'.repeat(widths.reduce((sum, width) => sum + width + 3, 0));
  return `${[line(header), rule, ...rows.map(line)].join('\n')}\n`;
}

export function formatList(tunnels: readonly TunnelInfo[]): string {
  const yesNo = (value: boolean): string => (value ? 'yes' : 'no');
  return table(
    ['Name', 'State', 'Autostart', 'Persistent'],
    tunnels.map((tunnel) => [tunnel.name, listedState(tunnel), yesNo(tunnel.autostart), yesNo(tunnel.persistent)]),
  );
}

function listedState({ active, state, outdated, ...tunnel }: TunnelInfo): string {
  const words = [state, ...marks(tunnel), ...(outdated ? ['outdated'] : [])].join(', ');
  return active ? `active (${words})` : words;
}

/** What is to be seen beside a tunnel's state. */
function marks({ degraded, nothingReceived }: Pick<TunnelStatus, 'degraded' | 'nothingReceived'>): string[] {
  return [...(degraded.length > 0 ? ['degraded'] : []), ...(nothingReceived.length > 0 ? ['nothing received'] : [])];
}

export function formatInfo(info: TunnelInfo): string {
  return fields([
    ['Name', info.name],
    ['UUID', info.uuid],
    ['Active', info.active ? 'yes' : 'no'],
    ['Persistent', info.persistent ? 'yes' : 'no'],
    ...(info.outdated
      ? [['Outdated', `yes: 'sectunnel restart ${info.name}' starts with the defined document`] as const]
      : []),
    ['Autostart', info.autostart ? 'yes' : 'no'],
    ['State', info.state],
    ['Device', info.device ?? '-'],
    ...info.degraded.map((text) => ['Degraded', text] as const),
    ...info.nothingReceived.map((text) => ['Nothing received', text] as const),
  ]);
}

export function formatSecrets(secrets: readonly SecretInfo[]): string {
  return table(
    ['UUID', 'Source', 'Usage', 'Value', 'Description'],
    secrets.map((secret) => [
      secret.uuid,
      secret.source,
      secret.usage ?? '-',
      secret.hasValue === undefined ? 'unknown' : secret.hasValue ? 'set' : 'not set',
      secret.description ?? '',
    ]),
  );
}

export function formatEvent(event: TunnelEvent): string {
  return `${event.time} ${event.tunnel}: ${event.event}${event.detail === '' ? '' : `: ${event.detail}`}\n`;
}

export function formatStatus(status: StatusResult): string {
  const head = `sectunneld ${status.version}, pid ${status.pid}, up ${duration(status.uptime)}, crypto ${status.crypto}\n`;
  const io = Object.entries(status.io).map(([part, features]) => `io: ${part} ${features.join(', ')}\n`);
  const tunnels = status.tunnels.map((tunnel) => formatTunnel(tunnel, status.networks));
  const counters = Object.entries(status.counters).filter(([, count]) => count > 0);
  const totals =
    counters.length === 0
      ? []
      : [`packets of no tunnel: ${counters.map(([reason, count]) => `${reason} ${count}`).join(', ')}\n`];
  const begin = head + formatWorkers(status.workers) + io.join('') + formatDescriptors(status.descriptors);
  return [begin, ...tunnels, ...totals].join('\n');
}

/** The part of the descriptors for tunnels from which on it is said how many a daemon has open. */
const MANY = 0.75;

function formatDescriptors(use: StatusResult['descriptors']): string {
  if (use === undefined || use.open < (use.limit - use.reserve) * MANY) return '';
  const kept = `the last ${use.reserve} are kept for control, fence and files`;
  return `file descriptors: ${use.open} of ${use.limit} are open, and ${kept}; ${MORE_DESCRIPTORS}\n`;
}

function formatWorkers({ mode, threads }: StatusResult['workers']): string {
  const each = threads.map(({ role, running, restarts, cpu }) => {
    const state = running ? `${cpu.toFixed(1)} s of CPU` : 'down';
    return `${role}: ${state}${restarts === 0 ? '' : `, restarted ${restarts} times`}`;
  });
  return `workers: ${[mode, ...each].join('; ')}\n`;
}

function formatTunnel(tunnel: TunnelStatus, networks: readonly NetworkInfo[]): string {
  const device = tunnel.device === undefined ? '' : deviceText(tunnel.device);
  const lines = [`${[`${tunnel.name}: ${tunnel.state}`, ...marks(tunnel)].join(', ')}${device}`];
  for (const text of tunnel.degraded) lines.push(`  degraded: ${text}`);
  for (const text of tunnel.nothingReceived) lines.push(`  nothing received: ${text}`);
  if (tunnel.redundancy !== undefined) lines.push(`  ${redundancyText(tunnel, tunnel.redundancy)}`);
  if (tunnel.secret !== undefined) lines.push(`  ${secretText(tunnel.secret)}`);
  for (const capability of tunnel.declined) lines.push(`  the peer requests ${capability}`);
  for (const ike of tunnel.ikeSas) lines.push(...formatIke(ike).map((line) => `  ${line}`));
  if (tunnel.lastFailure !== undefined) {
    const { secondsAgo, reason, detail, inDocument } = tunnel.lastFailure;
    lines.push(`  last failure ${duration(secondsAgo)} ago: ${reason}`);
    lines.push(...detail.split('\n').map((line) => `    ${line}`));
    if (inDocument.length > 0) lines.push(`    in the document, as 'sectunnel dumpxml ${tunnel.name}' prints it:`);
    lines.push(...inDocument.map((place) => `      ${place}`));
  }
  if (tunnel.retryIn !== undefined) lines.push(`  next attempt in ${duration(tunnel.retryIn)}`);
  const drops = Object.entries(tunnel.drops).filter(([, count]) => count > 0);
  if (drops.length > 0) lines.push(`  dropped: ${drops.map(([reason, count]) => `${reason} ${count}`).join(', ')}`);
  for (const network of networks) if (network.tunnel === tunnel.name) lines.push(`  ${networkText(network)}`);
  return `${lines.join('\n')}\n`;
}

function redundancyText({ name, state }: TunnelStatus, { group, preference, carrier }: Redundancy): string {
  const ready = state === 'up' ? 'ready' : 'not ready';
  const role = carrier === name ? 'carries its packets' : `${ready}, ${carrier} carries its packets`;
  return `redundancy group ${group}, preference ${preference}: ${role}`;
}

type Redundancy = NonNullable<TunnelStatus['redundancy']>;

function networkText({ name, bridge, mode, drops, problem }: NetworkInfo): string {
  const text = `holds network ${name} (${mode}, bridge ${bridge}), dropped: ${countersText(drops)}`;
  return problem === undefined ? text : `${text}\n    ${problem}`;
}

/** Those that have counted something. */
export function countersText(counters: Readonly<Record<string, number>>): string {
  const counted = Object.entries(counters).filter(([, count]) => count > 0);
  return counted.length === 0 ? 'nothing' : counted.map(([reason, count]) => `${reason} ${count}`).join(', ');
}

function secretText({ name, source, problem }: SecretStatus): string {
  return source === undefined ? `secret: ${problem}` : `secret ${name} from ${source}`;
}

function deviceText({ name, mtu, tunnels, drops }: DeviceStatus): string {
  if (tunnels === 1) return `, device ${name} (MTU ${mtu})`;
  const lost = countersText(drops);
  return `, device ${name} (MTU ${mtu}) of ${tunnels} tunnels${lost === 'nothing' ? '' : `, which dropped ${lost}`}`;
}

function formatIke(ike: IkeStatus): string[] {
  const role = ike.initiator ? 'initiator' : 'responder';
  const lines = [
    `IKE SA #${ike.id}: ${ike.state}, ${role}, ${ike.spiInitiator}_i ${ike.spiResponder}_r`,
    `  local  ${ike.localId} ${ike.local}`,
    `  remote ${ike.remoteId ?? '(not yet known)'} ${ike.remote}`,
    `  ${ike.suite ?? 'no algorithms yet'}, ${natText(ike.nat)}, age ${duration(ike.age)}${rekeyText(ike.rekeyIn)}`,
    `  ${ike.lastHeard === undefined ? 'no response yet' : `last heard ${duration(ike.lastHeard)} ago`}${unansweredText(ike)}`,
  ];
  for (const child of ike.children) lines.push(...formatChild(child).map((line) => `  ${line}`));
  return lines;
}

/** A request that was sent once has its answer under way. */
function unansweredText({ unanswered }: IkeStatus): string {
  if (unanswered === undefined || unanswered.sent < 2) return '';
  return `; the last request was sent ${unanswered.sent} times, no response for ${duration(unanswered.seconds)}`;
}

function formatChild(child: ChildStatus): string[] {
  const esn = child.esn ? ', ESN' : '';
  const carried = child.encapsulated ? 'ESP in UDP' : 'ESP';
  return [
    `CHILD SA #${child.id} ${child.name}: ${child.mode}, ${carried}, SPI in ${child.spiIn} out ${child.spiOut}`,
    `  ${child.suite}${esn}, age ${duration(child.age)}${rekeyText(child.rekeyIn)}`,
    `  ${child.localSelectors.join(', ')} === ${child.remoteSelectors.join(', ')}${narrowing(child)}`,
    `  in  ${child.packetsIn} packets, ${child.bytesIn} bytes${seldom([
      [child.dummiesIn, 'dummies'],
      [child.ecnMarked, 'marked with congestion'],
      [child.ecnUnexpected, 'with invalid ECN'],
    ])}`,
    `  out ${child.packetsOut} packets, ${child.bytesOut} bytes${seldom([[child.dummiesOut, 'dummies']])}`,
  ];
}

/** What the document asks for and the SA does not carry. */
function narrowing({ narrowedAway }: ChildStatus): string {
  return narrowedAway.length === 0 ? '' : ` (narrowed: without ${narrowedAway.join(', ')})`;
}

/** What is worth a word only where it occurs. */
function seldom(counts: readonly (readonly [number, string])[]): string {
  return counts.flatMap(([count, what]) => (count > 0 ? [`, ${count} ${what}`] : [])).join('');
}

/** Forced encapsulation looks like a NAT on the side that forces it (RFC 7296 §2.23). */
function natText(nat: IkeStatus['nat']): string {
  if (nat === 'none') return 'no NAT';
  return `NAT or forced encapsulation at ${nat === 'both' ? 'both sides' : `the ${nat} side`}`;
}

function rekeyText(seconds: number | undefined): string {
  return seconds === undefined ? '' : `, rekey in ${duration(seconds)}`;
}

/** `3s`, `4m 10s`, `2h 5m`, `3d 1h`. */
export function duration(seconds: number): string {
  if (seconds > 0 && seconds < 0.5) return '<1s';
  const whole = Math.max(0, Math.round(seconds));
  const units = [
    ['d', 86_400],
    ['h', 3_600],
    ['m', 60],
    ['s', 1],
  ] as const;
  const first = units.findIndex(([, size]) => whole >= size);
  if (first < 0) return '0s';
  const parts: string[] = [];
  let rest = whole;
  for (const [name, size] of units.slice(first, first + 2)) {
    const count = Math.floor(rest / size);
    rest -= count * size;
    if (count > 0) parts.push(`${count}${name}`);
  }
  return parts.join(' ');
}

function fields(pairs: readonly (readonly [string, string])[]): string {
  const width = Math.max(...pairs.map(([name]) => name.length)) + 1;
  return `${pairs.map(([name, value]) => `${`${name}:`.padEnd(width)}   ${value}`).join('\n')}\n`;
}
