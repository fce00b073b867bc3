//! A parser of `text/event-stream` (WHATWG HTML standard, §9.2.6): it takes bytes and returns events.
//!
//! * The bytes may be cut anywhere: inside a character, inside a line end, one at a time.
//! * The parser holds at most [`EVENT_BYTES_MAX`] of an unfinished event. A larger one is an error.
//!
//! It does not know sockets or the names of Nervewire's events, so it checks the daemon's output
//! independently.

/// Maximum bytes of one line, and of one event's data: far more than any event of Nervewire.
pub(crate) const EVENT_BYTES_MAX: usize = 4 << 20;

/// One dispatched event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SseEvent {
    /// The event's name; `message` if it has none.
    pub event: String,
    /// The data, with lines joined by LF. It is never empty, because an event without data is not dispatched.
    pub data: String,
    /// The current last event id, which an event without an `id` field inherits; empty if none or reset.
    pub id: String,
}

/// Why a stream cannot be read further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// A line or an event is larger than [`EVENT_BYTES_MAX`].
    #[error("an event is larger than {EVENT_BYTES_MAX} bytes")]
    TooLarge,
}

/// The state between two pieces of a stream.
#[derive(Debug, Default)]
pub struct SseParser {
    /// The line being received, without its end.
    line: Vec<u8>,
    /// Whether the last byte was a CR, so that an LF now belongs to the same line end.
    after_cr: bool,
    /// Whether the first line has been received. Only that line may start with a byte order mark.
    started: bool,
    event: String,
    data: String,
    /// The `id` field's buffer; it takes effect at the next blank line.
    id_buffer: String,
    last_event_id: String,
    retry: Option<u64>,
}

impl SseParser {
    /// Creates a parser for the start of a stream whose connection presented this last event id (empty:
    /// none).
    pub fn new(last_event_id: &str) -> Self {
        Self { id_buffer: last_event_id.into(), last_event_id: last_event_id.into(), ..Self::default() }
    }

    /// Takes the next bytes and appends the events that they complete.
    ///
    /// # Errors
    /// [`SseError::TooLarge`]; the parser cannot be used after it.
    pub fn push(&mut self, bytes: &[u8], events: &mut Vec<SseEvent>) -> Result<(), SseError> {
        for &byte in bytes {
            let joins_cr = std::mem::take(&mut self.after_cr) && byte == b'\n';
            match byte {
                b'\n' if joins_cr => {}
                b'\n' | b'\r' => {
                    self.after_cr = byte == b'\r';
                    let line = std::mem::take(&mut self.line);
                    events.extend(self.take_line(&line)?);
                    self.line = line;
                    self.line.clear();
                }
                _ if self.line.len() >= EVENT_BYTES_MAX => return Err(SseError::TooLarge),
                _ => self.line.push(byte),
            }
        }
        Ok(())
    }

    /// The id that a reconnecting client presents. It changes at blank lines, even if no event is dispatched.
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// The last `retry` field, in milliseconds.
    pub fn retry_ms(&self) -> Option<u64> {
        self.retry
    }

    fn take_line(&mut self, line: &[u8]) -> Result<Option<SseEvent>, SseError> {
        let line = if std::mem::replace(&mut self.started, true) {
            line
        } else {
            line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line)
        };
        if line.is_empty() {
            return Ok(self.dispatch());
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.unwrap_or(line.len()));
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let text = || String::from_utf8_lossy(value);
        match name {
            b"event" => self.event = text().into_owned(),
            b"data" => {
                if self.data.len() + value.len() > EVENT_BYTES_MAX {
                    return Err(SseError::TooLarge);
                }
                self.data.push_str(&text());
                self.data.push('\n');
            }
            b"id" if !value.contains(&0) => self.id_buffer = text().into_owned(),
            b"retry" if value.iter().all(u8::is_ascii_digit) => {
                self.retry = text().parse().ok().or(self.retry)
            }
            // A comment has an empty name; unknown fields are ignored.
            _ => {}
        }
        Ok(None)
    }

    fn dispatch(&mut self) -> Option<SseEvent> {
        self.last_event_id.clone_from(&self.id_buffer);
        let mut data = std::mem::take(&mut self.data);
        let event = std::mem::take(&mut self.event);
        // Every `data` line added an LF to the buffer; the last LF is not content.
        data.pop()?;
        let event = if event.is_empty() { "message".to_owned() } else { event };
        Some(SseEvent { event, data, id: self.last_event_id.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(event: &str, data: &str, id: &str) -> SseEvent {
        SseEvent { event: event.into(), data: data.into(), id: id.into() }
    }

    fn parse(bytes: &[u8], piece: usize) -> Vec<SseEvent> {
        let mut parser = SseParser::new("");
        let mut events = Vec::new();
        for piece in bytes.chunks(piece) {
            parser.push(piece, &mut events).unwrap();
        }
        events
    }

    const STREAM: &str = "\u{feff}retry: 2000\nevent: ready\nid: A\ndata: {\"x\":1}\n\n: heartbeat\n\
        id: B\r\ndata:  two\r\ndata:lines\r\n\r\nid\ndata: reset\n\ndata\n\nevent: dropped\n\nid: C\n\n\
        data: é€😀\rid: no\0de\r\rnonsense: 1\ndata: last\n\ndata: unfinished";

    /// The events are the same however the bytes are cut, down to one at a time.
    #[test]
    fn events_do_not_depend_on_where_the_bytes_are_cut() {
        let expected = [
            event("ready", "{\"x\":1}", "A"),
            event("message", " two\nlines", "B"),
            event("message", "reset", ""),
            event("message", "", ""),
            event("message", "é€😀", "C"),
            event("message", "last", "C"),
        ];
        for piece in [1, 2, 3, 5, 7, 1000] {
            assert_eq!(parse(STREAM.as_bytes(), piece), expected, "pieces of {piece}");
        }
    }

    /// A comment without a blank line after an id must neither dispatch an event nor lose the id.
    #[test]
    fn a_keep_alive_comment_dispatches_nothing() {
        let mut parser = SseParser::new("");
        let mut events = Vec::new();
        parser.push(b"id: A\ndata: 1\n\n: heartbeat\n: heartbeat\n", &mut events).unwrap();
        assert_eq!(events, [event("message", "1", "A")]);
        assert_eq!(parser.last_event_id(), "A");
        parser.push(b"retry: 12x\nretry: 250\n\n", &mut events).unwrap();
        assert_eq!((events.len(), parser.retry_ms()), (1, Some(250)));
    }

    #[test]
    fn a_presented_id_is_kept_until_another_arrives() {
        let mut parser = SseParser::new("Z");
        let mut events = Vec::new();
        parser.push(b"data: 1\n\nid: Y\ndata: 2\n", &mut events).unwrap();
        assert_eq!((events.as_slice(), parser.last_event_id()), (&[event("message", "1", "Z")][..], "Z"));
        parser.push(b"\n", &mut events).unwrap();
        assert_eq!(parser.last_event_id(), "Y");
    }

    #[test]
    fn a_line_or_event_without_end_is_an_error() {
        let mut parser = SseParser::new("");
        let mut events = Vec::new();
        assert_eq!(parser.push(&vec![b'a'; EVENT_BYTES_MAX], &mut events), Ok(()));
        assert_eq!(parser.push(b"a", &mut events), Err(SseError::TooLarge));

        let mut parser = SseParser::new("");
        let mut line = b"data:".to_vec();
        line.resize(1 << 20, b'x');
        line.push(b'\n');
        let refused = (0..10).find_map(|_| parser.push(&line, &mut events).err());
        assert_eq!(refused, Some(SseError::TooLarge));
    }
}
