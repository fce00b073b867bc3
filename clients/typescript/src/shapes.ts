/** The rows of the resources, and what makes and changes them, as docs/protocol.md has them. */
type Json = unknown;

export type AgentState = 'idle' | 'thinking' | 'executing' | 'waiting' | 'error';

interface AgentSaid {
  name: string | null;
  description: string | null;
  system: string | null;
  agent_type: string | null;
  llm_config: Json;
  embedding_config: Json;
  tool_rules: Json;
  metadata: Record<string, unknown> | null;
}

export interface Agent extends AgentSaid {
  id: string;
  organization_id: string;
  state: AgentState;
  error_message: string | null;
  last_active_at: string | null;
  created_at: string;
  updated_at: string;
}

export type NewAgent = Partial<AgentSaid>;
export type AgentChange = Partial<AgentSaid>;

export interface AgentStateView {
  agent_id: string;
  state: AgentState;
  last_active_at: string | null;
  error_message: string | null;
}

export interface Say {
  message: string;
  user_id?: string;
  metadata?: Record<string, unknown>;
}

export interface Said {
  message_id: string;
  response: string | null;
  processing_time_ms: number;
}

export interface Message {
  id: string;
  organization_id: string;
  agent_id: string;
  user_id: string;
  role: 'user' | 'assistant' | 'system' | 'tool';
  content: string;
  model: string | null;
  tool_calls: Json;
  metadata: Record<string, unknown> | null;
  created_at: string;
}

export type NewMessage = Pick<Message, 'agent_id' | 'content'> & Partial<Pick<Message, 'user_id' | 'role' | 'model' | 'tool_calls' | 'metadata'>>;

export interface Tool {
  id: string;
  organization_id: string;
  name: string;
  description: string | null;
  json_schema: Json;
  source_type: string | null;
  source_code: string | null;
  tags: string[];
  metadata: Record<string, unknown> | null;
  created_at: string;
  updated_at: string;
}

export type ToolChange = Partial<Omit<Tool, 'id' | 'organization_id' | 'created_at' | 'updated_at'>>;
export type NewTool = ToolChange & { name: string };

export type MemoryType = 'Factual' | 'Episodic' | 'Procedural' | 'Semantic' | 'Working' | 'Core' | 'Resource' | 'Knowledge' | 'Contextual';
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

export type NewMemory = Pick<Memory, 'content'> & Partial<Pick<Memory, 'agent_id' | 'user_id' | 'memory_type' | 'importance' | 'scope' | 'metadata'>>;
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

export type CoreMemoryLabel = 'human' | 'persona' | 'system';

export interface CoreMemoryHeld {
  value: string;
  /** Most characters of the value. */
  limit?: number;
}

export interface CoreMemoryBlock extends Required<CoreMemoryHeld> {
  id: string;
  organization_id: string;
  agent_id: string;
  user_id: string | null;
  label: CoreMemoryLabel;
  created_at: string;
  updated_at: string;
}

export type UserRole = 'admin' | 'user' | 'viewer';

export interface User {
  id: string;
  organization_id: string;
  email: string;
  name: string;
  timezone: string | null;
  role: UserRole;
  disabled: boolean;
  created_at: string;
  updated_at: string;
}

export interface NewUser {
  email: string;
  password: string;
  name: string;
  organization_id?: string;
  timezone?: string;
  role?: UserRole;
}

export interface UserChange {
  name?: string;
  timezone?: string | null;
}

export interface LoggedIn {
  token: string;
  expires_at: string;
  user: User;
}
