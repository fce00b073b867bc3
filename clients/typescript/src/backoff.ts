/**
 * The wait before the next attempt. It doubles after every failure, and half of it is random, so that clients
 * that lost their connection together do not reconnect together.
 */

/** Wait of the first attempts, milliseconds. */
export const BACKOFF_LEAST_MS = 500;
/** Longest wait, milliseconds: how late at most a client is after an outage of hours. */
export const BACKOFF_MOST_MS = 30_000;

export class Backoff {
  #failures = 0;

  constructor(
    private readonly leastMs = BACKOFF_LEAST_MS,
    private readonly mostMs = BACKOFF_MOST_MS,
    private readonly random: () => number = Math.random,
  ) {}

  /** Attempts since the last success. */
  get failures(): number {
    return this.#failures;
  }

  /**
   * Returns the wait before the next attempt. `atLeast` is also spread, upwards, because every client got the
   * same value.
   */
  next(atLeast = 0): number {
    const doubled = Math.min(this.mostMs, this.leastMs * 2 ** Math.min(this.#failures, 30));
    this.#failures += 1;
    const spread = doubled * (0.5 + this.random() / 2);
    return Math.max(spread, atLeast * (1 + this.random() / 4));
  }

  reset(): void {
    this.#failures = 0;
  }
}

/** Waits. Ends early, without an error, if `signal` is aborted. */
export function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((done) => {
    if (signal.aborted) return done();
    const finish = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', finish);
      done();
    };
    const timer = setTimeout(finish, ms);
    signal.addEventListener('abort', finish);
  });
}
