/**
 * Carries bytes over TCP inside a namespace; run as a program of its own.
 *
 *   node transfer.mjs receive ADDRESS PORT
 *     prints `ready`, takes one connection to its end, prints the SHA-256 of what came
 *   node transfer.mjs send SOURCE DESTINATION PORT BYTES
 *     sends so many bytes that follow from each other, prints their SHA-256
 */
import { createHash } from 'node:crypto';
import { connect, createServer } from 'node:net';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

const CHUNK = 64 * 1024;

/** @param {string} address @param {number} port */
function receive(address, port) {
  const server = createServer(async (socket) => {
    server.close();
    const hash = createHash('sha256');
    for await (const chunk of socket) hash.update(chunk);
    process.stdout.write(`${hash.digest('hex')}\n`);
  });
  server.listen(port, address, () => process.stdout.write('ready\n'));
}

/** @param {number} bytes */
function* content(bytes) {
  for (let at = 0; at < bytes; at += CHUNK) {
    const chunk = Buffer.alloc(Math.min(CHUNK, bytes - at));
    for (let i = 0; i < chunk.length; i++) chunk[i] = Math.imul(at + i, 0x9e3779b1) >>> 24;
    yield chunk;
  }
}

/** @param {string} source @param {string} destination @param {number} port @param {number} bytes */
async function send(source, destination, port, bytes) {
  const hash = createHash('sha256');
  for (const chunk of content(bytes)) hash.update(chunk);
  const socket = connect({ host: destination, port, localAddress: source });
  await pipeline(Readable.from(content(bytes)), socket);
  process.stdout.write(`${hash.digest('hex')}\n`);
}

const [verb, first = '', second = '', third, fourth] = process.argv.slice(2);
if (verb === 'receive') receive(first, Number(second));
else if (verb === 'send') await send(first, second, Number(third), Number(fourth));
else {
  process.stderr.write('usage: transfer.mjs receive ADDRESS PORT | send SOURCE DESTINATION PORT BYTES\n');
  process.exitCode = 2;
}
