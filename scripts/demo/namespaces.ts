/** The demo as root: two namespaces, two daemons, and a capture on the cable between them. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import type { Checks } from './checks.ts';
import { mirror, PORT, seedDocument } from './document.ts';
import { type DemoHost, DemoNetwork, sleep } from './machine.ts';
import { readPcap, sortTraffic } from './pcap.ts';

const SECRET = '11111111-2222-3333-4444-555555555501';

interface JsonStatus {
  readonly tunnels: readonly {
    readonly state: string;
    readonly drops: Readonly<Record<string, number>>;
    readonly ikeSas: readonly {
      readonly suite: string;
      readonly children: readonly { readonly packetsIn: number; readonly packetsOut: number }[];
    }[];
  }[];
}

/** What stands in the way of namespaces on this machine. */
export function whyNotHere(): string | undefined {
  if (process.geteuid?.() !== 0) return 'not root';
  if (!existsSync('/dev/net/tun')) return 'no /dev/net/tun';
  for (const program of ['ip', 'nft', 'tcpdump']) {
    if (spawnSync(program, ['-V']).error !== undefined) return `no ${program}`;
  }
  const probe = `sectunnel-demo-${process.pid}-probe`;
  const made = spawnSync('ip', ['netns', 'add', probe]).status === 0;
  spawnSync('ip', ['netns', 'delete', probe]);
  return made ? undefined : 'network namespaces are not allowed here';
}

export async function namespaceDemo(checks: Checks): Promise<void> {
  const network = new DemoNetwork(
    { name: 'left', outer: '192.0.2.1', inner: '10.1.0.1' },
    { name: 'right', outer: '192.0.2.2', inner: '10.2.0.1' },
  );
  const remove = (): void => network.remove();
  process.once('exit', remove);
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));
  try {
    await run(checks, network);
  } catch (error) {
    for (const host of network.hosts) checks.show(`log of ${host.plan.name}:\n${host.log}\n`);
    throw error;
  } finally {
    network.remove();
  }
  const left = spawnSync('ip', ['netns', 'list'], { encoding: 'utf8' }).stdout;
  checks.check(
    'nothing is left behind',
    !left.includes(`sectunnel-demo-${process.pid}-`) && !existsSync(network.folder),
  );
}

async function run(checks: Checks, network: DemoNetwork): Promise<void> {
  const [left, right] = network.hosts as [DemoHost, DemoHost];
  const seed = seedDocument();

  checks.step('two hosts, 192.0.2.1 and 192.0.2.2, with the document of 2011 and its mirror image');
  checks.show(seed);
  const capture = await network.capture();
  for (const [host, document] of [
    [left, seed],
    [right, mirror(seed)],
  ] as const) {
    await host.start();
    const secret = host.file('secret.xml', `<secret><uuid>${SECRET}</uuid><description>demo</description></secret>`);
    host.sectunnel(['secret-define', secret]);
    host.sectunnel(['secret-set-value', '--plain', SECRET], 'the pre-shared key of the demo');
    host.sectunnel(['define', host.file('ex-seed.xml', document)]);
    host.sectunnel(['start', 'ex-seed']);
    checks.check(`${host.plan.name}: the document is defined and started`, stateOf(host) !== 'inactive');
  }

  checks.step('a datagram from 10.1.0.1 port 5000 to 10.2.0.1 port 5000: it brings the tunnel up, and waits for it');
  const echo = network.keep(await right.echo(5000));
  const answer = left.exchange(5000, '10.2.0.1', 5000, 'hello through the tunnel');
  checks.check('the exchange on port 5000 gets through', answer === 'echo: hello through the tunnel', answer);
  for (const host of network.hosts) checks.check(`${host.plan.name}: the tunnel is up`, stateOf(host) === 'up');
  echo.kill();

  checks.step('a datagram from port 5000 to port 5001: the policy does not speak of it');
  const before = { ...carried(left), drops: policyDrops(left) };
  const other = network.keep(await right.echo(5001));
  const refused = left.exchange(5000, '10.2.0.1', 5001, 'this must not pass');
  checks.check('nothing comes back', !refused.startsWith('echo:'), refused);
  checks.check('it did not enter the tunnel', carried(left).out === before.out);
  checks.check('it was not led to the device either', policyDrops(left) === before.drops);
  other.kill();

  checks.step('both ends say the same');
  for (const host of network.hosts) checks.show(`${host.sectunnel(['status'])}\n`);
  const [a, b] = [carried(left), carried(right)];
  checks.check('what one end sent the other received', a.out > 0 && a.out === b.in && b.out > 0 && b.out === a.in);

  checks.step('SIGTERM');
  for (const host of network.hosts) {
    const code = await host.stop();
    const devices = spawnSync('ip', ['-n', host.namespace, '-o', 'link'], { encoding: 'utf8' }).stdout;
    checks.check(
      `${host.plan.name}: the daemon ends well and takes its device away`,
      code === 0 && !/stun-|sec\d/.test(devices),
    );
  }

  checks.step('what passed on the cable, as tcpdump saw it');
  await sleep(200);
  const traffic = sortTraffic(readPcap(await capture()), PORT);
  checks.show(
    `IKE ${traffic.ike}, ESP ${traffic.esp}, keepalives ${traffic.keepalives}, address resolution ${traffic.neighbour}\n`,
  );
  checks.check('IKE and ESP passed, in UDP on port 55055', traffic.ike >= 4 && traffic.esp === a.out + b.out);
  checks.check('nothing else passed', traffic.other.length === 0, traffic.other.join(', '));
}

function statusOf(host: DemoHost): JsonStatus {
  return JSON.parse(host.sectunnel(['status', '--json'])) as JsonStatus;
}

function stateOf(host: DemoHost): string {
  return statusOf(host).tunnels[0]?.state ?? 'missing';
}

/** Packets that no policy spoke of. */
function policyDrops(host: DemoHost): number {
  return statusOf(host).tunnels[0]?.drops['no-policy'] ?? 0;
}

function carried(host: DemoHost): { in: number; out: number } {
  const children = statusOf(host).tunnels[0]?.ikeSas.flatMap((sa) => sa.children) ?? [];
  return {
    in: children.reduce((sum, child) => sum + child.packetsIn, 0),
    out: children.reduce((sum, child) => sum + child.packetsOut, 0),
  };
}
