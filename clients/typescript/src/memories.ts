/** Memories with their versions and search, and core memory blocks. */
import { Collection, dataOf, matching, queried, type Changing, type Writing } from './collection.js';
import { freshKey, type Http } from './http.js';
import { List, type ListOptions } from './pages.js';
import type * as shape from './shapes.js';

export class Memories extends Collection<
  shape.Memory,
  shape.NewMemory,
  shape.MemoryChange,
  { agentId?: string; userId?: string }
> {
  /** Lists the versions of a memory. */
  history(id: string, options: ListOptions = {}): List<shape.MemoryVersion> {
    return new List(this.http, this.at(id, 'history'), {}, options);
  }

  /** Searches memories. The results are ranked, best first. */
  async search(query: shape.MemoryQuery, signal?: AbortSignal): Promise<shape.FoundMemories> {
    return dataOf(await this.http.call('GET', `${this.path}/search`, { query: queried(query), signal }));
  }

  /** Creates several at once. An invalid item is reported in `errors` and does not affect the others. */
  async createMany(
    memories: readonly shape.NewMemory[],
    { idempotencyKey = freshKey(), signal }: Writing = {},
  ): Promise<shape.Batch> {
    return dataOf(await this.http.call('POST', `${this.path}/batch`, { body: { memories }, idempotencyKey, signal }));
  }

  async deleteMany(ids: readonly string[], { idempotencyKey = freshKey(), signal }: Writing = {}): Promise<shape.Batch> {
    return dataOf(await this.http.call('POST', `${this.path}/batch/delete`, { body: { ids }, idempotencyKey, signal }));
  }
}

/** The owner of core memory blocks: an agent, and either one user or everybody. */
export interface Whose {
  agentId: string;
  userId?: string | undefined;
}

export class CoreMemory {
  constructor(private readonly http: Http) {}

  list(whose: Whose): List<shape.CoreMemoryBlock> {
    return new List(this.http, pathOf(whose), queried({ userId: whose.userId }), {});
  }

  async get(whose: Whose, label: shape.CoreMemoryLabel): Promise<shape.CoreMemoryBlock> {
    return dataOf(await this.http.call('GET', pathOf(whose, label), { query: queried({ userId: whose.userId }) }));
  }

  /** Creates the block, or replaces its value. */
  async put(
    whose: Whose,
    label: shape.CoreMemoryLabel,
    held: shape.CoreMemoryChange,
    { ifMatch, signal }: Changing = {},
  ): Promise<shape.CoreMemoryBlock> {
    const query = queried({ userId: whose.userId });
    return dataOf(await this.http.call('PUT', pathOf(whose, label), { query, body: held, signal, ...matching(ifMatch) }));
  }

  async delete(whose: Whose, label: shape.CoreMemoryLabel, { ifMatch, signal }: Changing = {}): Promise<void> {
    await this.http.call('DELETE', pathOf(whose, label), {
      query: queried({ userId: whose.userId }),
      signal,
      ...matching(ifMatch),
    });
  }
}

function pathOf({ agentId }: Whose, ...label: string[]): string {
  return ['/agents', encodeURIComponent(agentId), 'core-memory', ...label.map(encodeURIComponent)].join('/');
}
