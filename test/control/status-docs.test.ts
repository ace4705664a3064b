/** What programs read of `status`, `list`, `net-list` and `event` is documented, key by key. */
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';

const read = (path: string): string => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');

/** The keys of interfaces in a source, those of nested objects too. */
function keysOf(source: string, interfaces?: readonly string[]): string[] {
  const bodies = [...source.matchAll(/^export interface (\w+) \{\n(.*?)^\}/gms)];
  return bodies.flatMap(([, name = '', body = '']) =>
    interfaces === undefined || interfaces.includes(name)
      ? [...body.matchAll(/\breadonly (\w+)\??:/g)].map(([, key]) => key!)
      : [],
  );
}

it('every key is in docs/status.md', () => {
  const documented = new Set(
    [...read('docs/status.md').matchAll(/`([\w.]+?)(?:\[\])?`/g)].flatMap(([, key]) => key!.split('.')),
  );
  const keys = [
    ...keysOf(read('src/host/status.ts')),
    ...keysOf(read('src/control/results.ts'), ['TunnelInfo', 'NetworkInfo', 'TunnelEvent', 'StatusResult']),
  ];
  expect(keys.length).toBeGreaterThan(80);
  expect(keys.filter((key) => !documented.has(key))).toEqual([]);
});

it('every event is in docs/status.md', () => {
  const [, names = ''] = /export type TunnelEventName =(.*?);\n/s.exec(read('src/host/narrate.ts'))!;
  const events = [...names.matchAll(/^\s*\| '([\w-]+)'/gm)].map(([, name]) => name!);
  expect(events.length).toBeGreaterThan(10);
  expect(events.filter((event) => !read('docs/status.md').includes(`\`${event}\``))).toEqual([]);
});
