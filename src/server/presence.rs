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
use crate::connection::presence::{PresenceChange, PresenceTracker, TrackerStep};
use crate::event::{Event, presence_channel};
use crate::store::CommitCallback;
use crate::tenant::admission::{AckMode, PublishKind, PublishRequest, PublishedNow};
use crate::tenant::rate::RateCharge;
use crate::worker::SharedState;

/// Steps after which the task yields to other tasks of its thread.
const STEPS: u32 = 64;

/// A `custom` event, serialized as JSON.
#[derive(Serialize)]
struct PresenceEvent<'a> {
    r#type: &'static str,
    channel: String,
    data: PresenceData<'a>,
}

#[derive(Serialize)]
struct PresenceData<'a> {
    status: &'static str,
    sub: &'a str,
}

/// Publishes presence changes until it is dropped.
pub(super) async fn run(shared: Arc<SharedState>) {
    let presence = shared.admission.presence().clone();
    let mut tracker = PresenceTracker::new(presence.clone());
    let mut steps = 0_u32;
    loop {
        match tracker.step() {
            TrackerStep::Publish(change) => {
                let published = publish(&shared, &change).await.is_some();
                tracker.on_published(change, published);
            }
            TrackerStep::EnrolConnected(tenant) => {
                let mut after = None;
                loop {
                    after = shared.admission.enrol_connected(tenant, after.as_deref());
                    if after.is_none() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
            }
            TrackerStep::Wait(None) => presence.work_added().await,
            // After a timeout and after a change alike, the loop looks for work.
            TrackerStep::Wait(Some(limit)) => drop(timeout(limit, presence.work_added()).await),
        }
        steps = steps.wrapping_add(1);
        if steps.is_multiple_of(STEPS) {
            tokio::task::yield_now().await;
        }
    }
}

/// Publishes one change. Returns `None` if that is not possible now.
async fn publish(shared: &SharedState, change: &PresenceChange) -> Option<()> {
    let data = PresenceData { status: if change.online { "online" } else { "offline" }, sub: &change.sub };
    let json = serde_json::to_string(&PresenceEvent {
        r#type: "custom",
        channel: presence_channel(&change.sub),
        data,
    })
    .ok()?;
    let event = Event::parse(&json).ok()?;
    let tenant = shared.tenants.open(change.tenant).await.ok()?;
    let request = PublishRequest {
        actor: Actor::daemon(),
        tenant: tenant.id(),
        events: shared.tenants.internal_draft(RateCharge::DUE, &[event]),
        kind: PublishKind::Events { key: None, ack: AckMode::Memory },
    };
    match shared.tenants.publish_now(request, |_| CommitCallback::None).ok()? {
        PublishedNow::Queued(_) => Some(()),
        PublishedNow::MustWait(_) => None,
    }
}
