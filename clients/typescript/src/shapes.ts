/**
 * The rows of the resources, and what makes and changes them: as the OpenAPI document has them, and, for what it does not describe yet
 * (memories), as docs/protocol.md does.
 */
import type * as generated from './generated.js';

export type {
  Agent,
  AgentChange,
  AgentState,
  AgentStatus,
  CoreMemoryBlock,
  CoreMemoryChange,
  CoreMemoryLabel,
  Message,
  MessageRole,
  NewAgentMessage,
  NewMessage,
  NewTool,
  NewUser,
  SentAgentMessage,
  Session,
  Tool,
  ToolChange,
  User,
  UserChange,
  UserRole,
} from './generated.js';

/** What an agent is made of: what it may be changed to. */
export type NewAgent = generated.AgentChange;

export type MemoryType =
  'Factual' | 'Episodic' | 'Procedural' | 'Semantic' | 'Working' | 'Core' | 'Resource' | 'Knowledge' | 'Contextual';
export type MemoryScope = 'agent' | 'user' | 'session' | 'run' | 'organization' | 'global';

export interface Memory {
  id: string;
  organization_id: string;
  agent_id: string | null;
  user_id: string | null;
  content: string;
  memory_type: MemoryType;
  importance: number;
  scope: MemoryScope | null;
  metadata: Record<string, unknown> | null;
  version: number;
  created_at: string;
  updated_at: string;
}

export type NewMemory = Pick<Memory, 'content'> &
  Partial<Pick<Memory, 'agent_id' | 'user_id' | 'memory_type' | 'importance' | 'scope' | 'metadata'>>;
export type MemoryChange = Partial<Pick<Memory, 'content' | 'memory_type' | 'importance' | 'metadata'>>;

export interface MemoryVersion {
  version: number;
  operation: string;
  content: string;
  memory_type: MemoryType;
  importance: number;
  metadata: Record<string, unknown> | null;
  updated_at: string;
}

export interface MemoryQuery {
  /** Words, any of which a memory holds; one with a `*` behind it stands for all that begin with it. */
  query?: string;
  prefix?: boolean;
  agentId?: string;
  userId?: string;
  memoryType?: MemoryType;
  minImportance?: number;
  maxAgeDays?: number;
  threshold?: number;
  limit?: number;
  offset?: number;
}

export interface FoundMemories {
  results: (Memory & { score: number })[];
  total: number;
  offset: number;
  limit: number;
  has_more: boolean;
}

export interface BatchOutcome {
  successful: number;
  failed: number;
  /** Ids of what was made or deleted. */
  results: string[];
  errors: { index: number; id?: string; code: string; message: string; details: unknown }[];
}
