/**
 * Puts what the programs load of `dist` into a few files, `dist/programs`: Node takes half a millisecond for each file that it
 * loads, and the daemon and its threads would load eight hundred. Other packages stay where they are. Run after the
 * compiler.
 *
 * Code that finds a file by `import.meta.url` sees `dist/programs` in place of its own folder: both are two folders below
 * the package's root, and what it starts (threads, libvirt's hook) is a program here, by the same name.
 */
import { rmSync } from 'node:fs';
import { isAbsolute, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { rolldown } from 'rolldown';

const root = fileURLToPath(new URL('..', import.meta.url));
const folder = join(root, 'dist/programs');

const programs = {
  sectunneld: 'dist/daemon/main.js',
  sectunnel: 'dist/cli/main.js',
  'network-hook': 'dist/cli/network-hook.js',
  'packet-worker': 'dist/host/workers/packet-worker.js',
  'verifier-worker': 'dist/pki/threads/verifier-worker.js',
};

rmSync(folder, { recursive: true, force: true });
const bundle = await rolldown({
  cwd: root,
  platform: 'node',
  input: programs,
  // What is imported for its effect stays, whatever package.json says to the bundlers of others.
  treeshake: { moduleSideEffects: true },
  external: (id) => !id.startsWith('.') && !isAbsolute(id) && !id.startsWith('dist/'),
});
await bundle.write({
  dir: folder,
  format: 'esm',
  entryFileNames: '[name].js',
  chunkFileNames: 'part-[name].js',
});
await bundle.close();
