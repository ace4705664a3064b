/** The entry point of a worker thread. */
import './compiler.ts';
import { workerData } from 'node:worker_threads';
import { libc } from '../../sys/libc.ts';
import { reopenCrypto } from './crypto.ts';
import { Control, type WorkerSetup } from './messages.ts';
import { ReceiveWorker } from './receive.ts';
import { SendWorker } from './send.ts';

const setup = workerData as WorkerSetup;
const crypto = await reopenCrypto(setup.crypto);
Atomics.store(setup.control, Control.thread, libc().gettid());
const worker = setup.role === 'send' ? new SendWorker(setup, crypto) : new ReceiveWorker(setup, crypto);
worker.run();
