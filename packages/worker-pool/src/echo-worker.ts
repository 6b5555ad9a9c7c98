/** @file A worker for tests: answers `echo` with what it got, fails on `fail`, ends itself on `crash`, streams on `count`. */
import { bytesOf } from '@frame-thinker/checkpoint';
import { encodeFrame } from './frames.ts';
import { errorReply, serveStdin } from './worker-server.ts';

const server = serveStdin(({ call, tensors }, _body) => {
  const { id, method, params } = call;
  const reply = (part: object, sent: Parameters<typeof encodeFrame>[1] = []): void =>
    server.write(encodeFrame({ v: 1, id, ms: 0, ...part }, sent));
  if (method === 'echo') reply({ result: params }, tensors);
  else if (method === 'fail') server.write(encodeFrame(errorReply(id, 0, new RangeError('as asked'))));
  else if (method === 'crash') {
    console.error('the last words');
    process.exit(7);
  } else if (method === 'garbage') server.write([new Uint8Array(8).fill(255)]);
  else if (method === 'count') {
    for (let i = 0; i < Number(params.to); i++) reply({ partial: { i } });
    reply({ result: { bytes: [...tensors.values()].reduce((sum, t) => sum + bytesOf(t.data).length, 0) } });
  }
});
