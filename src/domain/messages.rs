//! Messages: stored with all fields that their sender gave. Each is published as an event when it is created.
//!
//! * A message has an agent that exists. A message of a user is visible to that user and to principals that
//!   may read all; one without a user is visible to all. A principal may delete a message if it could have
//!   sent it.
//! * Messages are listed by agent, by user, by both, and all together. Each of these lists has its own list
//!   index.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::agent_user::{self, AgentUserFilter, AgentUserLists, EVERYBODY};
use super::agents::{self, Json};
use super::list_resource::{ListResource, ListSource, Operation};
use super::record::Record;
use super::{Caller, ResourceError, check_json, check_object, check_text, next_number};
use crate::auth::{Authorized, WriteAsUser};
use crate::event::{Event, EventKind, check_id};
use crate::filter::Rights;
use crate::store::{Group, List, Table};
use crate::tenant::publish::CommitWaiter;

/// The lists that messages belong to.
const LISTS: AgentUserLists = AgentUserLists {
    all: List::AllMessages,
    of_agent: List::MessagesOfAgent,
    of_user: List::MessagesOfUser,
    of_agent_and_user: List::MessagesOfAgentAndUser,
};
/// Maximum of bytes of a message's text. It must fit into an event.
pub const CONTENT_BYTES: usize = 48 * 1024;
/// Maximum of bytes of a model's name.
pub const MODEL_BYTES: usize = 255;

/// Role of the sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = MessageRole)]
pub enum Role {
    /// A person.
    #[default]
    User,
    /// The agent.
    Assistant,
    /// The platform.
    System,
    /// A tool.
    Tool,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::System => "system",
            Role::Tool => "tool",
        }
    }
}

/// A message.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Message {
    /// Id: `msg-<uuid7>`.
    pub id: String,
    number: u64,
    /// Agent that the message is to or from.
    pub agent_id: String,
    /// User whose conversation the message belongs to; [`EVERYBODY`] if none.
    user_id: String,
    /// Role of the sender.
    pub role: Role,
    /// Text of the message.
    pub content: String,
    /// Model that wrote the message.
    pub model: Option<String>,
    /// Tool calls, as the platform defines them.
    pub tool_calls: Option<Json>,
    /// A JSON object.
    pub metadata: Option<Json>,
    /// Time of creation, Unix milliseconds.
    pub created_ms: u64,
}

/// A message to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMessage {
    /// Agent that the message is to or from. Left out where the path names it.
    #[serde(default)]
    pub agent_id: Option<String>,
    /// User whose conversation the message belongs to; the caller if left out.
    pub user_id: Option<String>,
    /// Role of the sender; `user` if left out.
    #[serde(default)]
    pub role: Role,
    /// Text of the message.
    pub content: Option<String>,
    /// Text of the message, under the name that older clients use.
    pub text: Option<String>,
    /// Model that wrote the message.
    pub model: Option<String>,
    /// Tool calls, as any JSON.
    #[schema(value_type = Option<Object>)]
    pub tool_calls: Option<Json>,
    /// A JSON object.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Json>,
}

impl Record for Message {
    const TABLE: Table = Table::Messages;
    fn id(&self) -> &str {
        &self.id
    }
    fn number(&self) -> u64 {
        self.number
    }
    fn user(&self) -> Option<&str> {
        Message::user(self)
    }
    fn groups(&self) -> Vec<Group> {
        LISTS.groups(&self.agent_id, &self.user_id)
    }
}

impl Message {
    /// User whose conversation the message belongs to; `None` means all users.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        Some(self.user_id.as_str()).filter(|user| *user != EVERYBODY)
    }

    pub(super) fn of_user(user_id: &str) -> Group {
        Group::new(List::MessagesOfUser, &[user_id])
    }

    fn as_event(&self) -> Event<'_> {
        let mut event = Event::empty(EventKind::Message);
        event.message_id = Some(Cow::Borrowed(&self.id));
        event.agent_id = Some(Cow::Borrowed(&self.agent_id));
        event.user_id = self.user().map(Cow::Borrowed);
        event.content = Some(Cow::Borrowed(&self.content));
        event.role = Some(Cow::Borrowed(self.role.name()));
        event.metadata = self.metadata.as_ref().map(|json| Cow::Borrowed(json.get()));
        event
    }
}

