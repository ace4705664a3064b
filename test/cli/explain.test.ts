import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { formatExplanation } from '../../src/cli/explain.ts';
import { run } from '../../src/cli/run.ts';
import type { Explanation } from '../../src/explain/explanation.ts';
import { MemoryNetwork } from '../../src/tun/udp/memory.ts';
import { address, TestDaemon, temporaryFolder, tunnelDocument } from '../support/daemon.ts';

interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

async function sectunnel(...words: readonly string[]): Promise<Outcome> {
  const got = { out: '', err: '' };
  const code = await run(words, {
    out: (text) => {
      got.out += text;
    },
    err: (text) => {
      got.err += text;
    },
    readStdin: () => Promise.resolve(Buffer.alloc(0)),
    interrupted: () => Promise.resolve(),
  });
  return { code, ...got };
}

/** A daemon with the tunnel `net`, defined and not started. */
async function daemon(): Promise<(...words: readonly string[]) => Promise<Outcome>> {
  const test = await TestDaemon.start(new MemoryNetwork().host([address('192.0.2.1')]));
  const file = join(temporaryFolder(), 'net.xml');
  writeFileSync(file, tunnelDocument());
  await sectunnel('--run-dir', test.runDir, 'define', file);
  return (...words) => sectunnel('--run-dir', test.runDir, ...words);
}

const PACKET = ['--src', '10.1.0.1', '--dst', '10.2.0.1:53', '--proto', 'udp'] as const;

describe('sectunnel explain', () => {
  it('puts the verdict first, and says with its exit code what it is', async () => {
    const run = await daemon();
    const { code, out } = await run('explain', 'net', ...PACKET);
    expect(code).toBe(5);
    expect(out.split('\n').slice(0, 5)).toEqual([
      'udp 10.1.0.1:49152 > 10.2.0.1:53, from here (assumed: source port 49152)',
      'The policy protects it, but the tunnel is not active.',
      "WARNING: tunnel net is not active, so nothing protects this packet; start it with 'sectunnel start net'",
      '',
      expect.stringMatching(/^policy {2}protected by 'lan' \(line \d+\), level require, priority 0$/),
    ]);
    expect((await run('explain', 'net', '--src', '10.1.0.1', '--dst', '10.9.0.1', '--proto', 'icmp')).code).toBe(4);
    const asJson = await run('explain', 'net', ...PACKET, '--json');
    expect(JSON.parse(asJson.out)).toMatchObject({ outcome: 'not-applied', policy: { entry: { name: 'lan' } } });
  });

  it.each([
    [['--src', '10.1.0.1', '--dst', '10.2.0.1:53'], 'explain needs --proto'],
    [['--src', 'x', '--dst', '10.2.0.1:53', '--proto', 'udp'], "--src 'x': expected an address"],
    [[...PACKET, '--type', 'echo'], "--type 'echo': expected a number from 0 to 255"],
  ])('refuses %j with exit code 2', async (words, message) => {
    const run = await daemon();
    const { code, err } = await run('explain', 'net', ...words);
    expect(code).toBe(2);
    expect(err).toContain(message);
    expect(err).toContain("see 'sectunnel explain --help'");
  });

  it('refuses a tunnel that is not there with exit code 1', async () => {
    const run = await daemon();
    expect((await run('explain', 'nothing', ...PACKET)).code).toBe(1);
  });

  it('says how many entries are not listed', () => {
    const found: Explanation = {
      name: 'net',
      active: true,
      direction: 'out',
      packet: 'udp 10.1.0.1:1 > 10.2.0.1:2',
      assumed: [],
      outcome: 'dropped',
      verdict: 'It is dropped.',
      policy: {
        decision: 'no entry matches it',
        action: 'none',
        entry: undefined,
        before: [{ name: 'p7', line: 9, why: ['remote port 2 is not 3', 'local port 1 is not 4'] }],
        beforeCount: 9_991,
        shadowed: [{ name: 'q', line: undefined }],
        shadowedCount: 3,
      },
      sa: undefined,
      route: undefined,
      tunnels: [],
      fence: undefined,
      otherFence: undefined,
      filters: undefined,
      warnings: [],
    };
    expect(formatExplanation(found)).toBe(`udp 10.1.0.1:1 > 10.2.0.1:2, from here
It is dropped.

policy  no entry matches it
        not by 'p7' (line 9): remote port 2 is not 3; local port 1 is not 4
        nor by 9,990 more before it, which match even less
        never asked, as they come later: 'q' and 2 more
`);
  });

  it('lists tunnels, fences and rules of other programs', () => {
    const finding = {
      hook: 'forward',
      effect: 'drop',
      certain: false,
      table: 'ip filter',
      chain: 'FORWARD',
      rule: 'policy drop',
      unless: 'xt match "physdev" accept',
      to: undefined,
    } as const;
    const found: Explanation = {
      name: 'net',
      active: true,
      direction: 'out',
      packet: 'udp 10.1.0.1:1 > 10.2.0.1:2',
      assumed: [],
      outcome: 'unsure',
      verdict: 'Not sure.',
      policy: {
        decision: 'none',
        action: 'none',
        entry: undefined,
        before: [],
        beforeCount: 0,
        shadowed: [],
        shadowedCount: 0,
      },
      sa: undefined,
      route: undefined,
      tunnels: [
        { name: 'net', decision: "protected by 'lan'", gets: true },
        { name: 'wide', decision: "discarded by 'all'", gets: false },
      ],
      fence: { action: 'pass', text: 'lets it pass' },
      otherFence: "the fence of network 'lan' drops it",
      filters: { asked: 2, found: [finding], foundCount: 3, unread: ['tables of iptables-legacy: nat'] },
      warnings: [],
    };
    expect(formatExplanation(found)).toBe(`udp 10.1.0.1:1 > 10.2.0.1:2, from here
Not sure.

policy  none
tunnels net: protected by 'lan', and gets it
        wide: discarded by 'all'
fence   the fence of network 'lan' drops it
        the fence of tunnel 'net' lets it pass
filters rules of other programs (nftables, 2 chains asked, as for the first packet of a flow)
        not sure whether it stops it: forward, table ip filter, chain FORWARD: policy drop
          unless this lets it go before: xt match "physdev" accept
        and 2 more
        not checked: tables of iptables-legacy: nat
`);
  });
});
