import { defineCommand } from '../command.ts';

export const doctor = defineCommand({
  name: 'doctor',
  describe: 'Says what is there - engines, video, ffmpeg, Ray, memory, disk - and what each gap costs.',
  flags: {
    json: { type: 'boolean', default: false, describe: 'print as JSON' },
    'ray-address': { type: 'string', describe: 'a Ray cluster to look at, ray://host:10001' },
  },
  examples: ['pnpm run doctor', 'pnpm run doctor --ray-address ray://127.0.0.1:10001'],
  async run({ flags }) {
    const { examine, printFindings } = await import('../doctor/examine.ts');
    const findings = await examine({ rayAddress: flags['ray-address'] });
    console.log(flags.json ? JSON.stringify(findings, null, 2) : printFindings(findings));
    return findings.some(({ state }) => state === 'missing') ? 1 : 0;
  },
});
