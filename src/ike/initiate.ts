/** What is asked for when a connection is initiated. */
import type { SocketAddress } from '../base/address.ts';
import { containsPair, type SelectorPair } from '../policy/selector.ts';
import type { ConnectionConfig } from './config.ts';
import type { ChildRequest } from './session/child-request.ts';

/** Where a connection is to be initiated, and for which child. */
export interface InitiateOptions {
  /** Only this child; all of the connection when left out. */
  readonly child?: string | undefined;
  /** What the packet has of the child's selectors that calls for it, when the child is populated from packets. */
  readonly selectors?: SelectorPair | undefined;
  /** The packet that calls for it, one selector a side: it comes first in what is offered (RFC 7296 §2.9). */
  readonly trigger?: SelectorPair | undefined;
  readonly local?: SocketAddress | undefined;
  readonly remote?: SocketAddress | undefined;
}

/** @throws RangeError for a child that there is not, or selectors that do not go with it */
export function requestsOf({ name, children }: ConnectionConfig, options: InitiateOptions): ChildRequest[] {
  if (options.child === undefined)
    return children.filter(({ pfp }) => pfp === undefined).map((child) => ({ name: child.name }));
  const child = children.find((one) => one.name === options.child);
  if (child === undefined) throw new RangeError(`connection ${name} has no child ${options.child}`);
  const { selectors, trigger } = options;
  if (child.pfp === undefined) return [{ name: child.name, trigger }];
  if (selectors === undefined || !containsPair(child.selectors, selectors)) {
    throw new RangeError(
      `child ${child.name} is populated from packets: initiate it with the selectors of a packet that it covers`,
    );
  }
  return [{ name: child.name, selectors, trigger }];
}
