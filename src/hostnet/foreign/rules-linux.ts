/** Rules of other programs, by nftables' netlink messages, whether `nft` wrote them or `iptables` of the newer kind. */

import { ERRNO, SystemError } from '../../sys/errno.ts';
import { MissingProgramError, runProgram, systemEnvironment } from '../../sys/program.ts';
import { NetlinkListener } from '../netlink/listener.ts';
import { foreignRulesRequest, parseForeignTable, parseRule } from '../netlink/nftables.ts';
import { NETLINK_NETFILTER, NFNLGRP_NFTABLES } from '../netlink/nftables-layout.ts';
import { NetlinkSocket } from '../netlink/socket.ts';
import type { HostNetwork } from '../routes/routes.ts';
import type { ForeignChain, ForeignRule, ForeignRules } from './rules.ts';

const TIMEOUT_MS = 5_000;

export class LinuxForeignRules implements ForeignRules {
  readonly #chains: readonly ForeignChain[];
  readonly #tables: ReadonlySet<string>;
  readonly #network: Pick<HostNetwork, 'link'>;
  #socket: NetlinkSocket | undefined;
  #listener: NetlinkListener | undefined;

  /** @param chains those that are read; their tables are listened to */
  constructor(chains: readonly ForeignChain[], network: Pick<HostNetwork, 'link'>) {
    this.#chains = chains;
    this.#tables = new Set(chains.map(({ table }) => table));
    this.#network = network;
  }

  watch(onChange: () => void): void {
    let changed = false;
    this.#listener = new NetlinkListener({
      protocol: NETLINK_NETFILTER,
      groups: [NFNLGRP_NFTABLES],
      onMessage: ({ type, body }) => {
        if (!changed) changed = this.#tables.has(parseForeignTable(type, body) ?? '');
      },
      onOverrun: () => {
        changed = true;
      },
      onRead: () => {
        if (!changed) return;
        changed = false;
        onChange();
      },
    });
  }

  read(): ForeignRule[] {
    return this.#chains.flatMap((chain) => this.#rulesOf(chain));
  }

  #rulesOf(chain: ForeignChain): ForeignRule[] {
    this.#socket ??= new NetlinkSocket(NETLINK_NETFILTER);
    const request = foreignRulesRequest(chain.family, chain.table, chain.chain);
    try {
      const answers = this.#socket.request(request, `list the rules of chain ${chain.chain}`);
      return answers.map(({ body }) => ({ ...chain, ...parseRule(body) }));
    } catch (error) {
      if (error instanceof SystemError && error.errno === ERRNO.ENOENT) return [];
      throw error;
    }
  }

  linkIndex(name: string): number | undefined {
    return this.#network.link(name)?.index;
  }

  async hidden(): Promise<boolean> {
    try {
      const { output } = await runProgram('iptables', ['--version'], { timeout: TIMEOUT_MS, env: systemEnvironment() });
      return !output.includes('nf_tables');
    } catch (error) {
      if (error instanceof MissingProgramError) return false;
      throw error;
    }
  }

  async close(): Promise<void> {
    this.#socket?.close();
    this.#socket = undefined;
    await this.#listener?.close();
    this.#listener = undefined;
  }
}
