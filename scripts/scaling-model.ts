/**
 * @file `npx tsx scripts/scaling-model.ts [MEASUREMENT]`: prints the tables of docs/scaling.md, from docs/scaling/local-runs.json or
 * another file that `pnpm bench scaling --out FILE` wrote, and the costs in local-costs.json and ray.json beside it.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '@frame-thinker/core';
import type { LocalCosts, RayCosts, ScalingMeasurement } from './scaling-model/measurement.ts';
import { measuredInputs } from './scaling-model/model.ts';
import { exchangeCosts, largeTable, validationTable } from './scaling-model/tables.ts';

const folder = join(import.meta.dirname, '../docs/scaling');

function readJson<T>(path: string): T {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as T;
  } catch (error) {
    console.error(`scaling-model: ${path}: ${messageOf(error)}`);
    process.exit(2);
  }
}

const measurement = readJson<ScalingMeasurement>(process.argv[2] ?? join(folder, 'local-runs.json'));
const costs = readJson<LocalCosts>(join(folder, 'local-costs.json'));
const ray = readJson<RayCosts>(join(folder, 'ray.json'));
console.log('inputs', measuredInputs(measurement));
console.log('milliseconds a byte', exchangeCosts(costs, ray));
for (const text of [validationTable(measurement), largeTable(costs, ray, 'fixed'), largeTable(costs, ray, 'growing')])
  console.log(`\n${text}`);
