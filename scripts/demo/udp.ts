/** The demo's application: `echo ADDRESS PORT` answers datagrams, `ask ADDRESS PORT REMOTE PORT TEXT` sends one and prints the answer. */
import { createSocket } from 'node:dgram';

/** How long an answer is waited for. The first datagram may wait for the negotiation. */
const PATIENCE = 5_000;

function echo(address: string, port: number): void {
  const socket = createSocket('udp4');
  socket.on('message', (data, from) => socket.send(`echo: ${data.toString()}`, from.port, from.address));
  socket.bind(port, address, () => process.stdout.write('ready\n'));
}

async function ask(address: string, port: number, remote: string, remotePort: number, text: string): Promise<string> {
  const socket = createSocket('udp4');
  try {
    return await new Promise<string>((resolve) => {
      setTimeout(() => resolve(''), PATIENCE);
      socket.on('error', (error) => resolve(`error: ${error.message}`));
      socket.on('message', (data) => resolve(data.toString()));
      socket.bind(port, address, () => {
        socket.send(text, remotePort, remote, (error) => {
          if (error !== null) resolve(`error: ${error.message}`);
        });
      });
    });
  } finally {
    socket.close();
  }
}

const [verb, address = '', port = '', remote = '', remotePort = '', text = ''] = process.argv.slice(2);
if (verb === 'echo') {
  echo(address, Number(port));
} else {
  process.stdout.write(`${await ask(address, Number(port), remote, Number(remotePort), text)}\n`);
  process.exit(0);
}
