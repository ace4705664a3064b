/** The `sectunnel` command. */
import '../daemon/inspector.ts';
import { run } from './run.ts';
import type { Terminal } from './verb.ts';

// A reader that has seen enough (`| head`) ends the command, quietly.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit();
});

async function readStdin(): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

const terminal: Terminal = {
  out: (text) => void process.stdout.write(text),
  err: (text) => void process.stderr.write(text),
  readStdin,
  interrupted: () => new Promise((resolve) => process.once('SIGINT', () => resolve())),
};

process.exitCode = await run(process.argv.slice(2), terminal);
