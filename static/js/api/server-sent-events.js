/** Parser of server-sent events in a fetch body: EventSource can neither POST nor send an API key. */

/** Maximum length of an event, far above the service's largest one: an endless event must not exhaust the memory. */
const MAX_EVENT_CHARS = 4_000_000;

/**
 * @param {string} block the lines of one event
 * @returns {{ event: string, data: string } | null} null for a block without data, such as a comment
 */
function parse(block) {
  let event = "message";
  const data = [];
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    if (colon === 0) continue;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") event = value;
    if (field === "data") data.push(value);
  }
  return data.length > 0 ? { event, data: data.join("\n") } : null;
}

/**
 * @param {ReadableStream<Uint8Array>} body
 * @returns {AsyncGenerator<{ event: string, data: string }>}
 */
export async function* serverSentEvents(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let buffer = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      // A carriage return at the end may be half of a line end: it is parsed with the next chunk.
      buffer = (buffer + (done ? decoder.decode() : decoder.decode(value, { stream: true }))).replace(/\r\n|\r(?!$)/g, "\n");
      if (buffer.length > MAX_EVENT_CHARS) throw new RangeError(`an event of the stream has more than ${MAX_EVENT_CHARS} characters`);
      const blocks = buffer.split("\n\n");
      buffer = blocks.pop() ?? "";
      for (const block of blocks) {
        const event = parse(block);
        if (event !== null) yield event;
      }
      if (done) return;
    }
  } finally {
    await reader.cancel().catch(() => {}); // the stream may have failed or been aborted
  }
}
