/**
 * How long to wait before the next attempt: twice as long after every failure, half of it left to chance, so that clients that were
 * cut off together do not come back together.
 */

/** Waits of the first attempts, milliseconds. */
export const BACKOFF_LEAST_MS = 500;
/** Longest wait: what a client that was away for hours is late by at most. */
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

  /** The wait before the next attempt; `atLeast` is spread too, upwards: everybody was told the same. */
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

/** Waits; ends early, without an error, when `signal` does. */
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
