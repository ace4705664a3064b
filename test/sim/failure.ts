/** Something that must hold did not. */
export class SimFailure extends Error {
  override readonly name = 'SimFailure';
}

/** @throws SimFailure */
export function demand(holds: boolean, what: () => string): void {
  if (!holds) throw new SimFailure(what());
}
