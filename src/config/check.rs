//! Checks the relations between keys after each key was checked by itself. Every relation says what would
//! break without it.

use std::collections::HashSet;

use super::error::{Origin, Problem};
use super::key::Key;
use super::raw::RawValue;
use super::{Config, Origins};

/// Requires `small` ≤ `large`, because of `why`.
struct AtMostRelation {
    small: &'static str,
    large: &'static str,
    why: &'static str,
}

const RELATIONS: &[AtMostRelation] = &[
    AtMostRelation {
        small: "limits.event_bytes",
        large: "limits.body_bytes",
        why: "the largest event must fit a request",
    },
    AtMostRelation {
        small: "limits.body_bytes",
        large: "limits.body_bytes_per_organization",
        why: "the largest request must fit its organization's share",
    },
    AtMostRelation {
        small: "limits.event_bytes",
        large: "limits.ws_frame_bytes",
        why: "the largest event must fit a WebSocket message",
    },
    AtMostRelation {
        small: "limits.uncommitted_events",
        large: "limits.ring_slots",
        why: "an uncommitted event is only in the ring",
    },
    AtMostRelation {
        small: "limits.ring_bytes_per_tenant",
        large: "limits.ring_bytes_total",
        why: "one ring is part of the total",
    },
];

pub(super) fn relations(config: &Config, origins: &Origins, problems: &mut Vec<Problem>) {
    for AtMostRelation { small, large, why } in RELATIONS {
        let (least, most) = (number(config, small), number(config, large));
        if least > most {
            let origin =
                origins.get(small).or_else(|| origins.get(large)).cloned().unwrap_or(Origin::Default);
            let what = format!("expects {small} ({least}) to be at most {large} ({most}): {why}");
            problems.push(Problem::new(*small, origin, what));
        }
    }
    if !config.limits.ring_slots.is_power_of_two() {
        let key = "limits.ring_slots";
        let what = format!(
            "expects a power of two, got {}; the next is {}",
            config.limits.ring_slots,
            config.limits.ring_slots.next_power_of_two()
        );
        problems.push(Problem::new(key, origins.get(key).cloned().unwrap_or(Origin::Default), what));
    }
    let mut taken = HashSet::new();
    for (key, addr) in config
        .listen
        .iter()
        .map(|a| ("listen", a))
        .chain(config.admin_listen.iter().map(|a| ("admin_listen", a)))
    {
        if !addr.has_any_port() && !taken.insert(addr) {
            let origin = origins.get(key).cloned().unwrap_or(Origin::Default);
            problems.push(Problem::new(key, origin, format!("{addr} is configured twice")));
        }
    }
}

/// The number that a key holds, or 0 if its value is not a number. A test makes sure that all keys in
/// [`RELATIONS`] are numbers.
fn number(config: &Config, name: &str) -> i128 {
    match Key::find(name).map(|key| key.value(config)) {
        Some(RawValue::Int(number)) => number,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_relation_names_two_numeric_keys_and_holds_by_default() {
        let config = Config::default();
        for AtMostRelation { small, large, .. } in RELATIONS {
            let (a, b) = (number(&config, small), number(&config, large));
            assert!(a > 0 && b > 0, "{small} {large}");
            assert!(a <= b, "{small} {large}");
        }
    }
}
