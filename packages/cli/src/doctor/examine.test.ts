import { describe, expect, it } from 'vitest';
import { examine, printFindings } from './examine.ts';
import { probe, probeModule, resolveFrom } from './probe.ts';

describe('probe', () => {
  it('tells why there is no answer', async () => {
    expect(await probe('no-such-program', [])).toEqual({ ok: false, why: 'no-such-program is not there' });
    expect(await probe(process.execPath, ['-e', 'setTimeout(() => {}, 60_000)'], 200)).toEqual({
      ok: false,
      why: 'no answer within 0.2 s',
    });
    expect(await probe(process.execPath, ['-e', "console.error('x\\nError: broken\\ny'); process.exit(3)"])).toEqual({
      ok: false,
      why: 'Error: broken',
    });
    expect(await probeModule('/no/such/module.js', '1')).toMatchObject({ ok: false });
    expect(await probeModule('node:os', 'm.EOL.length')).toEqual({ ok: true, text: '1' });
  });

  it('finds dependencies of our packages, and says when there are none', () => {
    expect(resolveFrom('@frame-thinker/video', 'node-av')).toMatch(/node-av/);
    expect(resolveFrom('@frame-thinker/video', 'no-such-package')).toBeUndefined();
  });
});

describe('doctor', () => {
  it('finds the engine and the video library that training needs, and the cost of every gap', async () => {
    const findings = await examine();
    const state = new Map(findings.map((finding) => [finding.name, finding.state]));
    expect(state.get('ONNX Runtime')).toBe('ok');
    expect(state.get('node-av')).toBe('ok');
    expect(findings.filter(({ state: s, cost }) => s !== 'ok' && !cost)).toEqual([]);
  });

  it('says that no cluster answers', async () => {
    const found = (await examine({ rayAddress: 'http://nowhere' })).find(({ name }) => name === 'Ray');
    expect(found).toMatchObject({ state: 'gap', cost: expect.stringContaining('ray.address=http://nowhere') });
    expect(found!.found).toMatch(/expected ray:\/\/host:port/);
  });

  it('says that training cannot run when something is missing', () => {
    const text = printFindings([{ name: 'ONNX Runtime', state: 'missing', found: 'none', cost: 'no training' }]);
    expect(text).toMatch(/missing +ONNX Runtime +none\n +→ no training\n\nTraining can't run: ONNX Runtime\./);
  });
});
