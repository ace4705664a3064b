/** Two daemons on a network in memory. */
import { run } from '../../src/cli/run.ts';
import type { TunnelStatus } from '../../src/host/status.ts';
import { MemoryNetwork } from '../../src/tun/udp/memory.ts';
import { address, eventually, oppositeDocument, TestDaemon, tunnelDocument } from './daemon.ts';

export interface DaemonPair {
  readonly left: TestDaemon;
  readonly right: TestDaemon;
  /** Nothing arrives any more. */
  cut(): void;
}

/** With a tunnel `net` between them that is up. */
export async function daemonPair(words: { readonly left?: string; readonly right?: string } = {}): Promise<DaemonPair> {
  let isCut = false;
  const network = new MemoryNetwork({ route: () => (isCut ? [] : [{ delayMs: 3 }]) });
  const [left, right] = [
    await TestDaemon.start(network.host([address('192.0.2.1')])),
    await TestDaemon.start(network.host([address('192.0.2.2')])),
  ];
  for (const daemon of [left, right]) await daemon.giveSecret('k1xBeR5vTq8wZn3mYc7sDf2gHj9pLa4o');
  await right.client.call('create', { xml: words.right ?? oppositeDocument({}) });
  await left.client.call('create', { xml: words.left ?? tunnelDocument({ start: 'initiate' }) });
  await eventually('the tunnel to be up', async () => (await statusOf(left)).state === 'up');
  return {
    ...{ left, right },
    cut: () => {
      isCut = true;
    },
  };
}

export async function statusOf({ client }: TestDaemon): Promise<TunnelStatus> {
  const { tunnels } = await client.call('status', { name: 'net' });
  return tunnels[0]!;
}

/** Those that are up. */
export async function ikeSas(daemon: TestDaemon): Promise<TunnelStatus['ikeSas']> {
  return (await statusOf(daemon)).ikeSas.filter(({ state }) => state === 'established');
}

/** Runs the command. */
export async function sectunnel(
  { runDir }: TestDaemon,
  ...words: string[]
): Promise<[code: number, out: string, err: string]> {
  let [out, err] = ['', ''];
  const code = await run(['--run-dir', runDir, ...words], {
    out: (text) => {
      out += text;
    },
    err: (text) => {
      err += text;
    },
    readStdin: () => Promise.resolve(Buffer.alloc(0)),
    interrupted: () => new Promise(() => undefined),
  });
  return [code, out, err];
}
