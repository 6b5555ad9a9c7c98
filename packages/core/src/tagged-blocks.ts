/** @file `<tag>…</tag>` blocks of a text. */

export interface TaggedBlock {
  /** The text between the tags. */
  content: string;
  /** Where the opening tag starts and the closing tag ends, in UTF-16 units: [start, end). */
  start: number;
  end: number;
}

/**
 * The blocks that Python's `re.findall('<tag>(.*?)</tag>', text, re.DOTALL)` finds, in order: each opening tag up to the
 * next closing one. Linear in the length of the text.
 */
export function taggedBlocks(text: string, tag: string, from = 0): TaggedBlock[] {
  return delimited(text, `<${tag}>`, `</${tag}>`, from);
}

/** The stretches from each `open` to the next `close`, non-overlapping, in order. */
export function delimited(text: string, open: string, close: string, from = 0): TaggedBlock[] {
  const blocks: TaggedBlock[] = [];
  for (let at = from; ; ) {
    const start = text.indexOf(open, at);
    const stop = start < 0 ? -1 : text.indexOf(close, start + open.length);
    if (stop < 0) return blocks;
    at = stop + close.length;
    blocks.push({ content: text.slice(start + open.length, stop), start, end: at });
  }
}
