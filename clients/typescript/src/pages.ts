/** Paged lists: iterate over rows, iterate over pages, or get one page and keep its cursor. */
import type { Http, QueryValue } from './http.js';

export interface ListOptions {
  /** Rows per page, at most 100. */
  limit?: number | undefined;
  /** Newest first unless `asc`. */
  order?: 'asc' | 'desc' | undefined;
  /** The `nextCursor` of a page of the same list. */
  cursor?: string | undefined;
  signal?: AbortSignal | undefined;
}

export interface Page<T> {
  rows: T[];
  /** The cursor of the next page; `null` on the last page. */
  nextCursor: string | null;
}

export class List<T> implements AsyncIterable<T> {
  constructor(
    private readonly http: Http,
    private readonly path: string,
    private readonly filter: Record<string, QueryValue>,
    private readonly options: ListOptions,
  ) {}

  /** Gets one page: the first, or the one at `cursor`. */
  async page(cursor: string | undefined = this.options.cursor): Promise<Page<T>> {
    const { limit, order, signal } = this.options;
    const { body } = await this.http.call('GET', this.path, { query: { ...this.filter, limit, order, cursor }, signal });
    const { data, next_cursor } = body as { data: T[]; next_cursor?: string | null };
    return { rows: data, nextCursor: next_cursor ?? null };
  }

  async *pages(): AsyncGenerator<Page<T>, void, undefined> {
    let page = await this.page();
    yield page;
    while (page.nextCursor !== null) {
      page = await this.page(page.nextCursor);
      yield page;
    }
  }

  /** Iterates over every row. Pages are fetched as they are needed. */
  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    for await (const page of this.pages()) yield* page.rows;
  }
}
