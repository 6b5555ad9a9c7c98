/** @file The environment's replies, as text. */

const INDENT = ' '.repeat(8);

/**
 * The original's literal observation: closes the turn (`<|im_end|>` doubles with the model's own), a user turn with
 * `message`, opens the assistant turn; its source's indentation is part of it.
 */
export function referenceObservation(message: string): string {
  return `<|im_end|>\n${INDENT}<|im_start|>user\n${INDENT}${message}<|im_end|>\n${INDENT}<|im_start|>assistant\n${INDENT}`;
}

/** Lines that show frames, each `<image>` one of them. */
export function frameLines(indices: readonly number[]): string {
  return indices.map((index) => `frame ${index}: <image>`).join('\n');
}

/** The original evaluation program's form: neither space nor newline. */
export function compactFrames(indices: readonly number[]): string {
  return indices.map((index) => `frame ${index}:<image>`).join('');
}
