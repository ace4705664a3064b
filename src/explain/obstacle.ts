/** What on a packet's way keeps it from being what the policy is for, or from going on. */
export interface Obstacle {
  /** `stop`: it goes nowhere; `readdress`: it goes on with another address; `lead`: it goes another way. */
  readonly effect: 'stop' | 'readdress' | 'lead';
  /** False where it depends on what is not known here. */
  readonly certain: boolean;
  /** A clause about the packet: `the fence of tunnel 'b' drops it`. */
  readonly verdict: string;
  /** What to look at, and what to do: a sentence. */
  readonly warning: string;
}
