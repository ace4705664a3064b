/** What runs as `sectunneld`: the inspector is shut before anything else is loaded, other packages included. */
import '../sys/inspector.ts';

await import('./program.ts');
