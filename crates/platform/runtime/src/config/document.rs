//! Reading, changing and writing a TOML document by dotted paths.

use std::collections::BTreeMap;
use std::fmt::Write;

use toml::{Table, Value};

use super::{Origin, offset};

/// The value at a dotted path, or `None` if there is none.
pub(super) fn get<'a>(table: &'a Table, path: &str) -> Option<&'a Value> {
    let (section, key) = match path.rsplit_once('.') {
        Some((section, key)) => (get(table, section)?.as_table()?, key),
        None => (table, path),
    };
    section.get(key)
}

fn get_mut<'a>(table: &'a mut Table, path: &str) -> Option<&'a mut Value> {
    let (section, key) = match path.rsplit_once('.') {
        Some((section, key)) => (get_mut(table, section)?.as_table_mut()?, key),
        None => (table, path),
    };
    section.get_mut(key)
}

/// Sets a value if the schema has the path with the same type.
pub(super) fn set(values: &mut Table, schema: &Table, path: &str, value: Value) -> Result<(), String> {
    let model = get(schema, path).ok_or("is not a known key")?;
    let value = fitting(model, value)?;
    if let Some(place) = get_mut(values, path) {
        *place = value;
    }
    Ok(())
}

/// The value, if it has the model's type. An integer may also serve as a float. If the model's text is a duration, the
/// value must be one.
fn fitting(model: &Value, value: Value) -> Result<Value, String> {
    let value = match (model, value) {
        (Value::Float(_), Value::Integer(whole)) => Value::Float(whole as f64),
        (_, value) => value,
    };
    if !model.same_type(&value) {
        return Err(format!("has to be {}, but is {}", kind(model), kind(&value)));
    }
    if let (Value::String(model), Value::String(text)) = (model, &value)
        && offset::parse(model).is_some()
        && offset::parse(text).is_none()
    {
        return Err("has to be a duration such as \"5s\" or \"1h 30m\"".to_owned());
    }
    Ok(value)
}

/// The name of a value's type, for error messages.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "an integer",
        Value::Float(_) => "a float",
        Value::Boolean(_) => "a boolean",
        Value::Datetime(_) => "a date-time",
        Value::Array(_) => "an array",
        Value::Table(_) => "a table",
    }
}

/// Writes the document; each changed value has a comment with its origin.
pub(super) fn write(table: &Table, origins: &BTreeMap<String, Origin>) -> String {
    let mut text = String::new();
    write_section(&mut text, "", table, origins);
    text
}

fn write_section(text: &mut String, path: &str, table: &Table, origins: &BTreeMap<String, Origin>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    // Plain values are written first, because after a header they would belong to its section.
    for (key, value) in table.iter().filter(|(_, value)| !value.is_table()) {
        let origin = origins.get(&below(key)).map(|origin| format!(" # {origin}")).unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{key} = {value}{origin}");
    }
    for (key, section) in table {
        if let Value::Table(section) = section {
            let path = below(key);
            let _ = write!(text, "\n[{path}]\n");
            write_section(text, &path, section, origins);
        }
    }
}
