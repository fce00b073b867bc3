//! The task that publishes which users of an organization came online and went offline.
//!
//! * One task serves all organizations, so the events of one user are in order. `serve` aborts the task
//!   before the drain, so the connections that the drain closes are not published as offline.
//! * The task never waits for a commit or for room. Events of an organization whose queue is full are tried
//!   again later and delay no other organization.

use std::sync::Arc;

use serde::Serialize;
use tokio::time::timeout;

use crate::auth::Actor;
use crate::connection::presence::{Keeper, Step, Tell};
use crate::event::{Event, presence_channel};
use crate::store::Done;
use crate::worker::Shared;

/// Steps after which the task yields to other tasks of its thread.
const STEPS: u32 = 64;

/// A `custom` event, serialized as JSON.
#[derive(Serialize)]
struct Told<'a> {
    r#type: &'static str,
    channel: String,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    status: &'static str,
    sub: &'a str,
}

/// Publishes presence changes until it is dropped.
pub(super) async fn keep(shared: Arc<Shared>) {
    let presence = shared.admission.presence().clone();
    let mut keeper = Keeper::new(presence.clone());
    let mut steps = 0_u32;
    loop {
        match keeper.step() {
            Step::Tell(tell) => {
                let published = publish(&shared, &tell).await.is_some();
                keeper.told(tell, published);
            }
            Step::Muster(tenant) => {
                let mut after = None;
                loop {
                    after = shared.admission.muster(tenant, after.as_deref());
                    if after.is_none() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
            }
            Step::Wait(None) => presence.news().await,
            // After a timeout and after a change alike, the loop looks for work.
            Step::Wait(Some(limit)) => drop(timeout(limit, presence.news()).await),
        }
        steps = steps.wrapping_add(1);
        if steps.is_multiple_of(STEPS) {
            tokio::task::yield_now().await;
        }
    }
}

/// Publishes one change. Returns `None` if that is not possible now.
async fn publish(shared: &Shared, tell: &Tell) -> Option<()> {
    let data = Data { status: if tell.online { "online" } else { "offline" }, sub: &tell.sub };
    let json =
        serde_json::to_string(&Told { r#type: "custom", channel: presence_channel(&tell.sub), data }).ok()?;
    let event = Event::parse(&json).ok()?;
    let tenant = shared.tenants.open(tell.tenant).await.ok()?;
    let frames = shared.tenants.encode(&[event], 0).ok()?;
    shared.tenants.publish_now(Actor::daemon(), &tenant, frames, |_| Done::Nobody).ok()?;
    Some(())
}
