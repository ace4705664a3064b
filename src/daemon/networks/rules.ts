/**
 * libvirt's own rules around the networks that tunnels hold, under watch: libvirt writes them when a network starts, and does
 * not hear of who takes them. Without them a network's own `<forward>` does not hold: guests' addresses are not translated,
 * connections are opened from outside, other networks are reached.
 */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Logger } from '../../base/log.ts';
import { messageOf } from '../../base/text.ts';
import type { ForeignRules } from '../../hostnet/foreign/rules.ts';
import { isRuled, wantsRules } from '../../libvirt/firewall.ts';
import type { BridgedNetwork } from './plan.ts';

/** Changes are looked at no more often, in milliseconds: other programs may keep their rules in the same tables. */
const SPACING = 100;
/** libvirt takes them away itself, for a moment, when a network stops and when its daemon starts. Milliseconds. */
const PATIENCE = 3_000;

export interface NetworkRulesOptions {
  /** `undefined` where no program's rules can be read: libvirt's are then assumed to be in place. */
  readonly rules: ForeignRules | undefined;
  /** Something changed: `look` is due. */
  readonly onChange: () => void;
  /** By which it is known what is to be restarted. */
  readonly libvirtSockets: readonly string[];
  readonly log: Logger;
}

type Verdict = 'unseen' | 'there' | 'lost';

export class NetworkRules {
  readonly #options: NetworkRulesOptions;
  /** By the name of the network. BOUNDED: by the networks that are held. */
  readonly #verdicts = new Map<string, Verdict>();
  /** Until it is told that they are gone. BOUNDED: by the networks that are held. */
  readonly #untold = new Map<string, NodeJS.Timeout>();
  #timer: NodeJS.Timeout | undefined;
  #lookedAt = Number.NEGATIVE_INFINITY;
  #problem = '';

  constructor(options: NetworkRulesOptions) {
    this.#options = options;
  }

  open(): void {
    const { rules, log } = this.#options;
    try {
      rules?.watch(() => this.#heard());
    } catch (error) {
      log.warn({}, `changes of libvirt's own rules are only noticed every ten seconds: ${messageOf(error)}`);
    }
  }

  async close(): Promise<void> {
    clearTimeout(this.#timer);
    for (const timer of this.#untold.values()) clearTimeout(timer);
    await this.#options.rules?.close();
  }

  isLost(network: string): boolean {
    return this.#verdicts.get(network) === 'lost';
  }

  /** What their want means, and what brings them back; `undefined` while they are there. */
  problem({ name, pin }: BridgedNetwork): string | undefined {
    if (!this.isLost(name)) return undefined;
    const { libvirtSockets } = this.#options;
    const modular = libvirtSockets.some((socket) => existsSync(join(dirname(socket), 'virtnetworkd-sock')));
    const meanwhile =
      pin.mode === 'exclusive' ? 'the network is held as before' : 'packets leave and enter it only through the tunnel';
    return (
      "another program removed libvirt's own rules for the network ('nft flush ruleset' does that): " +
      `${meanwhile}, and libvirt starts no network, until 'systemctl restart ${modular ? 'virtnetworkd' : 'libvirtd'}'; a reload is not enough`
    );
  }

  /** It runs already: that its rules were never seen is no excuse. */
  async expect({ name }: BridgedNetwork): Promise<void> {
    const { rules, log } = this.#options;
    if (rules === undefined || this.#verdicts.has(name)) return;
    const hidden = await rules.hidden().catch((error: unknown) => {
      log.warn({ network: name }, `it cannot be determined whether iptables uses nftables: ${messageOf(error)}`);
      return true;
    });
    if (!hidden) this.#verdicts.set(name, 'there');
  }

  forget(network: string): void {
    this.#verdicts.delete(network);
    clearTimeout(this.#untold.get(network));
    this.#untold.delete(network);
  }

  /** Looks at the rules of networks that are held. @returns those whose rules are gone now, or there again */
  look(networks: readonly BridgedNetwork[]): string[] {
    const { rules } = this.#options;
    const concerned = networks.filter(wantsRules);
    if (rules === undefined || concerned.length === 0) return [];
    this.#lookedAt = performance.now();
    try {
      const found = rules.read();
      this.#problem = '';
      return concerned.flatMap((network) => {
        const { name, bridge } = network;
        const before = this.#verdicts.get(name) ?? 'unseen';
        const after = isRuled(network, rules.linkIndex(bridge), found)
          ? 'there'
          : before === 'unseen'
            ? before
            : 'lost';
        this.#verdicts.set(name, after);
        if ((before === 'lost') === (after === 'lost')) return [];
        this.#tell(network, after === 'lost');
        return [name];
      });
    } catch (error) {
      const text = messageOf(error);
      if (text !== this.#problem) this.#options.log.warn({}, `libvirt's own rules cannot be read: ${text}`);
      this.#problem = text;
      return [];
    }
  }

  /** Their loss is reported when it lasts, their return when their loss was reported. */
  #tell(network: BridgedNetwork, lost: boolean): void {
    const { name, bridge } = network;
    const { log } = this.#options;
    const untold = this.#untold.get(name);
    clearTimeout(untold);
    this.#untold.delete(name);
    if (lost) {
      const tell = (): void => {
        this.#untold.delete(name);
        log.error({ network: name, bridge }, this.problem(network) ?? '');
      };
      this.#untold.set(name, setTimeout(tell, PATIENCE).unref());
    } else if (untold === undefined) {
      log.info({ network: name, bridge }, "libvirt's own rules for the network are back");
    }
  }

  #heard(): void {
    if (this.#timer !== undefined) return;
    const pause = Math.max(0, SPACING - (performance.now() - this.#lookedAt));
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#options.onChange();
    }, pause).unref();
  }
}
