//! The id of a received event, and requests that resume after it.

use memchr::memmem;

/// Length of an event's id, which is a cursor, in characters.
pub(crate) const ID_LEN: usize = 22;

/// The id of an event.
pub(crate) type EventId = [u8; ID_LEN];

/// Returns an event's id: the field of an SSE event, or the member of a WebSocket's JSON object.
pub(crate) fn event_id(text: &[u8]) -> Option<EventId> {
    let at = match memmem::find(text, b"\"id\":\"") {
        _ if text.starts_with(b"id: ") => 4,
        _ if memmem::find(text, b"\nid: ").is_some() => memmem::find(text, b"\nid: ")? + 5,
        Some(at) => at + 6,
        None => return None,
    };
    text.get(at..at + ID_LEN)?.try_into().ok()
}

/// Adds the header `Last-Event-ID` to a request without a body, as a browser's EventSource sends it.
pub(crate) fn add_last_event_id(request: &mut Vec<u8>, id: &str) {
    request.truncate(request.len() - 2); // the empty line
    request.extend_from_slice(format!("Last-Event-ID: {id}\r\n\r\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_an_event_is_found_on_every_transport() {
        const ID: &str = "AAAAAAAAAAAAAAAAAAAAB1";
        let ws = format!(r#"{{"type":"custom","id":"{ID}","channel":"bench/0","data":{{}}}}"#);
        let sse = format!("id: {ID}\ndata: {{\"id\":\"another\"}}");
        let later = format!(": heartbeat\n{sse}");
        for text in [ws, sse, later] {
            assert_eq!(event_id(text.as_bytes()).as_ref().map(|it| &it[..]), Some(ID.as_bytes()), "{text}");
        }
        assert_eq!(event_id(b"data: {}"), None);
    }
}
