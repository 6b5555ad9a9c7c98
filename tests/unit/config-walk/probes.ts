/** @file All probes, by block. A new key's probe goes into the table of its block. */
import { actorProbes } from './actor-probes.ts';
import { algorithmProbes } from './algorithm-probes.ts';
import { criticProbes } from './critic-probes.ts';
import { dataProbes } from './data-probes.ts';
import { ownProbes } from './own-probes.ts';
import type { Probe } from './probe.ts';
import { rolloutProbes } from './rollout-probes.ts';
import { trainerProbes } from './trainer-probes.ts';

export const PROBES: readonly Probe[] = [
  ...dataProbes,
  ...algorithmProbes,
  ...actorProbes,
  ...criticProbes,
  ...rolloutProbes,
  ...ownProbes,
  ...trainerProbes,
];
