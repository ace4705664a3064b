/**
 * The kernel's notifications of changed links, addresses, routes and rules (rtnetlink(7)): their multicast groups, and the
 * messages as the types of `routes.ts`. Pure.
 */
import type { NetworkChange } from '../routes/routes.ts';
import { parseInterfaceAddress, parseLink, parseRoute, RTM } from './rtnetlink.ts';
import { parseRule, RTM_RULE } from './rtnetlink-rules.ts';

/** RTNLGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE, IPV6_IFADDR, IPV6_ROUTE, IPV6_RULE of linux/rtnetlink.h. */
export const CHANGE_GROUPS: readonly number[] = [1, 5, 7, 8, 9, 11, 19];

/** `undefined` for other messages, and for parts that `routes.ts` does not describe. @throws DecodeError */
export function parseChange(type: number, body: Uint8Array): NetworkChange | undefined {
  switch (type) {
    case RTM.NEWLINK:
    case RTM.DELLINK:
      return { kind: 'link', gone: type === RTM.DELLINK, link: parseLink(body) };
    case RTM.NEWADDR:
    case RTM.DELADDR: {
      const address = parseInterfaceAddress(body);
      return address && { kind: 'address', gone: type === RTM.DELADDR, address };
    }
    case RTM.NEWROUTE:
    case RTM.DELROUTE: {
      const route = parseRoute(body);
      return route && { kind: 'route', gone: type === RTM.DELROUTE, route };
    }
    case RTM_RULE.NEWRULE:
    case RTM_RULE.DELRULE: {
      const rule = parseRule(body);
      return rule && { kind: 'rule', gone: type === RTM_RULE.DELRULE, rule };
    }
    default:
      return undefined;
  }
}
