/** The objects of the fence's table, and the parts that they belong to: their names, and what differs of them in words. Pure. */
import type { ObjectName } from '../netlink/nftables.ts';
import { MISSING } from './content.ts';
import { ID } from './ids.ts';
import { TABLE } from './nft-words.ts';
import type { Difference } from './table.ts';

const PRESENT = new RegExp(`^(${ID})_(leave|forward|postrouting)$`);
const OF_PART = new RegExp(`^\\w+ (${ID})_`);

/** The part of which such a chain stands where it stands itself. */
export function partWithChain(name: string): string | undefined {
  return PRESENT.exec(name)?.[1];
}

/** The part that an object belongs to; `undefined` for what all parts stand on. */
export function partOf(name: ObjectName): string | undefined {
  return OF_PART.exec(name)?.[1];
}

export function isTableLost({ name, text }: Difference): boolean {
  return name === 'table' && text === MISSING;
}

/** `chain out of tunnel net: 1 of 1 rules missing`. @param keys of the parts, by their ids */
export function describe({ name, text }: Difference, keys: ReadonlyMap<string, string>): string {
  if (name === 'table') return `table ${TABLE}: ${text}`;
  const id = partOf(name);
  const key = id === undefined ? undefined : keys.get(id);
  return `${key === undefined ? name : `${name.replace(`${id}_`, '')} of ${key.replace(':', ' ')}`}: ${text}`;
}

/** The objects that the lines of a batch make, fill or take away. */
export function namesIn(batch: string): Set<ObjectName> {
  const names = new Set<ObjectName>(['table']);
  for (const [, kind, name] of batch.matchAll(new RegExp(`^\\w+ (\\w+) ${TABLE} (\\w+)`, 'gm'))) {
    if (kind === 'chain' || kind === 'rule') names.add(`chain ${name}`);
    else if (kind === 'set' || kind === 'map' || kind === 'element') names.add(`set ${name}`);
  }
  return names;
}

/** Lines that take away what another program added. */
export function removal(name: ObjectName): string[] {
  const object = name.replace(' ', ` ${TABLE} `);
  return name.startsWith('chain ') ? [`flush ${object}`, `delete ${object}`] : [`delete ${object}`];
}
