import { existsSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { ByteReader, ByteWriter } from '../../src/base/bytes.ts';
import { LibvirtUnreachableError, RpcClient } from '../../src/libvirt/rpc-client.ts';
import {
  decodeMessage,
  encodeCall,
  LibvirtError,
  MAX_MESSAGE,
  MessageAssembler,
} from '../../src/libvirt/rpc-message.ts';
import {
  readInt,
  readList,
  readOptionalString,
  readString,
  writeOptionalString,
  writeString,
} from '../../src/libvirt/xdr.ts';
import { FakeLibvirt, frame, Refusal, u32, xdrText } from '../support/fake-libvirt.ts';
import { temporaryFolder } from '../support/folder.ts';
import { timersByHand } from '../support/timers.ts';

const NETWORK_LOOKUP_BY_NAME = 46;

async function connected(fake: FakeLibvirt, timeout?: number): Promise<RpcClient> {
  const options = { path: fake.path, uri: 'secret:///system' };
  const client = await RpcClient.connect(timeout === undefined ? options : { ...options, timeout });
  onTestFinished(() => client.close());
  return client;
}

describe('XDR', () => {
  it('gives back every string that it wrote, padded to four bytes', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), fc.option(fc.string(), { nil: undefined }), (text, optional) => {
        const writer = new ByteWriter();
        writeString(writer, text);
        writeOptionalString(writer, optional);
        expect(writer.length % 4).toBe(0);
        const reader = new ByteReader(writer.finish());
        expect([readString(reader), readOptionalString(reader)]).toEqual([text, optional]);
        reader.expectEnd('the strings');
      }),
    );
  });

  it('reads signed numbers', () => {
    expect(readInt(new ByteReader(u32(-1)))).toBe(-1);
  });

  it('refuses lengths that are too large before it looks for the bytes', () => {
    expect(() => readString(new ByteReader(u32(0x7fff_ffff)), 100)).toThrow(/at most 100 are taken/);
    expect(() => readString(new ByteReader(u32(5, 0)), 100)).toThrow(/5 bytes expected, 4 left/);
    expect(() => readList(new ByteReader(u32(21)), 20, readInt)).toThrow(/21 items, at most 20/);
    expect(() => readOptionalString(new ByteReader(u32(2)))).toThrow(/2 where 0 or 1/);
  });
});

describe('a message', () => {
  it('has the header that libvirt wants', () => {
    const bytes = encodeCall(66, 7, () => undefined);
    expect(Buffer.from(bytes)).toEqual(u32(28, 0x20008086, 1, 66, 0, 7, 0));
  });

  it('comes out of every way of cutting it', () => {
    const stream = Buffer.concat([
      frame(1, 1, 1, 0, xdrText('first')),
      frame(2, 2, 0, 0, u32()),
      frame(3, 1, 2, 0, u32(9)),
    ]);
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: stream.length })), (cuts) => {
        const assembler = new MessageAssembler();
        const kinds: string[] = [];
        const edges = [0, ...cuts.sort((a, b) => a - b), stream.length];
        for (const [index, edge] of edges.slice(1).entries()) {
          assembler.push(stream.subarray(edges[index], edge), (message) => kinds.push(decodeMessage(message).kind));
        }
        expect(kinds).toEqual(['result', 'message', 'result']);
      }),
    );
  });

  it('is wiped when it was taken', () => {
    let seen: Uint8Array | undefined;
    new MessageAssembler().push(frame(145, 1, 1, 0, xdrText('secret')), (message) => {
      expect(Buffer.from(message).includes('secret')).toBe(true);
      seen = message;
    });
    expect(seen?.every((byte) => byte === 0)).toBe(true);
  });

  it.each([0, 27, MAX_MESSAGE + 1, 0xffff_ffff])('of %i bytes is refused before it comes', (length) => {
    const assembler = new MessageAssembler();
    expect(() => assembler.push(u32(length), () => undefined)).toThrow(/at most/);
  });

  it.each([
    ['another program', u32(28, 0x6b656570, 1, 1, 2, 0, 0)],
    ['another version', u32(28, 0x20008086, 2, 1, 1, 0, 0)],
    ['a call', u32(28, 0x20008086, 1, 1, 0, 0, 0)],
    ['an unknown status', u32(28, 0x20008086, 1, 1, 1, 0, 9)],
  ])('that is %s is refused', (_what, bytes) => {
    expect(() => decodeMessage(bytes)).toThrow(/0x6b656570|version 2|type 0|status 9/);
  });
});

