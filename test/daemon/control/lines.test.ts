/** Lines of the control socket that are no requests, and requests that are none of ours. */
import { describe, expect, it } from 'vitest';
import { SectunnelError } from '../../../src/base/error.ts';
import type { DaemonClient } from '../../../src/control/client.ts';
import { MAX_LINE } from '../../../src/control/protocol.ts';
import { readRequest } from '../../../src/daemon/control/request.ts';
import { MemoryNetwork } from '../../../src/tun/udp/memory.ts';
import { RawClient, serve } from '../../support/control.ts';
import { address, TestDaemon } from '../../support/daemon.ts';

function refusalOf(line: string | Buffer): string {
  const read = readRequest(Buffer.from(line));
  return 'refusal' in read ? `${read.id}: ${read.refusal.message}` : 'none';
}

const SAFE = '-9007199254740991 to 9007199254740991';

describe('a line of the control socket', () => {
  it.each([
    ['{"id":1e309,"verb":"list"}', `0: the id Infinity is not an integer from ${SAFE}`],
    ['{"id":-1e999,"verb":"list"}', `0: the id -Infinity is not an integer from ${SAFE}`],
    ['{"id":1.5,"verb":"list"}', `0: the id 1.5 is not an integer from ${SAFE}`],
    ['{"id":9007199254740993,"verb":"list"}', `0: the id 9007199254740992 is not an integer from ${SAFE}`],
    ['{"id":"1","verb":"list"}', '0: the request has no numeric id'],
    ['{"id":null,"verb":"list"}', '0: the request has no numeric id'],
    ['{"id":4}', '4: the request has no verb'],
    ['{"id":4,"verb":["list"]}', '4: the request has no verb'],
    ['{"id":4,"verb":"list","params":[]}', '4: params is not an object'],
    ['{"id":4,"verb":"list","params":"x"}', '4: params is not an object'],
    ['', '0: the request is not JSON'],
    ['{"id":4,"verb":"list"', '0: the request is not JSON'],
    ['{"id":4,"verb":"list\u0000"}', '0: the request is not JSON'],
    ['\u0000', '0: the request is not JSON'],
    ['7', '0: the request is not an object'],
    ['{"id":1,"verb":"list","params":{"a":{"b":{"c":{}}}}}', '0: the request is nested more than 4 deep'],
    [`{"id":1,"verb":"list"${',"x":1'.repeat(20_000)}}`, '0: the request has more than 16384 members'],
  ])('%s is refused: %s', (line, message) => {
    expect(refusalOf(line)).toBe(message);
  });

  it('that is not UTF-8 is refused', () => {
    for (const bytes of ['ff', 'c080', 'eda080', 'f4908080', 'c3']) {
      const line = Buffer.concat([Buffer.from('{"id":1,"verb":"'), Buffer.from(bytes, 'hex'), Buffer.from('"}')]);
      expect(refusalOf(line)).toBe('0: the request is not UTF-8');
    }
  });

  it.each([
    ['{"__proto__":{"verb":"destroy"},"id":1,"verb":"list"}', { id: 1, verb: 'list', params: {} }],
    ['{"id":-0,"verb":"list","params":null}', { id: -0, verb: 'list', params: {} }],
    ['{"id":1,"id":2,"verb":"list"}', { id: 2, verb: 'list', params: {} }],
    ['{"id":1,"verb":"a\\\\\\"{[,,"}', { id: 1, verb: 'a\\"{[,,', params: {} }],
    ['{"id":1,"verb":"\\\\"}', { id: 1, verb: '\\', params: {} }],
    [`{"id":1,"verb":"a\\"${','.repeat(50)}"}`, { id: 1, verb: `a"${','.repeat(50)}`, params: {} }],
  ])('%s is read', (line, request) => {
    expect(readRequest(Buffer.from(line))).toEqual(request);
  });

  it('with parameters of every name pollutes nothing', () => {
    const line = '{"id":1,"verb":"list","params":{"__proto__":{"name":"x"},"constructor":{"prototype":{"name":"y"}}}}';
    const read = readRequest(Buffer.from(line));
    expect('params' in read && Object.keys(read.params)).toEqual(['__proto__', 'constructor']);
    expect(({} as { name?: string }).name).toBeUndefined();
  });

  it.each([
    ['arrays', '['.repeat(MAX_LINE)],
    ['arrays that end', `${'['.repeat(MAX_LINE / 2)}${']'.repeat(MAX_LINE / 2)}`],
    ['members', `{${'"a":1,'.repeat(MAX_LINE / 6)}`],
    ['numbers', `[${'0,'.repeat(MAX_LINE / 2 - 1)}0]`],
    ['quotes', '"'.repeat(MAX_LINE)],
    ['escaped quotes', `"${'\\"'.repeat(MAX_LINE / 2 - 1)}`],
    ['backslashes', `"${'\\'.repeat(MAX_LINE - 1)}`],
    ['blanks', ' '.repeat(MAX_LINE)],
    ['digits', `{"id":${'9'.repeat(MAX_LINE - 6)}`],
  ])('of %s up to the limit costs little to refuse', (_, line) => {
    const bytes = Buffer.from(line);
    const before = process.cpuUsage();
    const heap = process.memoryUsage().heapUsed;
    expect(refusalOf(bytes)).not.toBe('none');
    // Parsed as JSON, the second takes 200 MiB, and the third a second.
    expect(process.memoryUsage().heapUsed - heap).toBeLessThan(5 * MAX_LINE);
    // Microseconds: what others of the machine take does not count.
    expect(process.cpuUsage(before).user).toBeLessThan(500_000);
  });

  it('without a good id is answered with 0, and the next one is served', async () => {
    const { path } = await serve(() => Promise.resolve({ fine: true }));
    const client = await RawClient.open(path);
    client.send('{"id":1e309,"verb":"list"}\n{"id":8}\n');
    client.ask(9);
    expect(await client.answered(3)).toMatchObject([
      { id: 0, error: { code: 'bad-request', message: expect.stringContaining('the id Infinity is not') as string } },
      { id: 8, error: { code: 'bad-request', message: 'the request has no verb' } },
      { id: 9, result: { fine: true } },
    ]);
  });

  it('that comes in pieces is put together, byte by byte', async () => {
    const { path } = await serve((verb) => Promise.resolve({ verb }));
    const client = await RawClient.open(path);
    client.socket.setNoDelay();
    for (const byte of Buffer.from('{"id":3,"verb":"liſt"}\n')) client.send(Uint8Array.of(byte));
    expect(await client.answered(1)).toEqual([{ id: 3, result: { verb: 'liſt' } }]);
  });
});

