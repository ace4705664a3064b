/** Says why nft(8) cannot change the fence, and what to do. */
import { SectunnelError } from '../../base/error.ts';
import { NEEDS_NET_ADMIN } from '../../tun/errors.ts';

/** Characters of nft's output that a message shows. */
const MAX_MESSAGE = 300;

const WITHOUT_FENCE =
  'Without it nothing keeps packets that the policy protects from leaving in the clear when a route changes, ' +
  "nor clear ones from coming in; <device routes='none'/> leaves all of it to you";

/** Where the program is missing. */
export const NEEDS_NFT: string = `install the package nftables (apt-get install nftables). ${WITHOUT_FENCE}`;

/** What of the kernel is missing, by what nft(8) says then, and what to do. */
const CAUSES: readonly (readonly [said: RegExp, cause: string])[] = [
  [/not permitted|permission denied/i, `nftables may not be used here. ${NEEDS_NET_ADMIN}`],
  [
    /protocol not supported|initialize netlink|cache initialization failed/i,
    `this kernel has no nftables: modprobe nf_tables, or a kernel with CONFIG_NF_TABLES. ${WITHOUT_FENCE}`,
  ],
  [
    /(operation not supported|address family not supported).*add table inet/i,
    "this kernel's nftables have no family inet, for IPv4 and IPv6 together: it takes CONFIG_NF_TABLES_INET, and that " +
      `IPv6 in the kernel (CONFIG_IPV6; where it is a module, modprobe ipv6). ${WITHOUT_FENCE}`,
  ],
  [
    /(no such file or directory|not supported)/i,
    'this kernel lacks a part of nftables: it takes the modules nf_tables, nft_fib_inet, nft_reject_inet and nft_chain_nat. ' +
      `${WITHOUT_FENCE}`,
  ],
];

/** @param how nft ended: an exit code, or a signal */
export function nftError(words: readonly string[], how: number | string, errors: string): Error {
  const text = errors.trim().replace(/\s+/g, ' ');
  const cause = CAUSES.find(([said]) => said.test(text))?.[1];
  if (cause === undefined) {
    return new SectunnelError('system', `nft ${words.join(' ')} ended with ${how}: ${text.slice(0, MAX_MESSAGE)}`);
  }
  return new SectunnelError('system', `nftables refused a change of the fence: ${cause} (nft: ${firstError(text)})`);
}

/** `Could not process rule: Operation not supported`: the first of the errors, without the line that it is about. */
function firstError(text: string): string {
  const found = /Error: (.*?)(?= (?:add|delete|flush|list|netlink|\^|\/dev)|$)/.exec(text)?.[1] ?? text;
  return found.slice(0, MAX_MESSAGE);
}
