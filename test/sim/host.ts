/** A host of a simulation: an engine that may lose its memory, and what must hold of what it tells its owner. */
import { toHex } from '../../src/base/bytes.ts';
import { nodeProvider } from '../../src/crypto/node/provider.ts';
import type { TunnelConfig } from '../../src/engine/config.ts';
import type { EngineEvent } from '../../src/engine/events.ts';
import { Inheritance } from '../../src/engine/state/inheritance.ts';
import { openState, STATE_KEY_LENGTH, sealState } from '../../src/engine/state/seal.ts';
import type { IkeSaStatus } from '../../src/ike/status.ts';
import type { Net, Peer } from '../support/engine-net.ts';
import { demand } from './failure.ts';
import type { Name } from './scenario.ts';

const STATE_KEY = { crypto: nodeProvider, key: new Uint8Array(STATE_KEY_LENGTH).fill(0x5e) };

export class SimHost {
  readonly name: Name;
  readonly peer: Peer;
  readonly tunnels: readonly TunnelConfig[];
  /** CHILD SAs and IKE SAs that are up, by what the engine has told: ids, with the names of the children. */
  readonly children: Map<number, string> = new Map();
  readonly ikeSas: Set<number> = new Set();
  /** Its process is about to end. */
  isLeaving = false;
  /** What its process has left, until another goes on. */
  #left: { readonly sealed: Uint8Array; readonly sas: string[] } | undefined;

  constructor(peer: Peer, tunnels: readonly TunnelConfig[]) {
    this.name = peer.name;
    this.peer = peer;
    this.tunnels = tunnels;
  }

  /** With no memory of before, if it had any. */
  start(net: Net): void {
    for (const tunnel of this.tunnels) net.add(this.peer, tunnel);
  }

  restart(net: Net): void {
    if (this.#left !== undefined) return;
    this.isLeaving = false;
    this.#forget();
    this.start(net);
  }

  #forget(): void {
    this.checkBugs();
    this.peer.restart();
    this.children.clear();
    this.ikeSas.clear();
  }

  /** Nothing is under way any more that would be left out of its state. */
  get isSettled(): boolean {
    return this.peer.engine.ike.isSettled;
  }

  get unsettled(): string {
    const sas = this.peer.engine.ike
      .status()
      .map(({ id, state, request }) => `IKE SA #${id} ${state} ${request === undefined ? '' : 'asks'}`);
    return sas.join(', ');
  }

  /** Its process ends and leaves its state. */
  leave({ now, random }: Net): void {
    const { engine } = this.peer;
    const state = engine.saveState(now);
    const sas = engine.ike
      .save(now)
      .flatMap((sa) => [`IKE ${sa.spiInitiator} ${sa.spiResponder}`, ...sa.children.map(spisOf)]);
    const sealed = sealState(STATE_KEY, { host: this.name, boot: 'first' }, state, random.bytes);
    for (const key of engine.ike.save(now).map(({ keys }) => toHex(keys.d))) {
      demand(!toHex(sealed).includes(key), () => `${this.name}: the sealed state shows a key`);
    }
    this.#left = { sealed, sas };
    this.isLeaving = false;
    this.peer.isAsleep = true;
  }

  /** Another process goes on. @throws SimFailure when an SA that was kept is not there, or is another */
  resume(net: Net): void {
    const { sealed, sas } = this.#left!;
    this.#left = undefined;
    this.#forget();
    this.peer.isAsleep = false;
    const { engine } = this.peer;
    for (const tunnel of this.tunnels) engine.addTunnel(tunnel);
    const opened = openState(STATE_KEY, { host: this.name, boot: 'first' }, sealed);
    demand('state' in opened, () => `${this.name}: the state was not opened`);
    const inheritance = new Inheritance((opened as { state: Uint8Array }).state);
    const refused = this.tunnels.flatMap((tunnel) => inheritance.resume(engine, net.now, tunnel));
    demand(refused.length === 0, () => `${this.name}: SAs were refused: ${JSON.stringify(refused)}`);
    const now = engine.ike.status();
    const there = now.flatMap((sa) => [`IKE ${sa.spiInitiator} ${sa.spiResponder}`, ...sa.children.map(spisOf)]);
    demand(sas.sort().join() === there.sort().join(), () => `${this.name} has ${there.join()} after ${sas.join()}`);
    for (const { name } of this.tunnels) net.act(this.peer, (one) => one.up(net.now, name));
  }

  /** Takes note of what the engine has told since. @throws SimFailure for what cannot be */
  follow(onEvent: (event: EngineEvent) => void): void {
    for (const event of this.peer.events.splice(0)) {
      onEvent(event);
      this.#note(event);
    }
  }

  #note(event: EngineEvent): void {
    switch (event.type) {
      case 'ike-up':
        demand(!this.ikeSas.has(event.ikeSa.id), () => `${this.name}: IKE SA #${event.ikeSa.id} came up twice`);
        this.ikeSas.add(event.ikeSa.id);
        break;
      case 'ike-down':
        demand(this.ikeSas.delete(event.ikeSaId), () => `${this.name}: IKE SA #${event.ikeSaId} went without being up`);
        break;
      case 'child-up':
        demand(!this.children.has(event.child.id), () => `${this.name}: CHILD SA #${event.child.id} came up twice`);
        this.children.set(event.child.id, event.child.name);
        break;
      case 'child-down':
        demand(this.children.delete(event.childId), () => `${this.name}: CHILD SA #${event.childId} went twice`);
        break;
      default:
        break;
    }
  }

  checkBugs(): void {
    const { bug } = this.peer.engine.ike.counters();
    demand(bug === 0, () => `${this.name}: the engine has counted ${bug} bugs`);
  }

  /** IKE SAs of a tunnel that are not closed. */
  sasOf(tunnel: Name): IkeSaStatus[] {
    return this.peer.engine.ike.status().filter(({ connection, state }) => connection === tunnel && state !== 'closed');
  }

  /** Whether nothing is under way: no SA is being made, replaced or deleted, and no request waits for its answer. */
  get isAtRest(): boolean {
    const sas = this.peer.engine.ike.status();
    return sas.every(
      ({ state, request, children }) =>
        state === 'closed' ||
        (state === 'established' && request === undefined && children.every((child) => child.state === 'installed')),
    );
  }

  /** @throws SimFailure when anything is left of SAs */
  checkEmpty(): void {
    const { engine } = this.peer;
    const { sending, receiving } = engine.planes;
    const left = {
      'IKE SAs': engine.ike.status().length,
      'outbound SAs': sending.size,
      'inbound SAs': receiving.size,
      'IKE SAs by its events': this.ikeSas.size,
      'CHILD SAs by its events': this.children.size,
    };
    for (const [what, count] of Object.entries(left)) {
      demand(count === 0, () => `${this.name} has ${count} ${what} when all is down`);
    }
    const next = engine.nextTimeout();
    demand(next === undefined, () => `${this.name} still waits for ${next! / 1_000} s when all is down`);
  }
}

function spisOf({ spiIn, spiOut }: { readonly spiIn: number; readonly spiOut: number }): string {
  return `${spiIn} ${spiOut}`;
}
