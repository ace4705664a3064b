/**
 * The processor time that peers which are not authenticated may cost us for the verification of their certificates: an
 * account in milliseconds for each address, each network and all together, refilled over time; and the number of open
 * questions to the owner.
 *
 * The budget is checked before a request is accepted. When an account is empty the request is ignored as if it had been
 * lost: an honest peer behind the same NAT retransmits it, after one second at first, until the account is refilled. The
 * cost of a request is estimated when it is accepted, and corrected by the cost that the owner reports.
 */
import { hostPrefix, type IpAddress, prefixKey } from '../../base/address.ts';
import { TokenBucket } from '../../base/token-bucket.ts';

/** Milliseconds a second, and at once. A certificate that is honest costs 1 ms: an address has 60 judged a second. */
const OF_HOST = [60, 600] as const;
const OF_NETWORK = [120, 1_200] as const;
const OF_ALL = [300, 3_000] as const;
/** Of all, what is left to networks that have spent less than half of their own. */
const RESERVE = 750;
/** Open questions of one address and of all addresses; each holds a message of at most 256 KiB. */
const MAX_OPEN_OF_HOST = 8;
const MAX_OPEN = 64;
const MAX_ACCOUNTS = 4_096;
/** Bits of an address that one network has, whose hosts may be one attacker's. */
const NETWORK_BITS = { 4: 24n, 6: 48n } as const;

/** The estimate of a verification: this many milliseconds, and 1 ms for every `BYTES_PER_MS` bytes. */
const LEAST_COST = 1;
const BYTES_PER_MS = 32 * 1024;

/** The accounts that are charged. */
interface Accounts {
  readonly host: Account;
  readonly network: Account;
}

interface Account {
  readonly bucket: TokenBucket;
  open: number;
}

/** A verification that is not finished. */
export interface OpenVerification {
  readonly accounts: Accounts;
  readonly cost: number;
}

export class VerificationBudget {
  readonly #hosts = new AccountTable(...OF_HOST);
  readonly #networks = new AccountTable(...OF_NETWORK);
  readonly #all = new TokenBucket(...OF_ALL);
  #open = 0;

  /** Why nothing is verified for an address now, for people; `undefined` when the budget allows it. */
  refusal(now: number, address: IpAddress): string | undefined {
    const { host, network } = this.#accountsOf(address);
    if (host.open >= MAX_OPEN_OF_HOST) return `${host.open} of its certificates are being verified`;
    if (this.#open >= MAX_OPEN) return `${this.#open} certificates of all peers are being verified`;
    if (host.bucket.has(now) <= 0) return 'the certificates of its address have used up the time for verification';
    const spare = network.bucket.has(now);
    if (spare <= 0) return 'the certificates of its network have used up the time for verification';
    const left = this.#all.has(now) - (spare < OF_NETWORK[1] / 2 ? RESERVE : 0);
    return left <= 0 ? 'the certificates of all peers have used up the time for verification' : undefined;
  }

  /** Charges for credentials of `bytes` bytes that are to be verified. The caller must close what it returns. */
  open(address: IpAddress, bytes: number): OpenVerification {
    const accounts = this.#accountsOf(address);
    const cost = LEAST_COST + bytes / BYTES_PER_MS;
    this.#charge(accounts, cost);
    accounts.host.open++;
    this.#open++;
    return { accounts, cost };
  }

  /** @param spent milliseconds of processor time, if the owner knows */
  close({ accounts, cost }: OpenVerification, spent = 0): void {
    this.#charge(accounts, Math.max(0, spent - cost));
    accounts.host.open--;
    this.#open--;
  }

  /** Addresses that are remembered, for tests. */
  get size(): number {
    return this.#hosts.size;
  }

  #charge({ host, network }: Accounts, cost: number): void {
    host.bucket.charge(cost);
    network.bucket.charge(cost);
    this.#all.charge(cost);
  }

  #accountsOf(address: IpAddress): Accounts {
    return {
      host: this.#hosts.of(hostPrefix(address)),
      network: this.#networks.of(prefixKey(address, NETWORK_BITS[address.family])),
    };
  }
}

class AccountTable {
  readonly #perSecond: number;
  readonly #burst: number;
  /** The last used last. BOUNDED: MAX_ACCOUNTS, then the one that was not used for longest is forgotten. */
  readonly #accounts = new Map<string, Account>();

  constructor(perSecond: number, burst: number) {
    this.#perSecond = perSecond;
    this.#burst = burst;
  }

  get size(): number {
    return this.#accounts.size;
  }

  of(key: string): Account {
    const account = this.#accounts.get(key) ?? { bucket: new TokenBucket(this.#perSecond, this.#burst), open: 0 };
    this.#accounts.delete(key);
    this.#accounts.set(key, account);
    if (this.#accounts.size > MAX_ACCOUNTS) {
      const [oldest] = this.#accounts.keys();
      this.#accounts.delete(oldest!);
    }
    return account;
  }
}
