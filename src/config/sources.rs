//! The three sources of settings, combined into one list from the weakest to the strongest.
//!
//! Only [`Sources::read`] accesses the process. Everything else is pure: text in, settings or problems out.
//! An unknown name in the file or the environment is an error that suggests the nearest known name.

use std::io::Read as _;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Origin, Problem};
use super::key::Key;
use super::nearest::nearest;
use super::raw::RawValue;
use super::table::KEYS;

/// Variables with the prefix `NERVEWIRE_` that belong to the command line and not to the configuration.
pub const CLI_VARIABLES: &[(&str, &str)] = &[
    ("NERVEWIRE_URL", "address of a running daemon, as `--url`"),
    ("NERVEWIRE_KEY", "API key or token for it, as `--key`"),
    ("NERVEWIRE_CONFIG", "path of the configuration file, as `--config`"),
    ("NERVEWIRE_LOG", "filter of the log by module, e.g. `info,nervewire::auth=debug`"),
];

/// Variables that the project's own test programs set and a daemon inherits.
const HARNESS_VARIABLES: &[&str] = &["NERVEWIRE_BIN", "NERVEWIRE_PROXY", "NERVEWIRE_KILL9_CYCLES"];
/// Most bytes read from a configuration file. It is far above a real one and makes `--config /dev/zero` end.
const FILE_BYTES_MAX: u64 = 1 << 20;
const DEFAULT_FILE: &str = "nervewire.toml";
const PREFIX: &str = "NERVEWIRE_";

/// The input of [`super::Config::load`].
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file, if there is one.
    pub file: Option<FileText>,
    /// The environment. Names without the prefix `NERVEWIRE_` are ignored.
    pub env: Vec<(String, String)>,
    /// Command line flags, the strongest source. A later flag replaces an earlier one of the same key.
    pub flags: Vec<FlagValue>,
}

/// A configuration file.
#[derive(Clone, Debug)]
pub struct FileText {
    /// Its name, as error texts show it.
    pub name: String,
    /// Its content in TOML.
    pub text: String,
}

/// A command line flag that sets a key.
#[derive(Clone, Debug)]
pub struct FlagValue {
    /// The flag, such as `--listen`.
    pub flag: &'static str,
    /// The key it sets, one of [`KEYS`].
    pub key: &'static str,
    /// The values in the order given. Only keys that hold a list may have several.
    pub values: Vec<String>,
}

/// One value of a known key, not checked yet.
pub(super) struct Setting {
    pub(super) key: &'static Key,
    pub(super) value: RawValue,
    pub(super) origin: Origin,
}

impl Sources {
    /// Reads the sources of this process: the named file, which must be readable, or else `./nervewire.toml`
    /// if it exists; the environment; these flags.
    ///
    /// # Errors
    /// A file that cannot be read, or a `NERVEWIRE_*` variable that is not UTF-8.
    pub fn read(config: Option<&Path>, flags: Vec<FlagValue>) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let file = match config {
            Some(path) => read_file(path).map(Some),
            None => match read_file(Path::new(DEFAULT_FILE)) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                other => other.map(Some),
            },
        };
        let file = file.unwrap_or_else(|error| {
            let name = config.unwrap_or(Path::new(DEFAULT_FILE)).display();
            problems.push(Problem::new("", Origin::Flag("--config"), format!("cannot read {name}: {error}")));
            None
        });
        let mut env = Vec::new();
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
            match value.into_string() {
                Ok(value) => env.push((name.to_owned(), value)),
                Err(_) => problems.push(Problem::new("", Origin::Env(name.to_owned()), "is not UTF-8")),
            }
        }
        if problems.is_empty() { Ok(Self { file, env, flags }) } else { Err(ConfigError { problems }) }
    }

    /// Returns every value of a known key, from the weakest to the strongest source. Unknown names and
    /// invalid TOML are added to `problems`.
    pub(super) fn settings(&self, problems: &mut Vec<Problem>) -> Vec<Setting> {
        let mut settings = Vec::new();
        if let Some(file) = &self.file {
            from_file(file, &mut settings, problems);
        }
        let mut env: Vec<_> = self.env.iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
        env.sort();
        for (name, value) in env {
            from_variable(name, value, &mut settings, problems);
        }
        for flag in &self.flags {
            let origin = Origin::Flag(flag.flag);
            let Some(key) = Key::find(flag.key) else {
                problems.push(Problem::new(flag.key, origin, "is not a key"));
                continue;
            };
            let value = match flag.values.as_slice() {
                [one] => key.kind.parse(one),
                many => RawValue::List(many.iter().cloned().map(RawValue::Str).collect()),
            };
            settings.push(Setting { key, value, origin });
        }
        settings
    }
}

