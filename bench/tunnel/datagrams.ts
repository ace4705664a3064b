/**
 * Sends datagrams at a rate, or receives them: many in a system call, so that on few processors the load leaves as much
 * of them as can be to what is measured. iperf3 makes a call for each, and reaches its own limit before the tunnels do.
 * Neither side has the kernel join or cut anything: every datagram is one packet at the device.
 *
 *     datagrams.js send FROM TO PORT SIZE RATE SECONDS     RATE 0 for as many as can be
 *     datagrams.js receive ADDRESS PORT
 *
 * Each prints one line of JSON, the receiver `ready` before. It ends when nothing more comes for a while.
 */
import { performance } from 'node:perf_hooks';
import { parseAddress, type SocketAddress } from '../../src/base/address.ts';
import { PacketBatch } from '../../src/base/batch.ts';
import { libc } from '../../src/sys/libc.ts';
import { addressOf } from '../../src/sys/native-memory.ts';
import { linuxUdp } from '../../src/tun/udp/linux.ts';
import { UdpQueue } from '../../src/tun/udp/queue.ts';
import { median } from '../stats.ts';

/** Times are milliseconds of the system's monotonic clock, which all processes share. */
export interface SendReport {
  readonly start: number;
  readonly end: number;
  readonly sent: number;
  /** Milliseconds that a datagram took in a call of the kernel, the median of all calls: another program's turn does not count. */
  readonly each: number;
}

/** How many had come at which times. */
export interface ReceiveReport {
  readonly total: number;
  readonly samples: readonly (readonly [time: number, count: number])[];
}

/** Datagrams of one call, and how many must be due to be worth one. */
const BATCH = 64;
const WORTH_A_CALL = 16;
const SAMPLE_EVERY = 10;
/** What waits in queues longer is not coming. */
const SILENCE = 1_000;
const PATIENCE = 10_000;
const POLLIN = 1;

const pause = new Int32Array(new SharedArrayBuffer(4));

function now(): number {
  return Number(process.hrtime.bigint() / 1_000n) / 1_000;
}

async function openEnd(local: SocketAddress): Promise<{ end: UdpQueue; fd: number }> {
  const socket = await linuxUdp({ gro: false, gso: false }).bind(local);
  const [descriptor] = socket.handOver?.() ?? [];
  if (descriptor === undefined) throw new Error('these sockets have no descriptors');
  return { end: new UdpQueue(descriptor), fd: descriptor.fd };
}

async function send(from: string, to: SocketAddress, size: number, rate: number, seconds: number): Promise<SendReport> {
  const { end: socket } = await openEnd(socketAddress(from, 0));
  const target = socket.resolve({ to });
  const batch = new PacketBatch(BATCH, size);
  while (batch.count < BATCH) batch.push(new Uint8Array(size));
  const start = now();
  const end = start + seconds * 1_000;
  let sent = 0;
  const calls: number[] = [];
  for (let time = start; time < end; time = now()) {
    const due = rate === 0 ? BATCH : Math.floor(((time - start) * rate) / 1_000) - sent;
    if (due >= Math.min(WORTH_A_CALL, rate / 1_000)) {
      const count = socket.sendBatch(batch, 0, Math.min(due, BATCH), target);
      sent += count;
      if (count > 0) calls.push((now() - time) / count);
    }
    // Shorter than a timer can be: it gives the processor away.
    else Atomics.wait(pause, 0, 0, 0.05);
  }
  return { start, end: now(), sent, each: median(calls) };
}

async function receive(local: SocketAddress): Promise<ReceiveReport> {
  const { end, fd } = await openEnd(local);
  process.stdout.write('ready\n');
  const samples: [number, number][] = [];
  const descriptor = new Uint8Array(Int32Array.of(fd, POLLIN).buffer);
  const address = addressOf(descriptor);
  let total = 0;
  let last = performance.now();
  const count = (): void => {
    total++;
  };
  for (;;) {
    const ready = libc().poll(address, 1, SAMPLE_EVERY);
    const before = total;
    if (ready > 0) while (end.receive(count) === 'more');
    const time = performance.now();
    if (total > before) last = time;
    else if (time - last > (total === 0 ? PATIENCE : SILENCE)) return { total, samples };
    const at = now();
    if (total > before && at - (samples.at(-1)?.[0] ?? 0) >= SAMPLE_EVERY) samples.push([at, total]);
  }
}

function socketAddress(text: string, port: number): SocketAddress {
  const address = parseAddress(text);
  if (address === undefined) throw new Error(`'${text}' is no address`);
  return { address, port };
}

function main([role, ...rest]: readonly string[]): Promise<SendReport | ReceiveReport> {
  const [one = '', two = '', ...more] = rest;
  if (role === 'receive') return receive(socketAddress(one, Number(two)));
  const [port = 0, size = 0, rate = 0, seconds = 0] = more.map(Number);
  return send(one, socketAddress(two, port), size, rate, seconds);
}

const report = await main(process.argv.slice(2));
// The socket stays open, so the program ends itself.
process.stdout.write(`${JSON.stringify(report)}\n`, () => process.exit(0));
