/** The verb that says why a packet fares as it does. */

import { SectunnelError } from '../base/error.ts';
import type {
  Explanation,
  FilterExplanation,
  FilterFinding,
  NamedEntry,
  Outcome,
  PolicyExplanation,
  SaExplanation,
  TunnelSay,
} from '../explain/explanation.ts';
import { type Arguments, flag, json, name, UsageError, type VerbSpec } from './verb.ts';

const EXIT_CODES: Readonly<Record<Outcome, number>> = {
  protected: 0,
  held: 0,
  bypassed: 0,
  dropped: 4,
  'not-applied': 5,
  unsure: 6,
};

const option: { readonly type: 'string' } = { type: 'string' };

export const explain: VerbSpec = {
  group: 'Inspection',
  usage: 'TUNNEL --src A[:PORT] --dst B[:PORT] --proto PROTOCOL',
  summary: 'why a packet is protected, bypassed or dropped, and which route it takes',
  details:
    'Says which policy entry decides and why those before it do not match, which SA carries the packet, which rule\n' +
    'and route of this host it meets, and what other tunnels, our fences and the nftables rules of other programs do with\n' +
    'it. No packet is sent. IPv6 addresses with a port go in brackets: [fd00::1]:53.\n' +
    "For a tunnel that is not active the kept document is explained. Lines are those of 'sectunnel dumpxml TUNNEL'.",
  options: { src: option, dst: option, proto: option, direction: option, type: option, code: option, json: flag },
  optionHelp: {
    src: 'source of the packet; a port is assumed when none is given',
    dst: 'destination of the packet',
    proto: 'tcp, udp, icmp, icmpv6 … or a number',
    direction: 'out (the default) or in, as seen from this host',
    type: 'of ICMP; an echo request when left out',
    code: 'of ICMP; 0 when left out',
    json: 'as JSON, for programs',
  },
  positionals: [1, 1],
  exitCodes: {
    0: 'the packet is protected, or will be when the SA is negotiated, or is bypassed as the policy says',
    4: 'the packet is dropped, or no policy entry matches it',
    5: 'this host does not do what the policy says: see the warnings',
    6: 'not sure: something that could not be judged or checked may stop it',
  },
  run: async (client, args, terminal) => {
    const question = {
      name: name(args),
      src: wanted(args, 'src'),
      dst: wanted(args, 'dst'),
      proto: wanted(args, 'proto'),
      ...given('direction', text(args, 'direction')),
      ...given('type', whole(args, 'type')),
      ...given('code', whole(args, 'code')),
    };
    const result = await client.call('explain', question).catch((error: unknown) => {
      if (error instanceof SectunnelError && error.code === 'bad-request')
        throw new UsageError(error.message, 'explain');
      throw error;
    });
    terminal.out(args.options.json === true ? json(result) : formatExplanation(result));
    return EXIT_CODES[result.outcome];
  },
};

function text({ options }: Arguments, key: string): string | undefined {
  const value = options[key];
  return typeof value === 'string' ? value : undefined;
}

function wanted(args: Arguments, key: string): string {
  const value = text(args, key);
  if (value === undefined) throw new UsageError(`explain needs --${key}`, 'explain');
  return value;
}

function whole(args: Arguments, key: string): number | undefined {
  const value = text(args, key);
  if (value === undefined) return undefined;
  if (!/^[0-9]{1,3}$/.test(value))
    throw new UsageError(`--${key} '${value}': expected a number from 0 to 255`, 'explain');
  return Number(value);
}

function given<K extends string, V>(key: K, value: V | undefined): { [P in K]?: V } {
  return value === undefined ? {} : ({ [key]: value } as { [P in K]: V });
}

