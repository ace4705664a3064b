/** What a program asks of the SAs of a tunnel that is up, and waits for: that peers answer, that SAs are replaced. */
import { formatSocketAddress } from '../base/address.ts';
import { deferred } from '../base/deferred.ts';
import { SectunnelError } from '../base/error.ts';
import type { ControlPlane } from '../engine/control-plane.ts';
import type { EngineEvent } from '../engine/events.ts';
import { checkPeers, type RekeyChoice, reauthenticateSas, rekeySas } from '../engine/sa-operations.ts';
import type { IkeSaStatus } from '../ike/status.ts';

/** Of the peer of an IKE SA. */
export interface CheckResult {
  readonly ikeSaId: number;
  /** `192.0.2.2:4500` */
  readonly remote: string;
  /** Milliseconds until it answered; `undefined` when it did not. */
  readonly after: number | undefined;
  /** Why not; empty when it did. */
  readonly detail: string;
}

/** Of an IKE SA or a CHILD SA that was to be replaced. */
export interface RekeyResult {
  readonly kind: 'ike' | 'child';
  readonly id: number;
  /** Of the child; of an IKE SA, the connection. */
  readonly name: string;
  /** The id of the new one; `undefined` when there is none. */
  readonly replacedBy: number | undefined;
  /** Why there is none; empty when there is one. */
  readonly detail: string;
}

/** How long an operation waits for what comes of it. */
export interface Patience {
  /** Milliseconds that an answer may take. */
  readonly patience?: number | undefined;
}

const CHECK_PATIENCE = 10_000;
/** A peer that is busy with the same is asked again after some seconds. */
const REKEY_PATIENCE = 30_000;

export function noSuchTunnel(name: string): SectunnelError {
  return new SectunnelError('not-found', `there is no tunnel '${name}' in this host`);
}

function noSuchSa(tunnel: string): SectunnelError {
  return new SectunnelError('invalid-state', `tunnel '${tunnel}' has no such SA that is up`);
}

interface Options {
  readonly engine: ControlPlane;
  readonly now: () => number;
  /** To be called after every call of the engine. */
  readonly drain: () => void;
}

/** One request: what it waits for, by SA, and what has come of the others. */
class Operation<R> {
  readonly tunnel: string;
  readonly results: R[] = [];
  /** What becomes of an SA that fails, by its id. BOUNDED: by the SAs of the tunnel. */
  readonly open: Map<string, (detail: string) => R> = new Map();
  /** The id of an IKE SA that is to take the place of another one, by that. BOUNDED: as `open`. */
  readonly successors: Map<number, number> = new Map();
  readonly #ended = deferred();

  constructor(tunnel: string) {
    this.tunnel = tunnel;
  }

  settle(key: string, result: R): void {
    if (this.open.delete(key)) this.results.push(result);
    this.endIfDone();
  }

  fail(key: string, detail: string): void {
    const failed = this.open.get(key);
    if (failed !== undefined) this.settle(key, failed(detail));
  }

  failAll(detail: string): void {
    for (const key of [...this.open.keys()]) this.fail(key, detail);
  }

  endIfDone(): void {
    if (this.open.size === 0) this.#ended.resolve();
  }

  /** @param patience milliseconds */
  async result(patience: number): Promise<readonly R[]> {
    this.endIfDone();
    const timer = setTimeout(() => this.failAll(`nothing came of it for ${patience / 1_000} s`), patience);
    await this.#ended.promise.finally(() => clearTimeout(timer));
    return this.results;
  }
}

const keyOf = (kind: 'ike' | 'child', id: number): string => `${kind} ${id}`;

/** What can be asked of tunnels that are up: `TunnelHost.operations`. */
export class Operations {
  readonly #options: Options;
  /** BOUNDED: by the calls of the program. */
  readonly #checks = new Set<Operation<CheckResult>>();
  readonly #rekeyings = new Set<Operation<RekeyResult>>();
  readonly #reauthentications = new Set<Operation<RekeyResult>>();

  /** @internal */
  constructor(options: Options) {
    this.#options = options;
  }

