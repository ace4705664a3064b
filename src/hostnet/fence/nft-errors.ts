/** Says why the kernel refuses a change of the fence, and what to do. */
import { SectunnelError } from '../../base/error.ts';
import { ERRNO, SystemError } from '../../sys/errno.ts';
import { NEEDS_NET_ADMIN } from '../../tun/errors.ts';
import { BatchRefusedError } from '../nft/channel.ts';
import { TABLE } from './nft-words.ts';

/** Characters of a line that a message shows. */
const MAX_LINE = 120;

const WITHOUT_FENCE =
  'Without it nothing keeps packets that the policy protects from leaving in the clear when a route changes, ' +
  "nor clear ones from coming in; <device routes='none'/> leaves all of it to you";

const NO_TABLES = `this kernel has no nftables: modprobe nf_tables, or a kernel with CONFIG_NF_TABLES. ${WITHOUT_FENCE}`;
const NO_FAMILY =
  "this kernel's nftables have no family inet, for IPv4 and IPv6 together: it takes CONFIG_NF_TABLES_INET, and that " +
  `IPv6 in the kernel (CONFIG_IPV6; where it is a module, modprobe ipv6). ${WITHOUT_FENCE}`;
const LACKS_PART =
  'this kernel lacks a part of nftables: it takes the modules nf_tables, nft_fib_inet, nft_reject_inet and nft_chain_nat. ' +
  WITHOUT_FENCE;
const TOO_LONG =
  'the change is longer than this process may send at once: give it CAP_NET_ADMIN in the first user namespace, or raise ' +
  'the limit there (sysctl -w net.core.wmem_max=8388608)';
const OWNED = `another program owns the table ${TABLE}: end it, or have it delete that table`;
const GONE = `another program took away what the change builds on in the table ${TABLE}. It is made again at the next change`;

/** Whether the kernel has no nftables, in which something could stand. */
export function hasNoTables(error: unknown): boolean {
  const { EPROTONOSUPPORT, EOPNOTSUPP, EINVAL } = ERRNO;
  return error instanceof SystemError && [EPROTONOSUPPORT, EOPNOTSUPP, EINVAL].some((errno) => errno === error.errno);
}

/** @param error what prevented a change, or a look at what stands */
export function refusal(error: unknown): unknown {
  if (!(error instanceof SystemError)) return error;
  const line = error instanceof BatchRefusedError ? error.line : undefined;
  const cause = causeOf(error, line);
  const detail = error.detail === undefined ? '' : `. ${error.detail}`;
  const said =
    cause === undefined
      ? `${error.message}${line === undefined ? '' : ` (${shown(line)})`}`
      : `${cause} (${error.code}${detail})`;
  return new SectunnelError('system', `nftables refused a change of the fence: ${said}`);
}

function causeOf(error: SystemError, line: string | undefined): string | undefined {
  switch (error.errno) {
    case ERRNO.EPERM:
      return line === undefined ? `nftables may not be used here. ${NEEDS_NET_ADMIN}` : OWNED;
    case ERRNO.EMSGSIZE:
      return TOO_LONG;
    case ERRNO.EPROTONOSUPPORT:
      return NO_TABLES;
    case ERRNO.EOPNOTSUPP:
    case ERRNO.EAFNOSUPPORT:
      if (line === undefined) return NO_TABLES;
      return line.startsWith('add table') ? NO_FAMILY : LACKS_PART;
    case ERRNO.ENOENT:
      // A rule's expressions, and a base chain's type, are modules.
      return line !== undefined && /^add (rule|chain .* \{)/.test(line) ? LACKS_PART : GONE;
    default:
      return undefined;
  }
}

function shown(line: string): string {
  return line.length > MAX_LINE ? `${line.slice(0, MAX_LINE)}…` : line;
}
