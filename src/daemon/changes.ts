/**
 * The changes of tunnels that a user asks for, with the rules of libvirt's own objects: undefining a tunnel that is active makes
 * it transient, and a transient one is gone when it stops. Changes of one tunnel happen in the order in which they were asked
 * for, changes of different ones at the same time.
 */
import { SectunnelError } from '../base/error.ts';
import type { Turns } from '../base/turns.ts';
import type { SectunnelDocument } from '../config/model.ts';
import { sameDocument } from '../config/same-document.ts';
import type { DefineResult, StartResult, TunnelEvent } from '../control/results.ts';
import type { Activation } from './activation.ts';
import type { Advice } from './advice.ts';
import { rekeyAsPlanned } from './renewals.ts';
import type { Runner } from './runner.ts';
import type { Catalog, DocumentText } from './store/catalog.ts';
import { checkIdentity, type TunnelObject } from './store/objects.ts';

export interface ChangeParts {
  readonly catalog: Catalog;
  readonly activation: Activation;
  readonly advice: Advice;
  readonly runner: Runner;
  readonly turns: Turns;
  readonly publish: (event: Omit<TunnelEvent, 'time'>) => void;
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

const runsOtherwise = (name: string): string =>
  `the tunnel runs with its previous document: 'sectunnel restart ${name}' starts it with this one`;

/** All of its methods throw SectunnelError for what is refused. */
export class Changes {
  readonly #parts: ChangeParts;

  constructor(parts: ChangeParts) {
    this.#parts = parts;
  }

  /** Does something to a tunnel when it is its turn. A UUID that is not known yet may become that of any. */
  #inTurn<T>(nameOrUuid: string, work: (name: string) => Promise<T>): Promise<T> {
    const { catalog, turns } = this.#parts;
    const name = catalog.objects.lookUp(nameOrUuid)?.name;
    if (name === undefined && UUID.test(nameOrUuid)) return turns.alone(() => work(nameOrUuid));
    return turns.run(name ?? nameOrUuid, () => work(name ?? nameOrUuid));
  }