export function formatExplanation(found: Explanation): string {
  const { packet, direction, assumed, verdict, policy, sa, route, tunnels, filters, warnings } = found;
  const side = direction === 'out' ? 'from here' : 'to here';
  const taken = assumed.length === 0 ? '' : ` (assumed: ${assumed.join(', ')})`;
  const lines = [
    `${packet}, ${side}${taken}`,
    verdict,
    ...warnings.map((warning) => `WARNING: ${warning}`),
    '',
    ...section('policy', policyLines(policy)),
    ...(sa === undefined ? [] : section('SA', saLines(sa))),
    ...(route === undefined
      ? []
      : section('route', [route.text, ...(route.rule === undefined ? [] : [`rule ${route.rule}`])])),
    ...section('tunnels', tunnels.map(tunnelLine)),
    ...section('fence', fenceLines(found)),
    ...(filters === undefined ? [] : section('filters', filterLines(filters))),
  ];
  return `${lines.join('\n')}\n`;
}

const WIDTH = 8;

function section(title: string, lines: readonly string[]): string[] {
  return lines.map((line, at) => `${(at === 0 ? title : '').padEnd(WIDTH)}${line}`);
}

function policyLines({ decision, entry, before, beforeCount, shadowed, shadowedCount }: PolicyExplanation): string[] {
  const level = entry?.level === undefined ? '' : `, level ${entry.level}`;
  const lines = [entry === undefined ? decision : `${decision}${level}, priority ${entry.priority}`];
  for (const other of before) lines.push(`not by ${label(other)}: ${other.why.join('; ')}`);
  const more = beforeCount - before.length;
  if (more > 0) lines.push(`nor by ${count(more)} more before it, which match even less`);
  const hidden = shadowed.map(label).join(', ');
  const rest = shadowedCount - shadowed.length;
  if (hidden !== '') {
    lines.push(`never asked, as they come later: ${hidden}${rest > 0 ? ` and ${count(rest)} more` : ''}`);
  }
  return lines;
}

function saLines({ text: told, carries }: SaExplanation): string[] {
  if (carries === undefined) return [told];
  const { mode, spi, suite, esn, selectors, peer } = carries;
  return [`${told}: ${mode}, SPI ${spi}, ${suite}${esn ? ', ESN' : ''}, peer ${peer}`, `agreed on ${selectors}`];
}

function tunnelLine({ name: tunnel, decision, gets }: TunnelSay): string {
  return `${tunnel}: ${decision}${gets ? ', and gets it' : ''}`;
}

/** Without a subject it is the fence of the tunnel. */
function fenceLines({ name: tunnel, fence, otherFence }: Explanation): string[] {
  if (otherFence === undefined) return fence === undefined ? [] : [fence.text];
  return [otherFence, ...(fence === undefined ? [] : [`the fence of tunnel '${tunnel}' ${fence.text}`])];
}

function filterLines({ asked, found, foundCount, unread }: FilterExplanation): string[] {
  const chains = asked === 1 ? 'chain' : 'chains';
  const first = found.length === 0 ? 'no rule of another program stops or changes it' : 'rules of other programs';
  const more = foundCount - found.length;
  return [
    `${first} (nftables, ${count(asked)} ${chains} asked, as for the first packet of a flow)`,
    ...found.flatMap(findingLines),
    ...(more > 0 ? [`and ${count(more)} more`] : []),
    ...unread.map((what) => `not checked: ${what}`),
  ];
}

const EFFECTS: Readonly<Record<FilterFinding['effect'], string>> = {
  drop: 'stops it',
  source: 'replaces its source',
  destination: 'replaces its destination',
  mark: 'sets its mark',
};

function findingLines({ hook, effect, certain, table, chain, rule, unless }: FilterFinding): string[] {
  const place = `${hook}, table ${table}, chain ${chain}: ${rule}`;
  const exception = unless === undefined ? [] : [`  unless this lets it go before: ${unless}`];
  return [`${certain ? EFFECTS[effect] : `not sure whether it ${EFFECTS[effect]}`}: ${place}`, ...exception];
}

function label({ name: entryName, line }: NamedEntry): string {
  return line === undefined ? `'${entryName}'` : `'${entryName}' (line ${line})`;
}

/** `9,990` */
function count(value: number): string {
  return value.toLocaleString('en-US');
}
