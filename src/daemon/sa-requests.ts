/** What a user asks of the SAs of a tunnel that runs: nothing of its document or its device changes. */
import { SectunnelError } from '../base/error.ts';
import type { ProbeResult, RekeyedResult } from '../control/results.ts';
import type { RekeyChoice } from '../engine/sa-operations.ts';
import type { Runner } from './runner.ts';
import type { Catalog } from './store/catalog.ts';

/** All of its methods throw SectunnelError for what is refused. */
export class SaRequests {
  readonly #catalog: Catalog;
  readonly #runner: Runner;

  constructor({ catalog, runner }: { readonly catalog: Catalog; readonly runner: Runner }) {
    this.#catalog = catalog;
    this.#runner = runner;
  }

  /** @param seconds that the answers may take */
  async probe(nameOrUuid: string, seconds: number | undefined): Promise<ProbeResult> {
    const name = this.#running(nameOrUuid);
    const patience = seconds === undefined ? undefined : seconds * 1_000;
    return { name, peers: await this.#runner.host.operations.check(name, { patience }) };
  }

  async rekey(nameOrUuid: string, { ike, child }: { ike: boolean; child: string | undefined }): Promise<RekeyedResult> {
    const name = this.#running(nameOrUuid);
    const children: RekeyChoice['children'] = child === undefined ? (ike ? 'none' : 'all') : { name: child };
    const choice = { ikeSas: ike || child === undefined, children };
    return { name, sas: await this.#runner.host.operations.rekey(name, choice) };
  }

  async reauthenticate(nameOrUuid: string): Promise<RekeyedResult> {
    const name = this.#running(nameOrUuid);
    return { name, sas: await this.#runner.host.operations.reauthenticate(name) };
  }

  reset(nameOrUuid: string): { readonly name: string } {
    const name = this.#running(nameOrUuid);
    this.#runner.host.operations.reset(name);
    return { name };
  }

  #running(nameOrUuid: string): string {
    const { name } = this.#catalog.objects.find(nameOrUuid);
    if (this.#runner.host.engine.tunnel(name) === undefined) {
      throw new SectunnelError(
        'invalid-state',
        `tunnel ${name} is not active; start it with 'sectunnel start ${name}'`,
      );
    }
    return name;
  }
}
