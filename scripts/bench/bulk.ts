/**
 * @file `pnpm bench bulk [--config FILE] [--workers N]`: the gradient sums of local workers added and given back, through files in shared
 * memory as the local pool does it (ours) and through the workers' pipes and the controller's memory (peer), by the same workers.
 */
import { join } from 'node:path';
import { tensorOf } from '@frame-thinker/checkpoint';
import { loadConfig } from '@frame-thinker/config';
import { InputError, RunError } from '@frame-thinker/core';
import { workerInit } from '@frame-thinker/trainer';
import { LocalTransport, take, toWire, type WorkerConnection } from '@frame-thinker/worker-pool';
import { type BenchOptions, type BenchResult, compare, median, pairedRounds } from '../bench-result.ts';

const REPEATS = 7;
const entry = join(import.meta.dirname, '../../packages/policy-worker/src/main.ts');

export const options = {
  config: { type: 'string', default: 'configs/frame_thinker.yaml' },
  workers: { type: 'string', default: '2' },
} as const;

const sumsOf = async (worker: WorkerConnection): Promise<Float64Array> =>
  take((await worker.call('gradients_out')).tensors, 'gradients', Float64Array);

async function throughPipes(workers: readonly WorkerConnection[]): Promise<void> {
  const [sum, ...others] = await Promise.all(workers.map(sumsOf));
  for (const other of others) for (let i = 0; i < other.length; i++) sum![i]! += other[i]!;
  await Promise.all(workers.map((worker) => worker.call('gradients_in', {}, [['gradients', tensorOf(sum!)]])));
}

export async function bench({ rounds, flags, log }: BenchOptions): Promise<BenchResult[]> {
  const count = Number(flags.workers);
  if (!(Number.isInteger(count) && count > 1))
    throw new InputError(`bench bulk: --workers ${flags.workers}: expected a whole number above 1`);
  const { config } = loadConfig({ file: String(flags.config), overrides: ['engine.threads=1'] });
  const transport = new LocalTransport({ entry });
  const workers = Array.from({ length: count }, (_, rank) => transport.start(rank));
  try {
    const init = toWire(workerInit(config, count));
    const [first] = await Promise.all(workers.map((worker) => worker.call('init', init)));
    const parameters = Number(first!.result.parameters);
    transport.expect({ parameters, workers: count });
    const throughFiles = async (): Promise<void> => {
      await transport.collectGradients(workers);
      await Promise.all(workers.map((worker) => transport.spreadGradients(worker)));
    };
    const ones = new Float64Array(parameters).fill(1);
    /** MiB a second that leave and enter workers; sums that did not double are an error. */
    const rate = async (exchange: () => Promise<void>): Promise<number> => {
      const times: number[] = [];
      await Promise.all(workers.map((worker) => worker.call('gradients_in', {}, [['gradients', tensorOf(ones)]])));
      for (let i = 0; i <= REPEATS; i++) {
        const since = performance.now();
        await exchange();
        // The first warms up.
        if (i > 0) times.push(performance.now() - since);
      }
      for (const sums of await Promise.all(workers.map(sumsOf)))
        if (sums.some((x) => x !== count ** (REPEATS + 1)))
          throw new RunError('bench bulk: the sums are not the total');
      return (2 * count * parameters * 8) / 2 ** 20 / (median(times) / 1000);
    };
    const { ours, peer, load } = await pairedRounds({
      rounds,
      ours: () => rate(throughFiles),
      peer: () => rate(() => throughPipes(workers)),
      onRound: (round, files, pipes) =>
        log(`round ${round}: ${files.toFixed(0)} MiB/s through files, ${pipes.toFixed(0)} MiB/s through pipes`),
    });
    const name = `gradient sums of ${parameters} parameters, ${count} workers, MiB/s`;
    return [compare({ bench: 'bulk', case: name, higher_is_better: true, goal: 1, ours, peer, load })];
  } finally {
    await Promise.all(workers.map((worker) => worker.close()));
    await transport.close();
  }
}
