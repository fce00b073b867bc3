//! The quick reader: parses an event in one pass and allocates nothing but the event. It reads what nearly
//! every publisher sends.
//!
//! * It accepts a subset of what the careful reader of [`Event::parse`] accepts, with the same result. `None`
//!   only says that the careful reader has to read the input; that one also words the errors. A property test
//!   and the fuzzer check this.
//! * The subset is full JSON: strings without raw control characters, numbers and literals by RFC 8259,
//!   nesting up to [`DEPTH`]. What needs closer checks (escaped `\u`, exponents, very long numbers) is passed
//!   on as one value.
//! * It knows bytes and fields, but not transports or batch limits.

use std::borrow::Cow;

use super::careful_parse::{free_json, text_value};
use super::field::{Choices, Composite, CompositeValues, FieldType};
use super::json_text::{has_controls, ordinary, plain};
use super::table::*; // what the rows of the table name
use super::{Event, EventKind, check_channel, compact};
use crate::time;

/// The deepest nesting read here; the careful reader goes a little deeper.
const DEPTH: u32 = 64;
/// The longest run of digits read here; every number type holds far fewer.
const DIGITS: usize = 64;

/// Reads one event and nothing after it.
pub(super) fn event(text: &str) -> Option<Event<'_>> {
    let mut scan = Scan::new(text);
    let mut event = Event::empty(EventKind::Custom);
    scan.event(&mut event)?;
    scan.space();
    (scan.at == text.len()).then_some(event)
}

/// Reads the items of an array of events, which may arrive in parts: the text starts with the array's first
/// byte, or right after an item.
pub(crate) struct Items<'a> {
    scan: Scan<'a>,
    /// An item was read before.
    begun: bool,
    /// End of the last item in the text.
    end: usize,
}

/// What follows in an array.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NextItem {
    /// An event.
    Event,
    /// The array's end, and nothing after it.
    End,
    /// The text ends here. Apart from that it may be valid.
    Cut,
    /// Input that the careful reader has to read.
    Ambiguous,
}

impl<'a> Items<'a> {
    /// Reads the items in `text`, which starts with the array's first byte or, if `begun`, right after an
    /// item.
    pub(crate) fn new(text: &'a str, begun: bool) -> Items<'a> {
        Items { scan: Scan::new(text), begun, end: 0 }
    }

    /// Reads the next item into `event`, which must be empty. Its content is valid only if the result is
    /// [`NextItem::Event`].
    pub(crate) fn next(&mut self, event: &mut Event<'a>) -> NextItem {
        self.scan.at = self.end;
        match self.read(event) {
            Some(next) => next,
            None if self.scan.at == self.scan.bytes.len() => NextItem::Cut,
            None => NextItem::Ambiguous,
        }
    }

    fn read(&mut self, event: &mut Event<'a>) -> Option<NextItem> {
        self.scan.space();
        match (self.scan.next()?, self.begun) {
            (b'[', false) | (b',', true) => {}
            (b']', true) => {
                self.scan.space();
                return (self.scan.at == self.scan.bytes.len()).then_some(NextItem::End);
            }
            _ => return None,
        }
        self.scan.event(event)?;
        (self.begun, self.end) = (true, self.scan.at);
        Some(NextItem::Event)
    }

    /// Returns the position in the text where the last item that was read ends.
    pub(crate) fn end(&self) -> usize {
        self.end
    }
}

macro_rules! define_field {
    ($($part:ident { $($field:ident: $type:ident($($limit:expr)?) $(routed $key:ident)?, $description:literal, $example:literal;)* })*) => {
        impl<'a> Scan<'a> {
            /// Reads the value of the field `name` and returns the field's bit.
            fn field(&mut self, name: &str, event: &mut Event<'a>) -> Option<u32> {
                Some(match name {
                    "type" => {
                        event.kind = EventKind::from_name(self.plain()?)?;
                        TYPE_BIT
                    }
                    $($(stringify!($field) => {
                        self.$type(&mut event.$field $(, $limit)?)?;
                        const { bit(stringify!($field)) }
                    })*)*
                    _ => return None,
                })
            }
        }
    };
}
with_event_fields!(define_field);

struct Scan<'a> {
    text: &'a str,
    bytes: &'a [u8],
    /// At most the text's length; on a character boundary outside of strings.
    at: usize,
    /// Control characters were seen, between tokens or where none may be.
    controls: bool,
}

