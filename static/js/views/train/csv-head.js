/**
 * Reads the beginning of a .csv file to show its columns and the task of predicting one of them. The service reads the
 * whole file.
 */

/** Bytes read from the file's beginning. */
const MAX_BYTES = 4 << 20;
/** Whole numbers with more distinct values are a regression target, as in training. */
const MAX_CLASSES = 20;

/** @typedef {{ task: "classification" | "regression", outputs: number }} Guess */

/** The numbers that Python's float() accepts. */
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

/**
 * @param {string} text
 * @param {string} delimiter
 * @param {boolean} whole whether the text is the whole file
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
   * @param {string[][]} rows that were read
   * @param {number} total estimated number of rows in the file
   * @param {boolean} whole whether all rows were read
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
   * Infers the task of predicting a column, as training does.
   * @param {string} column
   * @returns {Guess | null} null if training will reject it
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
    if (numbers.some((value) => !Number.isInteger(value)) || new Set(numbers).size > MAX_CLASSES) return { task: "regression", outputs: 1 };
    return classes(numbers);
  }
}

/**
 * @param {(string | number)[]} values
 * @returns {Guess | null}
 */
function classes(values) {
  const { size } = new Set(values);
  // One class, or a class per row, cannot be learned.
  return size < 2 || size === values.length ? null : { task: "classification", outputs: size };
}
