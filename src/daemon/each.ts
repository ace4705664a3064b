/**
 * One change of each of many tunnels: carried out as if it were asked for alone, many at the same time. One that fails does
 * not stop the others, and neither does a client that goes away.
 */
import { eachAtOnce } from '../base/each.ts';
import { SectunnelError } from '../base/error.ts';
import type { Logger } from '../base/log.ts';
import { suggestion } from '../base/similar.ts';
import type { EachResult, Outcome } from '../control/results.ts';
import type { Params } from '../control/verbs.ts';
import { ownRound } from '../host/pace.ts';
import type { Changes } from './changes.ts';
import type { ControlConnection } from './control/connection.ts';
import { ProgressReport } from './control/progress.ts';
import { errorObject } from './control/refusing.ts';
import type { Catalog } from './store/catalog.ts';
import type { TunnelObject } from './store/objects.ts';

/** Changes that run at the same time for one request: fewer than may run, so that other requests have their turn. */
const AT_ONCE = 96;

interface EachVerb {
  run(changes: Changes, name: string): Promise<Outcome>;
  /** Whether it can be done to a tunnel. */
  suits(object: TunnelObject, is: { readonly retrying: boolean; readonly autostart: boolean }): boolean;
}

const VERBS: ReadonlyMap<string, EachVerb> = new Map<string, EachVerb>([
  [
    'start',
    {
      run: (changes, name) => changes.start(name),
      suits: ({ live, persistent }, { retrying }) => live === undefined && (persistent !== undefined || retrying),
    },
  ],
  ['restart', { run: (changes, name) => changes.restart(name), suits: ({ live }) => live !== undefined }],
  [
    'destroy',
    {
      run: (changes, name) => changes.destroy(name),
      suits: ({ live }, { retrying }) => live !== undefined || retrying,
    },
  ],
  ['undefine', { run: (changes, name) => changes.undefine(name), suits: ({ persistent }) => persistent !== undefined }],
  [
    'autostart',
    {
      run: (changes, name) => changes.setAutostart(name, true),
      suits: ({ persistent }, { autostart }) => persistent !== undefined && !autostart,
    },
  ],
  [
    'no-autostart',
    {
      run: (changes, name) => changes.setAutostart(name, false),
      suits: ({ persistent }, { autostart }) => persistent !== undefined && autostart,
    },
  ],
]);

export interface EachParts {
  readonly catalog: Catalog;
  readonly changes: Changes;
  readonly isRetrying: (name: string) => boolean;
  /** The daemon ends: nothing more is begun. */
  readonly isEnding: () => boolean;
  readonly log: Logger;
}

export class EachTunnel {
  readonly #parts: EachParts;

  constructor(parts: EachParts) {
    this.#parts = parts;
  }

  /** @throws SectunnelError when it is not said which verb and which tunnels */
  run({ verb, names, all = false }: Params<'each'>, connection: ControlConnection): Promise<EachResult> {
    const known = VERBS.get(verb);
    if (known === undefined) {
      const hint = suggestion(verb, [...VERBS.keys()]);
      throw new SectunnelError('bad-request', `'${verb}' cannot be done to several tunnels${hint}`);
    }
    if (all === (names !== undefined))
      throw new SectunnelError('bad-request', "'each' takes either names or all: true");
    const { changes } = this.#parts;
    return this.#each([...new Set(names ?? this.#suiting(known))], connection, async (name) => {
      const { warnings = [] } = await known.run(changes, name);
      return { name, warnings };
    });
  }

  define({ documents }: Params<'define-each'>, connection: ControlConnection): Promise<EachResult> {
    const { changes } = this.#parts;
    const checkOnce = onceEach();
    return this.#each(documents, connection, async (document) => {
      const { name, warnings } = await changes.define(document, ({ name: tunnel }) =>
        checkOnce(tunnel, document.source),
      );
      return { name, warnings };
    });
  }

  #suiting({ suits }: EachVerb): string[] {
    const { catalog, isRetrying } = this.#parts;
    const suiting = catalog.objects.all().filter((object) => {
      const { name } = object;
      return suits(object, { retrying: isRetrying(name), autostart: catalog.isAutostart(name) });
    });
    return suiting.map(({ name }) => name);
  }

  async #each<T extends string | { readonly source: string }>(
    items: readonly T[],
    connection: ControlConnection,
    work: (item: T) => Promise<Outcome>,
  ): Promise<EachResult> {
    const { isEnding, log } = this.#parts;
    const report = new ProgressReport(connection, items.length);
    await eachAtOnce(items, AT_ONCE, async (item) => {
      await ownRound();
      if (isEnding()) return;
      try {
        report.add(await work(item));
      } catch (error) {
        report.add({ name: typeof item === 'string' ? item : item.source, error: errorObject(error, log) });
      }
    });
    return await report.end();
  }
}

/** Of two documents of one request that define the same tunnel the first counts. */
function onceEach(): (tunnel: string, source: string) => void {
  // BOUNDED: by the documents of the request.
  const sources = new Map<string, string>();
  return (tunnel, source) => {
    const other = sources.get(tunnel);
    if (other !== undefined) {
      throw new SectunnelError(
        'invalid-state',
        `${source}: tunnel '${tunnel}' is defined by ${other} already: give one of the documents another <name>`,
      );
    }
    sources.set(tunnel, source);
  };
}
