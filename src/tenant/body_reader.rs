//! Parses a body into events: one event, an array, or lines (NDJSON). It is parsed while it arrives. Either
//! all events are valid or none is accepted.
//!
//! * [`BodyReader`] passes on each event as soon as its last byte has arrived, and keeps only what it cannot
//!   parse yet: the start of the next event. Nothing may be published before [`BodyReader::finish`] has found
//!   the whole body valid.
//! * The result does not depend on how the body is cut into parts, neither the events nor the errors.
//! * Errors name the item, `[3].content`. If the fast array parser (`fast_parse::Items`) cannot parse an item, the
//!   rest of the body is kept and parsed by serde_json, which produces the error text. Of the part before it,
//!   only the number of events, lines and bytes is known.

use serde_json::value::RawValue;

use crate::event::fast_parse::{Items, NextItem};
use crate::event::{Event, EventError, EventKind};

/// Maximum of events in one request or frame.
pub const BATCH_EVENTS: usize = 1_000;

/// The format of a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyFormat {
    /// One event, or an array of events.
    Json,
    /// One event on each line; blank lines are skipped.
    Lines,
}

/// What the parser is reading.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ReadState {
    /// JSON of which only white space has arrived.
    Begin,
    /// One event, which is parsed when it is complete.
    One,
    /// An array.
    Array,
    /// An array whose rest is kept for serde_json.
    Doubtful,
    /// Lines.
    Lines,
    /// An error was found. The rest is only checked for valid UTF-8.
    Failed,
}

/// Parses the events of one body from its parts.
#[derive(Debug)]
pub struct BodyReader {
    state: ReadState,
    /// Bytes that arrived and are not parsed yet.
    rest: Vec<u8>,
    /// Length of `rest` at which parsing is tried again. It doubles each time, so that an event in many parts
    /// is not parsed from its start for each part.
    retry_at: usize,
    /// Number of events passed on.
    events: usize,
    /// Line ends in the parsed part of an array; `column` counts the bytes after the last of them.
    lines: usize,
    column: usize,
    error: Option<EventError>,
    /// True if a part of the body was not UTF-8.
    is_binary: bool,
}

impl BodyReader {
    /// Creates a parser for a body of which nothing has arrived.
    #[must_use]
    pub fn new(format: BodyFormat) -> BodyReader {
        BodyReader {
            state: if format == BodyFormat::Json { ReadState::Begin } else { ReadState::Lines },
            rest: Vec::new(),
            retry_at: 0,
            events: 0,
            lines: 0,
            column: 0,
            error: None,
            is_binary: false,
        }
    }

