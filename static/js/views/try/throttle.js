/**
 * Runs an asynchronous task for the latest of many values: one at a time, never more often than every `gap`
 * milliseconds, and what was overtaken while waiting is never run.
 */

/**
 * @template T
 * @param {(value: T) => Promise<void>} task shall not throw: it has nobody to tell
 * @param {number} gap
 * @returns {(value: T) => void}
 */
export function latest(task, gap) {
  /** @type {{ value: T } | null} */
  let waiting = null;
  let running = false;

  async function run() {
    running = true;
    try {
      while (waiting !== null) {
        const { value } = waiting;
        waiting = null;
        await Promise.all([task(value), new Promise((resolve) => setTimeout(resolve, gap))]);
      }
    } finally {
      running = false;
    }
  }

  return (value) => {
    waiting = { value };
    if (!running) void run();
  };
}
