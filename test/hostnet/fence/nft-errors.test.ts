import { describe, expect, it } from 'vitest';
import { nftError } from '../../../src/hostnet/fence/nft-errors.ts';

/** What nft(8) 1.0.6 writes where a part of the kernel is missing, and what a person is told. */
const cases: readonly (readonly [lack: string, said: string, told: RegExp])[] = [
  [
    'the family inet, as without IPv6',
    '/dev/stdin:1:1-58: Error: Could not process rule: Operation not supported\nadd table inet sectunnel { comment "kept by sectunnel"; }\n^^^^^^^^^\n' +
      '/dev/stdin:2:16-24: Error: No such file or directory; did you mean chain ‘input’ in table inet ‘sectunnel’?\nadd chain inet sectunnel input\n^^^^^^^^^',
    /no.*family inet.*CONFIG_NF_TABLES_INET.*routes='none'.*\(nft: Could not process rule: Operation not supported\)$/,
  ],
  [
    'nftables',
    'netlink: Error: cache initialization failed: Protocol not supported\n',
    /this kernel has no nftables: modprobe nf_tables.*\(nft: cache initialization failed: Protocol not supported\)$/,
  ],
  [
    'a kind of expression',
    '/dev/stdin:9:1-70: Error: Could not process rule: No such file or directory\nadd rule inet sectunnel input fib daddr type local accept\n^^^^',
    /lacks a part of nftables.*nft_fib_inet.*\(nft: Could not process rule: No such file or directory\)$/,
  ],
  [
    'the capability',
    'Operation not permitted (you must be root)\nnetlink: Error: cache initialization failed: Operation not permitted\n',
    /CAP_NET_ADMIN.*--cap-add NET_ADMIN.*\(nft: cache initialization failed: Operation not permitted\)$/,
  ],
];

describe('a refusal of nft says what is missing, what it is needed for, and what to do', () => {
  it.each(cases)('where the kernel lacks %s', (_, said, told) => {
    const { message } = nftError(['-f', '-'], 1, said);
    expect(message).toMatch(told);
    expect(message).not.toMatch(/\n|\^|\/dev\/stdin|add (table|chain|rule)/);
  });

  it('and shows what nft says where the cause is not known', () => {
    const { message } = nftError(['-j', 'list', 'counters'], 'SIGKILL', 'something\nelse');
    expect(message).toBe('nft -j list counters ended with SIGKILL: something else');
  });
});
