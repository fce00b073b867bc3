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
