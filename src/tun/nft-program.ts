/** Runs nft(8). */
import { MissingProgramError, type ProgramOptions, runProgram } from './program.ts';

/** More of an error than anybody reads. */
const MAX_MESSAGE = 500;
/** Where Debian and others have it, behind what the daemon was started with. */
const PATH = '/usr/sbin:/sbin:/usr/local/sbin';

export interface NftOptions extends Omit<ProgramOptions, 'env'> {
  /** The program, where it has another name. */
  readonly program?: string;
}

/**
 * @returns what it writes
 * @throws MissingProgramError that says how to get it; Error when it cannot be started, or ends with another code than 0
 */
export async function runNft(words: readonly string[], { program = 'nft', ...options }: NftOptions): Promise<string> {
  const env = { ...process.env, LC_ALL: 'C', PATH: `${process.env.PATH ?? ''}:${PATH}` };
  const { end, output, errors } = await runProgram(program, words, { ...options, env }).catch((error: unknown) => {
    throw error instanceof MissingProgramError ? new MissingProgramError(`${error.message}: ${HOW_TO_GET}`) : error;
  });
  if (end !== 0) throw failure(words, end, errors);
  return output;
}

const HOW_TO_GET =
  'install the package nftables (apt-get install nftables). ' +
  'Without it nothing keeps packets that the policy protects from leaving in the clear when a route changes, ' +
  "nor clear ones from coming in; <device routes='none'/> leaves all of it to you";

function failure(words: readonly string[], how: number | string, errors: string): Error {
  const text = errors.trim().replace(/\s+/g, ' ').slice(0, MAX_MESSAGE);
  const hint = /not permitted|denied/i.test(text) ? '. It takes root, or the capability CAP_NET_ADMIN' : '';
  return new Error(`nft ${words.join(' ')} ended with ${how}: ${text}${hint}`);
}
