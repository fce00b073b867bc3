//! `/agents`, `/agents/{id}`, `/agents/{id}/state`, `/agents/{id}/messages`.

use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::outcome::Refusal;
use crate::resource::agents::{self, Agent, Json, Saying, State};
use crate::resource::messages::{self, NewMessage, Role};
use crate::time::rfc3339;

use super::super::created;
use super::super::exchange::Exchange;
use super::super::respond::Answer;
use super::{
    Written, if_match, listed, made, may_write, no_parameters, of_version, page, reading, unescaped, writing,
    written,
};

/// An agent as clients see it.
#[derive(Serialize)]
struct View<'a> {
    id: &'a str,
    organization_id: &'a str,
    name: Option<&'a str>,
    description: Option<&'a str>,
    system: Option<&'a str>,
    agent_type: Option<&'a str>,
    llm_config: Option<&'a Json>,
    embedding_config: Option<&'a Json>,
    tool_rules: Option<&'a Json>,
    metadata: Option<&'a Json>,
    state: State,
    error_message: Option<&'a str>,
    last_active_at: Option<String>,
    created_at: String,
    updated_at: String,
}

fn view<'a>(org_id: &'a str, agent: &'a Agent) -> View<'a> {
    let said = &agent.said;
    View {
        id: &agent.id,
        organization_id: org_id,
        name: said.name.as_deref(),
        description: said.description.as_deref(),
        system: said.system.as_deref(),
        agent_type: said.agent_type.as_deref(),
        llm_config: said.llm_config.as_ref(),
        embedding_config: said.embedding_config.as_ref(),
        tool_rules: said.tool_rules.as_ref(),
        metadata: said.metadata.as_ref(),
        state: agent.state,
        error_message: agent.error_message.as_deref(),
        last_active_at: agent.last_active_ms.map(rfc3339),
        created_at: rfc3339(agent.created_ms),
        updated_at: rfc3339(agent.updated_ms),
    }
}

pub(in crate::http) async fn list(x: &Exchange) -> Result<Answer, Refusal> {
    let caller = reading(x).await?;
    let page = page(x, |_, _| Ok(false))?;
    let (agents, next) = agents::list(&caller, &page).await?;
    let views: Vec<View<'_>> = agents.iter().map(|agent| view(&caller.principal.org_id, agent)).collect();
    Ok(listed(&views, next.as_ref()))
}

pub(in crate::http) async fn create(x: &mut Exchange) -> Result<Answer, Refusal> {
    let Written { x, caller, bytes, body: saying, .. } = written::<Saying>(x).await?;
    let answer = |agent: &Agent| of_version(created(view(&caller.principal.org_id, agent)), agent.version);
    made(x, &caller, &bytes, answer, async |kept| agents::create(&caller, saying, kept).await).await
}

pub(in crate::http) async fn get(x: &Exchange, id: &str) -> Result<Answer, Refusal> {
    no_parameters(x)?;
    let caller = reading(x).await?;
    let agent = agents::get(&caller, &unescaped(id)?).await?;
    Ok(told(&caller.principal.org_id, &agent))
}

pub(in crate::http) async fn change(x: &mut Exchange, id: &str) -> Result<Answer, Refusal> {
    let Written { x, caller, body: saying, .. } = written::<Saying>(x).await?;
    let agent = agents::change(&caller, &unescaped(id)?, if_match(x)?, saying).await?;
    Ok(told(&caller.principal.org_id, &agent))
}

pub(in crate::http) async fn delete(x: &Exchange, id: &str) -> Result<Answer, Refusal> {
    let right = may_write(x)?;
    no_parameters(x)?;
    let caller = writing(x, &right, 0).await?;
    agents::delete(&caller, &unescaped(id)?, if_match(x)?).await?;
    Ok(Answer::empty())
}

fn told(org_id: &str, agent: &Agent) -> Answer {
    of_version(Answer::data(StatusCode::OK, view(org_id, agent)), agent.version)
}

#[derive(Serialize)]
struct StateView<'a> {
    agent_id: &'a str,
    state: State,
    last_active_at: Option<String>,
    error_message: Option<&'a str>,
}

fn state_told(agent: &Agent) -> Answer {
    let view = StateView {
        agent_id: &agent.id,
        state: agent.state,
        last_active_at: agent.last_active_ms.map(rfc3339),
        error_message: agent.error_message.as_deref(),
    };
    of_version(Answer::data(StatusCode::OK, view), agent.version)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StateBody {
    state: State,
    error_message: Option<String>,
}

pub(in crate::http) async fn get_state(x: &Exchange, id: &str) -> Result<Answer, Refusal> {
    no_parameters(x)?;
    let caller = reading(x).await?;
    Ok(state_told(&agents::get(&caller, &unescaped(id)?).await?))
}

pub(in crate::http) async fn set_state(x: &mut Exchange, id: &str) -> Result<Answer, Refusal> {
    let Written { x, caller, body, .. } = written::<StateBody>(x).await?;
    let version = if_match(x)?;
    let agent = agents::set_state(&caller, &unescaped(id)?, version, body.state, body.error_message).await?;
    Ok(state_told(&agent))
}

/// What is said to an agent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SayBody {
    message: String,
    user_id: Option<String>,
    /// Whether the platform is to remember it; like the next two it goes into the message's metadata, for agents to see.
    memorizing: Option<bool>,
    image_uris: Option<Vec<String>>,
    voice_files: Option<Vec<String>>,
    metadata: Option<Json>,
}

impl SayBody {
    /// What goes into the message's metadata beside its own.
    fn notes(&self) -> Vec<(&'static str, Json)> {
        fn note<T: Serialize>(name: &'static str, said: Option<&T>) -> Option<(&'static str, Json)> {
            let json = serde_json::value::to_raw_value(said?).ok()?; // texts and booleans: nothing can fail
            Some((name, json))
        }
        let notes = [
            note("memorizing", self.memorizing.as_ref()),
            note("image_uris", self.image_uris.as_ref()),
            note("voice_files", self.voice_files.as_ref()),
        ];
        notes.into_iter().flatten().collect()
    }
}

#[derive(Serialize)]
struct Said<'a> {
    message_id: &'a str,
    /// What the agent answers comes as events: nothing here runs agents.
    response: Option<&'a str>,
    processing_time_ms: u64,
}

pub(in crate::http) async fn say(x: &mut Exchange, id: &str) -> Result<Answer, Refusal> {
    let began = std::time::Instant::now();
    let Written { x, right, caller, bytes, body, .. } = written::<SayBody>(x).await?;
    let id = unescaped(id)?;
    agents::exists(&caller, &id).await?; // here the path names it: 404, not 400
    let notes = body.notes();
    let new = NewMessage {
        agent_id: Some(id),
        user_id: body.user_id,
        role: Role::User,
        content: Some(body.message),
        text: None,
        model: None,
        tool_calls: None,
        metadata: messages::noted(body.metadata, notes)?,
    };
    let answer = |message: &messages::Message| {
        let processing_time_ms = began.elapsed().as_millis() as u64;
        created(Said { message_id: &message.id, response: None, processing_time_ms })
    };
    made(x, &caller, &bytes, answer, async |kept| messages::create(&caller, &right, new, kept).await).await
}
