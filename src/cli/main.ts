/** The `sectunnel` command. */
import '../sys/inspector.ts';
import { constants } from 'node:os';
import { ExitCode } from './exit-code.ts';
import { promptSecret } from './prompt.ts';
import { run } from './run.ts';
import type { Terminal } from './verb.ts';

/** Of a command that SIGPIPE ends, for shells: a key that was generated and not read is no success. */
const BROKEN_PIPE = 128 + constants.signals.SIGPIPE;

// A reader that has seen enough (`| head`) ends the command, quietly.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(BROKEN_PIPE);
  process.stderr.write(`error: the output cannot be written: ${error.message}\n`);
  process.exit(ExitCode.Refused);
});
// Nothing is left that an error could be told to.
process.stderr.on('error', () => process.exit(ExitCode.Refused));

async function readStdin(most: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of process.stdin) {
    chunks.push(chunk as Buffer);
    length += (chunk as Buffer).length;
    if (length > most) break;
  }
  return Buffer.concat(chunks);
}

const terminal: Terminal = {
  out: (text) => void process.stdout.write(text),
  err: (text) => void process.stderr.write(text),
  readStdin,
  prompt: process.stdin.isTTY
    ? (question, most) => promptSecret(process.stdin, (text) => void process.stderr.write(text), question, most)
    : undefined,
  isWatched: process.stderr.isTTY,
  interrupted: () => new Promise((resolve) => process.once('SIGINT', () => resolve())),
};

process.exitCode = await run(process.argv.slice(2), terminal);
