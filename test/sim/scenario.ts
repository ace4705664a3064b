/**
 * What happens in a run of the simulator: a hub and its spokes, how each tunnel is set up, and what operators, hosts and the
 * network do, at which time. All of it follows from a seed, or is read from a file of the corpus. Plain data.
 */
import { Random } from '../support/ike-pair.ts';

/** What becomes of datagrams, until it changes. Probabilities, and one-way times in milliseconds. */
export interface Weather {
  readonly loss: number;
  readonly twice: number;
  readonly delay: number;
  /** Added to the delay: from 0 to this. More than the time between two packets reorders them. */
  readonly jitter: number;
  /** Of the path, in bytes of an IP packet. */
  readonly mtu: number;
}

type Start = 'initiate' | 'trap' | 'respond';

/** The tunnel of a spoke, as both ends have it. Durations are milliseconds. */
export interface Setup {
  /** By which end. */
  readonly start: { readonly hub: Start; readonly spoke: Start };
  /** CHILD SAs. */
  readonly children: 1 | 2;
  readonly childLifetime: number;
  readonly ikeLifetime: number;
  /** Liveness checks; 0 for none. */
  readonly dpd: number;
  readonly dpdAction: { readonly hub: 'clear' | 'trap' | 'restart'; readonly spoke: 'clear' | 'trap' | 'restart' };
  /** CHILD SAs with a key exchange of their own. */
  readonly pfs: boolean;
  readonly esn: boolean;
  /** The spoke is behind a NAT. */
  readonly nat: boolean;
  /** Packets. */
  readonly replayWindow: number;
}

/** Who does something: `hub`, or `s1`, `s2`, … */
export type Name = string;

/** Something that happens at a time. `pick` chooses among those that there are then. */
export type Action = { readonly at: number } & (
  | { readonly type: 'packets'; readonly from: Name; readonly to: Name; readonly count: number; readonly every: number }
  | { readonly type: 'large-packet'; readonly from: Name; readonly to: Name; readonly size: number }
  | {
      readonly type: 'rekey-child' | 'rekey-ike' | 'close-child' | 'close-ike';
      readonly host: Name;
      readonly pick: number;
    }
  | { readonly type: 'probe'; readonly host: Name }
  | { readonly type: 'down' | 'up' | 'replace'; readonly host: Name; readonly pick: number }
  | { readonly type: 'restart'; readonly host: Name }
  /** The process ends, and after a while another goes on with its state. */
  | { readonly type: 'hand-over'; readonly host: Name; readonly time: number }
  | { readonly type: 'sleep'; readonly host: Name; readonly time: number }
  | { readonly type: 'cut'; readonly host: Name; readonly time: number }
  | { readonly type: 'rebind'; readonly host: Name }
  | { readonly type: 'weather'; readonly weather: Weather }
);

type Untimed = Action extends infer A ? (A extends Action ? Omit<A, 'at'> : never) : never;

export interface Scenario {
  readonly seed: number;
  /** Nothing is lost and nobody forgets: so no packet may be lost, but by a process that is away, whatever is rekeyed meanwhile. */
  readonly lossless: boolean;
  readonly weather: Weather;
  /** One for each spoke. */
  readonly setups: readonly Setup[];
  /** In the order of their times. */
  readonly actions: readonly Action[];
}

/** Of the time in which things happen, in milliseconds. */
const LENGTH = 60_000;
/** In that time. */
const MAX_ACTIONS = 40;
export const CALM: Weather = { loss: 0, twice: 0, delay: 10, jitter: 0, mtu: 1_500 };

/** The scenario of a seed. @param length of the time in which things happen, in milliseconds */
export function drawScenario(seed: number, length: number = LENGTH): Scenario {
  const random = new Random(seed);
  const lossless = random.below(3) === 0;
  const spokes = random.below(4) === 0 ? 2 + random.below(3) : 1;
  const setups = Array.from({ length: spokes }, () => drawSetup(random, lossless));
  const weather = drawWeather(random, lossless);
  const count = Math.round(((5 + random.below(MAX_ACTIONS)) * length) / LENGTH);
  const actions = Array.from({ length: count }, () => ({
    ...drawAction(random, setups, lossless),
    at: random.below(length),
  }));
  return { seed, lossless, weather, setups, actions: actions.sort((x, y) => x.at - y.at) };
}

function oneOf<T>(random: Random, choices: readonly T[]): T {
  return choices[random.below(choices.length)]!;
}

