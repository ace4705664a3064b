/**
 * Tunnels as a pure machine, for a loop of your own: it has no clock, no sockets and no timers, and runs wherever JavaScript
 * does. `docs/library.md` shows the loop.
 *
 * @module sectunnel/engine
 */
export { PacketBatch } from '../base/batch.ts';
export type { PathReport } from '../base/path-report.ts';
export type { TunnelConfig } from '../engine/config.ts';
export type { ControlPlane } from '../engine/control-plane.ts';
export { Engine } from '../engine/engine.ts';
export type { ChildSummary, EngineEvent, LocalFailure } from '../engine/events.ts';
export type { HoldLimits } from '../engine/hold.ts';
export type {
  CommonOptions,
  ControlCounters,
  DeviceWrite,
  EngineCounters,
  EngineOptions,
  Transmit,
} from '../engine/options.ts';
export type { BelievedReport } from '../engine/path-reports.ts';
export type { RetryPolicy } from '../engine/retry.ts';
export type { ClosedSas } from '../engine/tunnels/changes.ts';
export type { TfcConfig } from '../esp/tfc.ts';
export type { PolicyAction, PolicyEntry, PolicyLevel } from '../policy/database.ts';
export type { Direction } from '../policy/direction.ts';
export * from './values.ts';
