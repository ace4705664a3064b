/** The daemon's side of each verb: checks what came over the socket, and calls what does the work. */
import { randomUUID } from 'node:crypto';
import { SectunnelError } from '../../base/error.ts';
import { parseSecret } from '../../config/secret.ts';
import { takeSecret } from '../../control/hand-over.ts';
import { MAX_LINE, type Verb, type Verbs } from '../../control/protocol.ts';
import type { Daemon } from '../daemon.ts';
import type { DocumentText } from '../store/catalog.ts';
import type { ControlConnection } from './connection.ts';
import { refusing } from './refusing.ts';
import type { Lane } from './request-queue.ts';

type Params = Readonly<Record<string, unknown>>;

type Handlers = {
  readonly [V in Verb]: (
    daemon: Daemon,
    params: Params,
    connection: ControlConnection,
  ) => Verbs[V]['result'] | Promise<Verbs[V]['result']>;
};

const handlers: Handlers = {
  define: (daemon, params) => daemon.define(documentOf(params)),
  undefine: (daemon, params) => daemon.undefine(text(params, 'name')),
  create: (daemon, params) => daemon.create(documentOf(params)),
  start: (daemon, params) => daemon.start(text(params, 'name')),
  restart: (daemon, params) => daemon.restart(text(params, 'name')),
  destroy: (daemon, params) => daemon.destroy(text(params, 'name')),
  reload: (daemon) => daemon.reload(),
  autostart: (daemon, params) => daemon.setAutostart(text(params, 'name'), flag(params, 'enable')),
  update: (daemon, params) =>
    daemon.update(documentOf(params), { live: flag(params, 'live'), config: flag(params, 'config') }),
  list: (daemon) => ({ tunnels: daemon.queries.list(), unreadable: daemon.queries.unreadable() }),
  info: (daemon, params) => daemon.queries.info(text(params, 'name')),
  dumpxml: (daemon, params) => ({ xml: daemon.queries.dumpXml(text(params, 'name'), flag(params, 'inactive')) }),
  status: (daemon, params) => daemon.queries.status(optionalText(params, 'name')),
  explain: (daemon, params) =>
    daemon.queries.explain({
      name: text(params, 'name'),
      src: text(params, 'src'),
      dst: text(params, 'dst'),
      proto: text(params, 'proto'),
      direction: optionalText(params, 'direction'),
      type: optionalNumber(params, 'type'),
      code: optionalNumber(params, 'code'),
    }),
  'pki-check': (daemon, params) => daemon.queries.checkCertificates(text(params, 'name')),
  event: (daemon, params, connection) => {
    const name = optionalText(params, 'name');
    connection.subscribe(name === undefined ? undefined : daemon.queries.info(name).name);
    return { subscribed: true };
  },
  'net-import': (daemon, params) => daemon.networks.import(documentOf(params), flag(params, 'define')),
  'net-list': async (daemon) => ({ networks: await daemon.queries.heldNetworks() }),
  'network-hook': async (daemon, params, connection) => {
    const [network, operation] = [text(params, 'network'), text(params, 'operation')];
    if (operation === 'start') {
      const pin = await daemon.networks.start(text(params, 'xml', MAX_LINE), () => !connection.closed);
      return pin === undefined ? {} : { tunnel: pin.tunnel };
    }
    if (operation === 'stopped') await daemon.networks.stopped(network);
    return {};
  },
  'secret-define': (daemon, params) => {
    const { xml, source } = documentOf(params);
    const secret = refusing(() => parseSecret(xml, { source, newUuid: randomUUID }));
    daemon.secrets.define(secret);
    return { uuid: secret.uuid };
  },
  'secret-set-value': async (daemon, params) => {
    const uuid = text(params, 'uuid').toLowerCase();
    const value = await takeSecret(daemon.runDir, text(params, 'offer'));
    try {
      return { uuid, warnings: await daemon.secrets.setValue(uuid, value) };
    } finally {
      value.fill(0);
    }
  },
  'secret-list': (daemon) => daemon.secrets.list(),
  'secret-undefine': (daemon, params) => {
    const uuid = text(params, 'uuid').toLowerCase();
    daemon.secrets.undefine(uuid);
    return { uuid };
  },
};

/** What each verb waits for. */
const LANES: Readonly<Record<Verb, Lane>> = {
  define: 'change',
  undefine: 'change',
  create: 'change',
  start: 'change',
  destroy: 'change',
  autostart: 'change',
  update: 'change',
  restart: 'change',
  reload: 'change',
  list: 'memory',
  info: 'memory',
  dumpxml: 'memory',
  explain: 'host',
  event: 'memory',
  status: 'host',
  'net-list': 'host',
  'pki-check': 'outside',
  'secret-list': 'outside',
  'secret-define': 'memory',
  'secret-set-value': 'outside',
  'secret-undefine': 'memory',
  'net-import': 'network',
  'network-hook': 'network',
};

/** Of an unknown verb: none has to be waited for. */
export function laneOf(verb: string): Lane {
  return Object.hasOwn(LANES, verb) ? LANES[verb as Verb] : 'memory';
}

/** Longest text in bytes that is no document: a name, a path, an address. */
const MAX_TEXT = 4096;

/** @throws SectunnelError for an unknown verb, wrong parameters, and whatever the verb refuses */
export async function dispatchVerb(
  daemon: Daemon,
  verb: string,
  params: unknown,
  connection: ControlConnection,
): Promise<unknown> {
  if (!Object.hasOwn(handlers, verb)) throw new SectunnelError('bad-request', `unknown verb '${verb.slice(0, 40)}'`);
  if (typeof params !== 'object' || params === null) throw new SectunnelError('bad-request', 'params is not an object');
  return await handlers[verb as Verb](daemon, params as Params, connection);
}

function documentOf(params: Params): DocumentText {
  return { xml: text(params, 'xml', MAX_LINE), source: optionalText(params, 'source') };
}

function text(params: Params, key: string, limit = MAX_TEXT): string {
  const value = params[key];
  if (typeof value !== 'string') throw new SectunnelError('bad-request', `the parameter '${key}' must be a string`);
  if (value.length > limit) {
    throw new SectunnelError(
      'bad-request',
      `the parameter '${key}' has ${value.length} characters; at most ${limit} are allowed`,
    );
  }
  // Paths and the C programs behind this one would end there.
  if (value.includes('\0')) throw new SectunnelError('bad-request', `the parameter '${key}' contains a zero character`);
  return value;
}

function optionalText(params: Params, key: string): string | undefined {
  return params[key] === undefined ? undefined : text(params, key);
}

function optionalNumber(params: Params, key: string): number | undefined {
  const value = params[key];
  if (value !== undefined && typeof value !== 'number') {
    throw new SectunnelError('bad-request', `the parameter '${key}' must be a number`);
  }
  return value;
}

function flag(params: Params, key: string): boolean {
  const value = params[key] ?? false;
  if (typeof value !== 'boolean')
    throw new SectunnelError('bad-request', `the parameter '${key}' must be true or false`);
  return value;
}
