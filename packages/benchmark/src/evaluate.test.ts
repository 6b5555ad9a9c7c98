import { appendFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { REFERENCE_REGIMES } from '@frame-thinker/agent-env';
import { type EndReason, type Group, InputError, type Sample, type Trajectory, type Turn } from '@frame-thinker/core';
import { afterAll, describe, expect, it } from 'vitest';
import { type EvaluationOptions, evaluate } from './evaluate.ts';
import { openEvaluationLog, type TryRecord } from './evaluation-log.ts';
import { reportOf } from './evaluation-report.ts';
import { recordJudge, referenceJudge } from './try-verdicts.ts';

const root = mkdtempSync(join(tmpdir(), 'frame-thinker-evaluation-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));
let folders = 0;
const folder = (): string => join(root, String(folders++));

const sample = (row: number, kind = 'colour'): Sample => ({
  uid: `q${row}`,
  prompt: [{ role: 'user', content: 'What colour is shown at 1:00?' }],
  dataSource: 'd',
  groundTruth: 'B',
  fps: 24,
  totalFrames: 5000,
  extraInfo: { kind, question: 'What colour is shown at 1:00?', total_frames: 5000 },
});

const said = (text: string, more: Partial<Turn> = {}): Turn => ({
  role: 'assistant',
  start: 0,
  end: 0,
  text,
  ms: 0,
  ...more,
});
const answers = (answer: string): Turn =>
  said(`<think>so</think><action>output answer: ${answer}</action>`, { action: { kind: 'answer', answer } });
const looks = (start: number, end: number): Turn[] => [
  said(`<think>look at ${start} ${end}</think><action>choose frames between ${start} and ${end}</action>`, {
    action: { kind: 'frames', start, end },
    frameIndices: [start + 1],
  }),
  { ...said('frame 1: <image>'), role: 'user' },
];

/** What a scripted policy does on a row at a try. */
interface Script {
  turns: Turn[];
  end?: EndReason;
}
const trajectoryOf = ({ sample: { uid }, step }: Group, { turns, end = 'answer' }: Script): Trajectory => ({
  uid,
  sample: 0,
  step,
  ids: Int32Array.of(1, 2),
  mask: Uint8Array.of(0, 1),
  logProbs: new Float32Array(2),
  promptLength: 1,
  frames: [],
  turns,
  end,
  toolCalls: turns.filter(({ action }) => action && action.kind !== 'answer').length,
});

const right: Script = { turns: [answers('(b)')] };
const wrong: Script = { turns: [...looks(100, 200), answers('C')] };
const invalid: Script = { turns: [said('well')], end: 'no_action' };
const unreadable: Script = { turns: [said('', { error: 'no such file' })], end: 'decode_error' };

const TRIES = 3;
interface Asked {
  row: number;
  attempt: number;
  answerOnly: boolean;
}
/** A worker that follows a script, keeps what it was asked, and ends its groups in reverse. */
function scriptedWorker(script: (row: number, attempt: number) => Script, asked: Asked[], tries = TRIES) {
  return {
    async *rollout(groups: readonly Group[]): AsyncGenerator<Trajectory[]> {
      for (const group of [...groups].reverse()) {
        const [row, attempt] = [Math.floor(group.position / tries), group.position % tries];
        expect(group).toMatchObject({ n: 1, step: 0, sample: { uid: String(row) } });
        asked.push({ row, attempt, answerOnly: group.answerOnly === true });
        yield [trajectoryOf(group, script(row, attempt))];
      }
    },
  };
}

const setting = (
  dir: string,
  worker: EvaluationOptions['worker'],
  rows: number,
  more: Partial<EvaluationOptions> = {},
): EvaluationOptions => ({
  worker,
  samples: Array.from({ length: rows }, (_, row) => sample(row, row % 2 ? 'shape' : 'colour')),
  strategy: 'spotlight',
  tries: TRIES,
  sampling: { temperature: 0.6, topP: 0.9, topK: -1, doSample: true },
  judge: recordJudge(REFERENCE_REGIMES),
  framesOf: () => 8,
  decode: (ids) => ids.join(' '),
  log: openEvaluationLog(dir, { a: 1 }),
  ...more,
});
const brief = (records: readonly TryRecord[] | undefined) =>
  records?.map((record) => [record.row, record.try, record.outcome]);

describe('evaluate', () => {
  it('takes the first valid try, right or wrong, and allows only the answer on the last', async () => {
    const scripts = [[right], [invalid, wrong], [invalid, invalid, right], [invalid, invalid, invalid], [unreadable]];
    const asked: Asked[] = [];
    const worker = scriptedWorker((row, attempt) => scripts[row]![attempt]!, asked);
    const dir = folder();
    const records = await evaluate(setting(dir, worker, scripts.length));
    expect(brief(records)).toEqual([
      [0, 0, 'right'],
      [1, 1, 'wrong'],
      [2, 2, 'right'],
      [3, 2, 'format_error'],
      [4, 0, 'unreadable'],
    ]);
    expect(asked.filter(({ answerOnly }) => answerOnly).map(({ row, attempt }) => [row, attempt])).toEqual([
      [3, 2],
      [2, 2],
    ]);
    const lines = readFileSync(join(dir, 'records.jsonl'), 'utf8').trimEnd().split('\n');
    expect(lines).toHaveLength(5 + 3 + 2);
    expect(JSON.parse(lines[0]!)).toMatchObject({ row: 4, final: true, rules: [{ message: 'no such file' }] });
    expect(records![1]).toMatchObject({ answer: 'C', ground_truth: 'B', choices: 1, images: 16, text: '2' });
  });

  it('with one try looks as long as it likes; uniform only answers', async () => {
    const one: Asked[] = [];
    await evaluate(
      setting(
        folder(),
        scriptedWorker(() => invalid, one, 1),
        2,
        { tries: 1 },
      ),
    );
    expect(one.map(({ answerOnly }) => answerOnly)).toEqual([false, false]);
    const uniform: Asked[] = [];
    const worker = scriptedWorker(() => right, uniform, 1);
    await evaluate(setting(folder(), worker, 2, { tries: 1, strategy: 'uniform' }));
    expect(uniform.map(({ answerOnly }) => answerOnly)).toEqual([true, true]);
  });

  it('goes on after a failure, a torn line and a stop with the tries that are missing', async () => {
    const script = (row: number, attempt: number): Script =>
      attempt < row % 3 ? invalid : row % 2 ? { turns: [answers('A')] } : right;
    const [whole, rows] = [await evaluate(setting(folder(), scriptedWorker(script, []), 9)), 9];

    const dir = folder();
    const asked: Asked[] = [];
    const dies = {
      async *rollout(groups: readonly Group[]): AsyncGenerator<Trajectory[]> {
        let given = 0;
        for await (const group of scriptedWorker(script, asked).rollout(groups)) {
          if (++given === 4) throw new Error('the worker died');
          yield group;
        }
      },
    };
    const first = setting(dir, dies, rows);
    await expect(evaluate(first)).rejects.toThrow('the worker died');
    first.log.close();
    asked.pop(); // The one that died was not written down.
    appendFileSync(join(dir, 'records.jsonl'), '{"version":1,"row":0,"fin');

    const stop = new AbortController();
    const stopped = await evaluate(
      setting(dir, scriptedWorker(script, asked), rows, {
        signal: stop.signal,
        onRecord: ({ row, try: attempt }) => {
          if (row === 1 && attempt === 0) stop.abort();
        },
      }),
    );
    expect(stopped).toBeUndefined();
    const records = await evaluate(setting(dir, scriptedWorker(script, asked), rows));
    expect(records).toEqual(whole);
    const keys = asked.map(({ row, attempt }) => `${row}.${attempt}`);
    expect(new Set(keys).size).toBe(keys.length);
  });

  it('stops while a question is on its way', async () => {
    const stop = new AbortController();
    const hangs = {
      async *rollout(): AsyncGenerator<Trajectory[]> {
        stop.abort();
        await new Promise(() => {});
      },
    };
    expect(await evaluate(setting(folder(), hangs, 2, { signal: stop.signal }))).toBeUndefined();
  });

  it('refuses a folder that holds another evaluation, or a damaged one, in one line', () => {
    const dir = folder();
    openEvaluationLog(dir, { sampling: { temperature: 0.6 }, model: 'a' }).close();
    openEvaluationLog(dir, { model: 'a', sampling: { temperature: 0.6 } }).close();
    const open = () => openEvaluationLog(dir, { sampling: { temperature: 0 }, model: 'a', tries: 1 });
    expect(open).toThrow(InputError);
    expect(open).toThrow('(sampling.temperature: 0.6 → 0, tries: absent → 1)');
    appendFileSync(join(dir, 'records.jsonl'), 'nothing\n');
    expect(() => openEvaluationLog(dir, { model: 'a', sampling: { temperature: 0.6 } })).toThrow(
      /records\.jsonl:1: not JSON/,
    );
    expect(() => openEvaluationLog(join(dir, 'records.jsonl', 'below'), {})).toThrow(/cannot be written/);
  });
});

describe('the original program’s judge', () => {
  it('compares the rest of the action as a string, and checks the whole text', () => {
    const judge = referenceJudge(REFERENCE_REGIMES);
    const of = (script: Script) =>
      judge(trajectoryOf({ sample: sample(0), position: 0, n: 1, step: 0 }, script), sample(0)).outcome;
    expect(of({ turns: [answers('B')] })).toBe('right');
    expect(of(right)).toBe('wrong'); // "(b)" is not "B".
    expect(of({ turns: [...looks(10, 100), answers('B')] })).toBe('right');
    // A think that names other numbers is no matter to it; a range twice is.
    expect(of({ turns: [...looks(10, 100), ...looks(10, 100), answers('B')] })).toBe('format_error');
    expect(of(invalid)).toBe('format_error');
    expect(of(unreadable)).toBe('unreadable');
  });
});

describe('reportOf', () => {
  it('counts unreadable videos apart and means over valid answers', async () => {
    const scripts = [right, wrong, invalid, unreadable, right];
    const records = await evaluate(
      setting(
        folder(),
        scriptedWorker((row) => scripts[row]!, [], 1),
        scripts.length,
        { tries: 1 },
      ),
    );
    expect(reportOf(records!)).toEqual({
      questions: 5,
      right: 2,
      wrong: 1,
      formatErrors: 1,
      unreadable: 1,
      accuracy: 0.5,
      validShare: 0.75,
      meanImages: (8 + 16 + 8) / 3,
      meanToolCalls: 1 / 3,
      meanTries: 1,
      byToolCalls: [
        { toolCalls: 0, questions: 2, right: 2, accuracy: 1 },
        { toolCalls: 1, questions: 1, right: 0, accuracy: 0 },
      ],
      byKind: [
        { kind: 'colour', questions: 3, right: 2, accuracy: 2 / 3 },
        { kind: 'shape', questions: 1, right: 0, accuracy: 0 },
      ],
      formatErrorEnds: { no_action: 1 },
      brokenRules: { no_answer: 1, not_executed: 1, think_action_count: 1 },
      unreadableEnds: { decode_error: 1 },
    });
    expect(reportOf([])).toMatchObject({ questions: 0, accuracy: 0, validShare: 0, meanImages: 0 });
  });
});
