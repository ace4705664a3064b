/** A network namespace of Linux as explanations look at it. */
import { readFileSync } from 'node:fs';
import { bridgesIn, type FenceKeeper } from './fence/fence.ts';
import { listForeignTables } from './foreign/tables.ts';
import type { HostView, Routing } from './view.ts';

/** @param within does its work in the namespace */
export function linuxView(routing: Routing, fence: FenceKeeper, within: <T>(work: () => T) => T): HostView {
  return {
    routing,
    get fences() {
      return fence.parts;
    },
    get bridges() {
      return bridgesIn(fence.parts);
    },
    sysctl: (name) => within(() => readSysctl(name)),
    foreignTables: () => listForeignTables(within),
  };
}

/** Names of links may have dots. */
function readSysctl(name: string): string | undefined {
  const [, family, rest = ''] = /^(ipv[46])\.(.*)$/.exec(name) ?? [];
  const [, link, setting] = /^conf\.(.+)\.(\w+)$/.exec(rest) ?? [];
  const path = link === undefined ? rest.replaceAll('.', '/') : `conf/${link}/${setting}`;
  try {
    return readFileSync(`/proc/sys/net/${family}/${path}`, 'utf8').trim();
  } catch (error) {
    if (error instanceof Error && 'code' in error) return undefined;
    throw error;
  }
}
