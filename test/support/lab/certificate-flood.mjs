/**
 * Begins IKE SAs over and over, and proves itself with certificates that a test made: `node certificate-flood.mjs JOB`, a
 * file of JSON. Prints, as JSON, what came of it when the time is over, or when the first IKE SA is up.
 */
import { createPrivateKey, randomBytes, sign } from 'node:crypto';
import dgram from 'node:dgram';
import { readFileSync } from 'node:fs';

/** dist: URL of the build; document; local and remote addresses; port of ours; seconds; parallel; key: PEM; chains: base64. */
const job = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const { nodeProvider, parseDocument, planTunnel } = await import(`${job.dist}/public/index.js`);
const { IkeEndpoint } = await import(`${job.dist}/public/ike.js`);
const { tunnel } = await planTunnel(await parseDocument(job.document));
const [plan] = tunnel.connections;
const key = createPrivateKey(job.key);
const chains = job.chains.map((chain) => chain.map((text) => new Uint8Array(Buffer.from(text, 'base64'))));
const ECDSA_SHA256 = Uint8Array.from(Buffer.from('300a06082a8648ce3d040302', 'hex'));

const address = (text) => ({
  family: 4,
  value: BigInt(text.split('.').reduce((sum, part) => sum * 256 + Number(part), 0)),
});
const config = {
  ...plan,
  local: { ...plan.local, address: address(job.local), port: job.port, natPort: job.port },
  remote: { ...plan.remote, address: address(job.remote), port: 4500, natPort: 4500 },
};
const endpoint = new IkeEndpoint({
  crypto: nodeProvider,
  random: (length) => new Uint8Array(randomBytes(length)),
  limits: { maxIkeSas: 100_000 },
});
const start = Date.now();
const now = () => Date.now() - start;
const told = { up: 0, failed: 0, sent: 0 };
const socket = dgram.createSocket('udp4');
let live = 0;
let begun = 0;

socket.on('message', (data, from) => {
  if (data.length < 5 || data.readUInt32BE(0) !== 0) return;
  const path = {
    local: { address: address(job.local), port: job.port },
    remote: { address: address(from.address), port: from.port },
  };
  endpoint.handleDatagram(now(), path, data.subarray(4));
  drain();
});

function drain() {
  for (let event = endpoint.pollEvent(); event !== undefined; event = endpoint.pollEvent()) {
    if (event.type === 'need-signature') {
      const certificates = chains[told.sent++ % chains.length];
      const signature = new Uint8Array(sign('sha256', event.octets, key));
      const answer = { ok: true, authMethod: 14, algorithm: ECDSA_SHA256, signature, certificates };
      endpoint.answerSignature(now(), event.requestId, answer);
    } else if (event.type === 'need-verification') {
      endpoint.answerVerification(now(), event.requestId, { ok: true });
    } else if (event.type === 'ike-up') {
      told.up++;
      end();
    } else if (event.type === 'failed') {
      told.failed++;
      live--;
    }
  }
  for (let out = endpoint.pollTransmit(); out !== undefined; out = endpoint.pollTransmit()) {
    const data = out.keepalive ? out.data : Buffer.concat([Buffer.alloc(4), out.data]);
    socket.send(data, out.path.remote.port, job.remote);
  }
}

function end() {
  process.stdout.write(`${JSON.stringify(told)}\n`, () => process.exit(0));
}

await new Promise((resolve) => socket.bind(job.port, job.local, resolve));
setInterval(() => {
  endpoint.handleTimeout(now());
  while (live < job.parallel && now() < job.seconds * 1_000) {
    live++;
    endpoint.addConnection({ ...config, name: `c${begun}` });
    endpoint.initiate(now(), `c${begun++}`);
  }
  drain();
  if (now() > job.seconds * 1_000) end();
}, 10);
