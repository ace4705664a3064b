/**
 * Sends and answers datagrams inside a namespace; run as a program of its own.
 *
 *   node traffic.mjs echo ADDRESS PORT
 *     answers every datagram until it is ended; prints `ready` first
 *   node traffic.mjs burst SOURCE DESTINATION PORT OWN_PORT COUNT SIZE PAUSE_MS
 *     sends COUNT datagrams, waits for the answers, prints {"sent","received","damaged"}
 *   node traffic.mjs sweep SOURCE PORT PAUSE_MS DESTINATION …
 *     sends an empty datagram to one destination after another, and begins again, until it is ended; prints `round` before
 *     each time
 */
import { createSocket } from 'node:dgram';
import { setTimeout as sleep } from 'node:timers/promises';

/** How long a burst waits for the last answers, at most: a busy machine's peers may sleep for long. */
const LAST_ANSWERS_MS = 4_000;

/** @param {string} address */
function socketFor(address) {
  const socket = createSocket({ type: address.includes(':') ? 'udp6' : 'udp4', recvBufferSize: 1 << 20 });
  // An ICMP error (a port or host that cannot be reached) is a lost datagram here, nothing more.
  socket.on('error', () => {});
  return socket;
}

/** @param {string} address @param {number} port */
function echo(address, port) {
  const socket = socketFor(address);
  socket.on('message', (message, from) => socket.send(message, from.port, from.address));
  socket.bind(port, address, () => process.stdout.write('ready\n'));
}

/** Datagram `index`: its number, then bytes that follow from it. @param {number} index @param {number} size */
function datagram(index, size) {
  const bytes = Buffer.alloc(size, index & 0xff);
  bytes.writeUInt32BE(index, 0);
  return bytes;
}

/** @param {string} source @param {string} destination @param {number} port @param {number} ownPort @param {number} count @param {number} size @param {number} pause */
async function burst(source, destination, port, ownPort, count, size, pause) {
  const socket = socketFor(source);
  const answered = new Set();
  let damaged = 0;
  socket.on('message', (message) => {
    const index = message.length < 4 ? count : message.readUInt32BE(0);
    if (index < count && message.equals(datagram(index, size))) answered.add(index);
    else damaged++;
  });
  await new Promise((resolve) => socket.bind(ownPort, source, () => resolve(undefined)));
  for (let index = 0; index < count; index++) {
    socket.send(datagram(index, size), port, destination, () => {});
    await sleep(pause);
  }
  const end = Date.now() + LAST_ANSWERS_MS;
  while (answered.size < count && Date.now() < end) await sleep(10);
  socket.close();
  process.stdout.write(`${JSON.stringify({ sent: count, received: answered.size, damaged })}\n`);
}

/** @param {string} source @param {number} port @param {number} pause @param {string[]} destinations */
async function sweep(source, port, pause, destinations) {
  const socket = socketFor(source);
  await new Promise((resolve) => socket.bind(0, source, () => resolve(undefined)));
  for (;;) {
    process.stdout.write('round\n');
    for (const destination of destinations) {
      // What is refused is not sent.
      socket.send('', port, destination, () => {});
      await sleep(pause);
    }
  }
}

const [verb, ...rest] = process.argv.slice(2);
if (verb === 'echo') echo(String(rest[0]), Number(rest[1]));
else if (verb === 'burst') {
  const [source, destination, ...numbers] = rest;
  const [port, ownPort, count, size, pause] = numbers.map(Number);
  await burst(
    String(source),
    String(destination),
    Number(port),
    Number(ownPort),
    Number(count),
    Number(size),
    Number(pause),
  );
} else if (verb === 'sweep') {
  const [source, port, pause, ...destinations] = rest;
  await sweep(String(source), Number(port), Number(pause), destinations);
} else {
  process.stderr.write(
    'usage: traffic.mjs echo ADDRESS PORT | burst SOURCE DESTINATION PORT OWN_PORT COUNT SIZE PAUSE_MS | ' +
      'sweep SOURCE PORT PAUSE_MS DESTINATION …\n',
  );
  process.exitCode = 2;
}
