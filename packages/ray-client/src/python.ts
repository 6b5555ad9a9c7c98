/** @file Python code that the cluster runs: given as source text, or named in a module that is there. */
import { type PickleValue, pickleCall, pickleDict, pickleGlobal } from '@frame-thinker/pickle';

/** A Python function or class, as the cluster finds it. */
export interface PythonCode {
  /** The name in the source or the module; shown in Ray's own lists. */
  readonly name: string;
  readonly pickled: PickleValue;
}

const IDENTIFIER = /^[A-Za-z_][A-Za-z0-9_]*$/;

function checked(name: string): string {
  if (!IDENTIFIER.test(name)) throw new TypeError(`${JSON.stringify(name)} is not a Python name`);
  return name;
}

/**
 * The function or class that `source` defines under `name`. The source is a module of its own and imports what it needs. It
 * runs once, on the head node; from there the function or class travels by value, with the globals that it uses.
 */
export function pythonSource(source: string, name: string): PythonCode {
  // eval takes one expression: a call that runs the source in a new namespace and picks the name.
  const pick =
    "(lambda source, name: (lambda space: (exec(compile(source, '<' + name + '>', 'exec'), space), space[name])[1])" +
    "({'__name__': 'source_of_' + name, '__builtins__': __builtins__}))(source, name)";
  const space = pickleDict([
    ['source', source],
    ['name', checked(name)],
  ]);
  return { name, pickled: pickleCall('builtins eval', pick, space) };
}

/** The function or class `name` of a module that the cluster's Python can import: installed, or in the working directory. */
export function pythonModule(module: string, name: string): PythonCode {
  module.split('.').forEach(checked);
  return { name, pickled: pickleGlobal(`${module} ${checked(name)}`) };
}
