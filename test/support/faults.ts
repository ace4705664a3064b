/**
 * Faults at the edges of the program: the modules by which it asks the system for something. A test mocks such a module with
 * `faulty(…)`, and then has one call of it fail, or all from one on: the first, the second, and so on, until a whole
 * scenario meets none. So every place is reached where the system may refuse, without a word of it in the sources.
 */
import { constants } from 'node:os';

/** Which call fails: the `nth` of those whose names `edge` fits, counted from when it is armed. */
export interface Fault {
  readonly edge: RegExp;
  readonly nth: number;
  readonly code: keyof typeof constants.errno;
  /** All that follow fail too, as when a disk is full. */
  readonly lasting?: boolean;
}

class Faults {
  #fault: Fault | undefined;
  #calls = 0;
  /** The calls that failed. */
  readonly met: string[] = [];

  arm(fault: Fault): void {
    this.#fault = fault;
    this.#calls = 0;
    this.met.length = 0;
  }

  /** From now on nothing fails. @returns whether anything did */
  lift(): boolean {
    this.#fault = undefined;
    return this.met.length > 0;
  }

  /** The name of the error with which a call is to fail. */
  of(call: string): Fault['code'] | undefined {
    const fault = this.#fault;
    if (fault === undefined || !fault.edge.test(call)) return undefined;
    this.#calls++;
    const fails = fault.lasting === true ? this.#calls >= fault.nth : this.#calls === fault.nth;
    if (!fails) return undefined;
    this.met.push(call);
    return fault.code;
  }
}

/** Of the test file. */
export const faults: Faults = new Faults();

/** An error as Node makes it of an errno. */
export function systemError(code: Fault['code'], syscall: string): Error {
  return Object.assign(new Error(`${code}: injected, ${syscall}`), { code, errno: -constants.errno[code], syscall });
}

/**
 * A module of Node's whose functions throw when a fault says so, but for `existsSync`, which never does. Descriptors are
 * closed all the same, as the kernel does.
 */
export function faulty<Module extends object>(name: string, module: Module): Module {
  const wrapped = Object.entries(module).map(([key, value]: [string, unknown]) => {
    if (typeof value !== 'function' || !/^[a-z]/.test(key) || key === 'existsSync') return [key, value];
    const call = (...words: unknown[]): unknown => {
      const code = faults.of(`${name}.${key}`);
      if (code === undefined) return value(...words);
      if (key === 'closeSync') value(...words);
      throw systemError(code, key.replace(/Sync$/, ''));
    };
    return [key, Object.assign(call, value)];
  });
  const named = Object.fromEntries(wrapped) as Module;
  return { ...named, default: named };
}

const EPOLL_CTL_ADD = 1;

/** System calls that fail as a fault says: they return -1, and `errno` tells why. */
export function faultyCalls<Calls extends { errno(): number }>(get: () => Calls): () => Calls {
  let made: Calls | undefined;
  return () => {
    made ??= wrapCalls(get());
    return made;
  };
}

function wrapCalls<Calls extends { errno(): number }>(calls: Calls): Calls {
  let injected: number | undefined;
  const wrapped = Object.entries(calls).map(([key, value]: [string, (...words: unknown[]) => unknown]) => {
    if (key === 'errno') return [key, () => injected ?? value()];
    const call = (...words: unknown[]): unknown => {
      // What is watched already can be watched otherwise, and no longer, without more of anything.
      const isMore = key !== 'epollControl' || words[1] === EPOLL_CTL_ADD;
      const code = isMore ? faults.of(`libc.${key}`) : undefined;
      injected = code === undefined ? undefined : constants.errno[code];
      if (code === undefined) return value(...words);
      // Those of other threads tell their callback.
      const done = words.at(-1);
      if (typeof done === 'function') process.nextTick(() => done(-1, constants.errno[code]));
      return -1;
    };
    return [key, call];
  });
  return Object.fromEntries(wrapped) as Calls;
}
