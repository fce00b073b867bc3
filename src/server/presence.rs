//! The task that tells an organization who of its users came and who is gone.
//!
//! * One task for all of them, so what it tells of a user is in order; it hangs on the handle that `serve` aborts before it
//!   drains: a daemon that ends tells nothing of those it closes.
//! * It waits for no commit and no room: a full organization's news are tried again later, and delay nobody else's.

use std::sync::Arc;

use serde::Serialize;
use tokio::time::timeout;

use crate::auth::Actor;
use crate::connection::presence::{Keeper, Step, Tell};
use crate::event::{Event, presence_channel};
use crate::store::Done;
use crate::worker::Shared;

/// Steps between two yields to the errands of the same thread.
const STEPS: u32 = 64;

/// A `custom` event, as its JSON.
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

/// Publishes who comes and goes, until dropped.
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
            // Over, or news: either way there is something to look at.
            Step::Wait(Some(limit)) => drop(timeout(limit, presence.news()).await),
        }
        steps = steps.wrapping_add(1);
        if steps.is_multiple_of(STEPS) {
            tokio::task::yield_now().await;
        }
    }
}

/// `None`: not now.
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