  /**
   * The same for the tunnel of a document, which has the UUID of that tunnel as it is then.
   * @param check throws what speaks against it, before it is its turn
   */
  async #withDocument<T>(
    text: DocumentText,
    work: (document: SectunnelDocument) => Promise<T>,
    check: (document: SectunnelDocument) => void = () => undefined,
  ): Promise<T> {
    const { catalog, turns } = this.#parts;
    const parsed = catalog.parse(text);
    check(parsed);
    return await turns.run(parsed.name, () => {
      const known = catalog.objects.get(parsed.name);
      return work(known === undefined || known.uuid === parsed.uuid ? parsed : catalog.parse(text));
    });
  }

  /** @param check throws what speaks against the document, as soon as it is read */
  define(text: DocumentText, check?: (document: SectunnelDocument) => void): Promise<DefineResult> {
    const { catalog, advice, publish } = this.#parts;
    const work = async (document: SectunnelDocument): Promise<DefineResult> => {
      const warnings = await advice.allWarnings(document);
      const object = await catalog.define(document, () => {
        const { refusal, warnings: overlaps } = advice.overlaps(document);
        if (refusal !== undefined) throw new SectunnelError('invalid-state', refusal);
        warnings.push(...overlaps);
      });
      publish({ tunnel: document.name, event: 'defined', detail: '' });
      if (catalog.isOutdated(object)) warnings.push(runsOtherwise(document.name));
      return { name: document.name, uuid: document.uuid, warnings };
    };
    return this.#withDocument(text, work, check);
  }

  undefine(nameOrUuid: string): Promise<{ name: string }> {
    const { catalog, activation, publish } = this.#parts;
    return this.#inTurn(nameOrUuid, async (asked) => {
      const object = catalog.objects.find(asked);
      const { name } = object;
      if (object.persistent === undefined) {
        throw new SectunnelError(
          'invalid-state',
          `tunnel ${name} is transient, so there is nothing to undefine; stop it with 'sectunnel destroy ${name}'`,
        );
      }
      catalog.forget(object);
      publish({ tunnel: name, event: 'undefined', detail: '' });
      if (object.live === undefined) await activation.giveUp(object);
      return { name };
    });
  }

  create(text: DocumentText): Promise<DefineResult> {
    const { catalog, activation, advice } = this.#parts;
    return this.#withDocument(text, async (document) => {
      const warnings = [...advice.warnings(document), ...activation.overlapsOf(document).warnings];
      const object = catalog.objects.claim(document);
      checkInactive(object);
      try {
        warnings.push(...(await activation.start(object, document)).warnings);
      } finally {
        catalog.objects.dropIfGone(object);
      }
      return { name: document.name, uuid: document.uuid, warnings };
    });
  }

  start(nameOrUuid: string): Promise<StartResult> {
    const { catalog, activation } = this.#parts;
    return this.#inTurn(nameOrUuid, async (asked) => {
      const object = catalog.objects.find(asked);
      checkInactive(object);
      const document = withDocument(object, object.persistent ?? catalog.interrupted.get(object.name));
      const { device, around, warnings } = await activation.start(object, document);
      return { name: object.name, device, warnings: [...around, ...warnings] };
    });
  }

  /** With the persistent document; a tunnel that runs goes on with its own where that cannot start. */
  restart(nameOrUuid: string): Promise<StartResult> {
    const { catalog, activation } = this.#parts;
    return this.#inTurn(nameOrUuid, async (asked) => {
      const object = catalog.objects.find(asked);
      const { name, live } = object;
      const document = withDocument(object, object.persistent ?? live ?? catalog.interrupted.get(name));
      const { device, around, warnings } =
        live === undefined ? await activation.start(object, document) : await activation.restart(object, document);
      return { name, device, warnings: [...around, ...warnings] };
    });
  }

  destroy(nameOrUuid: string): Promise<{ name: string }> {
    const { catalog, activation, runner } = this.#parts;
    return this.#inTurn(nameOrUuid, async (asked) => {
      if (catalog.giveUpUnreadable(asked)) {
        await runner.installed.release(asked);
        return { name: asked };
      }
      const object = catalog.objects.find(asked);
      if (object.live !== undefined) await activation.stop(object);
      else if (!(await activation.giveUp(object)))
        throw new SectunnelError('invalid-state', `tunnel ${object.name} is not active`);
      return { name: object.name };
    });
  }

  setAutostart(nameOrUuid: string, enable: boolean): Promise<{ name: string }> {
    const { catalog, activation } = this.#parts;
    return this.#inTurn(nameOrUuid, async (asked) => {
      const object = catalog.objects.find(asked);
      const { name, persistent, live } = object;
      if (persistent === undefined) {
        throw new SectunnelError(
          'invalid-state',
          `tunnel ${name} is transient and cannot start with the daemon; define it first`,
        );
      }
      catalog.setAutostart(name, enable);
      // One that ran when the last daemon ended is to run again all the same, until it is destroyed.
      if (!enable && live === undefined && !catalog.interrupted.has(name)) await activation.giveUp(object);
      return { name };
    });
  }

  /** Replaces the document of a tunnel that there is: the running one, the persistent one, or both. */
  update(text: DocumentText, which: { live: boolean; config: boolean }): Promise<DefineResult> {
    const { catalog, activation, advice, runner } = this.#parts;
    return this.#withDocument(text, async (document) => {
      const { refusal, warnings: overlaps } = advice.overlaps(document);
      if (refusal !== undefined) throw new SectunnelError('invalid-state', refusal);
      const warnings = [...advice.warnings(document), ...overlaps];
      const object = catalog.objects.find(document.name);
      checkIdentity(object, document);
      const live = which.live || (!which.config && object.live !== undefined);
      const config = which.config || (!which.live && object.live === undefined);
      if (live && object.live === undefined) {
        throw new SectunnelError('invalid-state', `tunnel ${object.name} is not active; leave --live out`);
      }
      if (config && object.persistent === undefined) {
        throw new SectunnelError('invalid-state', `tunnel ${object.name} is transient; leave --config out`);
      }
      const changed = {
        live: live && !sameDocument(object.live, document),
        config: config && !sameDocument(object.persistent, document),
      };
      const { name, uuid } = document;
      if (!changed.live && !changed.config) return { name, uuid, warnings, unchanged: true };
      const { renewal, warnings: later } = await activation.replace(object, document, changed);
      const notDone = renewal === undefined ? [] : await rekeyAsPlanned(runner.host, name, renewal);
      return { name, uuid, warnings: [...warnings, ...later, ...notDone], unchanged: false, renewal };
    });
  }
}

function checkInactive({ name, live }: TunnelObject): void {
  if (live !== undefined) throw new SectunnelError('invalid-state', `tunnel ${name} is already active`);
}

function withDocument({ name }: TunnelObject, document: SectunnelDocument | undefined): SectunnelDocument {
  if (document !== undefined) return document;
  throw new SectunnelError('invalid-state', `tunnel ${name} has no document to start with`);
}