describe('RpcClient', () => {
  it('asks how to authenticate, opens the URI, and calls', async () => {
    const fake = await FakeLibvirt.start();
    const client = await connected(fake);
    fake.answer = ({ procedure, body }) =>
      procedure === NETWORK_LOOKUP_BY_NAME ? Buffer.concat([body, Buffer.alloc(16, 0xab)]) : undefined;
    const network = await client.call(
      NETWORK_LOOKUP_BY_NAME,
      (body) => writeString(body, 'default'),
      (body) => ({ name: readString(body), uuid: body.bytes(16).slice() }),
    );
    expect(network).toEqual({ name: 'default', uuid: new Uint8Array(16).fill(0xab) });
    expect(fake.calls.map(({ procedure }) => procedure)).toEqual([66, 1, NETWORK_LOOKUP_BY_NAME]);
    expect(fake.calls[1]?.body).toEqual(Buffer.concat([u32(1), xdrText('secret:///system'), u32(0)]));
  });

  it('proves itself to polkit when that is asked for', async () => {
    const fake = await FakeLibvirt.start();
    fake.authTypes = [2];
    await connected(fake);
    expect(fake.calls.map(({ procedure }) => procedure)).toEqual([66, 70, 1]);
  });

  it('says what to change where only SASL is taken', async () => {
    const fake = await FakeLibvirt.start();
    fake.authTypes = [1];
    await expect(connected(fake)).rejects.toThrow(/wants SASL.*auth_unix_rw/);
    await expect.poll(() => fake.sockets.size).toBe(0);
  });

  it('carries a refusal with code, domain and text', async () => {
    const fake = await FakeLibvirt.start();
    const client = await connected(fake);
    fake.answer = () => {
      throw new Refusal(43, "Network not found: no network with matching name 'x'");
    };
    const failure = await client.call(NETWORK_LOOKUP_BY_NAME).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(LibvirtError);
    expect(failure).toMatchObject({ code: 43, domain: 30, message: expect.stringContaining('Network not found') });
  });

  it('takes a refusal without text, and a text that would garble the log', async () => {
    const fake = await FakeLibvirt.start();
    const client = await connected(fake);
    const reply = (body: Buffer): void => {
      for (const socket of fake.sockets) socket.write(frame(46, 1, fake.calls.at(-1)!.serial, 1, body));
    };
    fake.answer = () => {
      reply(u32(1, 2, 0));
      return 'silent';
    };
    await expect(client.call(46)).rejects.toThrow("libvirt's error 1");
    fake.answer = () => {
      reply(Buffer.concat([u32(1, 2, 1), xdrText('one\ntwo\u001b[2J')]));
      return 'silent';
    };
    await expect(client.call(46)).rejects.toThrow('one?two?[2J');
  });

  it('matches answers that come in another order', async () => {
    const fake = await FakeLibvirt.start();
    const client = await connected(fake);
    fake.answer = () => 'silent';
    const results = [1, 2].map(() => client.call(46, () => undefined, readInt));
    await expect.poll(() => fake.count(46)).toBe(2);
    const [socket] = fake.sockets;
    for (const { serial } of fake.calls.filter(({ procedure }) => procedure === 46).reverse()) {
      socket?.write(frame(46, 1, serial, 0, u32(serial)));
    }
    expect(await Promise.all(results)).toEqual([3, 4]);
  });

  it('reports events to their listeners only', async () => {
    const fake = await FakeLibvirt.start();
    const client = await connected(fake);
    const heard: number[] = [];
    client.listen(315, (body) => heard.push(readInt(body)));
    fake.publish(316, u32(1));
    fake.publish(315, u32(42));
    await expect.poll(() => heard).toEqual([42]);
  });

  it('gives up a daemon that does not answer in time', async () => {
    const fake = await FakeLibvirt.start();
    timersByHand();
    const client = await connected(fake, 2_000);
    const called = fake.silence(2);
    let closed = 0;
    client.onClose = () => closed++;
    const calls = Promise.allSettled([client.call(46), client.call(46)]);
    await called;
    vi.advanceTimersByTime(1_999);
    expect(closed).toBe(0);
    vi.advanceTimersByTime(1);
    expect((await calls).map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    await expect(client.call(46)).rejects.toThrow(/no answer within 2 s/);
    expect(closed).toBe(1);
  });

  it.each([
    ['a length that cannot be', u32(3)],
    ['a result that is cut short', frame(46, 1, 3, 0, Buffer.alloc(2))],
  ])('ends the connection at %s', async (_what, bytes) => {
    const fake = await FakeLibvirt.start();
    const client = await connected(fake);
    fake.answer = () => {
      for (const socket of fake.sockets) socket.write(bytes);
      return 'silent';
    };
    await expect(client.call(46, () => undefined, readInt)).rejects.toThrow(/broke the protocol/);
    await expect.poll(() => fake.sockets.size).toBe(0);
  });

  it('fails the calls under way when the daemon goes away, and says so once', async () => {
    const fake = await FakeLibvirt.start();
    const client = await connected(fake);
    let closed = 0;
    client.onClose = () => closed++;
    fake.answer = () => 'silent';
    const call = client.call(46);
    await expect.poll(() => fake.count(46)).toBe(1);
    for (const socket of fake.sockets) socket.destroy();
    await expect(call).rejects.toMatchObject({ reason: 'broken' });
    expect(closed).toBe(1);
  });

  it('does not call with more than libvirt may be sent', async () => {
    const client = await connected(await FakeLibvirt.start());
    await expect(client.call(46, (body) => body.zeros(MAX_MESSAGE))).rejects.toThrow(RangeError);
    await expect(client.call(46)).resolves.toBeUndefined();
  });

  it('says goodbye, and fails what is under way', async () => {
    const fake = await FakeLibvirt.start();
    const client = await connected(fake);
    fake.answer = () => 'silent';
    const call = client.call(46);
    client.close();
    await expect(call).rejects.toThrow(/was closed/);
    await expect.poll(() => [fake.count(2), fake.sockets.size]).toEqual([1, 0]);
  });

  it('distinguishes a missing libvirt from one that refuses connections', async () => {
    const path = join(temporaryFolder(), 'nobody');
    const absent = await RpcClient.connect({ path, uri: 'secret:///system' }).catch((error: unknown) => error);
    expect(absent).toBeInstanceOf(LibvirtUnreachableError);
    expect(absent).toMatchObject({ reason: 'absent', message: `no libvirt listens on ${path}` });
    expect(existsSync(path)).toBe(false);
    const fake = await FakeLibvirt.start();
    fake.answer = () => {
      throw new Refusal(45, 'authentication failed');
    };
    await expect(RpcClient.connect({ path: fake.path, uri: 'secret:///system' })).rejects.toBeInstanceOf(LibvirtError);
    await expect.poll(() => fake.sockets.size).toBe(0);
  });
});
