/** Serves the files of one folder over HTTP and tells each request: `web.mjs ADDRESS PORT FOLDER`. */
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { basename, join } from 'node:path';

const [address, port, folder] = process.argv.slice(2);
createServer((request, response) => {
  console.log(`${request.method} ${request.url}`);
  try {
    response.end(readFileSync(join(folder, basename(request.url))));
  } catch {
    response.writeHead(404).end();
  }
}).listen(Number(port), address, () => console.log('ready'));
