/**
 * Tunnels as a pure machine, for a loop of your own: it has no clock, no sockets and no timers, and runs wherever JavaScript
 * does. `docs/library.md` shows the loop.
 *
 * @module sectunnel/engine
 */
export { PacketBatch } from '../base/batch.ts';
export type { DataPlane } from '../engine/commands.ts';
export type { TunnelConfig } from '../engine/config.ts';
export { ControlPlane } from '../engine/control-plane.ts';
export { Engine } from '../engine/engine.ts';
export type { ChildSummary, EngineEvent } from '../engine/events.ts';
export type { ControlPlaneOptions, DeviceWrite, EngineOptions, Transmit } from '../engine/options.ts';
export type { PolicyEntry } from '../policy/database.ts';
