/** Runs nft(8), which prints what other programs have in nftables as people write it. */
import { SectunnelError } from '../../base/error.ts';
import { MissingProgramError, type ProgramOptions, runProgram, systemEnvironment } from '../../sys/program.ts';

/** Characters of nft's errors that a message shows. */
const MAX_MESSAGE = 300;

/**
 * @returns what it writes
 * @throws MissingProgramError that says how to get it; Error when it cannot be started, or ends with another code than 0
 */
export async function runNft(words: readonly string[], options: Omit<ProgramOptions, 'env'>): Promise<string> {
  const env = systemEnvironment();
  const { end, output, errors } = await runProgram('nft', words, { ...options, env }).catch((error: unknown) => {
    if (!(error instanceof MissingProgramError)) throw error;
    throw new MissingProgramError(`${error.message}: install the package nftables (apt-get install nftables)`);
  });
  if (end === 0) return output;
  const text = errors.trim().replace(/\s+/g, ' ').slice(0, MAX_MESSAGE);
  throw new SectunnelError('system', `nft ${words.join(' ')} ended with ${end}: ${text}`);
}
