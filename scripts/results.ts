/**
 * @file `npx tsx scripts/results.ts --before BASE --after MERGED… [--control MERGED…] [--continued MODEL]`: the numbers
 * of docs/results.md. --after and --control are given once a training seed. Every evaluation is one try per question; each goes on where it was
 * stopped. Prints Markdown tables with 95 % bootstrap intervals and writes them and a figure into --output.
 */
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { reportOf, type Strategy, type TryRecord } from '@frame-thinker/benchmark';
import { evaluationConfig, evaluationData, type FramesFrom, runEvaluation } from '@frame-thinker/cli';
import { InputError, messageOf, writeFileAtomic } from '@frame-thinker/core';
import { exitCodeOf, listenForInterrupt, readEvaluationRows } from '@frame-thinker/trainer';
import { barFigure } from './bar-figure.ts';
import {
  bars,
  byQuestion,
  DIFFERENCE_HEAD,
  difference,
  gainSplit,
  type Result,
  resultTable,
  seedTable,
} from './results-tables.ts';

interface Evaluation {
  /** Folder below --output, and how it is asked for with --only. */
  name: string;
  label: string;
  /** One a seed. */
  models: readonly string[];
  strategy?: Strategy;
  framesFrom?: FramesFrom;
  greyLevel?: number;
  greedy?: boolean;
  prefill?: string;
}

/** Openings of the uniform baseline's only turn; the best one is the fair one to compare with. */
const PREFILLS = { free: '<think>', names: '<think> i see a', guesses: '<think> guess' };

/** Mid-grey frames are unlike any that the tiny policy saw; the background's level it knows. */
const EMPTY_SCENE = 36;

interface Models {
  before: string;
  after: readonly string[];
  control: readonly string[];
  continued: string | undefined;
}

function looking({ before, after, control, continued }: Models): Evaluation[] {
  const one = (model: string | undefined): string[] => (model === undefined ? [] : [model]);
  const dark = `every frame the grey of an empty scene (${EMPTY_SCENE})`;
  return [
    { name: 'before', label: 'before RL, sampled', models: [before] },
    { name: 'after', label: 'after RL, sampled', models: after },
    { name: 'before-greedy', label: 'before RL, greedy', models: [before], greedy: true },
    { name: 'after-greedy', label: 'after RL, greedy', models: after, greedy: true },
    { name: 'control', label: 'control: RL with permuted rewards, sampled', models: control },
    { name: 'continued', label: 'SFT continued, sampled', models: one(continued) },
    { name: 'continued-greedy', label: 'SFT continued, greedy', models: one(continued), greedy: true },
    { name: 'after-grey', label: 'after RL, every frame mid-grey', models: after, framesFrom: 'grey' },
    { name: 'after-dark', label: `after RL, ${dark}`, models: after, framesFrom: 'grey', greyLevel: EMPTY_SCENE },
    { name: 'after-other', label: "after RL, another video's frames", models: after, framesFrom: 'other' },
  ];
}

function uniform({ before, after }: Models, frames: number): Evaluation[] {
  return (
    [
      ['before', [before]],
      ['after', after],
    ] as const
  ).flatMap(([name, models]) =>
    Object.entries(PREFILLS).map(([kind, prefill]) => ({
      name: `${name}-uniform-${kind}`,
      label: `${name} RL, one uniform look at ${frames} frames, opened with \`${prefill}\``,
      models,
      strategy: 'uniform' as const,
      prefill,
    })),
  );
}

const accuracyOf = (result: Result): number => byQuestion(result).reduce((sum, x) => sum + x, 0);

