/** What `explain` looks at: the tunnel of a document, if it runs, and what stands around it. */
import type { SectunnelDocument } from '../config/model.ts';
import type { ExplainFacts } from '../explain/explain.ts';
import type { HostTunnel } from '../explain/tunnels.ts';
import type { TunnelHost } from '../host/host.ts';
import type { Platform } from '../host/platform.ts';
import { domainView } from '../hostnet/domain-view.ts';
import { tunnelFence } from '../hostnet/steering/tunnel-fence.ts';
import type { HostView } from '../hostnet/view.ts';
import type { DevicePlan } from '../plan/device.ts';
import { placeOf } from '../plan/overlaps.ts';
import type { Installed } from './installed.ts';

export interface ExplainParts {
  readonly platform: Platform;
  readonly host: TunnelHost;
  readonly installed: Installed;
  /** The tunnels that run, by name. */
  readonly running: ReadonlyMap<string, { readonly document: SectunnelDocument; readonly device: DevicePlan }>;
}

export function explainFacts(document: SectunnelDocument, parts: ExplainParts): ExplainFacts {
  const { platform, host, installed, running: all } = parts;
  const { name } = document;
  const own = hostTunnel(name, parts);
  const running = own && { tunnel: own.tunnel, device: own.device };
  const view = viewOf(platform, document);
  const routing = all.get(name)?.device.routing ?? installed.routingOf(document);
  const around = own?.device ?? document.device.name;
  const known = view?.fences === undefined || routing === undefined ? undefined : tunnelFence(routing, around);
  const found = view?.fences?.get(`tunnel:${name}`);
  const fence = found?.kind === 'tunnel' ? found : known;
  const outer = platform.view?.(undefined);
  const place = placeOf(document);
  const neighbours = [...all.values()].filter((other) => placeOf(other.document) === place);
  const tunnels = neighbours.flatMap((other) => hostTunnel(other.document.name, parts) ?? []);
  const outerView = outer && domainView(outer, document.sa.vrf);
  return { document, running, now: host.now(), view, outerView, fence, tunnels };
}

/** What packets of a document's policy see of the network namespace that they are in, as far as it can be looked at. */
export function viewOf(platform: Platform, { device: { netns, vrf } }: SectunnelDocument): HostView | undefined {
  const view = platform.view?.(netns);
  return view && domainView(view, vrf);
}

function hostTunnel(name: string, { platform, host }: ExplainParts): HostTunnel | undefined {
  const tunnel = host.engine.tunnel(name);
  const device = host.device(name)?.name;
  if (tunnel === undefined || device === undefined) return undefined;
  return { name, device, table: platform.tableOf?.(name), tunnel };
}
