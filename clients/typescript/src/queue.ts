/** A bounded queue of received items for one consumer. The producer checks `room` before it adds more. */

/** Items kept for a slow consumer. When it is full, nothing is read from the network (option `buffer`). */
export const BUFFER_ITEMS = 1024;

interface Waiting<T> {
  resolve(result: IteratorResult<T, undefined>): void;
  reject(error: unknown): void;
}

export class Queue<T extends object> {
  #items: T[] = [];
  /** The index of the first item, so that taking an item does not move the others. */
  #first = 0;
  #waiting: Waiting<T>[] = [];
  #drained: (() => void)[] = [];
  #end: { error?: unknown } | undefined;

  constructor(readonly limit = BUFFER_ITEMS) {}

  get size(): number {
    return this.#items.length - this.#first;
  }

  /** The last item that was not taken. */
  get last(): T | undefined {
    return this.size === 0 ? undefined : this.#items.at(-1);
  }

  /** How many more may be pushed. */
  get room(): number {
    return Math.max(0, this.limit - this.size);
  }

  /** Adds an item. Returns whether a waiting consumer got it at once. */
  push(item: T): boolean {
    if (this.#end) return false;
    const waiting = this.#waiting.shift();
    if (waiting) waiting.resolve({ done: false, value: item });
    else this.#items.push(item);
    return waiting !== undefined;
  }

  /** Removes and returns the first item, if there is one. */
  take(): T | undefined {
    if (this.size === 0) return undefined;
    const item = this.#items[this.#first];
    this.#first += 1;
    if (this.#first === this.#items.length || this.#first >= this.limit) {
      this.#items = this.#items.slice(this.#first);
      this.#first = 0;
    }
    if (this.size <= this.limit / 2) this.#tellDrained();
    return item;
  }

  /** Returns the next item or the end. For use when the queue is empty. */
  next(): Promise<IteratorResult<T, undefined>> {
    const item = this.take();
    if (item !== undefined) return Promise.resolve({ done: false, value: item });
    if (this.#end) {
      const { error } = this.#end;
      if (error === undefined) return Promise.resolve({ done: true, value: undefined });
      this.#end = {}; // the error is thrown once, as iterators do
      return Promise.reject(error);
    }
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  /** Resolves when at least half of the queue is free, or when it has ended. */
  drained(): Promise<void> {
    if (this.#end || this.size <= this.limit / 2) return Promise.resolve();
    return new Promise((done) => this.#drained.push(done));
  }

  /** Ends the queue. An error is thrown after the last item. */
  end(error?: unknown): void {
    if (this.#end) return;
    this.#end = error === undefined ? {} : { error };
    const waiting = this.#waiting.splice(0);
    waiting.forEach(({ resolve, reject }, at) => {
      if (at === 0 && error !== undefined) {
        this.#end = {};
        reject(error);
      } else resolve({ done: true, value: undefined });
    });
    this.#tellDrained();
  }

  /** Ends the queue and drops its items. */
  discard(): void {
    this.#items = [];
    this.#first = 0;
    this.end();
  }

  #tellDrained(): void {
    this.#drained.splice(0).forEach((done) => done());
  }
}
