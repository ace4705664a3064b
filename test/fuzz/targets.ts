/** All targets. */
import type { Target } from './target.ts';
import { control } from './targets/control.ts';
import { document } from './targets/document.ts';
import { esp } from './targets/esp.ts';
import { filters } from './targets/filters.ts';
import { ikeCodec } from './targets/ike-codec.ts';
import { ikeSession } from './targets/ike-session.ts';
import { libvirt } from './targets/libvirt.ts';
import { pki } from './targets/pki.ts';
import { policy } from './targets/policy.ts';

export const TARGETS: readonly Target[] = [ikeCodec, ikeSession, esp, policy, filters, document, pki, control, libvirt];
