/** The first part of a text file, which the service describes before the whole file is uploaded. */

const MAX_BYTES = 1 << 20;
const TEXT = /\.(csv|tsv|tab|txt|psv|jsonl|ndjson)$/i;
const LINE_END = 10;
/** First bytes of UTF-16's byte order marks are at least this. */
const MARK = 0xfe;

/**
 * Returns the whole lines at the beginning of a text file, or another file as it is.
 * @param {File} file
 * @param {number} most bytes that the service takes
 * @returns {Promise<File>}
 */
export async function fileHead(file, most) {
  const size = Math.min(MAX_BYTES, most >> 1);
  if (file.size <= size || !TEXT.test(file.name)) return file;
  const bytes = new Uint8Array(await file.slice(0, size).arrayBuffer());
  const last = bytes.lastIndexOf(LINE_END);
  const end = last < 0 ? size : last;
  return new File([bytes.subarray(0, end - (bytes[0] >= MARK ? end % 2 : 0))], file.name);
}
