/**
 * Fetches revocation lists and OCSP answers by plain HTTP, from where a certificate says that is trusted as far as its path.
 *
 * The author of the address must not be able to exhaust us, or to reach through us what they could not reach themselves:
 * there are limits of time and size, no redirections, no compression, no proxies, no cookies, and no addresses that only this
 * machine or this link can be meant by. Private addresses are asked: an authority of one's own is often there.
 */
import { type LookupAddress, lookup } from 'node:dns';
import { Agent, type ClientRequest, type IncomingMessage, request } from 'node:http';
import type { LookupFunction } from 'node:net';
import { type AddressRange, type IpAddress, parseAddress, prefixRange, rangeContains } from '../base/address.ts';
import type { Fetch, FetchRequest } from '../pki/revocation/online.ts';

/** What revocation lists and OCSP responses may be fetched from, and how long it may take. */
export interface FetchOptions {
  /** Milliseconds until there is a connection, its name included, and until all is there. */
  readonly connectTimeout?: number | undefined;
  readonly timeout?: number | undefined;
  /** Why an address is not spoken with; `undefined` for one that is. */
  readonly refuses?: ((address: IpAddress) => string | undefined) | undefined;
}

const CONNECT_TIMEOUT = 3_000;
const TIMEOUT = 5_000;
/** At once, to one place and in all; more wait, and their time runs. */
const MAX_SOCKETS = { maxSockets: 8, maxTotalSockets: 32 };
const MAX_HEADER = 8 * 1024;
/** Names that wait to be resolved: a dead resolver takes longer for each of them than a caller waits. */
const MAX_NAMES = 32;

/** Plain HTTP within limits. Rejections are for people. */
export function httpFetch(options: FetchOptions = {}): Fetch {
  const { connectTimeout = CONNECT_TIMEOUT, timeout = TIMEOUT, refuses = refusedAddress } = options;
  const agent = new Agent({ keepAlive: false, ...MAX_SOCKETS });
  const resolve = namesInTurn();
  return async (wanted) => {
    const url = httpUrl(wanted.url);
    const literal = parseAddress(url.hostname.replace(/^\[|\]$/g, ''));
    const refused = literal && refuses(literal);
    if (refused !== undefined) throw new Error(`${url.hostname} is not asked: ${refused}`);
    const sent = request(url, {
      agent,
      method: wanted.body === undefined ? 'GET' : 'POST',
      headers: headersOf(wanted),
      maxHeaderSize: MAX_HEADER,
      lookup: allowedLookup(resolve, refuses),
    });
    return await answerTo(sent, wanted, { connectTimeout, timeout });
  };
}

function httpUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol !== 'http:') throw new Error('it is no address with http:');
  if (url.username !== '' || url.password !== '') throw new Error('an address with a password in it is not asked');
  return url;
}

function headersOf({ accept, body }: FetchRequest): Record<string, string> {
  const sent = body === undefined ? {} : { 'content-type': body.type, 'content-length': String(body.bytes.length) };
  return { accept, 'accept-encoding': 'identity', connection: 'close', 'user-agent': 'sectunnel', ...sent };
}

function answerTo(
  sent: ClientRequest,
  { body, maxBytes }: FetchRequest,
  { connectTimeout, timeout }: { readonly connectTimeout: number; readonly timeout: number },
): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const giveUp = (why: string) => (): void => void sent.destroy(new Error(why));
    const total = setTimeout(giveUp(`there was no whole answer within ${seconds(timeout)}`), timeout);
    const connecting = setTimeout(giveUp(`there was no connection within ${seconds(connectTimeout)}`), connectTimeout);
    const end = (error: Error | undefined, bytes?: Uint8Array): void => {
      clearTimeout(total);
      clearTimeout(connecting);
      sent.destroy();
      if (bytes !== undefined) resolve(bytes);
      else reject(error ?? new Error('the connection ended before the answer did'));
    };
    sent.on('socket', (socket) => {
      if (!socket.connecting) clearTimeout(connecting);
      else socket.once('connect', () => clearTimeout(connecting));
    });
    sent.on('error', end);
    sent.on('close', () => end(undefined));
    sent.on('response', (response) => receive(response, maxBytes, end));
    sent.end(body?.bytes);
  });
}

const seconds = (milliseconds: number): string => `${milliseconds / 1000} s`;

