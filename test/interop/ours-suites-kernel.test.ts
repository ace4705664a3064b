import { testSuites } from './ours-suites.ts';

testSuites('kernel');
