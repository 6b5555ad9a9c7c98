/** @file The graph's own error: the package has no dependencies. */

/** A graph that cannot be: names the op, the node and what does not fit. */
export class GraphError extends Error {
  override name = 'GraphError';
}
