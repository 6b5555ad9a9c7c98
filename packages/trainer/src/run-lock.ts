/** @file One training at a time in a run folder: the process that runs is named in a file, which a killed one leaves to be taken over. */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isAlive } from '@frame-thinker/checkpoint';
import { explainWriteError, InputError } from '@frame-thinker/core';

const NAME = 'trainer.pid';

/** When a process started, in ticks since the system did: its pid may be another's after it. Empty where the system does not say. */
function startOf(pid: number): string {
  try {
    // Behind the command's name in brackets, which may hold spaces: fields from the third on.
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /s, '')
      .split(' ');
    return fields[19] ?? '';
  } catch {
    return '';
  }
}

/**
 * Takes the folder for this process; call what is returned to give it back.
 * @throws InputError when another process trains in it, or it cannot be written
 */
export function lockRun(dir: string): () => void {
  const file = join(dir, NAME);
  const own = `${process.pid} ${startOf(process.pid)}`;
  try {
    writeFileSync(file, own, { flag: 'wx' });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') {
      // On a full disk it is there, and empty.
      rmSync(file, { force: true });
      throw explainWriteError(error, file);
    }
    const [pid = '', start = ''] = readFileSync(file, 'utf8').split(' ');
    if (Number(pid) > 0 && isAlive(Number(pid)) && startOf(Number(pid)) === start)
      throw new InputError(
        `${dir}: process ${pid} trains in this folder; end it first, or give trainer.experiment_name=… for another run`,
      );
    writeFileSync(file, own);
  }
  return () => rmSync(file, { force: true });
}
