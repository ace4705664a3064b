/** Changes of the fence that are read back together: what that costs, and what other programs do meanwhile. */
import { spawnSync } from 'node:child_process';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, type MockInstance, vi } from 'vitest';
import { parseAddress, prefixRange } from '../../../src/base/address.ts';
import type { FencePart } from '../../../src/hostnet/fence/fence.ts';
import { LinuxFence } from '../../../src/hostnet/fence/linux.ts';
import { FenceTable } from '../../../src/hostnet/fence/table.ts';
import type { ObjectName } from '../../../src/hostnet/netlink/nftables.ts';
import { NetlinkSocket } from '../../../src/hostnet/netlink/socket.ts';
import { NftChannel } from '../../../src/hostnet/nft/channel.ts';
import { missing } from '../../support/lab/needs.ts';
import { enterNewNamespace } from '../../tun/namespace.ts';

const TABLE = 'inet sectunnel';
/** More than a commit has. */
const PARTS = 520;

function tunnel(number: number): FencePart {
  const at = (text: string, length: number) => prefixRange(parseAddress(text)!, length);
  const remote = at(`10.${2 + (number >> 8)}.${number & 0xff}.0`, 24);
  const entry = { action: 'guard', local: at('10.1.0.0', 24), remote } as const;
  return {
    kind: 'tunnel',
    beside: [],
    device: `stun${number}`,
    own: { peer: parseAddress('192.0.2.2'), ports: [500, 4500], peerPorts: [500, 4500] },
    outbound: [entry],
    inbound: [entry],
    anySource: [],
    marked: [],
  };
}

/** As another program changes it. */
function meddle(...lines: readonly string[]): void {
  const { status, stderr } = spawnSync('nft', ['-f', '-'], { input: `${lines.join('\n')}\n`, encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
}

describe.skipIf(missing(['namespaces', 'nftables']).length > 0)('changes that are read back together', () => {
  let leave: () => void;
  let listings: MockInstance;
  beforeAll(() => {
    leave = enterNewNamespace();
  });
  afterAll(() => leave());
  beforeEach(() => {
    listings = vi.spyOn(NetlinkSocket.prototype, 'requestInSlices');
  });
  afterEach(() => {
    vi.restoreAllMocks();
    spawnSync('nft', ['flush', 'ruleset']);
  });

  it('take few requests, however many parts and commits they are', async () => {
    const commits = vi.spyOn(NftChannel.prototype, 'commit');
    const fence = new LinuxFence();
    fence.watch(() => undefined);
    const parts = new Map(Array.from({ length: PARTS }, (_, at) => [`tunnel:${at}`, tunnel(at)]));
    expect((await fence.setTogether(parts)).size).toBe(0);
    expect(commits).toHaveBeenCalledTimes(2);
    // The table, its chains, rules and sets, and the elements of the sets that all have in common.
    expect(listings.mock.calls.length).toBeLessThan(30);
    expect(await fence.mend('everything')).toEqual({ found: [], by: [] });
    expect(commits).toHaveBeenCalledTimes(2);
    // Others beside so many are read back alone.
    listings.mockClear();
    await fence.set('tunnel:more', tunnel(PARTS));
    const asked = listings.mock.calls.length;
    expect(asked).toBeGreaterThan(10);
    expect(asked).toBeLessThan(100);
    await fence.close();
  });

  describe.each(['followed', 'not followed'])('by a table that is %s', (how) => {
    let channel: NftChannel;
    let table: FenceTable;
    beforeEach(async () => {
      channel = new NftChannel((work) => work());
      table = new FenceTable('sectunnel', channel, (work) => work());
      if (how === 'followed') table.watch(() => undefined);
      await chain('one', 'now', `add table ${TABLE}`);
      await table.compare('everything');
      listings.mockClear();
    });
    afterEach(async () => {
      await table.close();
      channel.close();
    });

    async function chain(name: string, readBack: 'now' | 'later', ...first: readonly string[]): Promise<void> {
      const lines = [...first, `add chain ${TABLE} ${name}`, `add rule ${TABLE} ${name} accept`];
      await table.change(
        new Set<ObjectName>(['table', `chain ${name}`]),
        () => channel.commit(lines.join('\n')),
        readBack,
      );
    }

    async function differences(): Promise<string[]> {
      return (await table.compare('everything')).differences.map(({ name, text }) => `${name}: ${text}`);
    }

    it('are known when the last is made', async () => {
      for (const name of ['two', 'three']) await chain(name, 'later');
      expect([table.suspect, listings.mock.calls.length]).toEqual([false, 0]);
      await chain('four', 'now');
      // The table, and two for each chain.
      expect([table.certain, listings.mock.calls.length]).toEqual([true, 7]);
      meddle(...['two', 'three', 'four'].map((name) => `flush chain ${TABLE} ${name}`));
      expect((await differences()).sort()).toEqual([
        'chain four: 1 of 1 rules missing',
        'chain three: 1 of 1 rules missing',
        'chain two: 1 of 1 rules missing',
      ]);
    });

    it('are read back before they are compared, where none follows', async () => {
      await chain('two', 'later');
      expect(await differences()).toEqual([]);
      meddle(`flush chain ${TABLE} two`);
      expect(await differences()).toEqual(['chain two: 1 of 1 rules missing']);
    });

    it('are read back when they are done, be the last refused', async () => {
      await chain('two', 'later');
      await expect(
        table.change(new Set(['table']), () => channel.commit(`flush chain ${TABLE} none`)),
      ).rejects.toThrow();
      await table.catchUp();
      expect([table.certain, listings.mock.calls.length]).toEqual([true, 3]);
      meddle(`flush chain ${TABLE} two`);
      expect(await differences()).toEqual(['chain two: 1 of 1 rules missing']);
    });

    it('are not taken for ours where another program comes between them', async () => {
      await chain('two', 'later');
      meddle(`flush chain ${TABLE} two`);
      expect(table.suspect).toBe(true);
      await chain('three', 'later');
      await chain('four', 'now');
      expect([table.certain, table.suspect]).toEqual([false, true]);
    });

    it('are read back at once where another program comes in while one is made', async () => {
      const { commit } = NftChannel.prototype;
      vi.spyOn(NftChannel.prototype, 'commit').mockImplementationOnce(async function (this: NftChannel, text) {
        await commit.call(this, text);
        meddle(`flush chain ${TABLE} two`);
      });
      await chain('two', 'later');
      expect(listings.mock.calls.length).toBeGreaterThan(0);
      expect([table.certain, table.suspect]).toEqual([false, true]);
    });
  });
});
