//! Runs `nervewire bench` and reads its report.

use std::process::{Command, Output};

use serde_json::Value;

pub(crate) fn bench(arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nervewire"));
    command.arg("bench").args(arguments.split_whitespace()).env_remove("NERVEWIRE_KEY").output().unwrap()
}

pub(crate) fn report(output: &Output) -> Value {
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&out).unwrap_or_else(|_| panic!("no report: {out}{error}"))
}

pub(crate) fn row<'a>(report: &'a Value, key: &str) -> &'a Value {
    let rows = report["rows"].as_array().unwrap();
    rows.iter().find(|row| row["key"] == key).unwrap_or_else(|| panic!("no row {key} in {report}"))
}
