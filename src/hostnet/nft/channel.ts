/**
 * The one channel to nftables of a network namespace: a netlink socket that is opened at first use, and kept. All answers are there when
 * a call returns; long ones are read in slices.
 */
import { setImmediate } from 'node:timers/promises';
import { ERRNO, SystemError } from '../../sys/errno.ts';
import type { NetlinkRequest } from '../netlink/netlink.ts';
import { chainsRequest, countersRequest, parseChainName, parseCounter } from '../netlink/nftables.ts';
import { NETLINK_NETFILTER } from '../netlink/nftables-layout.ts';
import { NetlinkSocket } from '../netlink/socket.ts';
import { BatchCompiler, type CompiledBatch } from './batch.ts';

/** The kernel refused a batch: nothing of it was done. */
export class BatchRefusedError extends SystemError {
  /** The first of those that it refused; `undefined` where it refused all of it. */
  readonly line: string | undefined;

  constructor(errno: number, line: string | undefined, detail: string | undefined) {
    super(WHAT, errno, detail);
    this.line = line;
  }
}

const WHAT = 'change nftables';
/** How long the event loop waits for lines that are compiled. */
const SLICE_MS = 4;
/** How often a listing is begun anew when nftables changed meanwhile. */
const MAX_ATTEMPTS = 5;

export class NftChannel {
  readonly #open: () => NetlinkSocket;
  #socket: NetlinkSocket | undefined;

  /** @param within opens the socket in its network namespace */
  constructor(within: <T>(work: () => T) => T) {
    this.#open = () => within(() => new NetlinkSocket(NETLINK_NETFILTER));
  }

  /** @throws SystemError when it cannot be opened */
  get socket(): NetlinkSocket {
    this.#socket ??= this.#open();
    return this.#socket;
  }

  /**
   * Carries out lines for nft(8), all of them or none. The event loop has its turn meanwhile; until it resolves, the channel takes nothing
   * else.
   *
   * @throws BatchRefusedError; SystemError when it is not known whether they were carried out
   */
  async commit(text: string): Promise<void> {
    const { bytes, lines } = await compileInSlices(text);
    const refused = await this.socket.requestWhole(bytes, WHAT);
    if (refused === undefined) return;
    const { errno, detail } = refused.error;
    throw new BatchRefusedError(errno, lines[refused.place - 1], detail);
  }

  /** The names of the chains of a table. @throws SystemError */
  async chains(table: string): Promise<string[]> {
    const answers = await this.#list(chainsRequest(table), 'list the chains of nftables');
    return answers.flatMap((body) => parseChainName(body, table) ?? []);
  }

  /** Packets by the names of the table's counters. @throws SystemError */
  async counters(table: string): Promise<Map<string, number>> {
    const answers = await this.#list(countersRequest(table), 'list the counters of nftables');
    const counters = answers.flatMap((body) => parseCounter(body, table) ?? []);
    return new Map(counters.map(({ name, packets }) => [name, packets]));
  }

  /** A listing is begun anew when nftables changed meanwhile. */
  async #list(request: NetlinkRequest, what: string): Promise<Uint8Array[]> {
    for (let attempt = 1; ; attempt++) {
      // BOUNDED: by the objects that are listed.
      const answers: Uint8Array[] = [];
      let isWhole = true;
      try {
        await this.socket.requestInSlices(request, what, ({ body, isInterrupted = false }) => {
          if (isInterrupted) isWhole = false;
          answers.push(body);
        });
      } catch (error) {
        if (!(error instanceof SystemError) || error.errno !== ERRNO.EINTR) throw error;
        isWhole = false;
      }
      if (isWhole) return answers;
      if (attempt === MAX_ATTEMPTS)
        throw new SystemError(what, ERRNO.EINTR, 'Other programs change nftables too often');
    }
  }

  close(): void {
    this.#socket?.close();
    this.#socket = undefined;
  }
}

async function compileInSlices(text: string): Promise<CompiledBatch> {
  const batch = new BatchCompiler();
  let turn = performance.now();
  for (const line of text.split('\n')) {
    batch.add(line);
    if (performance.now() - turn < SLICE_MS) continue;
    await setImmediate();
    turn = performance.now();
  }
  return batch.end();
}
