/**
 * Notices a peer that says nothing any more: a connection that died without a word looks alive to its socket for minutes.
 *
 * - Time is read again when the timer fires, since a machine that slept has timers that did not.
 */

export class Silence {
  #timer: ReturnType<typeof setTimeout> | undefined;
  #heardAt = Date.now();
  #limitMs = 0;

  constructor(private readonly onSilent: () => void) {}

  /** From now on at most so long. */
  allow(ms: number): void {
    this.#limitMs = ms;
    this.heard();
    this.#arm(ms);
  }

  heard(): void {
    this.#heardAt = Date.now();
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #arm(ms: number): void {
    this.stop();
    this.#timer = setTimeout(() => {
      const left = this.#limitMs - Math.abs(Date.now() - this.#heardAt);
      if (left > 0) this.#arm(left);
      else this.onSilent();
    }, ms);
  }
}
