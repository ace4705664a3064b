/**
 * What a process has used, as the kernel counts it: all its threads, those that ended too; and what the machine was not
 * given.
 */
import { readdirSync, readFileSync } from 'node:fs';

/** Ticks a second of the times in /proc, the same on every Linux that Node runs on (USER_HZ). */
const TICKS = 100;
/** Where utime and stime stand behind the command's name, see proc(5). */
const UTIME = 11;
const STIME = 12;
/** The same of its children that it waited for. */
const CHILDREN_UTIME = 13;
const CHILDREN_STIME = 14;

/** Seconds of processor time, in the program and in the kernel. */
export interface CpuTimes {
  readonly own: number;
  /** Of programs that it ran and that ended. */
  readonly programs: number;
}

export function cpuTimes(pid: number): CpuTimes {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  // The name stands in parentheses and may hold anything.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const seconds = (user: number, system: number): number => (Number(fields[user]) + Number(fields[system])) / TICKS;
  return { own: seconds(UTIME, STIME), programs: seconds(CHILDREN_UTIME, CHILDREN_STIME) };
}

export function cpuSeconds(pid: number): number {
  return cpuTimes(pid).own;
}

/** Seconds of processor time of the threads that it has now: finer than ticks, for a program that does hardly anything. */
export function threadSeconds(pid: number): number {
  const threads = readdirSync(`/proc/${pid}/task`);
  const nanoseconds = threads.map((thread) =>
    Number.parseInt(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8'), 10),
  );
  return nanoseconds.reduce((sum, each) => sum + each, 0) / 1e9;
}

/** Processor time of the whole machine since it began, in ticks of all processors. */
export interface MachineTime {
  /** With what was stolen. */
  readonly wanted: number;
  /** Wanted, and given to other machines by the host of this virtual one. */
  readonly stolen: number;
}

export function machineTime(stat: string = readFileSync('/proc/stat', 'utf8')): MachineTime {
  // In their order, see proc(5). What guests take is in user and nice.
  const [user = 0, nice = 0, system = 0, , , interrupts = 0, soft = 0, stolen = 0] = stat
    .slice(0, stat.indexOf('\n'))
    .split(/\s+/)
    .slice(1)
    .map(Number);
  return { wanted: user + nice + system + interrupts + soft + stolen, stolen };
}

/** Of the processor time that was wanted since then, what was not given; in percent. */
export function stolenSince(before: MachineTime, now: MachineTime = machineTime()): number {
  const wanted = now.wanted - before.wanted;
  return wanted === 0 ? 0 : (100 * (now.stolen - before.stolen)) / wanted;
}

/** The most memory that was resident at any time, in MiB. */
export function peakMemory(pid: number): number {
  return statusNumber(pid, 'VmHWM') / 1024;
}

/** The memory that is resident now, in MiB. */
export function residentMemory(pid: number): number {
  return statusNumber(pid, 'VmRSS') / 1024;
}

/** The memory of a process in MiB, with its share of what it has in common with others (PSS). */
export function proportionalMemory(pid: number): number {
  const found = /^Pss:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'));
  if (found === null) throw new Error(`/proc/${pid}/smaps_rollup has no Pss`);
  return Number(found[1]) / 1024;
}

export function threadCount(pid: number): number {
  return statusNumber(pid, 'Threads');
}

/** A line of /proc/PID/status; sizes are in kiB. */
function statusNumber(pid: number, name: string): number {
  const found = new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  if (found === null) throw new Error(`/proc/${pid}/status has no ${name}`);
  return Number(found[1]);
}

/** Whether a program in the network namespace of that process listens on a TCP port, IPv4 or IPv6. */
export function listens(pid: number, port: number): boolean {
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  return ['tcp', 'tcp6'].some((table) =>
    readFileSync(`/proc/${pid}/net/${table}`, 'utf8')
      .split('\n')
      .slice(1)
      .some((line) => {
        const [, local, , state] = line.trim().split(/\s+/);
        return local?.endsWith(suffix) === true && state === '0A';
      }),
  );
}
