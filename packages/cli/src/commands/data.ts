import { loadConfig } from '@frame-thinker/config';
import { createProgress, InputError } from '@frame-thinker/core';
import { defineCommand } from '../command.ts';

export const data = defineCommand({
  name: 'data',
  describe:
    'Makes data sets. synth: renders the synthetic long-video task into data/synth/<seed>/, reusing what is there.',
  words: [['synth']],
  flags: {
    config: {
      type: 'string',
      default: 'configs/frame_thinker.yaml',
      describe: 'YAML file whose data.synth is rendered',
    },
    output: { type: 'string', default: 'data/synth', describe: 'folder above <seed>/' },
    jobs: { type: 'number', default: 1, describe: 'videos rendered at once' },
  },
  overrides: 'keys of the configuration, e.g. data.synth.seed=2',
  examples: ['pnpm data synth', 'pnpm data synth data.synth.seed=2 data.synth.test_videos=20'],
  async run({ flags: { config: file, output, jobs }, overrides }) {
    const { synth } = loadConfig({ file, overrides }).config.data;
    if (synth === null) throw new InputError(`${file}: data.synth is not set: there is nothing to render`);
    const [{ synthDataset }, { renderVideos }] = await Promise.all([
      import('@frame-thinker/trainer'),
      import('@frame-thinker/benchmark'),
    ]);
    const dataset = synthDataset(synth, output);
    const bar = createProgress({ label: 'render', unit: 'video', total: dataset.videos.length });
    const rendering = renderVideos({ dataset, jobs, onVideo: (done) => bar.set(done) });
    await rendering.done;
    bar.end(`${rendering.reused} were there`);
    for (const [split, path] of Object.entries(dataset.files)) console.log(`${split.padEnd(6)}${path}`);
    return 0;
  },
});
