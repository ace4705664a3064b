/** The daemon's side of each verb: what carries it out, and the lane in which it waits. */
import { randomUUID } from 'node:crypto';
import { parseSecret } from '../../config/secret.ts';
import { takeSecret } from '../../control/hand-over.ts';
import { checkVerb, readParams } from '../../control/parameters.ts';
import type { Params, Results, Verb } from '../../control/verbs.ts';
import type { Daemon } from '../daemon.ts';
import type { ControlConnection } from './connection.ts';
import type { Lane } from './request-queue.ts';

interface Handler<V extends Verb> {
  readonly lane: Lane;
  run(daemon: Daemon, params: Params<V>, connection: ControlConnection): Results[V] | Promise<Results[V]>;
}

const handlers: { readonly [V in Verb]: Handler<V> } = {
  define: { lane: 'change', run: (daemon, params) => daemon.changes.define(params) },
  'define-each': { lane: 'change', run: (daemon, params, connection) => daemon.each.define(params, connection) },
  each: { lane: 'change', run: (daemon, params, connection) => daemon.each.run(params, connection) },
  undefine: { lane: 'change', run: (daemon, { name }) => daemon.changes.undefine(name) },
  create: { lane: 'change', run: (daemon, params) => daemon.changes.create(params) },
  start: { lane: 'change', run: (daemon, { name }) => daemon.changes.start(name) },
  restart: { lane: 'change', run: (daemon, { name }) => daemon.changes.restart(name) },
  destroy: { lane: 'change', run: (daemon, { name }) => daemon.changes.destroy(name) },
  probe: { lane: 'outside', run: (daemon, { name, seconds }) => daemon.sas.probe(name, seconds) },
  rekey: { lane: 'outside', run: (daemon, { name, ike = false, child }) => daemon.sas.rekey(name, { ike, child }) },
  reauth: { lane: 'outside', run: (daemon, { name }) => daemon.sas.reauthenticate(name) },
  reset: { lane: 'memory', run: (daemon, { name }) => daemon.sas.reset(name) },
  reload: { lane: 'change', run: (daemon, { plan = false }) => (plan ? daemon.planReload() : daemon.reload()) },
  autostart: { lane: 'change', run: (daemon, { name, enable }) => daemon.changes.setAutostart(name, enable) },
  update: {
    lane: 'change',
    run: (daemon, { live = false, config = false, ...text }) => daemon.changes.update(text, { live, config }),
  },
  list: {
    lane: 'memory',
    run: (daemon, params, connection) => daemon.queries.list(params, connection),
  },
  info: { lane: 'memory', run: (daemon, { name }) => daemon.queries.info(name) },
  dumpxml: {
    lane: 'memory',
    run: (daemon, { name, inactive = false }) => ({ xml: daemon.queries.dumpXml(name, { inactive }) }),
  },
  status: { lane: 'host', run: (daemon, params, connection) => daemon.queries.status(params, connection) },
  explain: { lane: 'host', run: (daemon, question) => daemon.queries.explain(question) },
  'pki-check': { lane: 'outside', run: (daemon, { name }) => daemon.queries.checkCertificates(name) },
  event: {
    lane: 'memory',
    run: (daemon, { name }, connection) => {
      connection.subscribe(name === undefined ? undefined : daemon.queries.info(name).name);
      return { subscribed: true };
    },
  },
  'net-import': {
    lane: 'network',
    run: (daemon, { define = false, ...text }) => daemon.networks.import(text, { define }),
  },
  'net-list': { lane: 'host', run: async (daemon) => ({ networks: await daemon.queries.heldNetworks() }) },
  'network-hook': {
    lane: 'network',
    run: async (daemon, { network, operation, xml }, connection) => {
      if (operation === 'start') {
        const pin = await daemon.networks.start(xml, () => !connection.closed);
        return pin === undefined ? {} : { tunnel: pin.tunnel };
      }
      if (operation === 'stopped') await daemon.networks.stopped(network);
      return {};
    },
  },
  'secret-define': {
    lane: 'memory',
    run: (daemon, { xml, source }) => {
      const secret = parseSecret(xml, { source, newUuid: randomUUID });
      daemon.secrets.define(secret);
      return { uuid: secret.uuid };
    },
  },
  'secret-set-value': {
    lane: 'outside',
    run: async (daemon, params) => {
      const uuid = params.uuid.toLowerCase();
      const value = await takeSecret(daemon.runDir, params.offer);
      try {
        return { uuid, warnings: await daemon.secrets.setValue(uuid, value) };
      } finally {
        value.fill(0);
      }
    },
  },
  'secret-list': { lane: 'outside', run: (daemon) => daemon.secrets.list() },
  'secret-undefine': {
    lane: 'memory',
    run: (daemon, params) => {
      const uuid = params.uuid.toLowerCase();
      daemon.secrets.undefine(uuid);
      return { uuid };
    },
  },
};

/** An unknown verb is refused at once. */
export function laneOf(verb: string): Lane {
  return Object.hasOwn(handlers, verb) ? handlers[verb as Verb].lane : 'memory';
}

/** @throws SectunnelError for an unknown verb, wrong parameters, and whatever the verb refuses */
export async function dispatchVerb(
  daemon: Daemon,
  verb: string,
  params: Readonly<Record<string, unknown>>,
  connection: ControlConnection,
): Promise<unknown> {
  checkVerb(verb);
  return await carryOut(daemon, verb, params, connection);
}

function carryOut<V extends Verb>(
  daemon: Daemon,
  verb: V,
  params: Readonly<Record<string, unknown>>,
  connection: ControlConnection,
): Results[V] | Promise<Results[V]> {
  const handler: Handler<V> = handlers[verb];
  return handler.run(daemon, readParams(verb, params), connection);
}
