//! Tests that the schemas of frames match what the encoder writes and what the parser accepts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::connection::client_frame::{ClientFrame, FRAMES};
use crate::cursor::Cursor;
use crate::frame::control::{Control, GapReason, Ref};

use super::*;

/// A validator of one schema of the AsyncAPI document.
fn validator(name: &str) -> jsonschema::Validator {
    let document: Value = serde_json::from_str(&ASYNCAPI).unwrap();
    let root = json!({"$ref": format!("#/components/schemas/{name}"), "components": document["components"]});
    jsonschema::draft202012::options().build(&root).unwrap()
}

fn names(schema: &Value, of: &str) -> BTreeSet<String> {
    match &schema[of] {
        Value::Object(fields) => fields.keys().cloned().collect(),
        Value::Array(names) => names.iter().map(|name| name.as_str().unwrap().to_owned()).collect(),
        _ => BTreeSet::new(),
    }
}

/// The schema's name of a control frame. A new control frame does not compile until it has a name here.
fn name_of(control: &Control<'_>) -> &'static str {
    match control {
        Control::Ping { .. } => "PingFrame",
        Control::Pong { .. } => "PongFrame",
        Control::Heartbeat { .. } => "HeartbeatFrame",
        Control::Ready { .. } => "ReadyFrame",
        Control::CaughtUp { .. } => "CaughtUpFrame",
        Control::Gap { .. } => "GapFrame",
        Control::Ack { .. } => "AckFrame",
        Control::Cancel { .. } => "CancelFrame",
        Control::Done { .. } => "DoneFrame",
        Control::Error { .. } => "ErrorFrame",
    }
}

#[test]
fn control_frames_match_their_schemas() {
    let cursor = Cursor(*b"AAECAwQFBgcICQoLDA0ODw");
    let reference = Ref::Text("r".into());
    let number = Ref::Number(u64::MAX);
    let (some, details) = (Some(&reference), json!({"a": 1}));
    let usage = serde_json::value::RawValue::from_string("{}".into()).unwrap();
    // Each control frame with all of its fields, and with as few as possible.
    let pairs = [
        [Control::Ping { timestamp_ms: 0, cursor }; 2],
        [Control::Pong { timestamp_ms: 0 }; 2],
        [Control::Heartbeat { timestamp_ms: 0, cursor }; 2],
        [Some(&number), None].map(|reference| Control::Ready {
            connection_id: "c",
            cursor,
            resumed: true,
            replaying: u64::MAX,
            heartbeat_seconds: 30,
            reference,
        }),
        [Control::CaughtUp { cursor }; 2],
        [GapReason::Trimmed, GapReason::Lagged].map(|reason| Control::Gap {
            after: "",
            resumes_at: cursor,
            reason,
        }),
        [
            Control::Ack { reference: some, ids: &[cursor], next_index: Some(1) },
            Control::Ack { reference: None, ids: &[], next_index: None },
        ],
        [Control::Cancel { request_id: "r" }; 2],
        [(Some("stop"), Some(&*usage)), (None, None)].map(|(finish_reason, usage)| Control::Done {
            request_id: "r",
            state: "completed",
            finish_reason,
            usage,
        }),
        [
            Control::Error { code: "C", message: "m", details: Some(&details), reference: some },
            Control::Error { code: "C", message: "m", details: None, reference: None },
        ],
    ];
    let frames = frames::of_daemon();
    assert_eq!(frames.len(), pairs.len());
    for [most, least] in pairs {
        let name = name_of(&most);
        let schema = &frames.iter().find(|frame| frame.name == name).unwrap().schema;
        assert_eq!(schema["properties"]["type"]["const"], most.name());
        let validator = validator(name);
        for (control, fields) in [(most, names(schema, "properties")), (least, names(schema, "required"))] {
            let mut json = Vec::new();
            control.json(&mut json);
            let frame: Value = serde_json::from_slice(&json).unwrap();
            assert_eq!(frame.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>(), fields, "{name}");
            validator.validate(&frame).unwrap_or_else(|error| panic!("{name}: {error} in {frame}"));
        }
    }
}

#[test]
fn client_frames_match_their_schemas() {
    let frames = frames::of_client();
    assert_eq!(frames.len(), FRAMES.len());
    for (kind, fields) in FRAMES {
        let frame = frames.iter().find(|frame| frame.kind == kind).unwrap();
        let mut described = names(&frame.schema, "properties");
        assert!(described.remove("type") && described.remove("ref"), "{kind}");
        assert_eq!(described, fields.iter().map(ToString::to_string).collect(), "{kind}");
        for name in names(&frame.schema, "required") {
            if name != "type" {
                let mut without = frame.schema["examples"][0].clone();
                without.as_object_mut().unwrap().remove(&name);
                assert!(ClientFrame::parse(&without.to_string()).is_err(), "{kind} without {name}");
            }
        }
    }
}

#[test]
fn every_schema_example_is_valid() {
    for (document, at) in [(&*ASYNCAPI, "asyncapi"), (&*OPENAPI, "openapi")] {
        let document: Value = serde_json::from_str(document).unwrap();
        let mut shown = 0;
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            let root =
                json!({"$ref": format!("#/components/schemas/{name}"), "components": document["components"]});
            let validator = jsonschema::draft202012::options().build(&root).unwrap();
            for example in schema["examples"].as_array().into_iter().flatten() {
                shown += 1;
                validator.validate(example).unwrap_or_else(|error| panic!("{at} {name}: {error}"));
            }
        }
        assert!(shown >= 12, "{at}: {shown}");
    }
    for frame in frames::of_client() {
        let example = frame.schema["examples"][0].to_string();
        ClientFrame::parse(&example).unwrap_or_else(|error| panic!("{example}: {error}"));
    }
}

/// Every example body in the OpenAPI document is valid by its schema.
#[test]
fn every_example_body_matches_its_schema() {
    let document: Value = serde_json::from_str(&OPENAPI).unwrap();
    let mut bodies = Vec::new();
    fn collect<'a>(value: &'a Value, at: &str, found: &mut Vec<(String, &'a Value, &'a Value)>) {
        match value {
            Value::Object(fields) => {
                if let (Some(schema), Some(example)) = (fields.get("schema"), fields.get("example")) {
                    found.push((at.to_owned(), schema, example));
                }
                fields.iter().for_each(|(name, value)| collect(value, &format!("{at}/{name}"), found));
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, at, found)),
            _ => {}
        }
    }
    collect(&document["paths"], "", &mut bodies);
    collect(&document["components"]["responses"], "", &mut bodies);
    assert!(bodies.len() > 50, "{}", bodies.len());
    for (at, schema, example) in bodies {
        let mut root = schema.clone();
        root["components"] = document["components"].clone();
        let validator = jsonschema::draft202012::options().build(&root).unwrap();
        validator.validate(example).unwrap_or_else(|error| panic!("{at}: {error} in {example}"));
    }
}
