/**
 * The common part of all resources: create, get, list, update and delete rows.
 *
 * - Every row is created with a new `Idempotency-Key`, so a lost response does not create it twice.
 * - `etagOf(row)` is the version of a row. Passed as `ifMatch`, it makes a change of another version fail
 *   (412).
 */
import { freshKey, type Answer, type Call, type Http, type QueryValue } from './http.js';
import { List, type ListOptions } from './pages.js';

export interface Writing {
  idempotencyKey?: string | undefined;
  signal?: AbortSignal | undefined;
}

export interface Changing {
  /** Change only this version: `etagOf` of the row that was read. */
  ifMatch?: string | undefined;
  signal?: AbortSignal | undefined;
}

const etags = new WeakMap<object, string>();

/** Returns the version of a row that this client read, for `ifMatch`. */
export function etagOf(resource: object): string | undefined {
  return etags.get(resource);
}

/** One kind of resource: the types of its rows, of a new row, of a change, and of its list filter. */
export class Collection<Row extends object, New, Change, Narrow extends object = Record<never, never>> {
  constructor(
    protected readonly http: Http,
    protected readonly path: string,
  ) {}

  async create(row: New, { idempotencyKey = freshKey(), signal }: Writing = {}): Promise<Row> {
    return dataOf<Row>(await this.http.call('POST', this.path, { body: row, idempotencyKey, signal }));
  }

  async get(id: string, signal?: AbortSignal): Promise<Row> {
    return dataOf<Row>(await this.http.call('GET', this.at(id), { signal }));
  }

  /** Changes the given fields; `null` clears a field. */
  async update(id: string, change: Change, { ifMatch, signal }: Changing = {}): Promise<Row> {
    return dataOf<Row>(await this.http.call('PATCH', this.at(id), { body: change, signal, ...matching(ifMatch) }));
  }

  async delete(id: string, { ifMatch, signal }: Changing = {}): Promise<void> {
    await this.http.call('DELETE', this.at(id), { signal, ...matching(ifMatch) });
  }

  list(options: ListOptions & Narrow = {} as ListOptions & Narrow): List<Row> {
    const { limit, order, cursor, signal, ...filter } = options;
    return new List(this.http, this.path, queried(filter), { limit, order, cursor, signal });
  }

  protected at(id: string, ...rest: string[]): string {
    return [this.path, ...[id, ...rest].map(encodeURIComponent)].join('/');
  }
}

export function dataOf<T>({ body, headers }: Answer): T {
  const data = (body as { data: T }).data;
  const etag = headers.get('etag');
  if (etag !== null && typeof data === 'object' && data !== null) etags.set(data, etag);
  return data;
}

export function matching(etag: string | undefined): Pick<Call, 'headers'> {
  return etag === undefined ? {} : { headers: { 'if-match': etag } };
}

/** Converts option names: `agentId` is `agent_id` on the wire. */
export function queried(filter: object): Record<string, QueryValue> {
  const entries = Object.entries(filter) as [string, QueryValue][];
  return Object.fromEntries(
    entries.map(([name, value]) => [name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`), value]),
  );
}
