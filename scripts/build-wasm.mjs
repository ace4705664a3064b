/**
 * `npm run build:wasm`: assembles the WebAssembly of src/tun/offload into a TypeScript module that holds its bytes, so
 * that neither the build, the type checker, a bundler nor the program itself must find a file. Plain JavaScript, because
 * it runs before the compiler does. vitest calls the default export before the first test.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { argv } from 'node:process';
import { fileURLToPath } from 'node:url';
import wabt from 'wabt';

const source = fileURLToPath(new URL('../src/tun/offload/checksum.wat', import.meta.url));
const target = fileURLToPath(new URL('../src/tun/offload/checksum-module.gen.ts', import.meta.url));

export default async function buildWasm() {
  const { parseWat } = await wabt();
  const parsed = parseWat(source, readFileSync(source, 'utf8'), { simd: true });
  parsed.validate();
  const hex = Buffer.from(parsed.toBinary({}).buffer).toString('hex');
  parsed.destroy();
  const lines = hex.match(/.{1,112}/g).map((line) => `'${line}'`);
  const text = `/** Made from checksum.wat by \`npm run build:wasm\`: the module's bytes in hexadecimal. */
export const checksumModule: string = [
  ${lines.join(',\n  ')},
].join('');
`;
  // What is up to date stays untouched: watchers and incremental builds look at the time of the change.
  if (!existsSync(target) || readFileSync(target, 'utf8') !== text) writeFileSync(target, text);
}

if (argv[1] === fileURLToPath(import.meta.url)) await buildWasm();
