/** Something on a packet's way that stops it, or makes it a packet that the policy treats differently. */
export interface Obstacle {
  /** `stop`: it goes nowhere; `readdress`: it goes on with another address; `lead`: it is routed another way. */
  readonly effect: 'stop' | 'readdress' | 'lead';
  /** False where it depends on what is not known here. */
  readonly certain: boolean;
  /** A clause about the packet: `the fence of tunnel 'b' drops it`. */
  readonly verdict: string;
  /** What to look at, and what to do: a sentence. */
  readonly warning: string;
}
