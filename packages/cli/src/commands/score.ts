import { readFileSync } from 'node:fs';
import { loadConfig } from '@frame-thinker/config';
import { InputError, messageOf, writeFileAtomic } from '@frame-thinker/core';
import { defineCommand } from '../command.ts';

function readRows(file: string): unknown[] {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new InputError(`${file}: cannot be read (${messageOf(error)})`);
  }
  const rows = text.split('\n').flatMap((line, i) => {
    if (line.trim() === '') return [];
    try {
      return [JSON.parse(line) as unknown];
    } catch (error) {
      throw new InputError(`${file}:${i + 1}: not JSON (${messageOf(error)})`);
    }
  });
  if (rows.length === 0) throw new InputError(`${file}: no rows`);
  return rows;
}

export const score = defineCommand({
  name: 'score',
  describe: 'Scores saved responses or trajectories by a reward.',
  flags: {
    reward: { type: 'string', default: 'ccv', describe: 'ccv, ccv-v11, or a module that exports compute_score' },
    input: {
      type: 'string',
      demandOption: true,
      describe: 'JSONL: rows {solution_str, ground_truth, extra_info}, or saved trajectories',
    },
    output: { type: 'string', demandOption: true, describe: 'JSONL to write, a line a row' },
    config: { type: 'string', describe: "YAML file whose regimes and bonuses count, e.g. a run's config.yaml" },
  },
  overrides: 'keys of a configuration: ccv.*, env.*, e.g. ccv.time_bonus=0',
  examples: ['pnpm score --reward ccv-v11 --input rows.jsonl --output scores.jsonl'],
  async run({ flags: { reward, input, output, config: file }, overrides }) {
    const { config } = loadConfig({ ...(file === undefined ? {} : { file }), overrides });
    const rows = readRows(input);
    const [{ scoreRows }, { chooseRegime, durationOf }, { regimesOf }] = await Promise.all([
      import('@frame-thinker/ccv-reward'),
      import('@frame-thinker/agent-env'),
      import('@frame-thinker/trainer'),
    ]);
    const regimes = regimesOf(config);
    const scored = await scoreRows(rows, {
      reward: reward === 'ccv' || reward === 'ccv-v11' ? reward : { path: reward },
      timeBonus: config.ccv.time_bonus,
      choiceBonus: config.ccv.choice_bonus,
      framesOf: (sample) => chooseRegime({ durationSeconds: durationOf(sample), regimes }).frames,
    });
    writeFileAtomic(output, scored.map((row) => `${JSON.stringify(row)}\n`).join(''));
    const mean = (pick: (row: (typeof scored)[number]) => number): string =>
      (scored.reduce((sum, row) => sum + pick(row), 0) / scored.length).toFixed(4);
    const errors = scored.filter((row) => row.error !== undefined).length;
    console.log(
      `${scored.length} rows: total ${mean((r) => r.total)}, acc ${mean((r) => r.acc)}, format ${mean((r) => r.format)}, other ${mean((r) => r.other)}; ${errors} errors → ${output}`,
    );
    return 0;
  },
});
