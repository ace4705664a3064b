/** The demo's bookkeeping: each claim is printed as it is proved, and counted. */

export class Checks {
  passed = 0;
  failed = 0;

  /** What is about to be done. */
  step(text: string): void {
    process.stdout.write(`\n== ${text}\n`);
  }

  /** Something worth showing. */
  show(text: string): void {
    process.stdout.write(text.replace(/^(?=.)/gm, '   '));
  }

  check(claim: string, holds: boolean, detail = ''): void {
    if (holds) this.passed++;
    else this.failed++;
    process.stdout.write(`${holds ? 'ok  ' : 'FAIL'} ${claim}${detail === '' ? '' : `: ${detail}`}\n`);
  }

  /** The last line of the demo. */
  summary(): string {
    return `demo: ${this.passed} passed, ${this.failed} failed`;
  }
}
