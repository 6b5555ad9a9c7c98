/**
 * @file `npx tsx scripts/results.ts --before BASE --after MERGED [--control MERGED]`: the numbers of docs/results.md. Every
 * evaluation is one try per question; each goes on where it was stopped. Prints a Markdown table with 95 % bootstrap intervals.
 */
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { bootstrapInterval, type Interval, reportOf, type Strategy, type TryRecord } from '@frame-thinker/benchmark';
import { evaluationConfig, evaluationData, type FramesFrom, runEvaluation } from '@frame-thinker/cli';
import { InputError, messageOf, writeFileAtomic } from '@frame-thinker/core';
import { exitCodeOf, listenForInterrupt, readEvaluationRows } from '@frame-thinker/trainer';

interface Evaluation {
  /** Folder below --output, and how it is asked for with --only. */
  name: string;
  label: string;
  model: string;
  strategy?: Strategy;
  framesFrom?: FramesFrom;
  greyLevel?: number;
  greedy?: boolean;
  prefill?: string;
}

/** Openings of the uniform baseline's only turn; the better one is the fair one to compare with. */
const PREFILLS = { free: '<think>', names: '<think> i see a', guesses: '<think> guess' };

/** Mid-grey frames are unlike any that the tiny policy saw, so it does not even answer; the background's level it knows. */
const EMPTY_SCENE = 36;

function plan({
  before,
  after,
  control,
}: {
  before: string;
  after: string;
  control: string | undefined;
}): Evaluation[] {
  const policies = [
    ['before', before],
    ['after', after],
  ] as const;
  return [
    ...policies.flatMap(([name, model]): Evaluation[] => [
      { name, label: `${name} RL, sampled`, model },
      { name: `${name}-greedy`, label: `${name} RL, greedy`, model, greedy: true },
      ...Object.entries(PREFILLS).map(
        ([kind, prefill]): Evaluation => ({
          name: `${name}-uniform-${kind}`,
          label: `${name} RL, one uniform look, opened with \`${prefill}\``,
          model,
          strategy: 'uniform',
          prefill,
        }),
      ),
    ]),
    { name: 'after-grey', label: 'after RL, every frame mid-grey', model: after, framesFrom: 'grey' },
    {
      name: 'after-dark',
      label: `after RL, every frame the grey of an empty scene (${EMPTY_SCENE})`,
      model: after,
      framesFrom: 'grey',
      greyLevel: EMPTY_SCENE,
    },
    { name: 'after-other', label: "after RL, another video's frames", model: after, framesFrom: 'other' },
    ...(control === undefined
      ? []
      : [{ name: 'control', label: 'control: RL with permuted rewards, sampled', model: control }]),
  ];
}

const percent = (x: number): string => (100 * x).toFixed(1);
const shown = ({ mean, low, high }: Interval): string => `${percent(mean)} (${percent(low)} to ${percent(high)})`;
const rightOf = (records: readonly TryRecord[]): number[] =>
  records.map(({ outcome }) => (outcome === 'right' ? 1 : 0));

function tableRow({ label }: Evaluation, records: readonly TryRecord[]): string {
  const report = reportOf(records);
  const kinds = report.byKind.map(({ kind, accuracy }) => `${kind} ${percent(accuracy)}`).join(', ');
  const cells = [
    label,
    shown(bootstrapInterval(rightOf(records))),
    percent(report.validShare),
    report.meanImages.toFixed(1),
    report.meanToolCalls.toFixed(2),
    kinds,
    String(report.unreadable),
  ];
  return `| ${cells.join(' | ')} |`;
}

/** Paired over the questions, in points. */
function difference(title: string, a: readonly TryRecord[] | undefined, b: readonly TryRecord[] | undefined): string[] {
  if (!a || !b) return [];
  const [x, y] = [rightOf(a), rightOf(b)];
  return [`- ${title}: ${shown(bootstrapInterval(y.map((value, i) => value - x[i]!)))} points`];
}