  /**
   * Asks the peers of a tunnel whether they are there (RFC 7296 §1.4): a result for each of its IKE SAs.
   * @throws SectunnelError when there is no such tunnel, or when it has no IKE SA
   */
  async check(tunnel: string, { patience = CHECK_PATIENCE }: Patience = {}): Promise<readonly CheckResult[]> {
    const { engine, now } = this.#options;
    this.#demand(tunnel);
    const operation = new Operation<CheckResult>(tunnel);
    for (const sa of engine.operate(now(), tunnel, checkPeers)) expectAnswer(operation, sa);
    if (operation.open.size === 0) throw noSuchSa(tunnel);
    return await this.#follow(this.#checks, operation, patience);
  }

  /**
   * Replaces SAs of a tunnel by new ones with fresh keys (RFC 7296 §2.8): a result for each.
   * @throws SectunnelError when there is no such tunnel, or when it has none of these SAs
   */
  async rekey(tunnel: string, choice: RekeyChoice, patience: Patience = {}): Promise<readonly RekeyResult[]> {
    const results = await this.rekeyAny(tunnel, choice, patience);
    if (results.length === 0) throw noSuchSa(tunnel);
    return results;
  }

  /** The same where there may be none. @throws SectunnelError when there is no such tunnel @internal */
  async rekeyAny(
    tunnel: string,
    choice: RekeyChoice,
    { patience = REKEY_PATIENCE }: Patience = {},
  ): Promise<readonly RekeyResult[]> {
    const { engine, now } = this.#options;
    this.#demand(tunnel);
    const operation = new Operation<RekeyResult>(tunnel);
    for (const sa of engine.operate(now(), tunnel, (ike, at, of) => rekeySas(ike, at, of, choice))) {
      operation.open.set(keyOf(sa.kind, sa.id), (detail) => ({ ...sa, replacedBy: undefined, detail }));
    }
    return await this.#follow(this.#rekeyings, operation, patience);
  }

  /**
   * Replaces the IKE SAs of a tunnel by new ones, for which both ends authenticate anew, and all their CHILD SAs
   * (RFC 7296 §2.8.3): a result for each IKE SA. The old one goes when the new one has taken over, and stays where it cannot.
   * @throws SectunnelError when there is no such tunnel, or when it has no IKE SA
   */
  async reauthenticate(tunnel: string, { patience = REKEY_PATIENCE }: Patience = {}): Promise<readonly RekeyResult[]> {
    const { engine, now } = this.#options;
    this.#demand(tunnel);
    const operation = new Operation<RekeyResult>(tunnel);
    const sas = engine.operate(now(), tunnel, reauthenticateSas);
    if (sas.length === 0) throw noSuchSa(tunnel);
    for (const { problem, ...sa } of sas) {
      const key = keyOf(sa.kind, sa.id);
      operation.open.set(key, (detail) => ({ ...sa, replacedBy: undefined, detail }));
      if (problem !== undefined) operation.fail(key, problem);
    }
    return await this.#follow(this.#reauthentications, operation, patience);
  }

  /**
   * Deletes the SAs of a tunnel, telling the peer, and negotiates new ones as when it was started. Its device stays.
   * @throws SectunnelError when there is no such tunnel
   */
  reset(tunnel: string): void {
    const { engine, now, drain } = this.#options;
    this.#demand(tunnel);
    engine.down(now(), tunnel);
    engine.up(now(), tunnel);
    drain();
  }

  #demand(tunnel: string): void {
    if (this.#options.engine.tunnel(tunnel) === undefined) throw noSuchTunnel(tunnel);
  }

