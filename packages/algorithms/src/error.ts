/** @file The package's own error: it has no dependencies. */

/** Arguments that an algorithm cannot work with: names the function, the argument and what does not fit. */
export class AlgorithmError extends Error {
  override name = 'AlgorithmError';
}
