/**
 * Random rules of nftables: what is said of a packet that a router forwards against what the kernel does with it. What is
 * said for certain is so.
 */
import { expect, it } from 'vitest';
import { type Hook, parseTable, type Table } from '../../src/hostnet/filters/listing.ts';
import { passHook } from '../../src/hostnet/filters/walk.ts';
import { at, ping as echoRequest } from '../hostnet/filters/packets.ts';
import { cable, type Namespace } from '../support/lab/namespace.ts';
import { describeInterop } from '../support/lab/requirements.ts';
import { useLab } from '../support/lab/use-lab.ts';
import { Dice } from './differential/packets.ts';

const ROUNDS = Number(process.env.SECTUNNEL_FILTER_ROUNDS ?? 80);
const SEED = Number(process.env.SECTUNNEL_FILTER_SEED ?? 1);
const [CLIENT, SERVER] = ['10.1.0.9', '10.2.0.1'];

const MATCHES = [
  'iifname "lan0"',
  'iifname "wan*"',
  'iifname != "lan0"',
  'oifname { "wan0", "x" }',
  'iif != "wan0"',
  'ip saddr 10.1.0.0/24',
  'ip saddr != 10.1.0.9',
  'ip saddr { 10.1.0.1-10.1.0.8, 10.2.0.0/16 }',
  'ip daddr @servers',
  'ip daddr != @servers',
  'ip protocol icmp',
  'meta l4proto { tcp, udp }',
  'ip protocol != tcp',
  'tcp dport 22',
  'udp dport != 53',
  'icmp type { echo-reply, echo-request }',
  'icmp type != echo-request',
  'ct state new',
  'ct state established,related',
  'ct state != new',
  'ct direction original',
  'ct status dnat',
  'meta nfproto ipv6',
  'ip6 saddr fd00::/8',
  'meta mark 0x1',
  'meta mark & 0x3 == 0x1',
  'meta mark != 0x1',
  'meta mark set 0x1',
  'meta mark set meta mark or 0x2',
  'fib daddr type local',
  'counter',
  'log prefix "drop accept"',
  // Not understood.
  'ip ttl 63',
  'ip ttl 60',
  'meta length > 10000',
] as const;
const SIMPLE = ['accept', 'drop', 'drop', 'return', 'continue', ''] as const;
const LEADING = [
  'jump a',
  'jump b',
  'goto a',
  'ip saddr vmap { 10.1.0.0/24 : drop, 10.9.0.0/16 : accept }',
  'ip daddr vmap @verdicts',
  'ct state vmap { established : accept, new : jump a }',
] as const;

/** The packet passes these, and is counted behind them. */
const HOOKS: readonly (readonly [Hook, string])[] = [
  ['prerouting', ''],
  ['forward', 'wan0'],
  ['postrouting', 'wan0'],
];

function randomTable(dice: Dice): string {
  const rule = (actions: readonly string[]): string => {
    const matches = Array.from({ length: dice.below(3) }, () => dice.pick(MATCHES));
    return [...matches, dice.pick(actions)].join(' ').trim();
  };
  const rules = (most: number, actions: readonly string[]): string =>
    Array.from({ length: 1 + dice.below(most) }, () => rule(actions)).join('\n');
  const base = (name: string, hook: string, priority: number, most: number): string =>
    `chain ${name} {\ntype filter hook ${hook} priority ${priority}; policy ${dice.pick(['accept', 'accept', 'drop'])};\n${rules(most, [...SIMPLE, ...LEADING])}\n}`;
  return `table inet rolled {
set servers { type ipv4_addr; flags interval; elements = { ${dice.pick(['10.2.0.0/24', '10.3.0.0/24'])} } }
map verdicts { type ipv4_addr : verdict; elements = { ${SERVER} : ${dice.pick(['drop', 'accept', 'jump b'])} } }
chain b {\n${rules(4, SIMPLE)}\n}
chain a {\n${rules(4, SIMPLE)}\n${dice.pick(['', 'jump b', 'goto b'])}\n}
${base('early', 'forward', -10, 4)}
${base('late', 'forward', 10, 4)}
chain pre {\ntype filter hook prerouting priority -150;\n${rules(1, ['', '', 'drop'])}\n}
chain post {\ntype filter hook postrouting priority 50;\n${rules(1, ['', 'accept', 'drop'])}\n}
}`;
}