function receive(
  response: IncomingMessage,
  maxBytes: number,
  end: (error: Error | undefined, bytes?: Uint8Array) => void,
): void {
  const refusal = refusedAnswer(response, maxBytes);
  if (refusal !== undefined) {
    end(new Error(refusal));
    return;
  }
  const parts: Buffer[] = [];
  let length = 0;
  response.on('data', (part: Buffer) => {
    parts.push(part);
    length += part.length;
    if (length > maxBytes)
      end(new Error(`the answer has more than ${maxBytes} bytes, which are the most that is read`));
  });
  response.on('error', end);
  response.on('end', () => {
    if (response.complete) end(undefined, new Uint8Array(Buffer.concat(parts)));
    else end(undefined);
  });
}

function refusedAnswer({ statusCode = 0, headers }: IncomingMessage, maxBytes: number): string | undefined {
  if (statusCode >= 300 && statusCode < 400)
    return `it answers with a redirection (${statusCode}), which is not followed`;
  if (statusCode !== 200) return `it answers with ${statusCode}; 200 is required`;
  const length = Number(headers['content-length'] ?? 0);
  if (length > maxBytes) return `the answer has ${length} bytes; at most ${maxBytes} are read`;
  const encoding = headers['content-encoding'] ?? 'identity';
  return encoding === 'identity' ? undefined : `the answer is compressed (${encoding}), which was not requested`;
}

type Resolve = (name: string) => Promise<readonly LookupAddress[]>;

/**
 * Names one after another: the system's resolver keeps a thread of libuv's pool for as long as it waits, and the
 * signatures of others need those.
 */
function namesInTurn(): Resolve {
  /** BOUNDED: MAX_NAMES. */
  const waiting = new Map<string, Promise<readonly LookupAddress[]>>();
  let turn: Promise<unknown> = Promise.resolve();
  return (name) => {
    const same = waiting.get(name);
    if (same !== undefined) return same;
    if (waiting.size >= MAX_NAMES) return Promise.reject(new Error('too many names are being resolved already'));
    const found = turn.then(() => addressesOf(name)).finally(() => waiting.delete(name));
    turn = found.catch(() => undefined);
    waiting.set(name, found);
    return found;
  };
}

function addressesOf(name: string): Promise<readonly LookupAddress[]> {
  return new Promise((resolve, reject) => {
    lookup(name, { all: true }, (error, addresses) => {
      if (error === null) resolve(addresses);
      else reject(new Error(`the name ${name} cannot be resolved (${error.code ?? error.message})`));
    });
  });
}

/** The addresses of a name that may be spoken with are those that are connected to: there is no second look at the name. */
function allowedLookup(resolve: Resolve, refuses: (address: IpAddress) => string | undefined): LookupFunction {
  return (name, { all }, done) => {
    resolve(name).then(
      (addresses) => {
        const judged = addresses.map((found) => ({ found, why: refusedText(found.address, refuses) }));
        const allowed = judged.flatMap(({ found, why }) => (why === undefined ? [found] : []));
        const [first] = allowed;
        if (first === undefined) {
          const [refused] = judged;
          done(new Error(`${name} is ${refused?.found.address}, which is not asked: ${refused?.why}`), []);
        } else if (all === true) done(null, allowed);
        else done(null, first.address, first.family);
      },
      (error: Error) => done(error, []),
    );
  };
}

function refusedText(text: string, refuses: (address: IpAddress) => string | undefined): string | undefined {
  const address = parseAddress(text);
  return address === undefined ? 'it is an address of one link alone' : refuses(address);
}

/** RFC 6890 and IANA's registries, as far as they mean this machine, this link or a group alone. */
const SPECIAL: readonly { readonly range: AddressRange; readonly what: string }[] = [
  special('0.0.0.0', 8, 'an address of this machine itself'),
  special('127.0.0.0', 8, 'an address of this machine itself'),
  special('169.254.0.0', 16, 'an address of one link alone'),
  special('224.0.0.0', 3, 'no address of one machine'),
  special('::', 127, 'an address of this machine itself'),
  special('fe80::', 10, 'an address of one link alone'),
  special('ff00::', 8, 'no address of one machine'),
];
/** IPv6 addresses that end in one of IPv4: mapped ones (RFC 4291 §2.5.5.2), those of NAT64 (RFC 6052 §2.1). */
const ENDING_IN_IPV4 = [special('::ffff:0:0', 96, ''), special('64:ff9b::', 96, '')];

function special(prefix: string, length: number, what: string): { range: AddressRange; what: string } {
  return { range: prefixRange(parseAddress(prefix)!, length), what };
}

/** Why an address is not spoken with that is found in a certificate. */
export function refusedAddress(address: IpAddress): string | undefined {
  if (ENDING_IN_IPV4.some(({ range }) => rangeContains(range, address))) {
    return refusedAddress({ family: 4, value: address.value & 0xffff_ffffn });
  }
  return SPECIAL.find(({ range }) => rangeContains(range, address))?.what;
}
