/**
 * What libvirt's network hook asks the daemon with: `network-hook RUN-DIR SECONDS NETWORK OPERATION`, the network as XML
 * on standard input. Its script (`net-hook.ts`) calls it for networks that name a tunnel, to start and when they have
 * stopped. It loads little: libvirt, and the user who starts a network, wait for it.
 *
 * Exit code 1 and a line on standard error veto a start; libvirt shows that line. After a stop libvirt ignores both.
 */
import '../sys/inspector.ts';
import { messageOf } from '../base/text.ts';
import { DaemonClient } from '../control/client.ts';

async function ask(runDir: string, network: string, operation: string): Promise<void> {
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
  const client = await DaemonClient.connect(runDir);
  await client.call('network-hook', { network, operation, xml: Buffer.concat(chunks).toString('utf8') });
  client.close();
}

function end(network: string, operation: string, error: string): never {
  const what = operation === 'start' ? `network '${network}' is not started` : `network '${network}', ${operation}`;
  process.stderr.write(`sectunnel: ${what}: ${error.replace(/\s+/g, ' ')}\n`);
  process.exit(1);
}

const [runDir = '', seconds = '', network = '', operation = ''] = process.argv.slice(2);
setTimeout(
  () => end(network, operation, `sectunneld did not answer within ${seconds} s; see its log`),
  Number(seconds) * 1000,
).unref();
try {
  await ask(runDir, network, operation);
} catch (error) {
  end(network, operation, messageOf(error));
}
