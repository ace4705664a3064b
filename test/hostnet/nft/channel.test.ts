/** The channel to nftables, on a kernel: what is refused is refused as a whole, whatever its length. */
import { spawnSync } from 'node:child_process';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, type MockInstance, vi } from 'vitest';
import { NetlinkSocket } from '../../../src/hostnet/netlink/socket.ts';
import { BatchRefusedError, NftChannel } from '../../../src/hostnet/nft/channel.ts';
import { ERRNO, SystemError } from '../../../src/sys/errno.ts';
import { missing } from '../../support/lab/needs.ts';
import { enterNewNamespace } from '../../tun/namespace.ts';

const BASE = ['add table inet t', 'add chain inet t c', 'add rule inet t c return'];

function nft(...words: string[]): string {
  return spawnSync('nft', words, { encoding: 'utf8' }).stdout;
}

describe.skipIf(missing(['namespaces', 'nftables']).length > 0)('the channel to nftables', () => {
  let leave: () => void;
  let channel: NftChannel;

  beforeAll(() => {
    leave = enterNewNamespace();
  });
  afterAll(() => leave());
  beforeEach(async () => {
    channel = new NftChannel((work) => work());
    await commit(...BASE);
  });
  afterEach(() => {
    channel.close();
    nft('flush', 'ruleset');
  });

  const commit = (...lines: readonly string[]): Promise<void> => channel.commit(lines.join('\n'));
  const refusal = (...lines: readonly string[]): Promise<unknown> =>
    commit(...lines).then(
      () => undefined,
      (error: unknown) => error,
    );

  it('names the first line that the kernel refuses, and nothing of the batch is done', async () => {
    const before = nft('list', 'ruleset');
    const error = await refusal(
      'add chain inet t d',
      'add rule inet t d meta l4proto { 6, 17 } jump nowhere',
      'add rule inet t gone return',
      'flush chain inet t c',
    );
    expect(error).toBeInstanceOf(BatchRefusedError);
    expect(error).toMatchObject({ errno: ERRNO.ENOENT, line: expect.stringContaining('jump nowhere') });
    expect(nft('list', 'ruleset')).toBe(before);
  });

  it('refuses chains that lead to one another', async () => {
    const before = nft('list', 'ruleset');
    const hook = 'add chain inet t in { type filter hook input priority 0; policy accept; }';
    const error = await refusal(
      hook,
      'add rule inet t in jump c',
      'add chain inet t d',
      'add rule inet t d jump c',
      'add rule inet t c jump d',
    );
    expect(error).toBeInstanceOf(BatchRefusedError);
    expect(nft('list', 'ruleset')).toBe(before);
    await commit('add chain inet t d');
  });

  it('is told of more errors than there is room for, and goes on afterwards', async () => {
    const before = nft('list', 'ruleset');
    const lines = Array.from({ length: 20_000 }, (_, at) => `flush chain inet t gone${at}`);
    expect(await refusal('flush chain inet t c', ...lines)).toMatchObject({ errno: ERRNO.ENOENT, line: lines[0] });
    expect(nft('list', 'ruleset')).toBe(before);
    await commit('add chain inet t d');
    expect(await channel.chains('t')).toEqual(['c', 'd']);
  });

  it('installs ten thousand entries at once, and the event loop has its turns meanwhile', async () => {
    const entry = (at: number): string => `10.${at >> 8}.${at & 255}.0/24 . 10.9.0.0/16 : jump c`;
    const entries = Array.from({ length: 10_000 }, (_, at) => entry(at));
    let turns = 0;
    let isDone = false;
    const turn = (): void => {
      turns++;
      if (!isDone) setImmediate(turn);
    };
    setImmediate(turn);
    await commit(
      'add map inet t m { type ipv4_addr . ipv4_addr : verdict; flags interval; }',
      `add element inet t m { ${entries.join(', ')} }`,
    );
    isDone = true;
    expect(turns).toBeGreaterThan(1);
    expect(nft('list', 'map', 'inet', 't', 'm').match(/: jump c/g)).toHaveLength(10_000);
  });

  it('lists the chains and counters of the table alone', async () => {
    spawnSync('nft', ['add table inet other; add chain inet other x; add counter inet other k { packets 3 bytes 4 }']);
    spawnSync('nft', ['add table ip t; add chain ip t y; add counter ip t k { packets 3 bytes 4 }']);
    await commit('add counter inet t k { packets 5000000000 bytes 0 }', 'add counter inet t none');
    expect(await channel.chains('t')).toEqual(['c']);
    expect(await channel.counters('t')).toEqual(
      new Map([
        ['k', 5_000_000_000],
        ['none', 0],
      ]),
    );
    expect([await channel.chains('gone'), await channel.counters('gone')]).toEqual([[], new Map()]);
  });

  it('lists anew what other programs change while it is listed, and gives up where that has no end', async () => {
    await commit(...Array.from({ length: 3000 }, (_, at) => `add counter inet t k${at}`));
    const { requestInSlices } = NetlinkSocket.prototype;
    // Behind the first part of a listing the kernel says that it is none of one state.
    const meddle = (times: number): MockInstance =>
      vi.spyOn(NetlinkSocket.prototype, 'requestInSlices').mockImplementation(async function (
        this: NetlinkSocket,
        request,
        what,
        onData,
      ) {
        let isFirst = times-- > 0;
        return requestInSlices.call(this, request, what, (data) => {
          if (isFirst) spawnSync('nft', ['add counter inet t other; delete counter inet t other']);
          isFirst = false;
          onData(data);
        });
      });
    let spy = meddle(2);
    expect((await channel.counters('t')).size).toBe(3000);
    expect(spy).toHaveBeenCalledTimes(3);
    spy.mockRestore();
    spy = meddle(99);
    await expect(channel.counters('t')).rejects.toThrow('EINTR');
    spy.mockRestore();
  });

  it('does not begin with a batch that has a line it does not know', async () => {
    const before = nft('list', 'ruleset');
    const error = await refusal('flush chain inet t c', 'add rule inet t c masquerade');
    expect(error).not.toBeInstanceOf(SystemError);
    expect(String(error)).toContain("'masquerade' is not known");
    expect(nft('list', 'ruleset')).toBe(before);
  });
});
