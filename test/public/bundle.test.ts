/** The pure entries bundle for a browser: no file that they reach imports a module of Node or a native package. */
import { builtinModules } from 'node:module';
import { rolldown } from 'rolldown';
import { describe, expect, it } from 'vitest';

const PURE = ['engine', 'ike', 'crypto', 'testing'];

describe.each(PURE)('sectunnel/%s', (entry) => {
  it('bundles for a browser', async () => {
    const imported: string[] = [];
    const bundle = await rolldown({
      input: `dist/public/${entry}.js`,
      platform: 'browser',
      external: (id) => {
        const isForeign = id.startsWith('node:') || builtinModules.includes(id) || id === 'koffi';
        if (isForeign) imported.push(id);
        return isForeign;
      },
    });
    const { output } = await bundle.generate({ format: 'esm' });
    await bundle.close();
    expect(imported).toEqual([]);
    expect(output[0].imports).toEqual([]);
    // What a browser does not have stays behind a call that only Node makes.
    expect(output[0].code).not.toMatch(/\brequire\(/);
  });
});
