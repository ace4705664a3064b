/** What comes over the control socket, in pieces of any size: lines, requests, their parameters. Each frame is a piece. */

import { concatBytes } from '../../../src/base/bytes.ts';
import { SectunnelError } from '../../../src/base/error.ts';
import { utf8 } from '../../../src/base/text.ts';
import { LineSplitter, LineTooLongError } from '../../../src/control/lines.ts';
import { checkVerb, readParams } from '../../../src/control/parameters.ts';
import { VERBS } from '../../../src/control/verbs.ts';
import { readRequest } from '../../../src/daemon/control/request.ts';
import { readFrames, writeFrames } from '../frames.ts';
import { holds, type Target, unlessRefused } from '../target.ts';

const LIMIT = 2_048;
const isRefusal = (error: unknown): boolean =>
  error instanceof SectunnelError && error.code === 'bad-request' && error.message.length < 1_000;

function run(input: Uint8Array): void {
  const splitter = new LineSplitter(LIMIT);
  const lines: Buffer[] = [];
  const pieces = readFrames(input);
  let tooLong = false;
  for (const piece of pieces) {
    splitter.push(Buffer.from(piece));
    holds(splitter.memory <= LIMIT + piece.length + 2 * 4_096, `${splitter.memory} bytes are held`);
    try {
      for (let line = splitter.next(); line !== undefined; line = splitter.next()) lines.push(line);
    } catch (error) {
      if (!(error instanceof LineTooLongError)) throw error;
      tooLong = true;
      splitter.skip();
    }
  }
  if (!tooLong) {
    const all = Buffer.from(concatBytes(...pieces));
    const whole = Buffer.concat(lines.flatMap((line) => [line, Buffer.from('\n')]));
    holds(all.subarray(0, whole.length).equals(whole), 'lines are not what came');
    holds(all.indexOf(0x0a, whole.length) < 0, 'a line is missing');
  }
  for (const line of lines) request(line);
}

function request(line: Buffer): void {
  const read = readRequest(line);
  holds(Number.isSafeInteger(read.id), 'an id that is no safe integer');
  if ('refusal' in read) {
    holds(isRefusal(read.refusal), `a line is refused with ${read.refusal.code}: ${read.refusal.message}`);
    return;
  }
  unlessRefused(() => {
    const { verb } = read;
    checkVerb(verb);
    const params: Readonly<Record<string, unknown>> = readParams(verb, read.params);
    const unknown = Object.keys(params).filter((name) => !Object.hasOwn(VERBS[verb], name));
    holds(unknown.length === 0, `${verb} was given ${unknown.join()}`);
    JSON.stringify(params);
  }, isRefusal);
}

const REQUESTS: readonly object[] = [
  { id: 1, verb: 'start', params: { name: 'net' } },
  { id: 2, verb: 'define', params: { xml: '<sectunnel/>', source: 'a.xml' } },
  { id: 3, verb: 'define-each', params: { documents: [{ xml: '<a/>', source: 'b' }] } },
  { id: 4, verb: 'list', params: { patterns: ['a*'], state: 'up', limit: 5, active: true } },
  { id: 5, verb: 'explain', params: { name: 'n', src: '10.1.0.1', dst: '10.2.0.1', proto: 'icmp', type: 8, code: 0 } },
  { id: 6, verb: 'autostart', params: { name: 'é\u{1f512}', enable: false } },
  { id: -7, verb: 'net-list' },
];
const WORDS = [
  '"__proto__":',
  '"constructor":',
  '"params":{',
  '\\u0000',
  '\\ud800',
  '1e999',
  '-0',
  'null',
  '[[[[[',
  '\n',
  '"toString"',
  '{}',
];

export const control: Target = {
  name: 'control',
  shape: 'frames',
  maxLength: 8_192,
  tokens: [...WORDS, ...Object.keys(VERBS)].map(utf8),
  seeds: () => [
    ...REQUESTS.map((one) => writeFrames([utf8(`${JSON.stringify(one)}\n`)])),
    writeFrames(REQUESTS.flatMap((one) => [utf8(JSON.stringify(one)), utf8('\n')])),
  ],
  run,
};
