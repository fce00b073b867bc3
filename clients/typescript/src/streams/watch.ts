/**
 * Tells the writers of a client that their stream may have ended, while they are silent: one subscription for
 * all of them.
 *
 * - It is a hint only. The writer asks the daemon with its token, whose answer decides.
 * - A credential that may not read gets no hints. The writers then ask more often.
 */
import type { NervewireEvent } from '../events.js';
import type { Status } from '../reconnect.js';

export interface WatchedWriter {
  readonly requestId: string;
  /** Asks the daemon whether the stream is still open. */
  check(): void;
}

/** Subscribes to errors. */
export type WatchErrors = (handlers: { onEvent(event: NervewireEvent): void; onStatus(status: Status): void; onGap(): void }) => {
  close(): void;
};

export class EndWatch {
  readonly #writers = new Set<WatchedWriter>();
  #subscription: { close(): void } | undefined;
  #isOpen = false;

  constructor(private readonly subscribe: WatchErrors) {}

  /** Whether hints come. */
  get isOpen(): boolean {
    return this.#isOpen;
  }

  join(writer: WatchedWriter): void {
    if (this.#writers.has(writer)) return;
    this.#writers.add(writer);
    if (this.#isOpen)
      writer.check(); // it may have ended before
    else this.#subscription ??= this.#follow();
  }

  leave(writer: WatchedWriter): void {
    this.#writers.delete(writer);
    if (this.#writers.size > 0) return;
    this.#subscription?.close();
    this.#subscription = undefined;
    this.#isOpen = false;
  }

  #follow(): { close(): void } {
    return this.subscribe({
      onEvent: (event) => {
        for (const writer of this.#writers) {
          if ('request_id' in event && event.request_id === writer.requestId) writer.check();
        }
      },
      onStatus: (status) => {
        this.#isOpen = status.state === 'open' || (this.#isOpen && status.state !== 'closed');
        // What happened before the subscription began was missed.
        if (status.state === 'open' && !status.resumed) this.#checkAll();
      },
      onGap: () => this.#checkAll(),
    });
  }

  #checkAll(): void {
    for (const writer of [...this.#writers]) writer.check();
  }
}