describe('a daemon', () => {
  async function daemon(): Promise<DaemonClient> {
    return (await TestDaemon.start(new MemoryNetwork().host([address('192.0.2.1')]))).client;
  }

  it('refuses verbs that only JavaScript knows, and what no parameter may be', async () => {
    const client = await daemon();
    const call = async (verb: string, params: object): Promise<string> => {
      const error: unknown = await client.call(verb as 'info', params as { name: string }).catch((e: unknown) => e);
      return error instanceof SectunnelError ? `${error.code}: ${error.message}` : String(error);
    };
    for (const verb of ['__proto__', 'constructor', 'toString', 'hasOwnProperty']) {
      expect(await call(verb, {})).toBe(`bad-request: unknown verb '${verb}'`);
    }
    expect(await call('x'.repeat(100_000), {})).toBe(`bad-request: unknown verb '${'x'.repeat(40)}…'`);
    expect(await call('info', { name: 'a\0b' })).toBe("bad-request: the parameter 'name' contains a zero character");
    expect(await call('info', { name: 'a'.repeat(5000) })).toMatch(
      /^bad-request: .*'name' has 5000 characters; at most/,
    );
    expect(await call('info', { name: { toString: 'x' } })).toMatch(
      /^bad-request: the parameter 'name' is an object; expected: a string/,
    );
    expect(await call('info', { name: '__proto__' })).toMatch(/^not-found: /);
    expect(await call('secret-undefine', { uuid: '../../etc/passwd' })).toMatch(/is not a UUID/);
    const uuid = '11111111-2222-3333-4444-555555555501';
    expect(await call('secret-set-value', { uuid, offer: '../../etc/passwd' })).toMatch(
      /is not the name of an offered value/,
    );
  });
});
