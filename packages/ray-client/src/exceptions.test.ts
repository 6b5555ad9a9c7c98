import { type PickleValue, pickleDict, pickleGlobal, pickleTuple, writePickle } from '@frame-thinker/pickle';
import { describe, expect, it } from 'vitest';
import { RayActorDiedError, RayObjectLostError, RayPythonError, RayTaskError } from './errors.ts';
import { decodeException, failureOf } from './exceptions.ts';

const opaque = (callee: PickleValue, args: PickleValue[], state?: PickleValue): PickleValue => ({
  kind: 'opaque',
  instance: false,
  callee,
  args,
  state,
});

describe('exceptions', () => {
  const ownClass = opaque(pickleGlobal('ray.cloudpickle.cloudpickle _make_skeleton_class'), [
    pickleGlobal('builtins type'),
    'Mine',
    pickleTuple(pickleGlobal('builtins ValueError')),
    pickleDict([['__module__', 'job']]),
    'id',
    null,
  ]);
  const taskError = (cause: PickleValue, traceback: string): Uint8Array =>
    writePickle(opaque(pickleGlobal('ray.exceptions RayTaskError'), ['f', traceback, cause, null, null, null]));

  it('of tasks carry type, message and traceback of the cause, whatever its class', () => {
    const traceback = '\u001b[36mray::f()\u001b[39m\nTraceback (most recent call last):\njob.Mine: why';
    const error = failureOf(taskError(opaque(ownClass, ['why']), traceback));
    expect(error).toBeInstanceOf(RayTaskError);
    expect(error).toMatchObject({ type: 'job.Mine', message: 'why' });
    expect(error?.traceback).toBe('ray::f()\nTraceback (most recent call last):\njob.Mine: why');
    const bare = failureOf(taskError(opaque(pickleGlobal('builtins KeyError'), []), 'Traceback\nKeyError: 1'));
    expect(bare).toMatchObject({ type: 'builtins.KeyError', message: '1' });
  });

  it('of actors are told by their class; others and damaged ones are some error', () => {
    const died = opaque(pickleGlobal('ray.exceptions ActorDiedError'), [], pickleDict([['error_msg', 'it is gone']]));
    expect(failureOf(writePickle(died))).toBeInstanceOf(RayActorDiedError);
    expect(failureOf(writePickle(died))?.message).toBe('it is gone');
    expect(failureOf(writePickle(opaque(pickleGlobal('builtins ValueError'), ['x'])))).toBeUndefined();
    expect(decodeException(writePickle(opaque(pickleGlobal('builtins ValueError'), ['x'])))).toMatchObject({
      type: 'builtins.ValueError',
      message: 'x',
    });
    expect(decodeException(Uint8Array.of(1, 2)).message).toMatch(/can't be read/);
  });

  it('of objects that are lost say which and why, and are no failure of the task whose argument they were', () => {
    const lost = opaque(
      pickleGlobal('ray.exceptions ObjectReconstructionFailedError'),
      ['ab01'],
      pickleDict([
        ['object_ref_hex', 'ab01'],
        ['reason_message', 'no retries'],
      ]),
    );
    const type = 'ray.exceptions.ObjectReconstructionFailedError';
    const message = 'the object ab01 is lost (ObjectReconstructionFailedError): no retries';
    expect(failureOf(writePickle(lost))).toEqual(new RayObjectLostError({ type, message, traceback: '' }));
    const end = `${type}: Failed to retrieve object ab01.\n`;
    const frame = 'Traceback (most recent call last):\n  File "python/ray/_raylet.pyx", line 864, in ray._raylet';
    const argument = `${frame}.raise_if_dependency_failed\n${end}`;
    expect(failureOf(taskError(lost, argument))).toEqual(
      new RayObjectLostError({ type, message, traceback: argument }),
    );
    const within = `${frame}.execute_task\n  File "<f>", line 5, in f\n${end}`;
    expect(failureOf(taskError(lost, within))).toEqual(new RayTaskError({ type, message, traceback: within }));
    const owner = opaque(pickleGlobal('ray.exceptions OwnerDiedError'), ['01'], pickleDict([['object_ref_hex', '01']]));
    expect(failureOf(writePickle(owner))?.message).toBe('the object 01 is lost (OwnerDiedError)');
    // The argument of another task that failed is that task's failure.
    const raised = opaque(pickleGlobal('builtins ValueError'), ['x']);
    expect(failureOf(taskError(raised, argument))).toBeInstanceOf(RayTaskError);
  });

  it('of tasks that end in an exception of Ray have its text', () => {
    const error_msg = 'The actor died';
    const died = opaque(pickleGlobal('ray.exceptions ActorDiedError'), [], pickleDict([['error_msg', error_msg]]));
    const traceback = `Traceback\nray.exceptions.ActorDiedError: ${error_msg}\n`;
    const error = failureOf(taskError(died, traceback));
    expect(error).toEqual(new RayTaskError({ type: 'ray.exceptions.ActorDiedError', message: error_msg, traceback }));
  });

  it('that no pickle takes, or that a function makes, have the type and message of the traceback', () => {
    const traceback = [
      'Traceback (most recent call last):',
      '  File "<f>", line 24, in f',
      '    raise Mine(1)',
      '          ^^^^^^^',
      'job.Mine: why',
      'so\n',
    ].join('\n');
    const made = opaque(opaque(pickleGlobal('ray.cloudpickle.cloudpickle _make_function'), []), ['other']);
    const replaced = opaque(pickleGlobal('ray.exceptions RayError'), ["Exception job.Mine isn't serializable: …"]);
    for (const cause of [made, replaced]) {
      const error = failureOf(taskError(cause, traceback));
      expect(error).toBeInstanceOf(RayTaskError);
      expect(error).toMatchObject({ type: 'job.Mine', message: 'why\nso', traceback });
    }
  });

  describe('that could not be read again', () => {
    const unserializable = (text: string) =>
      failureOf(writePickle(opaque(pickleGlobal('ray.exceptions UnserializableException'), [text])));
    const task = 'ray.exceptions.RayTaskError: \u001b[36mray::f()\u001b[39m (pid=1, ip=127.0.0.1)\n';
    const frame = '  File "<f>", line 21, in f\n';

    it.each([
      ['one line', `${task}${frame}job.Mine: 1-2\n`, 'job.Mine', '1-2'],
      ['no message', `${task}${frame}job.Mine\n`, 'job.Mine', 'job.Mine'],
      ['several lines', `${task}${frame}    raise x\njob.Mine: 1\n  more\nLast: 2\n`, 'job.Mine', '1\n  more\nLast: 2'],
      [
        'a cause',
        `${task}${frame}KeyError: 1\n\nThe above exception was the direct cause of the following exception:\n\nray::f()\n${frame}job.Mine: 1-2\n`,
        'job.Mine',
        '1-2',
      ],
      [
        'a group',
        'ray.exceptions.RayTaskError: + Exception Group Traceback (most recent call last):\n  |   File "<f>", line 33, in f\n' +
          '  | ExceptionGroup: many (2 sub-exceptions)\n  +-+---------------- 1 ----------------\n    | job.Mine: 1-2\n' +
          '    +------------------------------------\n',
        'builtins.ExceptionGroup',
        'many (2 sub-exceptions)',
      ],
    ])('are errors of their task, with %s', (_, text, type, message) => {
      const error = unserializable(text);
      expect(error).toBeInstanceOf(RayTaskError);
      expect(error).toMatchObject({ type, message });
      expect(error?.traceback).toMatch(/^ray\.exceptions\.RayTaskError: (ray::f|\+ Exception)/);
    });

    it("are what Ray's exception around them was", () => {
      const died =
        `Traceback (most recent call last):\n\n${frame}\nray.exceptions.GetTimeoutError: late\n\n\nDuring handling of the above exception, another exception ` +
        `occurred:\n\n\nTraceback (most recent call last):\n\n${frame}\n` +
        `ray.exceptions.ActorDiedError: The actor died because of an error raised in its creation task\n${frame}job.Mine: 1-2\n`;
      const error = unserializable(died);
      expect(error).toBeInstanceOf(RayActorDiedError);
      expect(error?.message).toMatch(/^The actor died because .*\n.*\njob\.Mine: 1-2$/);
      expect(error?.traceback).toBe(died);
      expect(unserializable('anything')).toEqual(
        new RayPythonError({
          type: 'ray.exceptions.UnserializableException',
          message: 'anything',
          traceback: 'anything',
        }),
      );
    });
  });
});
