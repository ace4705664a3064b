/** The verbs of libvirt networks, as a user of the command sees them. */
import { expect, it, onTestFinished } from 'vitest';
import { run } from '../../src/cli/run.ts';
import { MemoryFence } from '../../src/hostnet/fence/memory.ts';
import { TUNNEL_NAMESPACE } from '../../src/libvirt/namespace.ts';
import { MemoryNetwork } from '../../src/tun/udp/memory.ts';
import { address, TestDaemon, tunnelDocument } from '../support/daemon.ts';

const SPELT = `<network>
  <name>lan</name>
  <bridge name='virbr9'/>
  <forward mode='route' tunnel='net'/>
</network>`;

interface Shell {
  readonly daemon: TestDaemon;
  run(words: readonly string[], input?: string): Promise<{ code: number; out: string; err: string }>;
}

async function shell(): Promise<Shell> {
  const daemon = new TestDaemon(new MemoryNetwork().host([address('192.0.2.1')]));
  onTestFinished(() => daemon.close());
  daemon.fence = new MemoryFence();
  await daemon.open();
  await daemon.giveSecret();
  await daemon.client.call('define', { xml: tunnelDocument() });
  return {
    daemon,
    async run(words, input = '') {
      let [out, err] = ['', ''];
      const code = await run(['--run-dir', daemon.runDir, ...words], {
        out: (text) => {
          out += text;
        },
        err: (text) => {
          err += text;
        },
        readStdin: () => Promise.resolve(Buffer.from(input)),
        interrupted: () => Promise.resolve(),
      });
      return { code, out, err };
    },
  };
}

it('prints a rewritten network apart from what it says of it', async () => {
  const { run } = await shell();
  const { code, out, err } = await run(['net-import', '--print', '--no-define', '-'], SPELT);
  expect(code).toBe(0);
  expect(out).toMatch(/^<network>\n {2}<name>lan<\/name>\n {2}<metadata>\n[\s\S]*<\/network>\n$/);
  expect(out).toContain(`<sectunnel:tunnel xmlns:sectunnel="${TUNNEL_NAMESPACE}" name="net" mode="exclusive"/>`);
  expect(err.split('\n')).toEqual([
    expect.stringContaining("changed: tunnel='net' of <forward>"),
    expect.stringContaining("changed: <forward> got dev='stun-net'"),
    expect.stringContaining('changed: DNS on the host was switched off'),
    'Network lan read, not defined, held by tunnel net (exclusive)',
    '',
  ]);
  // What it printed it takes again, and has nothing more to change.
  expect(await run(['net-import', '--no-define', '-'], out)).toEqual({
    code: 0,
    out: 'Network lan read, not defined, held by tunnel net (exclusive)\n',
    err: '',
  });
});

it('says what is wrong with a network, and where', async () => {
  const { run } = await shell();
  const unknown = await run(['net-import', '-'], SPELT.replace("tunnel='net'", "tunnel='other'"));
  expect([unknown.code, unknown.err]).toEqual([1, expect.stringContaining("the tunnel 'other', which is not defined")]);
  const natted = await run(['net-import', '-'], SPELT.replace("mode='route' ", ''));
  expect([natted.code, natted.err]).toEqual([1, expect.stringContaining("(standard input):4: <forward>: mode='nat'")]);
});

it('lists what is held', async () => {
  const { daemon, run } = await shell();
  expect((await run(['net-list'])).out).toMatch(/^ Name {3}State {3}Bridge {3}Tunnel {3}Mode {3}Dropped\n-+\n$/);
  const { xml } = await daemon.client.call('net-import', { xml: SPELT, define: false });
  await daemon.client.call('network-hook', { network: 'lan', operation: 'start', xml });
  const { out } = await run(['net-list']);
  expect(out.split('\n')[2]?.trim().split(/ {2,}/)).toEqual([
    'lan',
    'held, not running',
    'virbr9',
    expect.stringMatching(/^net \(/),
    'exclusive',
    'nothing',
  ]);
  expect(JSON.parse((await run(['net-list', '--json'])).out)).toMatchObject([{ name: 'lan', tunnel: 'net' }]);
  // Why one is shut stands below.
  const [info] = await daemon.daemon.networks.list();
  daemon.daemon.networks.list = () => Promise.resolve([{ ...info!, problem: 'its tunnel is gone' }]);
  expect((await run(['net-list'])).out).toBe(`${out}\nlan: its tunnel is gone\n`);
  expect((await run(['status', 'net'])).out).toContain('dropped: nothing\n    its tunnel is gone\n');
});
