import { testLifecycle } from './lifecycle.ts';

testLifecycle('userspace');
