/**
 * A first look at a .csv file of the reader's, for a form: its columns, and what predicting one of them would mean. Only a
 * beginning is read; what the file really holds the service says.
 */

/** As much is looked at. */
const MAX_BYTES = 4 << 20;
/** Whole numbers with more distinct values are taken for amounts, not for classes: as in training. */
const FEW = 20;

/** @typedef {{ task: "classification" | "regression", outputs: number }} Guess */

/** As Python reads a number. */
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

/**
 * @param {string} text
 * @param {string} delimiter
 * @param {boolean} whole its end is the file's
 * @returns {string[][]} lines of cells
 */
function cells(text, delimiter, whole) {
  /** @type {string[][]} */
  const lines = [];
  /** @type {string[]} */
  let line = [];
  let cell = "";
  let quoted = false;
  for (let i = 0; i < text.length; i++) {
    const char = text[i];
    if (quoted) {
      if (char !== '"') cell += char;
      else if (text[i + 1] === '"') cell += text[i++];
      else quoted = false;
    } else if (char === '"' && cell.trim() === "") {
      quoted = true;
      cell = "";
    } else if (char === delimiter) {
      line.push(cell.trim());
      cell = "";
    } else if (char === "\n") {
      line.push(cell.trim());
      if (line.length > 1 || line[0] !== "") lines.push(line);
      line = [];
      cell = "";
    } else if (char !== "\r") {
      cell += char;
    }
  }
  if (whole && (line.length > 0 || cell.trim() !== "")) lines.push([...line, cell.trim()]);
  return lines;
}

export class CsvHead {
  /**
   * @param {File} file
   * @returns {Promise<CsvHead>}
   */
  static async read(file) {
    const whole = file.size <= MAX_BYTES;
    const text = (await file.slice(0, MAX_BYTES).text()).replace(/^\ufeff/, "");
    const [first] = text.split("\n", 1);
    const delimiter = [",", ";", "\t"].reduce((a, b) => (first.split(b).length > first.split(a).length ? b : a));
    const [columns = [], ...rows] = cells(text, delimiter, whole);
    return new CsvHead(columns, rows, whole ? rows.length : Math.round((rows.length * file.size) / MAX_BYTES), whole);
  }

  /**
   * @param {string[]} columns names in the header
   * @param {string[][]} rows that were looked at
   * @param {number} total of rows, about
   * @param {boolean} whole all of them were
   */
  constructor(columns, rows, total, whole) {
    this.columns = columns;
    this.rows = rows;
    this.total = total;
    this.whole = whole;
    /** @type {Map<string, Guess | null>} */
    this.guesses = new Map();
  }

  /**
   * What predicting a column means, as training infers it.
   * @param {string} column
   * @returns {Guess | null} null where training will refuse it
   */
  target(column) {
    const known = this.guesses.get(column);
    if (known !== undefined) return known;
    const guess = this.#guess(column);
    this.guesses.set(column, guess);
    return guess;
  }

  /**
   * @param {string} column
   * @returns {Guess | null}
   */
  #guess(column) {
    const index = this.columns.indexOf(column);
    const values = this.rows.map((row) => row[index] ?? "");
    if (index < 0 || values.length === 0) return null;
    const numbers = values.filter((value) => NUMBER.test(value)).map(Number);
    const wrong = values.length - numbers.length;
    if (wrong > 0) return wrong < values.length / 2 ? null : classes(values);
    if (numbers.some((value) => !Number.isInteger(value)) || new Set(numbers).size > FEW) return { task: "regression", outputs: 1 };
    return classes(numbers);
  }
}

/**
 * @param {(string | number)[]} values of which one that is all alone tells nothing
 * @returns {Guess | null}
 */
function classes(values) {
  const { size } = new Set(values);
  return size < 2 || size === values.length ? null : { task: "classification", outputs: size };
}
