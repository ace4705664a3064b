/** The destinations in the routing table of a tunnel, from its policy. Pure. */
import { type AddressRange, type IpFamily, intersectRanges, prefixRange, rangeToPrefixes } from '../../base/address.ts';
import { mergeRanges, subtractRanges } from '../../base/ranges.ts';
import type { Prefix, RouteType } from '../routes/routes.ts';
import type { PolicyBox } from './plan.ts';

/** A destination in the tunnel's table: `open` into the device while there is one; `closed` always, behind that. */
export interface TableRoute {
  readonly destination: Prefix;
  readonly open: boolean;
  readonly closed: Extract<RouteType, 'unreachable' | 'blackhole'>;
  /** Of what comes from these addresses. */
  readonly sources: readonly AddressRange[];
}

/** Whether the destination alone decides among packets from the same sources. */
export function isByDestination(boxes: readonly PolicyBox[]): boolean {
  const [first] = boxes;
  return boxes.every(
    ({ local, protocol, level, action }) =>
      protocol === undefined &&
      (level !== 'use' || action !== 'protect') &&
      local.start.value === first!.local.start.value &&
      local.end.value === first!.local.end.value,
  );
}

/** The same of all families. */
export function isForDestinations(boxes: readonly PolicyBox[]): boolean {
  return ([4, 6] as const).every((family) =>
    isByDestination(boxes.filter(({ local }) => local.start.family === family)),
  );
}

/** Where no rules say which packets routes are for: the policy in the device drops what it does not protect. */
export function destinationRoutes(outbound: readonly PolicyBox[]): TableRoute[] {
  return ([4, 6] as const).flatMap((family) => {
    const boxes = outbound.filter(({ local }) => local.start.family === family);
    const kept = isByDestination(boxes) ? boxes : boxes.filter(({ action }) => action === 'protect');
    return regionsOf(kept, distinct(kept));
  });
}

/** The routes for boxes that differ in their destination alone: of several boxes the first one has what it covers. */
export function regionsOf(boxes: readonly PolicyBox[], sources: readonly AddressRange[]): TableRoute[] {
  const routes: TableRoute[] = [];
  const allProtected = boxes.every(({ action }) => action === 'protect');
  const runs = allProtected
    ? [{ action: 'protect' as const, ranges: mergeRanges(boxes.map(({ remote }) => remote)) }]
    : runsOf(boxes);
  for (const { action, ranges } of runs) {
    if (action === 'bypass') continue;
    for (const range of ranges) {
      for (const destination of rangeToPrefixes(range)) {
        routes.push(
          action === 'protect'
            ? { destination, open: true, closed: 'unreachable', sources }
            : { destination, open: false, closed: 'blackhole', sources: [] },
        );
      }
    }
  }
  return routes;
}

function runsOf(boxes: readonly PolicyBox[]): { action: PolicyBox['action']; ranges: AddressRange[] }[] {
  let covered: AddressRange[] = [];
  return boxes.map(({ action, remote }) => {
    const ranges = subtractRanges(remote, covered);
    covered = mergeRanges([...covered, remote]);
    return { action, ranges };
  });
}

/** Routes behind rules that match only what is protected. */
export function defaultRoutes(family: IpFamily, boxes: readonly PolicyBox[]): TableRoute[] {
  if (boxes.length === 0) return [];
  const open = mergeRanges(boxes.map(({ remote }) => remote)).flatMap((range) => rangeToPrefixes(range));
  const routes: TableRoute[] = open.map((destination) => ({
    destination,
    open: true,
    closed: 'unreachable',
    sources: sourcesFor(boxes, destination),
  }));
  const everything = { address: { family, value: 0n }, prefixLength: 0 };
  if (open.some(({ prefixLength }) => prefixLength === 0)) return routes;
  return [...routes, { destination: everything, open: false, closed: 'unreachable', sources: [] }];
}

/** Local addresses of the boxes for a destination. */
function sourcesFor(boxes: readonly PolicyBox[], { address, prefixLength }: Prefix): AddressRange[] {
  const destination = prefixRange(address, prefixLength);
  return distinct(boxes.filter(({ remote }) => intersectRanges(remote, destination) !== undefined));
}

/** Local addresses, at most 16: one of them becomes the source. */
export function distinct(boxes: readonly PolicyBox[]): AddressRange[] {
  const MOST = 16;
  // BOUNDED: by the policy.
  const found = new Map<string, AddressRange>();
  for (const { local } of boxes) {
    if (found.size === MOST) break;
    found.set(`${local.start.value}-${local.end.value}`, local);
  }
  return [...found.values()];
}
