/** Runs nft(8). */

import { MissingProgramError, type ProgramOptions, runProgram, systemEnvironment } from '../../sys/program.ts';
import { NEEDS_NFT, nftError } from './nft-errors.ts';

export interface NftOptions extends Omit<ProgramOptions, 'env'> {
  /** The program, where it has another name. */
  readonly program?: string;
}

/**
 * @returns what it writes
 * @throws MissingProgramError that says how to get it; Error when it cannot be started, or ends with another code than 0
 */
export async function runNft(words: readonly string[], { program = 'nft', ...options }: NftOptions): Promise<string> {
  const env = systemEnvironment();
  const { end, output, errors } = await runProgram(program, words, { ...options, env }).catch((error: unknown) => {
    throw error instanceof MissingProgramError ? new MissingProgramError(`${error.message}: ${NEEDS_NFT}`) : error;
  });
  if (end !== 0) throw nftError(words, end, errors);
  return output;
}
