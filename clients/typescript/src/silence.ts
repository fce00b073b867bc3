/**
 * Detects a peer that no longer sends anything. A connection that died silently looks alive to its socket for
 * minutes.
 *
 * - The clock is read again when the timer fires, because timers do not advance while a machine sleeps.
 */

export class Silence {
  #timer: ReturnType<typeof setTimeout> | undefined;
  #lastReceivedAt = Date.now();
  #limitMs = 0;

  constructor(private readonly onSilent: () => void) {}

  /** Allows silence of this length from now on. */
  allow(ms: number): void {
    this.#limitMs = ms;
    this.received();
    this.#arm(ms);
  }

  received(): void {
    this.#lastReceivedAt = Date.now();
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #arm(ms: number): void {
    this.stop();
    this.#timer = setTimeout(() => {
      const left = this.#limitMs - Math.abs(Date.now() - this.#lastReceivedAt);
      if (left > 0) this.#arm(left);
      else this.onSilent();
    }, ms);
  }
}