/** By what `nft list table` prints. */
function foretold(table: Table): 'passes' | 'stopped' | 'unsure' {
  let mark: number | undefined = 0;
  let isSure = true;
  for (const [hook, outputLink] of HOOKS) {
    const packet = { ...echoRequest({ source: at(CLIENT), destination: at(SERVER) }), outputLink, mark };
    const { findings, stopped, routeMark } = passHook([table], { hook }, packet);
    if (stopped) return 'stopped';
    if (findings.some(({ effect }) => effect === 'drop')) isSure = false;
    mark = routeMark;
  }
  return isSure ? 'passes' : 'unsure';
}

describeInterop('rules of nftables that are judged', ['namespaces', 'nftables'], () => {
  let [client, router, server]: Namespace[] = [];
  useLab(async (lab) => {
    client = await lab.namespace('client');
    router = await lab.namespace('router');
    server = await lab.namespace('server');
    await cable(
      { namespace: client, device: 'eth0', addresses: [`${CLIENT}/24`] },
      { namespace: router, device: 'lan0', addresses: ['10.1.0.1/24'] },
    );
    await cable(
      { namespace: server, device: 'eth0', addresses: [`${SERVER}/24`] },
      { namespace: router, device: 'wan0', addresses: ['10.2.0.254/24'] },
    );
    await client.ip(['route add default via 10.1.0.1']);
    await server.ip(['route add default via 10.2.0.254']);
    await router.exec(['sysctl', '-qw', 'net.ipv4.ip_forward=1']);
  });

  /** Whether an echo request comes to the server, which answers none: each is the first of its flow. */
  const arrives = async (): Promise<boolean> => {
    const counting =
      'chain c { type filter hook input priority 0; icmp type echo-request counter name seen drop\n}\ncounter seen { }\n';
    await server!.exec(['nft', '-f', '-'], { input: `table ip t\ndelete table ip t\ntable ip t {\n${counting}}\n` });
    await client!.exec(['ping', '-c', '1', '-W', '0.05', SERVER], { check: false });
    return /packets 1 /.test((await server!.exec(['nft', 'list', 'counters'])).stdout);
  };

  it(`stop packets that are said to be stopped, and no others, in ${ROUNDS} random tables`, {
    timeout: 600_000,
  }, async () => {
    const dice = new Dice(SEED);
    const told = { passes: 0, stopped: 0, unsure: 0 };
    for (let round = 0; round < ROUNDS; ) {
      const table = randomTable(dice);
      const { code, stderr } = await router!.exec(['nft', '-f', '-'], { input: table, check: false });
      if (code !== 0) {
        // nft refuses matches that exclude each other.
        expect(stderr).toContain('conflicting protocols');
        continue;
      }
      round++;
      const listed = (await router!.exec(['nft', '--stateless', 'list', 'table', 'inet', 'rolled'])).stdout;
      const expected = foretold(parseTable(listed)!);
      told[expected]++;
      const passes = await arrives();
      if (expected !== 'unsure')
        expect(passes ? 'passes' : 'stopped', `seed ${SEED}, round ${round}\n${listed}`).toBe(expected);
      await router!.exec(['nft', 'delete', 'table', 'inet', 'rolled']);
    }
    // Most is understood, and both happen.
    expect(told.unsure).toBeLessThan(ROUNDS / 3);
    expect(Math.min(told.passes, told.stopped)).toBeGreaterThan(ROUNDS / 8);
  });
});
