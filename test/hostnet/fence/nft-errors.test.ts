import { describe, expect, it } from 'vitest';
import { hasNoTables, refusal } from '../../../src/hostnet/fence/nft-errors.ts';
import { BatchRefusedError } from '../../../src/hostnet/nft/channel.ts';
import { ERRNO, SystemError } from '../../../src/sys/errno.ts';

const refused = (errno: number, line?: string): SystemError => new BatchRefusedError(errno, line, undefined);

/** What the kernel answers where a part of it is missing, and what a person is told. */
const cases: readonly (readonly [lack: string, error: SystemError, told: RegExp])[] = [
  [
    'the family inet, as without IPv6',
    refused(ERRNO.EOPNOTSUPP, 'add table inet sectunnel { comment "kept by sectunnel"; }'),
    /no.*family inet.*CONFIG_NF_TABLES_INET.*routes='none'.*\(ENOTSUP\)$/,
  ],
  ['nftables', refused(ERRNO.EOPNOTSUPP), /this kernel has no nftables: modprobe nf_tables.*\(ENOTSUP\)$/],
  [
    'netfilter',
    new SystemError('open a netlink socket', ERRNO.EPROTONOSUPPORT),
    /this kernel has no nftables: modprobe nf_tables.*\(EPROTONOSUPPORT\)$/,
  ],
  [
    'a kind of expression',
    refused(ERRNO.ENOENT, 'add rule inet sectunnel input fib daddr type local accept'),
    /lacks a part of nftables.*nft_fib_inet.*\(ENOENT\)$/,
  ],
  [
    'a kind of chain',
    refused(
      ERRNO.ENOENT,
      'add chain inet sectunnel postrouting { type nat hook postrouting priority 90; policy accept; }',
    ),
    /lacks a part of nftables.*nft_chain_nat.*\(ENOENT\)$/,
  ],
  [
    'room for the change',
    new SystemError('change nftables', ERRNO.EMSGSIZE),
    /longer than this process may send at once.*net\.core\.wmem_max.*\(EMSGSIZE\)$/,
  ],
  ['the capability', refused(ERRNO.EPERM), /CAP_NET_ADMIN.*--cap-add NET_ADMIN.*\(EPERM\)$/],
  [
    'a table that it may change',
    refused(ERRNO.EPERM, 'flush chain inet sectunnel output'),
    /another program owns the table inet sectunnel: end it.*\(EPERM\)$/,
  ],
  [
    'what another program took away',
    refused(ERRNO.ENOENT, 'flush chain inet sectunnel output'),
    /another program took away what the change builds on.*\(ENOENT\)$/,
  ],
];

describe('a refusal of the kernel says what is missing, what it is needed for, and what to do', () => {
  it.each(cases)('where it lacks %s', (_, error, told) => {
    const { message } = refusal(error) as Error;
    expect(message).toMatch(told);
    expect(message).not.toMatch(/\n|add (table|chain|rule)/);
  });

  it('and shows the line and the system’s reason where the cause is not known', () => {
    const { message } = refusal(refused(ERRNO.EBUSY, `delete chain inet sectunnel ${'x'.repeat(200)}`)) as Error;
    expect(message).toMatch(
      /refused a change of the fence: change nftables: .*\(EBUSY\) \(delete chain inet sectunnel x+…\)$/,
    );
  });

  it('and leaves other errors alone, as those of a line that is not known', () => {
    const error = new Error('bug');
    expect(refusal(error)).toBe(error);
  });
});

it('a kernel without nftables has no fence of an earlier daemon; one that says no for another reason may have', () => {
  const listing = (errno: number): SystemError => new SystemError('list the chains of nftables', errno);
  expect([ERRNO.EPROTONOSUPPORT, ERRNO.EINVAL].map((errno) => hasNoTables(listing(errno)))).toEqual([true, true]);
  expect([ERRNO.EPERM, ERRNO.ENOBUFS].map((errno) => hasNoTables(listing(errno)))).toEqual([false, false]);
});
