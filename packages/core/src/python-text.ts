/**
 * @file Text as Python 3's `str`, `re` and `int()` see it: the original programs' results hang on these classes.
 * `\d` is any Unicode decimal digit, `\s` has \x1c-\x1f and \x85 but not \ufeff, `\b` is Unicode.
 */

/** Python's `\s` and `str.isspace()`, as the inside of a character class. */
const SPACE = '\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000';
/** Python's `\w`: letters, numbers and the underscore; no combining marks. */
const WORD = '\\p{L}\\p{N}_';
const WORD_BOUNDARY = `(?:(?<=[${WORD}])(?![${WORD}])|(?<![${WORD}])(?=[${WORD}]))`;

/**
 * A JavaScript RegExp with Python's meaning of `\d \s \S \w \b`. `.` matches a newline only with the flag `s`.
 * Classes within `[…]` are not translated: none is needed.
 */
export function pythonRegExp(pattern: string, flags = ''): RegExp {
  const translated = pattern.replace(/\\([dsSwb])/g, (_, name: string) => {
    if (name === 'd') return '\\p{Nd}';
    if (name === 's') return `[${SPACE}]`;
    if (name === 'S') return `[^${SPACE}]`;
    if (name === 'w') return `[${WORD}]`;
    return WORD_BOUNDARY;
  });
  return new RegExp(translated, `${flags}u`);
}

const EDGES = pythonRegExp('^\\s+|(?<!\\s)\\s+$', 'g');

/** Python's `str.strip()`. */
export function pythonStrip(text: string): string {
  return text.replace(EDGES, '');
}

/** Python refuses to parse an int of more digits than this (sys.get_int_max_str_digits). */
const MAX_DIGITS = 4300;
const INTEGER = /^([+-]?)(\p{Nd}+(?:_\p{Nd}+)*)$/u;
const DIGIT = /^\p{Nd}$/u;

/** The value 0-9 of one decimal digit of any script: digits come in runs of ten, zero first. */
function digitValue(digit: string): number {
  const code = digit.codePointAt(0)!;
  if (code < 128) return code - 48;
  let start = code;
  while (DIGIT.test(String.fromCodePoint(start - 1))) start--;
  return (code - start) % 10;
}

/** What Python raises, by its name there. */
export class PythonError extends Error {
  readonly exception: string;
  constructor(exception: string, message: string) {
    super(message);
    this.name = exception;
    this.exception = exception;
  }
}

/**
 * Python's `int(text)`: surrounding white space, a sign, single underscores between digits, digits of any script; unbounded.
 * @throws PythonError ValueError as Python does.
 */
export function pythonInt(text: string): bigint {
  const match = INTEGER.exec(pythonStrip(text));
  if (!match) throw new PythonError('ValueError', `invalid literal for int() with base 10: '${text}'`);
  const digits = Array.from(match[2]!.replaceAll('_', ''), digitValue);
  if (digits.length > MAX_DIGITS)
    throw new PythonError(
      'ValueError',
      `Exceeds the limit (${MAX_DIGITS} digits) for integer string conversion: value has ${digits.length} digits`,
    );
  const value = BigInt(digits.join(''));
  return match[1] === '-' ? -value : value;
}
