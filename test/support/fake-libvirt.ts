/**
 * One of libvirt's daemons in a few lines, with secrets in memory: for tests of those who talk to it. Its bytes are
 * put together here by hand, apart from the code that is tested.
 */
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { temporaryFolder } from './folder.ts';

export interface FakeSecret {
  readonly uuid: string;
  /** Of libvirt's numbers: 4 is `tls`. */
  readonly usageType?: number;
  readonly usage?: string;
  readonly private?: boolean;
  value?: string;
}

export function u32(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length);
  for (const [at, value] of values.entries()) bytes.writeInt32BE(value | 0, 4 * at);
  return bytes;
}

export function xdrText(text: string | Uint8Array): Buffer {
  const bytes = Buffer.from(text as string);
  return Buffer.concat([u32(bytes.length), bytes, Buffer.alloc(-bytes.length & 3)]);
}

export interface Call {
  readonly procedure: number;
  readonly serial: number;
  readonly body: Buffer;
}

export class Refusal extends Error {
  readonly code: number;

  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}

export class FakeLibvirt {
  readonly path: string;
  readonly secrets: FakeSecret[] = [];
  readonly calls: Call[] = [];
  readonly sockets: Set<Socket> = new Set();
  /** Authentication types that are offered. */
  authTypes: readonly number[] = [0];
  /** Takes the place of the usual answer where it returns one; `silent` for none at all. */
  answer: (call: Call) => Buffer | 'silent' | undefined = () => undefined;
  readonly #server: Server;

  constructor(path: string = join(temporaryFolder(), 'virtsecretd-sock')) {
    this.path = path;
    this.#server = createServer((socket) => this.#serve(socket));
  }

  static async start(path?: string): Promise<FakeLibvirt> {
    const fake = new FakeLibvirt(path);
    await new Promise<void>((resolve) => fake.#server.listen(fake.path, resolve));
    onTestFinished(() => fake.stop());
    return fake;
  }

  async stop(): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  /** Sends an event to everybody who is connected. */
  publish(procedure: number, body: Buffer): void {
    for (const socket of this.sockets) socket.write(frame(procedure, 2, 0, 0, body));
  }

  /** Changes a value and says so. */
  setValue(uuid: string, value: string): void {
    const secret = this.secrets.find((candidate) => candidate.uuid === uuid)!;
    secret.value = value;
    this.publish(383, Buffer.concat([u32(1), secretBytes(secret)]));
  }

  /** How often a procedure was called. */
  count(procedure: number): number {
    return this.calls.filter((call) => call.procedure === procedure).length;
  }

  /** From now on nothing is answered. Resolves when it has been called so often since. */
  silence(calls: number): Promise<void> {
    let left = calls;
    return new Promise((resolve) => {
      this.answer = () => {
        left--;
        if (left === 0) resolve();
        return 'silent';
      };
    });
  }

  #serve(socket: Socket): void {
    this.sockets.add(socket);
    socket.on('close', () => this.sockets.delete(socket));
    socket.on('error', () => undefined);
    let pending = Buffer.alloc(0);
    socket.on('data', (chunk: Buffer) => {
      pending = Buffer.concat([pending, chunk]);
      while (pending.length >= 4 && pending.length >= pending.readUInt32BE()) {
        const length = pending.readUInt32BE();
        this.#take(socket, pending.subarray(0, length));
        pending = pending.subarray(length);
      }
    });
  }

  #take(socket: Socket, message: Buffer): void {
    const call = { procedure: message.readUInt32BE(12), serial: message.readUInt32BE(20), body: message.subarray(28) };
    this.calls.push(call);
    const { procedure, serial } = call;
    try {
      const answer = this.answer(call) ?? this.#usual(call);
      if (answer !== 'silent') socket.write(frame(procedure, 1, serial, 0, answer));
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      const body = Buffer.concat([u32(error.code, 30, 1), xdrText(error.message), u32(2, 0, 0, 0, 0, 0, 0, 0)]);
      socket.write(frame(procedure, 1, serial, 1, body));
    }
  }

  #usual({ procedure, body }: Call): Buffer {
    switch (procedure) {
      case 66:
        return u32(this.authTypes.length, ...this.authTypes);
      case 141:
        return secretBytes(this.#find((secret) => plainUuid(secret).equals(body.subarray(0, 16))));
      case 147: {
        const [type, usage] = [body.readInt32BE(), body.subarray(8, 8 + body.readUInt32BE(4)).toString()];
        return secretBytes(this.#find((secret) => secret.usageType === type && secret.usage === usage));
      }
      case 145: {
        const secret = this.#find((candidate) => plainUuid(candidate).equals(body.subarray(0, 16)));
        if (secret.private === true) throw new Refusal(65, 'secret is private');
        if (secret.value === undefined) throw new Refusal(66, `secret '${secret.uuid}' does not have a value`);
        return xdrText(secret.value);
      }
      case 287:
        return Buffer.concat([
          u32(this.secrets.length),
          ...this.secrets.map((secret) => secretBytes(secret)),
          u32(this.secrets.length),
        ]);
      case 380:
        return u32(1);
      default:
        return Buffer.alloc(0);
    }
  }

  #find(fits: (secret: FakeSecret) => boolean): FakeSecret {
    const secret = this.secrets.find(fits);
    if (secret === undefined) throw new Refusal(66, 'Secret not found: no secret with matching key');
    return secret;
  }
}

export function frame(procedure: number, type: number, serial: number, status: number, body: Buffer): Buffer {
  return Buffer.concat([u32(28 + body.length, 0x20008086, 1, procedure, type, serial, status), body]);
}

function plainUuid({ uuid }: FakeSecret): Buffer {
  return Buffer.from(uuid.replaceAll('-', ''), 'hex');
}

function secretBytes(secret: FakeSecret): Buffer {
  return Buffer.concat([plainUuid(secret), u32(secret.usageType ?? 0), xdrText(secret.usage ?? '')]);
}
