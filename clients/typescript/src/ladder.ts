/**
 * Chooses the transport: the best first, the next one if it does not work, and the best again after a while.
 *
 * - A transport does not work if it failed to reach `ready` twice in a row, delayed its response once, or was
 *   cut short repeatedly. One lost connection proves nothing.
 * - The ladder has no sockets and no clock: the caller passes the time.
 */

export type TransportName = 'ws' | 'sse' | 'poll';

/** Attempts in a row that did not reach `ready`. */
export const NEVER_READY = 2;
/** Connections in a row that were cut short, for example by a proxy that limits streams. */
export const CUT_SHORT = 5;
/** Longest duration that counts as short, milliseconds. */
export const SHORT_MS = 10_000;
/**
 * Time on a lesser transport after which the best is tried again. It doubles each time that the best fails.
 */
export const CLIMB_AFTER_MS = 300_000;
/** Longest such time. */
export const CLIMB_MOST_MS = 3_600_000;

/** The result of an attempt. */
export interface Attempt {
  /** Whether `ready` arrived. */
  ready: boolean;
  /** Whether no response arrived although the network works: something holds the response back. */
  heldBack?: boolean;
  /**
   * Whether the end proves nothing about the transport: the daemon itself ended it, or there was no network
   * at all.
   */
  neutral?: boolean;
  livedMs: number;
}

export class Ladder {
  #step = 0;
  #neverReady = 0;
  #cutShort = 0;
  #climbAt = Infinity;

  constructor(
    private readonly steps: readonly TransportName[],
    private climbMs = CLIMB_AFTER_MS,
  ) {}

  get transport(): TransportName {
    return this.steps[this.#step] ?? 'poll';
  }

  get isLast(): boolean {
    return this.#step + 1 >= this.steps.length;
  }

  /** When to try the best again, milliseconds since 1970. */
  get climbAt(): number {
    return this.#climbAt;
  }

  /** Call before an attempt. Returns the transport to use. */
  begin(now: number): TransportName {
    if (now >= this.#climbAt) {
      this.#to(0);
      this.climbMs = Math.min(this.climbMs * 2, CLIMB_MOST_MS);
    }
    return this.transport;
  }

  /** Call after an attempt. Returns whether the transport changed. */
  ended(attempt: Attempt, now: number): boolean {
    if (attempt.neutral) {
      this.#neverReady = 0;
      return false;
    }
    this.#neverReady = attempt.ready ? 0 : this.#neverReady + 1;
    this.#cutShort = attempt.ready && attempt.livedMs < SHORT_MS ? this.#cutShort + 1 : attempt.ready ? 0 : this.#cutShort;
    if (attempt.heldBack || this.#neverReady >= NEVER_READY || this.#cutShort >= CUT_SHORT) return this.fall(now);
    return false;
  }

  /** Changes to the next lesser transport. Returns whether there was one. */
  fall(now: number): boolean {
    if (this.isLast) return false;
    if (this.#step === 0) this.#climbAt = now + this.climbMs;
    const climbAt = this.#climbAt;
    this.#to(this.#step + 1);
    this.#climbAt = climbAt;
    return true;
  }

  #to(step: number): void {
    this.#step = step;
    this.#climbAt = Infinity;
    this.#neverReady = 0;
    this.#cutShort = 0;
  }
}
