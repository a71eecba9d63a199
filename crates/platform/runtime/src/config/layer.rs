//! The overrides of each layer, in one list.

use std::path::Path;

use toml::{Table, Value};

use super::document::{self, kind};
use super::{ConfigError, Layers, Origin, Override};

/// The prefix of this system's environment variables.
const PREFIX: &str = "CHECKUP_";

/// Every override, weakest first. Anything unreadable is added to `errors`.
pub(super) fn overrides(layers: &Layers, schema: &Table, errors: &mut Vec<ConfigError>) -> Vec<Override> {
    let mut overrides = Vec::new();
    if let Some((path, text)) = &layers.file {
        let origin = Origin::File(path.clone());
        match text.parse::<Table>() {
            Ok(table) => flatten(&table, schema, "", path, &mut overrides, errors),
            Err(error) => errors.push(ConfigError::new(origin, "", format!("is not TOML: {}", error.message()))),
        }
    }
    for (name, text) in &layers.env {
        if let Some(key) = name.strip_prefix(PREFIX) {
            let key = key.replace("__", ".").to_ascii_lowercase();
            push(&key, text, Origin::Env(name.clone()), schema, &mut overrides, errors);
        }
    }
    for flag in &layers.flags {
        let origin = Origin::Flag(flag.clone());
        match flag.split_once('=') {
            Some((key, text)) => push(key.trim(), text, origin, schema, &mut overrides, errors),
            None => errors.push(ConfigError::new(origin, "", "is not of the form key=value".to_owned())),
        }
    }
    overrides
}

/// Adds a table's values one by one. Its sections must be sections of the schema.
fn flatten(
    table: &Table,
    schema: &Table,
    path: &str,
    file: &Path,
    overrides: &mut Vec<Override>,
    errors: &mut Vec<ConfigError>,
) {
    for (key, value) in table {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let origin = Origin::File(file.to_owned());
        match (value, document::get(schema, &path)) {
            (Value::Table(section), Some(Value::Table(_))) => flatten(section, schema, &path, file, overrides, errors),
            (value, Some(model @ Value::Table(_))) => {
                let problem = format!("has to be {}, but is {}", kind(model), kind(value));
                errors.push(ConfigError::new(origin, &path, problem));
            }
            (value, _) => overrides.push((path, value.clone(), origin)),
        }
    }
}

/// Adds a value that is written as text, read with the type that the schema has under its key.
fn push(
    key: &str,
    text: &str,
    origin: Origin,
    schema: &Table,
    overrides: &mut Vec<Override>,
    errors: &mut Vec<ConfigError>,
) {
    let read = match document::get(schema, key) {
        None => Err("is not a known key".to_owned()),
        Some(Value::Table(_)) => Err("is a section, not a value".to_owned()),
        Some(model) => read(model, text),
    };
    match read {
        Ok(value) => overrides.push((key.to_owned(), value, origin)),
        Err(problem) => errors.push(ConfigError::new(origin, key, problem)),
    }
}

fn read(model: &Value, text: &str) -> Result<Value, String> {
    let wrong = || format!("has to be {}", kind(model));
    match model {
        Value::String(_) => Ok(Value::String(text.to_owned())),
        Value::Integer(_) => text.trim().parse().map(Value::Integer).map_err(|_| wrong()),
        Value::Float(_) => text.trim().parse().map(Value::Float).map_err(|_| wrong()),
        Value::Boolean(_) => text.trim().parse().map(Value::Boolean).map_err(|_| wrong()),
        Value::Array(_) | Value::Datetime(_) | Value::Table(_) => {
            let document: Result<Table, _> = format!("value = {text}").parse();
            let value = document.ok().and_then(|mut table| table.remove("value"));
            value.ok_or_else(|| format!("is not {} in TOML", kind(model)))
        }
    }
}