/**
 * Soft lifetimes, with as long a time again until the hard one: enough for a rekeying that the peer, which is busy with its
 * own, refuses some times. Each time it waits two to four seconds.
 */
const LONG_ENOUGH = [14_000, 17_000, 25_000, 600_000] as const;

function drawSetup(random: Random, lossless: boolean): Setup {
  const start = oneOf(random, [
    { hub: 'respond', spoke: 'initiate' },
    { hub: 'respond', spoke: 'initiate' },
    { hub: 'initiate', spoke: 'respond' },
    { hub: 'initiate', spoke: 'initiate' },
    { hub: 'trap', spoke: 'initiate' },
    { hub: 'trap', spoke: 'trap' },
  ] as const);
  // The hub cannot call a spoke behind a NAT.
  const nat = random.below(4) === 0 && start.spoke === 'initiate';
  return {
    start: nat ? { hub: 'respond', spoke: 'initiate' } : start,
    children: random.below(3) === 0 ? 2 : 1,
    childLifetime: oneOf(random, lossless ? LONG_ENOUGH : [4_000, 9_000, 25_000, 600_000]),
    ikeLifetime: oneOf(random, lossless ? LONG_ENOUGH : [7_000, 20_000, 50_000, 600_000]),
    // Only a liveness check, or a lifetime, shows that a peer has lost its memory.
    dpd: lossless ? oneOf(random, [0, 10_000]) : oneOf(random, [5_000, 15_000]),
    dpdAction: { hub: drawDpdAction(random, start.hub), spoke: drawDpdAction(random, start.spoke) },
    pfs: random.below(2) === 0,
    esn: random.below(2) === 0,
    nat,
    // What is reordered by more than the window is dropped (RFC 4303 §3.4.3).
    replayWindow: lossless ? 1_024 : oneOf(random, [64, 1_024]),
  };
}

/** An end that is to begin must not forget that it is. */
function drawDpdAction(random: Random, start: Start): Setup['dpdAction']['hub'] {
  return start === 'respond' ? oneOf(random, ['clear', 'trap']) : oneOf(random, ['trap', 'restart']);
}

function drawWeather(random: Random, lossless: boolean): Weather {
  return {
    loss: lossless ? 0 : oneOf(random, [0, 0.02, 0.15, 0.4]),
    twice: oneOf(random, [0, 0.05, 0.3]),
    delay: oneOf(random, [1, 10, 120]),
    jitter: oneOf(random, [0, 20, 300]),
    mtu: oneOf(random, [1_500, 1_500, 1_400, 1_300]),
  };
}

const HARMLESS = [
  'packets',
  'packets',
  'packets',
  'large-packet',
  'rekey-child',
  'rekey-ike',
  'probe',
  'weather',
  'hand-over',
] as const;
const HARMFUL = ['close-child', 'close-ike', 'down', 'up', 'replace', 'restart', 'sleep', 'cut', 'rebind'] as const;

function drawAction(random: Random, setups: readonly Setup[], lossless: boolean): Untimed {
  const types: readonly Action['type'][] = lossless ? HARMLESS : [...HARMLESS, ...HARMFUL];
  const spoke = `s${1 + random.below(setups.length)}`;
  const host = random.below(2) === 0 ? 'hub' : spoke;
  const pick = random.below(1_000);
  const [from, to] = host === 'hub' ? ['hub', spoke] : [spoke, 'hub'];
  const type = oneOf(random, types);
  switch (type) {
    case 'packets':
      return { type, from, to, count: 1 + random.below(60), every: oneOf(random, [1, 20, 200]) };
    case 'large-packet':
      return { type, from, to, size: 1_200 + random.below(300) };
    case 'rekey-child':
    case 'rekey-ike':
    case 'close-child':
    case 'close-ike':
    case 'down':
    case 'up':
    case 'replace':
      return { type, host, pick };
    case 'probe':
    case 'restart':
      return { type, host };
    case 'hand-over':
      // A peer that looks for it must not take it for dead.
      return { type, host, time: oneOf(random, lossless ? [0, 100, 300] : [0, 300, 4_000]) };
    case 'sleep':
    case 'cut':
      return { type, host, time: oneOf(random, [300, 4_000, 30_000]) };
    case 'rebind':
      return { type, host: spoke };
    case 'weather':
      return { type, weather: drawWeather(random, lossless) };
  }
}
