/** @file Entry point of every `pnpm <command>`. */
import { run } from './run.ts';

process.exitCode = await run(process.argv.slice(2));
