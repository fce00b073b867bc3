//! The events of one subscription: those that its principal may see ([`Rights`]) and that it asks for
//! ([`Filter`]).
//!
//! * Rights are checked for every event, or for all events of a page at once if it is proved that all of them
//!   are permitted.

use super::{Filter, Narrowing};
use crate::event::EventKind;
use crate::frame::frame_page::PageContents;
use crate::frame::{Frame, RoutingKey};

/// What a principal may see within its organization. The default sees only events without `user_id`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Rights {
    /// The user whose events are seen in addition to those without `user_id`; `None` for no user.
    pub sub: Option<Box<str>>,
    /// True with the scope `read:all`, or in an organization with `visibility = "org"`.
    pub sees_all_users: bool,
    /// The credential's `agents`, `channels` and `types`.
    pub narrowing: Narrowing,
}

impl Rights {
    /// Returns true if the two permit different events. For a principal that sees all users, the `sub` makes
    /// no difference.
    #[must_use]
    pub fn differ(&self, other: &Rights) -> bool {
        self.sees_all_users != other.sees_all_users
            || self.narrowing != other.narrowing
            || (!self.sees_all_users && self.sub != other.sub)
    }
    /// Returns true if the principal may see `frame`.
    #[must_use]
    pub fn permit(&self, frame: &Frame) -> bool {
        let user = match frame.key_bytes(RoutingKey::User) {
            Some(user) => self.sees_all_users || self.sub.as_deref().map(str::as_bytes) == Some(user),
            None => true,
        };
        user && (self.narrowing.is_none()
            || self.narrowing.permits(
                frame.kind(),
                frame.key(RoutingKey::Agent),
                frame.key(RoutingKey::Channel),
            ))
    }
    /// Returns true if the principal may see a resource of this agent and user; without a user it belongs to
    /// all. `kind` is that of the events that report its changes.
    #[must_use]
    pub fn permit_resource(&self, kind: EventKind, agent: Option<&str>, user: Option<&str>) -> bool {
        let own = user.is_none_or(|user| self.sub.as_deref() == Some(user));
        (own || self.sees_all_users) && self.narrowing.permits(kind, agent, None)
    }
    /// Returns true if [`Rights::permit`] is true of every frame. `has_users` says whether some frames have a
    /// `user_id`.
    #[must_use]
    pub fn permit_all(&self, has_users: bool) -> bool {
        (self.sees_all_users || !has_users) && self.narrowing.is_none()
    }
}

/// What one subscription may see and asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Selection {
    /// What it asks for.
    pub filter: Filter,
    /// What it may see.
    pub rights: Rights,
}

impl Selection {
    /// Returns true if `frame` is sent to this subscription. Live delivery, replay and history all use this
    /// predicate.
    #[must_use]
    pub fn matches(&self, frame: &Frame) -> bool {
        self.rights.permit(frame) && self.filter.matches(frame)
    }
    /// Returns true if [`Selection::matches`] is true of every frame of a page with these contents. Returns
    /// false if the answer needs a check of each frame.
    #[must_use]
    pub fn matches_all(&self, contents: PageContents) -> bool {
        self.rights.permit_all(contents.has_users) && self.filter.matches_all(contents.has_other_parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventKind;
    use crate::frame::tests::frame;

    /// For every selection and every set of events: if all are said to match without a check, each of them
    /// matches.
    #[test]
    fn a_selection_that_matches_a_page_whole_matches_each_event() {
        let ours = frame(r#"{"type":"message","agent_id":"a","user_id":"ann","content":"x"}"#, 1);
        let theirs = frame(r#"{"type":"message","agent_id":"b","user_id":"bob","content":"x"}"#, 2);
        let public = frame(r#"{"type":"custom","channel":"c","data":1}"#, 3);
        let thought = r#"{"type":"stream_chunk","request_id":"r","chunk":"x","is_final":false,"part":{"type":"reasoning","id":"a"}}"#;
        let thought = frame(thought, 4);
        let narrow = |agents: &[&str], channels: &[&str], types: &[&str]| {
            let list =
                |names: &[&str]| (!names.is_empty()).then(|| names.iter().copied().map(Box::from).collect());
            Narrowing::new(list(agents), list(channels), list(types)).expect("sound")
        };
        let narrowings = [
            Narrowing::default(),
            narrow(&["a"], &[], &[]),
            narrow(&[], &["c"], &[]),
            narrow(&[], &[], &[EventKind::Message.name()]),
        ];
        let filters =
            ["", "types=custom", "user_id=ann", "channel=c", "parts=all", "parts=all&types=stream_chunk"];
        let mut matched = 0;
        for sees_all_users in [false, true] {
            for sub in [None, Some("ann".into())] {
                for narrowing in &narrowings {
                    for query in filters {
                        let pairs = crate::query::pairs(query).expect(query);
                        let filter = Filter::from_query(&pairs).expect(query);
                        let rights =
                            Rights { sub: sub.clone(), sees_all_users, narrowing: narrowing.clone() };
                        let selection = Selection { filter, rights };
                        for frames in
                            [&[&ours, &theirs, &public][..], &[&ours], &[&public], &[&public, &thought]]
                        {
                            let contents = PageContents {
                                has_users: frames.iter().any(|frame| frame.key(RoutingKey::User).is_some()),
                                has_other_parts: frames.iter().any(|frame| frame.is_of_other_part()),
                            };
                            if selection.matches_all(contents) {
                                matched += 1;
                                assert!(frames.iter().all(|frame| selection.matches(frame)), "{selection:?}");
                            }
                        }
                    }
                }
            }
        }
        // Without narrowing, and with no filter: three sets for a principal that sees all users, and the public
        // set for the others, with and without a `sub`. With `parts=all` one set more for each of them.
        assert_eq!(matched, 2 * (3 + 1) + 2 * (4 + 2));
    }
}