function markdown(results: readonly Result[]): string {
  const named = new Map(results.map((result) => [result.name, result]));
  const uniforms = results.filter(({ name }) => name.startsWith('after-uniform'));
  const best = uniforms.toSorted((a, b) => accuracyOf(b) - accuracyOf(a))[0];
  const [before, after] = [named.get('before'), named.get('after')];
  return [
    `Accuracy over ${results[0]!.seeds[0]!.length} unseen test questions in %, one try each; 95 % bootstrap interval over the questions. An invalid answer counts as wrong.`,
    '',
    ...resultTable(results),
    '',
    ...DIFFERENCE_HEAD,
    ...difference('gain by RL, sampled', before, after),
    ...difference('gain by RL, greedy', named.get('before-greedy'), named.get('after-greedy')),
    ...difference('after RL, looking again over the best uniform look', best, after),
    ...difference('gain with permuted rewards', before, named.get('control')),
    ...difference('gain by SFT continued, sampled', before, named.get('continued')),
    '',
    '| gain of | valid before | valid after | right of the valid before | after | by valid share | by accuracy among the valid |',
    '|---|---|---|---|---|---|---|',
    ...gainSplit('RL, sampled', before, after),
    ...gainSplit('RL, greedy', named.get('before-greedy'), named.get('after-greedy')),
    '',
    ...seedTable(results),
  ].join('\n');
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      before: { type: 'string', default: 'examples/agent/base' },
      after: { type: 'string', multiple: true },
      control: { type: 'string', multiple: true, default: [] },
      continued: { type: 'string' },
      config: { type: 'string', default: 'configs/frame_thinker.yaml' },
      dataset: { type: 'string' },
      output: { type: 'string', default: 'runs/results' },
      only: { type: 'string', multiple: true },
      limit: { type: 'string' },
      threads: { type: 'string', default: '0' },
    },
  });
  if (!values.after?.length)
    throw new InputError(
      'results: give --after <merged model>, as pnpm merge wrote it, once a seed, and --before if not the base policy',
    );
  const { before, after, control, continued, only } = values;
  const models: Models = { before, after, control, continued };
  const stop = new AbortController();
  const interrupt = listenForInterrupt(console.error, {
    note: 'ending; what is done is kept',
    onSignal: () => stop.abort(),
  });

  const evaluateOne = async (
    evaluation: Evaluation,
    seed: number,
    uniformFrames: number | undefined,
  ): Promise<TryRecord[] | undefined> => {
    const model = evaluation.models[seed]!;
    const { loaded } = evaluationConfig({
      file: values.config,
      model,
      overrides: [`engine.threads=${values.threads}`],
    });
    const { config } = loaded;
    if (evaluation.prefill !== undefined) config.env.answer_prefill = evaluation.prefill;
    const { agent } = config.actor_rollout_ref.rollout;
    const dataset = await evaluationData(config, { dataset: values.dataset, signal: stop.signal });
    console.error(`${evaluation.label}: ${model}`);
    const result = await runEvaluation({
      config,
      model,
      dataset,
      samples: await readEvaluationRows(dataset, config, console.error),
      limit: values.limit === undefined ? undefined : Number(values.limit),
      output: join(values.output, evaluation.models.length > 1 ? `${evaluation.name}-${seed + 1}` : evaluation.name),
      strategy: evaluation.strategy ?? 'spotlight',
      framesFrom: evaluation.framesFrom ?? 'real',
      greyLevel: evaluation.greyLevel,
      compat: 'none',
      sampling: { temperature: 1, topP: 1, topK: -1, doSample: evaluation.greedy !== true },
      tries: 1,
      maxTurns: agent.max_turns,
      maxNewTokens: agent.single_response_max_tokens,
      uniformFrames,
      signal: stop.signal,
    });
    return result?.records;
  };

  const results: Result[] = [];
  /** False: stopped by a signal. */
  const run = async (evaluations: readonly Evaluation[], uniformFrames?: number): Promise<boolean> => {
    for (const evaluation of evaluations) {
      if (evaluation.models.length === 0 || !(only?.includes(evaluation.name) ?? true)) continue;
      const seeds: TryRecord[][] = [];
      for (const seed of evaluation.models.keys()) {
        const records = await evaluateOne(evaluation, seed, uniformFrames);
        if (!records) return false;
        seeds.push(records);
      }
      results.push({ name: evaluation.name, label: evaluation.label, seeds });
    }
    return true;
  };
  try {
    // As many frames as the trained policies saw of a question, at least.
    const seen = (): number => {
      const sampled = results.find(({ name }) => name === 'after');
      return Math.ceil(Math.max(...(sampled?.seeds ?? []).map((records) => reportOf(records).meanImages)));
    };
    const done =
      (await run(looking(models))) &&
      (!results.some(({ name }) => name === 'after') || (await run(uniform(models, seen()), seen())));
    if (!done) return exitCodeOf(interrupt.signal ?? 'SIGINT');
  } finally {
    interrupt.dispose();
  }
  const tables = markdown(results);
  writeFileAtomic(join(values.output, 'results.md'), `${tables}\n`);
  writeFileAtomic(
    join(values.output, 'results.svg'),
    barFigure('Accuracy on unseen test questions; dots: training seeds', bars(results)),
  );
  console.log(tables);
  return 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(error instanceof InputError ? messageOf(error) : error);
  process.exitCode = error instanceof InputError ? 2 : 1;
}