impl<'a> Scan<'a> {
    fn new(text: &'a str) -> Scan<'a> {
        let bytes = text.as_bytes();
        Scan { text, bytes, at: 0, controls: has_controls(bytes) }
    }

    /// Reads one event into `event`, which must be empty.
    fn event(&mut self, event: &mut Event<'a>) -> Option<()> {
        self.space();
        self.eat(b'{')?;
        let mut seen = 0;
        loop {
            self.space();
            let name = self.plain()?;
            self.space();
            self.eat(b':')?;
            self.space();
            let bit = self.field(name, event)?;
            if seen & bit != 0 {
                return None;
            }
            seen |= bit;
            self.space();
            match self.next()? {
                b',' => {}
                b'}' => break,
                _ => return None,
            }
        }
        let FieldSets { required, allowed } = event.kind.field_sets();
        (seen & required == required && seen & !allowed == 0).then_some(())
    }

    /// Reads an id of at most `most` bytes.
    fn id(&mut self, slot: &mut Option<Cow<'a, str>>, most: usize) -> Option<()> {
        let id = self.plain()?;
        // DEL is not a control character in JSON, and the control characters above ASCII are two bytes.
        let suspicious = |b: u8| b >= 0x7f;
        if id.is_empty()
            || id.len() > most
            || (id.bytes().any(suspicious) && id.chars().any(char::is_control))
        {
            return None;
        }
        *slot = Some(Cow::Borrowed(id));
        Some(())
    }

    fn choice(&mut self, slot: &mut Option<Cow<'a, str>>, choices: &Choices) -> Option<()> {
        let text = self.plain()?;
        *slot = choices.contains(text).then_some(Cow::Borrowed(text));
        slot.is_some().then_some(())
    }

    fn channel(&mut self, slot: &mut Option<Cow<'a, str>>, most: usize) -> Option<()> {
        let channel = self.plain()?;
        *slot = (channel.len() <= most && check_channel(channel).is_ok()).then_some(Cow::Borrowed(channel));
        slot.is_some().then_some(())
    }

    fn time(&mut self, slot: &mut Option<u64>) -> Option<()> {
        *slot = time::parse_rfc3339(self.plain()?);
        slot.is_some().then_some(())
    }

    fn flag(&mut self, slot: &mut Option<bool>) -> Option<()> {
        *slot = Some(match self.next()? {
            b't' => self.word(b"rue").map(|()| true)?,
            b'f' => self.word(b"alse").map(|()| false)?,
            _ => return None,
        });
        Some(())
    }

    /// Reads a string of any content.
    fn text(&mut self, slot: &mut Option<Cow<'a, str>>) -> Option<()> {
        let from = self.at;
        let text = match self.quoted()? {
            Quoted::Plain(text) => Cow::Borrowed(text),
            Quoted::Escaped | Quoted::Unicode => text_value(&self.text[from..self.at])?,
        };
        *slot = Some(text);
        Some(())
    }

    /// Reads a whole number that fits into 64 bits without a check of its last digit.
    fn count(&mut self, slot: &mut Option<u64>) -> Option<()> {
        let from = self.at;
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        let digits = &self.text[from..self.at];
        let canonical = digits == "0" || !digits.starts_with('0');
        *slot = (canonical && (1..=18).contains(&digits.len())).then(|| digits.parse().ok())?;
        slot.is_some().then_some(())
    }

    /// Reads any JSON and removes the white space between its tokens.
    fn json(&mut self, slot: &mut Option<Cow<'a, str>>) -> Option<()> {
        *slot = Some(self.free()?);
        Some(())
    }

    fn free(&mut self) -> Option<Cow<'a, str>> {
        let from = self.at;
        let mut doubt = Ambiguity::default();
        self.value(DEPTH, &mut doubt)?;
        let raw = &self.text[from..self.at];
        match doubt {
            Ambiguity { needs_full_parse: true, .. } => free_json(raw).ok(),
            Ambiguity { spaced: true, .. } => Some(compact(raw)),
            _ => Some(Cow::Borrowed(raw)),
        }
    }

    /// Reads a JSON object of at most `most` bytes.
    fn object(&mut self, slot: &mut Option<Cow<'a, str>>, most: usize) -> Option<()> {
        *slot = self.free().filter(|object| object.starts_with('{') && object.len() <= most);
        slot.is_some().then_some(())
    }

    /// Reads an object with the fields of `composite`.
    fn composite(&mut self, slot: &mut Option<Cow<'a, str>>, composite: &Composite) -> Option<()> {
        let from = self.at;
        self.eat(b'{')?;
        let mut values = CompositeValues::default();
        let (mut spaced, mut in_order, mut before) = (self.space(), true, None);
        loop {
            let place = composite.place(self.plain()?)?;
            spaced |= self.space();
            self.eat(b':')?;
            spaced |= self.space();
            let value = &mut values[place];
            if value.is_some() {
                return None;
            }
            match composite.fields[place].field_type {
                FieldType::Choice(choices) => self.choice(value, choices)?,
                FieldType::Id(most) => self.id(value, most)?,
                _ => *value = Some(Cow::Borrowed(self.plain()?)),
            }
            in_order &= before < Some(place);
            before = Some(place);
            spaced |= self.space();
            match self.next()? {
                b',' => spaced |= self.space(),
                b'}' => break,
                _ => return None,
            }
        }
        if composite.missing(&values).is_some() {
            return None;
        }
        // No value has escapes, so what is in order and without space is already as `to_json` writes it.
        *slot = Some(match in_order && !spaced {
            true => Cow::Borrowed(&self.text[from..self.at]),
            false => Cow::Owned(composite.to_json(&values)),
        });
        Some(())
    }

