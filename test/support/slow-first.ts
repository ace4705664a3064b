/**
 * The order of test files in a run: those that take long begin first, so that none of them is what everything else
 * waits for at the end. A fresh clone has no times of former runs to tell, and the size of a file says little.
 */
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** Parts of names: files of more than thirty seconds, the longest first. */
const SLOW: readonly string[] = [
  ...[
    'interop/mass.',
    'interop/libvirt-networks',
    'interop/several-children',
    'interop/libreswan',
    'interop/ours-suites-kernel',
  ],
  ...['interop/restart', 'interop/openiked', 'interop/peer-routes', 'interop/lifecycle-kernel', 'interop/workers'],
  ...['interop/addresses', 'interop/overlap', 'interop/policy-routing', 'interop/key-memory', 'interop/direct-kernel'],
  'interop/',
];

export class SlowFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    const rank = ({ moduleId }: TestSpecification): number => {
      const index = SLOW.findIndex((part) => moduleId.includes(part));
      return index < 0 ? SLOW.length : index;
    };
    return sorted.sort((a, b) => rank(a) - rank(b));
  }
}
