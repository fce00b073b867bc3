//! Reads a document as a list of examples. Every fenced block must be an example of a known kind.

/// One block and its position.
#[derive(Debug, PartialEq)]
pub(crate) struct Block {
    /// The line of its opening fence, from 1.
    pub(crate) line: usize,
    pub(crate) kind: Kind,
    /// The settings that it needs (`config: a.b=1 c=2`), as environment names and values.
    pub(crate) config: Vec<(String, String)>,
    pub(crate) text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A request. The next block is its response.
    Request,
    Response,
    /// An event to publish and read back.
    Event,
    /// The dialogue of a WebSocket.
    Ws,
    /// An event stream.
    Sse,
}

/// Reads the blocks.
///
/// # Errors
/// A block that no test would execute: of an unknown kind, indented, or without its counterpart.
pub(crate) fn blocks(document: &str) -> Result<Vec<Block>, String> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open: Option<Block> = None;
    let mut after_blank = true;
    for (at, line) in document.lines().enumerate() {
        let here = |what: &str| Err(format!("line {}: {what}", at + 1));
        match (&mut open, line.strip_prefix("```")) {
            (Some(_), Some("")) => blocks.extend(open.take()),
            (Some(block), _) => {
                block.text += line;
                block.text.push('\n');
            }
            (None, Some(info)) => open = Some(block(at + 1, info)?),
            (None, None) if line.trim_start().starts_with("```") || line.trim_start().starts_with("~~~") => {
                return here("fences begin the line and are made of backticks");
            }
            (None, None) if after_blank && (line.starts_with("    ") || line.starts_with('\t')) => {
                return here("an indented block is an example that nobody executes");
            }
            (None, None) => {}
        }
        after_blank = line.trim().is_empty();
    }
    if let Some(block) = open {
        return Err(format!("line {}: the block does not end", block.line));
    }
    for pair in blocks.windows(2) {
        if (pair[0].kind == Kind::Request) != (pair[1].kind == Kind::Response) {
            return Err(format!("line {}: a request without an answer, or the reverse", pair[0].line));
        }
    }
    match blocks.last() {
        Some(last) if last.kind == Kind::Request => Err(format!("line {}: no answer follows", last.line)),
        _ => Ok(blocks),
    }
}

fn block(line: usize, info: &str) -> Result<Block, String> {
    let (kind, config) = info.split_once(" config:").unwrap_or((info, ""));
    let kind = match kind {
        "http request" => Kind::Request,
        "http response" => Kind::Response,
        "json event" => Kind::Event,
        "ws" => Kind::Ws,
        "sse" => Kind::Sse,
        other => return Err(format!("line {line}: a block of kind {other:?} is executed by nobody")),
    };
    let setting = |pair: &str| {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| format!("line {line}: {pair:?} is no setting"))?;
        Ok::<_, String>((key.to_uppercase().replace('.', "__"), value.to_owned()))
    };
    let config = config.split_whitespace().map(setting).collect::<Result<_, _>>()?;
    Ok(Block { line, kind, config, text: String::new() })
}

/// A head and the text after its blank line.
pub(crate) struct Message<'a> {
    pub(crate) start: &'a str,
    pub(crate) headers: Vec<(&'a str, &'a str)>,
    pub(crate) body: &'a str,
}

/// Parses an HTTP message.
///
/// # Errors
/// A header without a colon.
pub(crate) fn message(text: &str) -> Result<Message<'_>, String> {
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let mut lines = head.lines();
    let start = lines.next().unwrap_or_default();
    let header = |line| str::split_once(line, ':').map(|(name, value)| (name, value.trim()));
    let headers: Option<_> = lines.map(header).collect();
    let headers = headers.ok_or_else(|| format!("a header without a colon in {head:?}"))?;
    Ok(Message { start, headers, body })
}

/// Parses method and path of a request line.
///
/// # Errors
/// The line has another form.
pub(crate) fn request_line(line: &str) -> Result<(&str, &str), String> {
    match line.split(' ').collect::<Vec<_>>()[..] {
        [method, path] if path.starts_with('/') => Ok((method, path)),
        _ => Err(format!("{line:?} is no request line (METHOD /path)")),
    }
}
