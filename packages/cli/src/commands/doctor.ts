import { defineCommand } from '../command.ts';

export const doctor = defineCommand({
  name: 'doctor',
  describe: 'Says what is there - engines, video, ffmpeg, Ray, memory, disk - and what each gap costs.',
  flags: { json: { type: 'boolean', default: false, describe: 'print as JSON' } },
  examples: ['pnpm run doctor'],
  async run({ flags }) {
    const { examine, printFindings } = await import('../doctor/examine.ts');
    const findings = await examine();
    console.log(flags.json ? JSON.stringify(findings, null, 2) : printFindings(findings));
    return findings.some(({ state }) => state === 'missing') ? 1 : 0;
  },
});
