//! From a body to events: one, an array, or lines (NDJSON), read as the body comes; all of them valid or none taken.
//!
//! * [`BodyReader`] hands over each event as soon as its last byte is there, and keeps only what it could not read yet: the beginning of
//!   the next event. Nothing may be published before [`BodyReader::finish`] has found the whole body valid.
//! * The parts of a body are any parts: what is read, and what is wrong, is the same wherever it was cut.
//! * Errors name the item, `[3].content`. What the quick reader of arrays (`array_scan`) does not take is kept up to the end of the body and
//!   read by serde_json, which words what is wrong. What came before it is known by its length in events, lines and bytes alone.

use serde_json::value::RawValue;

use crate::event::scan::{Items, Next};
use crate::event::{Event, EventError, Kind};

/// Most events of one request or frame.
pub const BATCH_EVENTS: usize = 1_000;

/// How a body holds its events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// One event, or an array of them.
    Json,
    /// One event a line; blank lines are skipped.
    Lines,
}

/// What is being read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// JSON of which nothing but white space has come.
    Begin,
    /// One event, which is read when all of it is there.
    One,
    /// An array.
    Array,
    /// An array of which the rest is kept for the careful reader.
    Doubtful,
    /// Lines.
    Lines,
    /// Something is wrong with what was read: nothing more is, but for whether it is text.
    Failed,
}

/// Reads the events of one body out of its parts.
#[derive(Debug)]
pub struct BodyReader {
    state: State,
    /// What came and is not read yet.
    rest: Vec<u8>,
    /// Bytes of `rest` at which reading it is tried again: each time twice as many, so that an event in many parts is not read from its
    /// beginning for each.
    retry_at: usize,
    /// Events handed over.
    events: usize,
    /// Line ends in what was read of an array, and bytes after the last of them.
    lines: usize,
    column: usize,
    error: Option<EventError>,
    /// A part of it was not UTF-8.
    is_binary: bool,
}

impl BodyReader {
    /// A reader of a body of which nothing has come.
    #[must_use]
    pub fn new(format: Format) -> BodyReader {
        BodyReader {
            state: if format == Format::Json { State::Begin } else { State::Lines },
            rest: Vec::new(),
            retry_at: 0,
            events: 0,
            lines: 0,
            column: 0,
            error: None,
            is_binary: false,
        }
    }

    /// Takes the next part of the body, the `last` or not, and hands over the events that are whole with it.
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

    /// Whether it is an array or lines: then errors name the item.
    #[must_use]
    pub fn is_batch(&self) -> bool {
        !matches!(self.state, State::Begin | State::One)
    }

    /// Bytes that are kept because they are not read yet.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.rest.len()
    }

    /// How many events the body held, all of them valid; to be called after its last part.
    ///
    /// # Errors
    /// What is wrong with the first event that is not valid, with the body as a whole, or that it holds none or too many.
    pub fn finish(self) -> Result<usize, EventError> {
        if self.is_binary {
            return Err(EventError::new("", "is not UTF-8"));
        }
        match self.error {
            Some(error) => Err(error),
            None => bounded(self.events).map(|()| self.events),
        }
    }

    /// Reads what it can of `bytes`, and answers how many bytes are done with.
    fn read_bytes(&mut self, bytes: &[u8], last: bool, each: &mut impl FnMut(Event<'_>)) -> usize {
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            // A character is cut: the other part of it comes.
            Err(error) if error.error_len().is_none() && !last => {
                std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default()
            }
            Err(_) => {
                self.is_binary = true;
                return bytes.len();
            }
        };
        if self.state == State::Begin {
            self.state = match text.trim_ascii_start().bytes().next() {
                Some(b'[') => State::Array,
                None if !last => return 0,
                _ => State::One,
            };
        }
        let read = match self.state {
            State::Array => self.read_array(text, last, each),
            State::Lines => self.read_lines(text, last, each),
            State::Failed => Ok(text.len()),
            State::Begin | State::One | State::Doubtful if !last => Ok(0),
            State::Doubtful => self.read_carefully(text, each),
            State::Begin | State::One => self.take(Event::parse(text), each).map(|()| text.len()),
        };
        read.unwrap_or_else(|error| {
            (self.state, self.error) = (State::Failed, Some(error));
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
            let mut event = Event::empty(Kind::Custom);
            match items.next(&mut event) {
                Next::Event if self.events < BATCH_EVENTS => {
                    each(event);
                    self.events += 1;
                    end = items.end();
                }
                Next::End if last => return Ok(text.len()),
                Next::End | Next::Cut if !last => break false,
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
            self.state = State::Doubtful;
            if last {
                self.read_carefully(rest, each)?;
                return Ok(text.len());
            }
        }
        Ok(read.len())
    }

    /// Reads what is left of an array, all of which is there.
    fn read_carefully(&mut self, rest: &str, each: &mut impl FnMut(Event<'_>)) -> Result<usize, EventError> {
        // Behind the items that were read: one stands for all of them.
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

/// Hands over events that are given one by one.
///
/// # Errors
/// The first event that is not valid, or too many, or none.
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
