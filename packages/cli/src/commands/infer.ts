import { InputError } from '@frame-thinker/core';
import { defineCommand } from '../command.ts';

const positive = (flag: string, value: number, least = 1): number => {
  if (!Number.isInteger(value) || value < least)
    throw new InputError(`infer: --${flag} ${value}: expected a whole number of at least ${least}`);
  return value;
};

export const infer = defineCommand({
  name: 'infer',
  describe: 'Evaluates a model on a data set, question by question, and goes on where a stopped evaluation was.',
  flags: {
    model: { type: 'string', describe: 'model folder; default: the newest merged model' },
    dataset: { type: 'string', describe: 'data file; default: the test set of the synthetic task' },
    output: { type: 'string', describe: 'folder of the report; default: runs/infer/<model>-<dataset>' },
    config: {
      type: 'string',
      describe:
        "YAML file whose environment and limits count; default: the model's run's, else configs/frame_thinker.yaml",
    },
    strategy: {
      type: 'string',
      choices: ['spotlight', 'uniform'],
      default: 'spotlight',
      describe: 'look again, or answer from one uniform look at the same number of frames',
    },
    frames: { type: 'number', describe: 'frames of the uniform look; default: twice those of a look' },
    prefill: { type: 'string', describe: 'opens a turn that may only answer; default: env.answer_prefill' },
    'frames-from': {
      type: 'string',
      choices: ['real', 'grey', 'other'],
      default: 'real',
      describe: 'what every look shows: the video, mid-grey, or another video of the data set',
    },
    'grey-level': { type: 'number', describe: 'of grey frames, 0 to 255; default 128' },
    compat: { type: 'string', choices: ['reference'], describe: "the original evaluation program's rules" },
    temperature: { type: 'number', default: 0.6, describe: '0: greedy' },
    'top-p': { type: 'number', default: 0.9 },
    'max-new-tokens': { type: 'number', default: 2048, describe: 'tokens of one turn' },
    'max-turns': { type: 'number', default: 5 },
    tries: { type: 'number', default: 3, describe: 'tries per question; one with a valid process is final' },
    limit: { type: 'number', describe: 'only the first so many questions' },
  },
  overrides: 'keys of a training configuration: env.*, engine.*, data.*, trainer.seed, e.g. engine.threads=2',
  examples: ['pnpm infer', 'pnpm infer --model runs/frame_thinker/default/merged --dataset data/synth/1/test.jsonl'],
  async run({ flags, overrides }) {
    const { temperature, 'top-p': topP, 'frames-from': framesFrom } = flags;
    const tries = positive('tries', flags.tries);
    const maxTurns = positive('max-turns', flags['max-turns']);
    const maxNewTokens = positive('max-new-tokens', flags['max-new-tokens']);
    const uniformFrames = flags.frames === undefined ? undefined : positive('frames', flags.frames);
    const greyLevel = flags['grey-level'] === undefined ? undefined : positive('grey-level', flags['grey-level'], 0);
    if (greyLevel !== undefined && (greyLevel > 255 || framesFrom !== 'grey'))
      throw new InputError('infer: --grey-level is at most 255 and goes with --frames-from grey');
    const limit = flags.limit === undefined ? undefined : positive('limit', flags.limit);
    if (!(temperature >= 0)) throw new InputError(`infer: --temperature ${temperature}: expected 0 or more`);
    if (!(topP > 0 && topP <= 1)) throw new InputError(`infer: --top-p ${topP}: expected more than 0, at most 1`);
    if (flags.compat === 'reference' && flags.strategy === 'uniform')
      throw new InputError('infer: --compat reference has no --strategy uniform');
    if (uniformFrames !== undefined && flags.strategy !== 'uniform')
      throw new InputError('infer: --frames goes with --strategy uniform; env.short.frames=… sets those of a look');

    const [{ runEvaluation }, { defaultOutput, evaluationConfig, evaluationData, newestModel }, benchmark, trainer] =
      await Promise.all([
        import('../evaluation/run-evaluation.ts'),
        import('../evaluation/defaults.ts'),
        import('@frame-thinker/benchmark'),
        import('@frame-thinker/trainer'),
      ]);
    const model = flags.model ?? newestModel();
    const { loaded, file } = evaluationConfig({ file: flags.config, model, overrides });
    const { config } = loaded;
    if (flags.prefill !== undefined) config.env.answer_prefill = flags.prefill;

    const stop = new AbortController();
    const interrupt = trainer.listenForInterrupt(console.error, {
      note: 'ending; what is done is kept',
      onSignal: () => stop.abort(),
    });
    try {
      const dataset = await evaluationData(config, { dataset: flags.dataset, signal: stop.signal });
      const strategy = flags.strategy as 'spotlight' | 'uniform';
      const compat = flags.compat === 'reference' ? 'reference' : 'none';
      const output = flags.output ?? defaultOutput({ model, dataset, strategy, framesFrom, compat });
      console.error(`model ${model}, data ${dataset}, configuration ${file ?? 'defaults'}`);
      const result = stop.signal.aborted
        ? undefined
        : await runEvaluation({
            config,
            model,
            dataset,
            samples: await trainer.readEvaluationRows(dataset, config, console.error),
            limit,
            output,
            strategy,
            framesFrom: framesFrom as 'real' | 'grey' | 'other',
            greyLevel,
            compat,
            sampling: { temperature, topP, topK: -1, doSample: temperature > 0 },
            tries,
            maxTurns,
            maxNewTokens,
            uniformFrames,
            signal: stop.signal,
          });
      if (!result) {
        console.error(`stopped; the same command goes on from ${output}`);
        return trainer.exitCodeOf(interrupt.signal ?? 'SIGINT');
      }
      console.log(benchmark.formatReport(result.report));
      console.log(`\nreport   ${result.reportFile}\nrecords  ${result.recordsFile}`);
      return 0;
    } finally {
      interrupt.dispose();
    }
  },
});