  async #follow<R>(all: Set<Operation<R>>, operation: Operation<R>, patience: number): Promise<readonly R[]> {
    all.add(operation);
    try {
      this.#options.drain();
      return await operation.result(patience);
    } finally {
      all.delete(operation);
    }
  }

  /** The engine tells of something. @internal */
  happened(event: EngineEvent): void {
    for (const operation of this.#checks) if (operation.tunnel === event.tunnel) this.#checkHappened(operation, event);
    for (const operation of this.#rekeyings) if (operation.tunnel === event.tunnel) rekeyHappened(operation, event);
    for (const operation of this.#reauthentications) {
      if (operation.tunnel === event.tunnel) reauthenticationHappened(operation, event);
    }
  }

  #checkHappened(operation: Operation<CheckResult>, event: EngineEvent): void {
    switch (event.type) {
      case 'alive': {
        const key = keyOf('ike', event.ikeSaId);
        const asked = operation.open.get(key)?.('');
        if (asked !== undefined) operation.settle(key, { ...asked, after: event.after });
        break;
      }
      case 'ike-up':
        if (event.replaces !== undefined) this.#askSuccessor(operation, event.replaces, event.ikeSa.id);
        break;
      case 'ike-down':
        operation.fail(keyOf('ike', event.ikeSaId), goneText(event));
        break;
      default:
        break;
    }
  }

  /** The answer may come on the IKE SA that was replaced, or not at all any more. */
  #askSuccessor(operation: Operation<CheckResult>, ikeSaId: number, successor: number): void {
    const { engine, now, drain } = this.#options;
    const key = keyOf('ike', ikeSaId);
    if (!operation.open.has(key)) return;
    for (const sa of engine.operate(now(), operation.tunnel, (...asked) => checkPeers(...asked, successor))) {
      operation.open.delete(key);
      expectAnswer(operation, sa);
    }
    drain();
  }
}

function goneText({ reason, detail }: Extract<EngineEvent, { type: 'ike-down' }>): string {
  return `the IKE SA is gone (${reason}): ${detail}`;
}

function expectAnswer({ open }: Operation<CheckResult>, { id: ikeSaId, path }: IkeSaStatus): void {
  const remote = formatSocketAddress(path.remote);
  open.set(keyOf('ike', ikeSaId), (detail) => ({ ikeSaId, remote, after: undefined, detail }));
}

function rekeyHappened(operation: Operation<RekeyResult>, event: EngineEvent): void {
  const replaced = (key: string, replacedBy: number): void => {
    const asked = operation.open.get(key)?.('');
    if (asked !== undefined) operation.settle(key, { ...asked, replacedBy });
  };
  switch (event.type) {
    case 'child-up':
      if (event.child.replaces !== undefined) replaced(keyOf('child', event.child.replaces), event.child.id);
      break;
    case 'child-down':
      operation.fail(keyOf('child', event.childId), `the CHILD SA is gone (${event.reason})`);
      break;
    case 'ike-up':
      if (event.replaces !== undefined) replaced(keyOf('ike', event.replaces), event.ikeSa.id);
      break;
    case 'ike-down':
      operation.fail(keyOf('ike', event.ikeSaId), goneText(event));
      break;
    case 'failed':
      for (const [key, failed] of operation.open) {
        const { kind, name } = failed('');
        if (kind === 'child' ? name === event.child : event.child === undefined) {
          operation.fail(key, `${event.reason}: ${event.detail}`);
        }
      }
      break;
    default:
      break;
  }
}

function reauthenticationHappened(operation: Operation<RekeyResult>, event: EngineEvent): void {
  const { open, successors } = operation;
  switch (event.type) {
    case 'ike-up': {
      const old = event.reauthenticates;
      if (old !== undefined && open.has(keyOf('ike', old))) successors.set(old, event.ikeSa.id);
      break;
    }
    case 'ike-down': {
      const key = keyOf('ike', event.ikeSaId);
      const successor = successors.get(event.ikeSaId);
      if (successor !== undefined) {
        const asked = open.get(key)?.('');
        if (asked !== undefined) operation.settle(key, { ...asked, replacedBy: successor });
        break;
      }
      operation.fail(key, goneText(event));
      for (const [old, fresh] of successors) {
        if (fresh === event.ikeSaId)
          operation.fail(keyOf('ike', old), `the new one is gone (${event.reason}): ${event.detail}`);
      }
      break;
    }
    case 'failed':
      // A CHILD SA that is refused ends the new IKE SA.
      if (event.child === undefined) operation.failAll(`${event.reason}: ${event.detail}`);
      break;
    default:
      break;
  }
}
