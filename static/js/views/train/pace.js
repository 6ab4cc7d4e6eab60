/** How long something will go on, from how it has gone since one looks. */

/** Less than this, in milliseconds, is no pace yet. */
const LEAST_MS = 500;

export class Pace {
  /** @type {{ done: number, at: number } | null} */
  #first = null;

  /**
   * @param {number} done
   * @param {number} total
   * @param {number} at milliseconds
   * @returns {number | null} seconds left, once there is a pace
   */
  left(done, total, at) {
    this.#first ??= { done, at };
    const [steps, time] = [done - this.#first.done, at - this.#first.at];
    return steps > 0 && time >= LEAST_MS ? ((total - done) * time) / steps / 1000 : null;
  }
}

/** @param {number} seconds */
export const leftWords = (seconds) => (seconds < 100 ? `about ${Math.max(1, Math.round(seconds))} s left` : `about ${Math.round(seconds / 60)} min left`);
