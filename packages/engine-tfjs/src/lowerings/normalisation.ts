/** @file Normalised rows and rotary embeddings. */
import type { TfTensor } from '../tfjs.ts';
import type { Lowerings } from './lowering.ts';

export const NORMALISATION: Lowerings<'softmax' | 'log_softmax' | 'rms_norm' | 'rope'> = {
  softmax: ({ tf }) => tf.softmax,

  // x − max − log Σ exp(x − max)
  log_softmax: ({ tf, shape }) => {
    const last = [shape.length - 1];
    return (x) => {
      const shifted = tf.sub(x!, tf.max(x!, last, true));
      return tf.sub(shifted, tf.log(tf.sum(tf.exp(shifted), last, true)));
    };
  },

  rms_norm: ({ tf, attributes: { eps }, shape, constant }) => {
    const last = [shape.length - 1];
    const guard = constant(Float32Array.of(eps), []);
    return (x, weight) => {
      const norm = tf.sqrt(tf.add(tf.mean(tf.square(x!), last, true), guard));
      return tf.mul(tf.div(x!, norm), weight!);
    };
  },

  // (x1, x2) → (x1 cos − x2 sin, x2 cos + x1 sin), head by head.
  rope: ({ tf, inputs: [, cos], attributes: { heads }, shape }) => {
    const [rows, half] = cos!.shape as [number, number];
    const size = [rows, heads, half];
    const angles = [rows, 1, half];
    return (x, c, s) => {
      const split = tf.reshape(x!, [rows, heads, 2 * half]);
      const [x1, x2] = [0, half].map((start) => tf.slice(split, [0, 0, start], size)) as [TfTensor, TfTensor];
      const [cosine, sine] = [tf.reshape(c!, angles), tf.reshape(s!, angles)];
      const first = tf.sub(tf.mul(x1, cosine), tf.mul(x2, sine));
      const second = tf.add(tf.mul(x2, cosine), tf.mul(x1, sine));
      return tf.reshape(tf.concat([first, second], 2), shape);
    };
  },
};
