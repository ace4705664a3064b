/** Many changes in a folder are made sure of by few flushes of it. */
import { closeSync, constants, openSync } from 'node:fs';
import { expect, it, vi } from 'vitest';
import { flushFolder } from '../../../src/daemon/store/folder-flush.ts';
import { stageFileSoon } from '../../../src/daemon/store/replace-file.ts';
import { temporaryFolder } from '../../support/daemon.ts';

const flushed = vi.hoisted(() => ({ descriptors: [] as number[] }));

vi.mock('node:fs', async (original) => {
  const fs = await original<typeof import('node:fs')>();
  const fsync: typeof fs.fsync = Object.assign((descriptor: number, done: (error: Error | null) => void) => {
    flushed.descriptors.push(descriptor);
    fs.fsync(descriptor, done);
  }, fs.fsync);
  return { ...fs, fsync };
});

const open = (folder: string): number => openSync(folder, constants.O_RDONLY | constants.O_DIRECTORY);

it('those who ask while a flush is under way share the next one, each with a descriptor that is open', async () => {
  const [one, other] = [temporaryFolder(), temporaryFolder()];
  const flushAndClose = async (folder: string): Promise<void> => {
    const descriptor = open(folder);
    await flushFolder(descriptor);
    closeSync(descriptor);
  };
  flushed.descriptors.length = 0;
  const wave = (): Promise<void>[] => Array.from({ length: 50 }, () => flushAndClose(one));
  const first = wave();
  await first[0];
  await Promise.all([...first, ...wave(), flushAndClose(other)]);
  expect(flushed.descriptors.length).toBeLessThanOrEqual(5);
  expect(flushed.descriptors.length).toBeGreaterThanOrEqual(3);
});

it('hundred files that are put in place at the same time take a flush each, and few of their folder', async () => {
  const folder = temporaryFolder();
  flushed.descriptors.length = 0;
  const write = async (name: string): Promise<void> => {
    const file = await stageFileSoon(`${folder}/${name}`, name);
    await file.commitSoon(() => undefined);
  };
  await Promise.all(Array.from({ length: 100 }, (_, at) => write(`${at}.xml`)));
  expect(flushed.descriptors.length).toBeGreaterThan(100);
  expect(flushed.descriptors.length).toBeLessThan(150);
});