fn read_file(path: &Path) -> std::io::Result<FileText> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|_| std::io::Error::other("it is not UTF-8"))?;
    Ok(FileText { name: path.display().to_string(), text })
}

fn from_file(file: &FileText, settings: &mut Vec<Setting>, problems: &mut Vec<Problem>) {
    let (table, errors) = DeTable::parse_recoverable(&file.text);
    let at = |offset: usize| Origin::File { name: file.name.clone(), line: line_of(&file.text, offset) };
    if !errors.is_empty() {
        // Only the message is used: the excerpt in the full error could show a line with a secret.
        problems.extend(errors.iter().map(|error| {
            Problem::new(
                "",
                at(error.span().map_or(0, |span| span.start)),
                format!("invalid TOML: {}", error.message()),
            )
        }));
        return;
    }
    for (name, value) in table.get_ref() {
        match (KEYS.iter().any(|key| key.section() == name.get_ref().as_ref()), value.get_ref()) {
            (true, DeValue::Table(section)) => {
                for (leaf, value) in section {
                    let full = format!("{}.{}", name.get_ref(), leaf.get_ref());
                    file_key(&full, value.get_ref(), at(leaf.span().start), settings, problems);
                }
            }
            (true, other) => {
                let what = format!("expects a table, got {}", RawValue::from_toml(other).type_name());
                problems.push(Problem::new(name.get_ref().as_ref(), at(name.span().start), what));
            }
            (false, value) => file_key(name.get_ref(), value, at(name.span().start), settings, problems),
        }
    }
}

fn file_key(
    name: &str,
    value: &DeValue<'_>,
    origin: Origin,
    settings: &mut Vec<Setting>,
    problems: &mut Vec<Problem>,
) {
    match Key::find(name) {
        Some(key) => settings.push(Setting { key, value: RawValue::from_toml(value), origin }),
        None => {
            let sections = KEYS.iter().map(|key| key.section()).filter(|section| !section.is_empty());
            let table = matches!(value, DeValue::Table(_));
            let meant = if table && !name.contains('.') {
                nearest(name, sections).map(|section| format!("[{section}]"))
            } else {
                nearest(name, KEYS.iter().map(|key| key.name)).map(str::to_owned)
            };
            let what = format!("is unknown; did you mean {}?", meant.unwrap_or_default());
            problems.push(Problem::new(name, origin, what));
        }
    }
}

fn from_variable(name: &str, value: &str, settings: &mut Vec<Setting>, problems: &mut Vec<Problem>) {
    let Some(suffix) = name.strip_prefix(PREFIX) else { return };
    let ours = CLI_VARIABLES.iter().any(|(known, _)| *known == name) || HARNESS_VARIABLES.contains(&name);
    if ours || kubernetes(suffix) {
        return;
    }
    let origin = Origin::Env(name.to_owned());
    match KEYS.iter().find(|key| key.variable() == name) {
        Some(key) => settings.push(Setting { key, value: key.kind.parse(value), origin }),
        None => {
            let dotted = suffix.to_ascii_lowercase().replace("__", ".");
            let meant = nearest(&dotted, KEYS.iter().map(|key| key.name)).and_then(Key::find);
            let meant = meant.map(Key::variable).unwrap_or_default();
            problems.push(Problem::new("", origin, format!("is unknown; did you mean {meant}?")));
        }
    }
}

/// Whether Kubernetes sets this variable. It gives every pod variables for each service, and those of a
/// service called `nervewire` have our prefix (`NERVEWIRE_SERVICE_HOST`, `NERVEWIRE_PORT_8080_TCP_ADDR`).
/// They are not settings.
fn kubernetes(suffix: &str) -> bool {
    suffix == "PORT"
        || ["PORT_", "SERVICE_HOST", "SERVICE_PORT"].iter().any(|start| suffix.starts_with(start))
}

/// The line number, from 1, of the byte at `offset` in `text`.
fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}