function markdown(done: ReadonlyMap<Evaluation, TryRecord[]>): string {
  const named = new Map([...done].map(([{ name }, records]) => [name, records]));
  const accuracy = (records: readonly TryRecord[]): number => reportOf(records).accuracy;
  const uniform = [...named].filter(([name]) => name.startsWith('after-uniform')).map(([, records]) => records);
  const best = uniform.sort((a, b) => accuracy(b) - accuracy(a))[0];
  const questions = [...done.values()][0]?.length ?? 0;
  return [
    `Accuracy over ${questions} unseen test questions in %, one try each; 95 % bootstrap interval. An invalid answer counts as wrong.`,
    '',
    '| evaluation | accuracy | valid % | frames | tool calls | by kind | unreadable |',
    '|---|---|---|---|---|---|---|',
    ...[...done].map(([evaluation, records]) => tableRow(evaluation, records)),
    '',
    ...difference('gain by RL, sampled', named.get('before'), named.get('after')),
    ...difference('gain by RL, greedy', named.get('before-greedy'), named.get('after-greedy')),
    ...difference('after RL, looking again over the best uniform look', best, named.get('after')),
    ...difference('gain with permuted rewards', named.get('before'), named.get('control')),
  ].join('\n');
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      before: { type: 'string', default: 'examples/agent/base' },
      after: { type: 'string' },
      control: { type: 'string' },
      config: { type: 'string', default: 'configs/frame_thinker.yaml' },
      dataset: { type: 'string' },
      output: { type: 'string', default: 'runs/results' },
      only: { type: 'string', multiple: true },
      limit: { type: 'string' },
      threads: { type: 'string', default: '0' },
    },
  });
  if (values.after === undefined)
    throw new InputError(
      'results: give --after <merged model>, as pnpm merge wrote it, and --before if not the base policy',
    );
  const { before, after, control } = values;
  const evaluations = plan({ before, after, control }).filter(({ name }) => values.only?.includes(name) ?? true);
  const stop = new AbortController();
  const interrupt = listenForInterrupt(console.error, {
    note: 'ending; what is done is kept',
    onSignal: () => stop.abort(),
  });
  const done = new Map<Evaluation, TryRecord[]>();
  try {
    for (const evaluation of evaluations) {
      const { loaded } = evaluationConfig({
        file: values.config,
        model: evaluation.model,
        overrides: [`engine.threads=${values.threads}`],
      });
      const { config } = loaded;
      if (evaluation.prefill !== undefined) config.env.answer_prefill = evaluation.prefill;
      const { agent } = config.actor_rollout_ref.rollout;
      const dataset = await evaluationData(config, { dataset: values.dataset, signal: stop.signal });
      console.error(`${evaluation.label}: ${evaluation.model}`);
      const result = await runEvaluation({
        config,
        model: evaluation.model,
        dataset,
        samples: await readEvaluationRows(dataset, config, console.error),
        limit: values.limit === undefined ? undefined : Number(values.limit),
        output: join(values.output, evaluation.name),
        strategy: evaluation.strategy ?? 'spotlight',
        framesFrom: evaluation.framesFrom ?? 'real',
        greyLevel: evaluation.greyLevel,
        compat: 'none',
        sampling: { temperature: 1, topP: 1, topK: -1, doSample: evaluation.greedy !== true },
        tries: 1,
        maxTurns: agent.max_turns,
        maxNewTokens: agent.single_response_max_tokens,
        signal: stop.signal,
      });
      if (!result) return exitCodeOf(interrupt.signal ?? 'SIGINT');
      done.set(evaluation, result.records);
    }
  } finally {
    interrupt.dispose();
  }
  const table = markdown(done);
  writeFileAtomic(join(values.output, 'results.md'), `${table}\n`);
  console.log(table);
  return 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(error instanceof InputError ? messageOf(error) : error);
  process.exitCode = error instanceof InputError ? 2 : 1;
}
