/**
 * Which transport to try: the best first, the next where one does not work, and the best again after a while.
 *
 * - A transport does not work here if it never got as far as `ready` twice in a row, held its answer back once, or was cut short
 *   again and again. One lost connection says nothing about it.
 * - Knows no sockets; time is given.
 */

export type TransportName = 'ws' | 'sse' | 'poll';

/** Attempts in a row that never became ready. */
export const NEVER_READY = 2;
/** Connections in a row that were cut short, as by a proxy that does not let a stream live. */
export const CUT_SHORT = 5;
/** What counts as short, milliseconds. */
export const SHORT_MS = 10_000;
/** After so long on a lesser transport the best is tried again; twice as long each time that it fails. */
export const CLIMB_AFTER_MS = 300_000;
/** And so long at most. */
export const CLIMB_MOST_MS = 3_600_000;

/** How an attempt went. */
export interface Attempt {
  /** Whether `ready` came. */
  ready: boolean;
  /** Whether it never answered, though the network did: something holds the answer back. */
  heldBack?: boolean;
  /** Whether how it ended says nothing about the transport: the daemon said so itself, or there was no network at all. */
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

  /** Before an attempt. */
  begin(now: number): TransportName {
    if (now >= this.#climbAt) {
      this.#to(0);
      this.climbMs = Math.min(this.climbMs * 2, CLIMB_MOST_MS);
    }
    return this.transport;
  }

  /** After an attempt; answers whether the transport changed. */
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

  /** The next lesser transport; answers whether there was one. */
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