    /// Parses the next part of the body and passes on the events that it completes. `last` is true for the
    /// last part.
    pub fn read(&mut self, part: &[u8], last: bool, each: &mut impl FnMut(Event<'_>)) {
        if self.is_binary {
            return;
        }
        if self.rest.is_empty() {
            let read = self.read_bytes(part, last, each);
            self.rest.extend_from_slice(&part[read..]);
        } else {
            self.rest.extend_from_slice(part);
            if !last && self.rest.len() < self.retry_at {
                return;
            }
            let mut rest = std::mem::take(&mut self.rest);
            let read = self.read_bytes(&rest, last, each);
            rest.drain(..read);
            self.rest = rest;
        }
        self.retry_at = self.rest.len() * 2;
    }

    /// Returns true for an array or lines. Errors then name the item.
    #[must_use]
    pub fn is_batch(&self) -> bool {
        !matches!(self.state, ReadState::Begin | ReadState::One)
    }

    /// Number of bytes that are kept because they are not parsed yet.
    #[must_use]
    pub fn unread_bytes(&self) -> usize {
        self.rest.len()
    }

    /// Returns the number of events in the body, all of them valid. To be called after the last part.
    ///
    /// # Errors
    /// The error of the first invalid event or of the body as a whole, or that it has no event or too many.
    pub fn finish(self) -> Result<usize, EventError> {
        if self.is_binary {
            return Err(EventError::new("", "is not UTF-8"));
        }
        match self.error {
            Some(error) => Err(error),
            None => bounded(self.events).map(|()| self.events),
        }
    }

    /// Parses as much of `bytes` as possible and returns the number of bytes that were consumed.
    fn read_bytes(&mut self, bytes: &[u8], last: bool, each: &mut impl FnMut(Event<'_>)) -> usize {
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            // A character is cut at the end; its other bytes are in the next part.
            Err(error) if error.error_len().is_none() && !last => {
                std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default()
            }
            Err(_) => {
                self.is_binary = true;
                return bytes.len();
            }
        };
        if self.state == ReadState::Begin {
            self.state = match text.trim_ascii_start().bytes().next() {
                Some(b'[') => ReadState::Array,
                None if !last => return 0,
                _ => ReadState::One,
            };
        }
        let read = match self.state {
            ReadState::Array => self.read_array(text, last, each),
            ReadState::Lines => self.read_lines(text, last, each),
            ReadState::Failed => Ok(text.len()),
            ReadState::Begin | ReadState::One | ReadState::Doubtful if !last => Ok(0),
            ReadState::Doubtful => self.read_carefully(text, each),
            ReadState::Begin | ReadState::One => self.take(Event::parse(text), each).map(|()| text.len()),
        };
        read.unwrap_or_else(|error| {
            (self.state, self.error) = (ReadState::Failed, Some(error));
            text.len()
        })
    }

    fn take<'e>(
        &mut self,
        event: Result<Event<'e>, EventError>,
        each: &mut impl FnMut(Event<'_>),
    ) -> Result<(), EventError> {
        each(event?);
        self.events += 1;
        Ok(())
    }

    fn read_array(
        &mut self,
        text: &str,
        last: bool,
        each: &mut impl FnMut(Event<'_>),
    ) -> Result<usize, EventError> {
        let mut items = Items::new(text, self.events > 0);
        let mut end = 0;
        let is_doubtful = loop {
            let mut event = Event::empty(EventKind::Custom);
            match items.next(&mut event) {
                NextItem::Event if self.events < BATCH_EVENTS => {
                    each(event);
                    self.events += 1;
                    end = items.end();
                }
                NextItem::End if last => return Ok(text.len()),
                NextItem::End | NextItem::Cut if !last => break false,
                _ => break true,
            }
        };
        let (read, rest) = text.split_at(end);
        self.lines += memchr::memchr_iter(b'\n', read.as_bytes()).count();
        self.column = match memchr::memrchr(b'\n', read.as_bytes()) {
            Some(at) => read.len() - at - 1,
            None => self.column + read.len(),
        };
        if is_doubtful {
            self.state = ReadState::Doubtful;
            if last {
                self.read_carefully(rest, each)?;
                return Ok(text.len());
            }
        }
        Ok(read.len())
    }

    /// Parses the rest of an array, which has arrived completely.
    fn read_carefully(&mut self, rest: &str, each: &mut impl FnMut(Event<'_>)) -> Result<usize, EventError> {
        // One placeholder item stands for all items that were parsed already.
        let before = if self.events > 0 { "[{}" } else { "" };
        let array = [before, rest].concat();
        let items: Vec<&RawValue> = serde_json::from_str(&array).map_err(|error| {
            let (mut line, mut column) = (error.line(), error.column());
            let at = |line: usize, column: usize| format!(" at line {line} column {column}");
            let text = error.to_string();
            let reason = text.strip_suffix(&at(line, column)).unwrap_or(&text);
            if line == 1 {
                column = column + self.column - before.len().min(column);
            }
            line += self.lines;
            EventError::new("", format!("is not a JSON array of events: {reason}{}", at(line, column)))
        })?;
        let items = if before.is_empty() { &items[..] } else { &items[1..] };
        bounded(self.events + items.len())?;
        for item in items {
            let event = Event::parse(item.get()).map_err(|error| error.at(self.events));
            self.take(event, each)?;
        }
        Ok(rest.len())
    }

    fn read_lines(
        &mut self,
        text: &str,
        last: bool,
        each: &mut impl FnMut(Event<'_>),
    ) -> Result<usize, EventError> {
        let mut read = 0;
        while read < text.len() {
            let rest = &text[read..];
            let (line, next) = match memchr::memchr(b'\n', rest.as_bytes()) {
                Some(end) => (rest[..end].strip_suffix('\r').unwrap_or(&rest[..end]), end + 1),
                None if last => (rest, rest.len()),
                None => break,
            };
            read += next;
            if !line.trim_ascii().is_empty() {
                bounded(self.events + 1)?;
                let event = Event::parse(line).map_err(|error| error.at(self.events));
                self.take(event, each)?;
            }
        }
        Ok(read)
    }
}

/// Passes on events that are given one by one.
///
/// # Errors
/// The error of the first invalid event, or that there are too many or none.
pub fn read_items(items: &[&RawValue], each: &mut impl FnMut(Event<'_>)) -> Result<(), EventError> {
    bounded(items.len())?;
    for (at, item) in items.iter().enumerate() {
        each(Event::parse(item.get()).map_err(|error| error.at(at))?);
    }
    Ok(())
}

fn bounded(events: usize) -> Result<(), EventError> {
    match events {
        0 => Err(EventError::new("", "holds no event")),
        1..=BATCH_EVENTS => Ok(()),
        _ => Err(EventError::new("", format!("holds more than {BATCH_EVENTS} events"))),
    }
}

#[cfg(test)]
mod tests;
