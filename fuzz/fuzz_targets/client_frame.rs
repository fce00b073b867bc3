//! Frames of a WebSocket client: accepted only if they are a JSON object with that type, and answered with
//! the right `ref`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nervewire::connection::client_frame::{AppendFrame, ClientFrame, EndFrame, Subscribe};
use nervewire::event::Event;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let plain: Option<Value> = serde_json::from_str(text).ok();
    let frame = match ClientFrame::parse(text) {
        Ok(frame) => frame,
        Err(refused) => {
            assert!(!refused.reason.is_empty() && refused.reason.len() < 1024);
            return;
        }
    };
    let kind = match &frame {
        ClientFrame::Ping => "ping",
        ClientFrame::Pong => "pong",
        ClientFrame::Subscribe(_) => "subscribe",
        ClientFrame::Auth { .. } => "auth",
        ClientFrame::Publish { .. } => "publish",
        ClientFrame::Cancel { .. } => "cancel",
        ClientFrame::Append(_) => "append",
        ClientFrame::End(EndFrame { end, .. }) if end.error.is_none() => "finish",
        ClientFrame::End(_) => "fail",
    };
    // A plain parser refuses more than the daemon must (lone surrogates inside raw events, depth), never
    // less.
    if let Some(plain) = &plain {
        assert_eq!(plain["type"], kind);
        let reference = match &frame {
            ClientFrame::Ping | ClientFrame::Pong => &None,
            ClientFrame::Subscribe(Subscribe { reference, .. })
            | ClientFrame::Append(AppendFrame { reference, .. })
            | ClientFrame::End(EndFrame { reference, .. })
            | ClientFrame::Auth { reference, .. }
            | ClientFrame::Publish { reference, .. }
            | ClientFrame::Cancel { reference, .. } => reference,
        };
        if !matches!(frame, ClientFrame::Ping | ClientFrame::Pong) {
            assert_eq!(serde_json::to_value(reference).expect("JSON"), plain["ref"]);
        }
    }
    if let ClientFrame::Publish { events, .. } = &frame {
        assert!(!events.is_empty());
        events.iter().for_each(|event| drop(Event::parse(event.get())));
    }
    if let ClientFrame::Auth { token, .. } = &frame {
        assert!(token.0.len() < 9 || !format!("{frame:?}").contains(token.0.as_ref()));
    }
});