/// Adds `notes` to `metadata`. They are values that a message comes with and that have no field of their own.
///
/// # Errors
/// `metadata` is not an object, or has one of the notes' names already.
pub fn with_notes(metadata: Option<Json>, notes: Vec<(&str, Json)>) -> Result<Option<Json>, ResourceError> {
    if notes.is_empty() {
        return Ok(metadata);
    }
    let text = metadata.as_ref().map_or("{}", |json| json.get());
    let no_object = |_| ResourceError::invalid("metadata", "must be an object");
    let mut all: BTreeMap<String, Json> = serde_json::from_str(text).map_err(no_object)?;
    for (name, note) in notes {
        if all.insert(name.to_owned(), note).is_some() {
            return Err(ResourceError::invalid("metadata", format!("also has {name}; give it only once")));
        }
    }
    serde_json::value::to_raw_value(&all).map(Some).map_err(no_object)
}

impl ListResource for Message {
    const KIND: &'static str = "message";
    const HAS_VERSIONS: bool = false;
    type WriteRight = WriteAsUser;
    type New = NewMessage;
    type Filter = AgentUserFilter;

    fn version(&self) -> u64 {
        1
    }
    fn event(&self, operation: Operation) -> Option<Event<'_>> {
        (operation == Operation::Create).then(|| self.as_event())
    }
    fn is_visible(&self, rights: &Rights) -> bool {
        rights.permit_resource(EventKind::Message, Some(&self.agent_id), self.user())
    }
    fn check_write(&self, right: &Authorized<WriteAsUser>) -> Result<(), ResourceError> {
        match agent_user::may_publish(right, self.as_event()) {
            true => Ok(()),
            false => Err(ResourceError::Forbidden("the credential may not delete this message")),
        }
    }
    fn source(rights: &Rights, filter: &AgentUserFilter) -> Result<ListSource, ResourceError> {
        let users = filter.visible_users(rights);
        match users.is_empty() || !filter.permits_agent(rights, EventKind::Message)? {
            true => Ok(ListSource::Empty),
            false => Ok(ListSource::any_of(LISTS.of_users(filter.agent_id.as_deref(), &users))),
        }
    }
    /// An agent that does not exist is an invalid `agent_id`.
    async fn build<N: CommitWaiter>(
        caller: &Caller<'_, N>,
        right: &Authorized<WriteAsUser>,
        new: NewMessage,
    ) -> Result<Message, ResourceError> {
        let content = match (new.content, new.text) {
            (Some(content), Some(text)) if content != text => {
                return Err(ResourceError::invalid("text", "differs from content; give one of them"));
            }
            (content, text) => {
                content.or(text).ok_or_else(|| ResourceError::invalid("content", "is required"))?
            }
        };
        let agent_id = new.agent_id.ok_or_else(|| ResourceError::invalid("agent_id", "is required"))?;
        let now_ms = caller.now_ms();
        let mut message = Message {
            id: crate::ids::fresh("msg"),
            number: next_number(now_ms),
            agent_id,
            user_id: new.user_id.unwrap_or_default(),
            role: new.role,
            content: check_text("content", Some(content), CONTENT_BYTES)?.unwrap_or_default(),
            model: check_text("model", new.model, MODEL_BYTES)?,
            tool_calls: check_json("tool_calls", new.tool_calls)?,
            metadata: check_object("metadata", new.metadata)?.map(compact),
            created_ms: now_ms,
        };
        // For a credential that is narrowed to other agents, this agent does not exist.
        let no_agent = || ResourceError::invalid("agent_id", "there is no such agent");
        if !caller.rights.narrowing.permits_agent(&message.agent_id) {
            return Err(no_agent());
        }
        message.user_id = speaker(right, &message)?;
        match agents::exists(caller, EventKind::Message, &message.agent_id).await {
            Err(ResourceError::NotFound) => return Err(no_agent()),
            found => found?,
        }
        Ok(message)
    }
}

/// Returns the user of a message, if the caller may send it. The rules are those of publishing its event.
fn speaker(right: &Authorized<WriteAsUser>, message: &Message) -> Result<String, ResourceError> {
    let mut event = message.as_event();
    let refused = |_| ResourceError::Forbidden("the credential may not send this message");
    right.check(&mut event).map_err(refused)?;
    match event.user_id {
        Some(user) => {
            check_id(&user).map_err(|reason| ResourceError::invalid("user_id", reason))?;
            Ok(user.into_owned())
        }
        // A user who may write for the whole organization writes for themselves unless the message names a
        // user.
        None => Ok(right.principal().sub.as_deref().unwrap_or(EVERYBODY).to_owned()),
    }
}

/// Removes the white space between the parts of a JSON text, as in events.
fn compact(json: Json) -> Json {
    let text = crate::event::compact(json.get()).into_owned();
    serde_json::value::RawValue::from_string(text).unwrap_or(json)
}
