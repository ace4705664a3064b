/**
 * Clients of a control socket that mean ill: `control-flood.mjs SOCKET EACH`, so many of each kind, which come again when
 * they are closed. One kind says nothing, one sends half a line of 3 MiB, one asks without end and reads no answer, one
 * asks without end and reads. Prints how many answers came and connections were closed when it is told to end.
 */
import { connect } from 'node:net';

const [path, each] = process.argv.slice(2);
const HALF = Buffer.alloc(3 * 1024 * 1024, 0x61);
const ASKED = Buffer.from('{"id":1,"verb":"list"}\n{"id":2,"verb":"status"}\n'.repeat(1000));
const counts = { answered: 0, closed: 0 };

const kinds = [
  (socket) => void socket.resume(),
  (socket) => void socket.resume().write(HALF),
  (socket) => ask(socket),
  (socket) => {
    ask(socket);
    socket.on('data', (chunk) => {
      for (const byte of chunk) if (byte === 0x0a) counts.answered++;
    });
  },
];

function ask(socket) {
  socket.write(ASKED, () => socket.writable && ask(socket));
}

function open(kind) {
  const socket = connect(path, () => kind(socket));
  socket.on('error', () => undefined);
  socket.on('close', () => {
    counts.closed++;
    setTimeout(() => open(kind), 20);
  });
}

for (const kind of kinds) for (let i = 0; i < Number(each); i++) open(kind);
process.on('SIGTERM', () => {
  console.log(JSON.stringify(counts));
  process.exit(0);
});
console.log('open');
