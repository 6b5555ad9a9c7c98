/** @file Writes docs/configuration.md from the schema. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { referencePage } from '@frame-thinker/config';

writeFileSync(join(import.meta.dirname, '../docs/configuration.md'), referencePage());
