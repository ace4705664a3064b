import { testLifecycle } from './lifecycle.ts';

testLifecycle('kernel');
