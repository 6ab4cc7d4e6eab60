/**
 * Limits how often an asynchronous task runs: one at a time, and at intervals of at least `gap` milliseconds. Calls
 * meanwhile are merged into one.
 * @param {() => Promise<void>} task must not throw
 * @param {number} gap
 */
export function throttle(task, gap) {
  let waiting = false;
  let running = false;

  async function run() {
    running = true;
    try {
      while (waiting) {
        waiting = false;
        await Promise.all([task(), new Promise((resolve) => setTimeout(resolve, gap))]);
      }
    } finally {
      running = false;
    }
  }

  return () => {
    waiting = true;
    if (!running) void run();
  };
}
