import { conformanceCases, deviation, type Engine } from '@frame-thinker/graph';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createOnnxEngine } from './engine.ts';

/** Float32 kernels (erf and tanh are polynomials) against float64. */
const TOLERANCE = 2e-5;

describe('conformance with the float64 interpreter', () => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await createOnnxEngine({ threads: 2, provider: 'cpu' });
  });
  afterAll(() => engine.release());

  for (const seed of [1, 2])
    it.each(conformanceCases(seed))(`seed ${seed}: $name`, async (test) => {
      const { maxRel, output } = await deviation(engine, test);
      expect(maxRel, `output ${output}`).toBeLessThan(TOLERANCE);
    });
});
