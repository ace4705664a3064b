/** The list of pitfalls names tests: they must be there. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';

const rows = readFileSync('docs/pitfalls.md', 'utf8')
  .split('\n')
  .filter((line) => line.startsWith('| ') && line.includes('`test/'))
  .map((line) => line.split('|').map((cell) => cell.trim()));

describe('docs/pitfalls.md', () => {
  it('names tests that there are', () => {
    expect(rows.length).toBeGreaterThan(90);
    const missing = rows.filter(([, , , file, test]) => {
      const source = readFileSync(file!.replaceAll('`', ''), 'utf8');
      return test === '' || !source.includes(test!);
    });
    expect(missing.map(([, what, , file, test]) => `${what}: ${file} ${test}`)).toEqual([]);
  });
});
