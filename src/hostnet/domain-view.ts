/** A network namespace as packets of one routing domain see it: the addresses, routes, rules and fences that are for them. */
import { type Domain, findDomain } from './routes/domain.ts';
import type { RouteQuery, SeenRule } from './routes/routes.ts';
import type { HostView, Routing } from './view.ts';

/** How the kernel's rule for all VRFs is shown. */
const L3MDEV = 'l3mdev';

/** What is not asked for costs nothing. @param vrf left out: the default domain */
export function domainView(view: HostView, vrf: string | undefined): HostView {
  let fences: HostView['fences'];
  return {
    routing: inDomain(view.routing, vrf),
    get fences() {
      fences ??=
        view.fences && new Map([...view.fences].filter(([, part]) => part.kind !== 'tunnel' || part.vrf === vrf));
      return fences;
    },
    get bridges() {
      return view.bridges;
    },
    sysctl: (name) => view.sysctl(name),
    ...(view.foreignTables && { foreignTables: () => view.foreignTables!() }),
  };
}

/** A VRF that does not exist has no addresses, and its packets the routes of the default domain. */
function inDomain(routing: Routing, vrf: string | undefined): Routing {
  let found: { readonly domain: Domain | undefined } | undefined;
  const domainOnce = (): Domain | undefined => {
    found ??= { domain: findDomain(routing, vrf) };
    return found.domain;
  };
  const asked = (query: RouteQuery): RouteQuery => {
    // Packets of the default domain are looked up as they are.
    const index = vrf === undefined ? undefined : domainOnce()?.linkIndex;
    if (index === undefined) return query;
    const { inputLinkIndex, outputLinkIndex = index } = query;
    return inputLinkIndex === undefined ? { ...query, outputLinkIndex } : { ...query, inputLinkIndex: index };
  };
  return {
    addresses: (linkIndex) =>
      (domainOnce()?.addresses ?? []).filter((one) => linkIndex === undefined || one.linkIndex === linkIndex),
    link: (nameOrIndex) => routing.link(nameOrIndex),
    vrfs: () => routing.vrfs(),
    routes: (filter) => routing.routes(filter),
    rules: (family) => routing.rules(family),
    seenRules: (family) => routing.seenRules(family).flatMap((rule) => ofDomain(rule, domainOnce())),
    routeTo: (query) => routing.routeTo(asked(query)),
    routeFor: (query) => routing.routeFor(asked(query)),
    refusalOf: (query) => routing.refusalOf(asked(query)),
  };
}

/** The kernel's rule for all VRFs looks up the table of the packet's own. */
function ofDomain(rule: SeenRule, domain: Domain | undefined): SeenRule[] {
  if (!rule.others.includes(L3MDEV)) return [rule];
  if (domain?.vrf === undefined) return [];
  const others = rule.others.filter((other) => other !== L3MDEV);
  return [{ ...rule, others, action: { type: 'table', table: domain.mainTable } }];
}
