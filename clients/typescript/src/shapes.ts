/** The types of rows, new rows and changes of the resources, as in the OpenAPI document. */
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

/** A new agent has the same fields as a change. */
export type NewAgent = AgentChange;

type Camel<Name extends string> = Name extends `${infer Head}_${infer Tail}` ? `${Head}${Capitalize<Camel<Tail>>}` : Name;

/** A search: the fields of the document as option names, `agentId` for `agent_id`. */
export type MemoryQuery = { [Name in keyof Query as Camel<Name>]: Exclude<Query[Name], null> };
