/** The rows of the resources, and what makes and changes them, as the OpenAPI document has them. */
import type { AgentChange, MemoryQuery as Query } from './generated.js';

export type {
  Agent,
  AgentChange,
  AgentState,
  AgentStatus,
  Batch,
  CoreMemoryBlock,
  CoreMemoryChange,
  CoreMemoryLabel,
  FoundMemories,
  Memory,
  MemoryChange,
  MemoryHit,
  MemoryScope,
  MemoryType,
  MemoryVersion,
  Message,
  MessageRole,
  NewAgentMessage,
  NewMemory,
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
export type NewAgent = AgentChange;

type Camel<Name extends string> = Name extends `${infer Head}_${infer Tail}` ? `${Head}${Capitalize<Camel<Tail>>}` : Name;

/** What a search asks for: the document's names as options are written, `agentId` for `agent_id`. */
export type MemoryQuery = { [Name in keyof Query as Camel<Name>]: Exclude<Query[Name], null> };