    /// Skips one value.
    fn value(&mut self, depth: u32, doubt: &mut Ambiguity) -> Option<()> {
        match self.next()? {
            b'"' => {
                self.at -= 1;
                doubt.needs_full_parse |= matches!(self.quoted()?, Quoted::Unicode);
                Some(())
            }
            b'{' => self.members(depth.checked_sub(1)?, doubt, b'}'),
            b'[' => self.members(depth.checked_sub(1)?, doubt, b']'),
            b't' => self.word(b"rue"),
            b'f' => self.word(b"alse"),
            b'n' => self.word(b"ull"),
            b'-' => self.number(doubt),
            b'0'..=b'9' => {
                self.at -= 1;
                self.number(doubt)
            }
            _ => None,
        }
    }

    /// Skips the inside of an object or array, including `end`.
    fn members(&mut self, depth: u32, doubt: &mut Ambiguity, end: u8) -> Option<()> {
        doubt.spaced |= self.space();
        if self.bytes.get(self.at) == Some(&end) {
            self.at += 1;
            return Some(());
        }
        loop {
            if end == b'}' {
                doubt.needs_full_parse |= matches!(self.quoted()?, Quoted::Unicode);
                doubt.spaced |= self.space();
                self.eat(b':')?;
                doubt.spaced |= self.space();
            }
            self.value(depth, doubt)?;
            doubt.spaced |= self.space();
            match self.next()? {
                b',' => doubt.spaced |= self.space(),
                last => return (last == end).then_some(()),
            }
        }
    }

    /// Skips a number after its sign.
    fn number(&mut self, doubt: &mut Ambiguity) -> Option<()> {
        let from = self.at;
        self.digits()?;
        if self.at - from > 1 && self.bytes[from] == b'0' {
            return None;
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        doubt.needs_full_parse |= self.at - from > DIGITS;
        // With an exponent the number may be out of range.
        (!matches!(self.bytes.get(self.at), Some(b'e' | b'E'))).then_some(())
    }

    /// Skips one digit or more.
    fn digits(&mut self) -> Option<()> {
        let from = self.at;
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        (self.at > from).then_some(())
    }

    /// Reads a string without escapes.
    fn plain(&mut self) -> Option<&'a str> {
        match self.quoted()? {
            Quoted::Plain(text) => Some(text),
            Quoted::Escaped | Quoted::Unicode => None,
        }
    }

    /// Skips a string, including its quotes.
    fn quoted(&mut self) -> Option<Quoted<'a>> {
        self.eat(b'"')?;
        let from = self.at;
        let (mut escaped, mut unicode) = (false, false);
        loop {
            let rest = &self.bytes[self.at..];
            self.at += if self.controls { ordinary(rest) } else { plain(rest) };
            match self.next()? {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    match self.next()? {
                        b'u' => unicode = true,
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                        _ => return None,
                    }
                }
                _ => return None, // a raw control character
            }
        }
        Some(match (escaped, unicode) {
            (_, true) => Quoted::Unicode,
            (true, _) => Quoted::Escaped,
            // The slice is between two ASCII quotes, so it is on character boundaries.
            _ => Quoted::Plain(&self.text[from..self.at - 1]),
        })
    }

    fn word(&mut self, rest: &[u8]) -> Option<()> {
        rest.iter().try_for_each(|byte| self.eat(*byte))
    }

    /// Skips this byte. Any other byte is not skipped, so that an error there is not taken for the end of the
    /// text.
    fn eat(&mut self, byte: u8) -> Option<()> {
        (self.bytes.get(self.at) == Some(&byte)).then(|| self.at += 1)
    }

    fn next(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// Skips white space; returns true if there was any.
    fn space(&mut self) -> bool {
        let from = self.at;
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        self.at > from
    }
}

/// Facts about a skipped value that need further work.
#[derive(Default)]
struct Ambiguity {
    /// Only the careful reader can decide whether the value is valid.
    needs_full_parse: bool,
    /// The value has white space between tokens.
    spaced: bool,
}

/// A string that was skipped.
enum Quoted<'a> {
    /// Without escapes.
    Plain(&'a str),
    /// With escapes of one character each.
    Escaped,
    /// With `\u`, which may not be valid Unicode.
    Unicode,
}
