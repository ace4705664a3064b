import { describe, expect, it } from 'vitest';
import { textEntry } from '../../src/daemon/log-text.ts';

const time = '2026-01-31T12:00:00.000Z';

function text(entry: Readonly<Record<string, unknown>>, colours = false): string {
  return textEntry(`${JSON.stringify({ level: 30, time, ...entry })}\n`, { colours });
}

describe('an entry of the log as text', () => {
  it('is one line: time, level, message and fields', () => {
    expect(text({ tunnel: 'lan', peers: 2, msg: 'tunnel up' })).toBe(`${time} INFO  tunnel up tunnel=lan peers=2\n`);
  });

  it('quotes a field with spaces, and writes an object as JSON', () => {
    expect(text({ reason: 'no answer', drops: { policy: 1 }, msg: 'm' })).toBe(
      `${time} INFO  m reason="no answer" drops={"policy":1}\n`,
    );
  });

  it('indents further lines, so that an entry is told from the next', () => {
    expect(text({ level: 40, detail: 'offered: a\nwanted: b', msg: 'first\nsecond' })).toBe(
      `${time} WARN  first\n    second detail=\n    offered: a\n    wanted: b\n`,
    );
  });

  it('lets no control character of a peer reach the terminal', () => {
    expect(text({ id: '\u001b]0;x\u0007', raw: '\u009b2J', msg: 'a\u001b[2Jb\rc' })).toBe(
      `${time} INFO  a?[2Jb?c id=?]0;x? raw=?2J\n`,
    );
  });

  it('has colours on a terminal alone', () => {
    expect(text({ level: 50, msg: 'm' }, true)).toContain('\u001b[31mERROR\u001b[0m');
    expect(text({ level: 50, msg: 'm' })).not.toContain('\u001b');
  });
});
