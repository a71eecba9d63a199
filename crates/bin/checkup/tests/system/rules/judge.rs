//! Which rules of `buf.validate` a message breaks.
//!
//! It judges as protovalidate says, for the rules that the contract uses. Another rule is refused, so that none is
//! passed over. It knows nothing of the server, and only reads descriptors.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _, Value};
use regex::Regex;

/// The numbers of `buf.validate.Ignore`.
const IF_ZERO_VALUE: i32 = 1;
const ALWAYS: i32 = 3;

/// The paths of the fields whose rules a request breaks.
#[derive(Debug, Default)]
pub(super) struct Broken(BTreeSet<String>);

impl Broken {
    /// Judges a whole request.
    pub(super) fn by(request: &DynamicMessage) -> Self {
        let mut broken = Self::default();
        broken.message(request, "");
        broken
    }

    /// Whether a rule of this field is broken, or of an element of it.
    pub(super) fn names(&self, path: &str) -> bool {
        self.0
            .iter()
            .any(|broken| broken.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('[')))
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &String> {
        self.0.iter()
    }

    fn message(&mut self, message: &DynamicMessage, above: &str) {
        let of = message.descriptor();
        for (id, expression) in expressions(&of) {
            if !holds(message, &expression) {
                self.0.insert(format!("{above}{id}"));
            }
        }
        for oneof in of.oneofs() {
            let rules = option_of(&oneof.options(), &of, "buf.validate.oneof");
            let required = rules.is_some_and(|rules| number(&rules, "required") == Some(1));
            if required && !oneof.fields().any(|field| message.has_field(&field)) {
                // protovalidate names the oneof, and the server its first field.
                self.0.extend(oneof.fields().next().map(|field| format!("{above}{}", field.name())));
            }
        }
        for field in of.fields() {
            self.field(message, &field, &format!("{above}{}", field.name()));
        }
    }

    fn field(&mut self, message: &DynamicMessage, field: &FieldDescriptor, path: &str) {
        let rules = option(field, "buf.validate.field");
        let ignore = rules.as_ref().and_then(|rules| number(rules, "ignore")).unwrap_or_default();
        let required = rules.as_ref().and_then(|rules| number(rules, "required")) == Some(1);
        // Of a field without presence this says whether it has another value than zero.
        let is_set = message.has_field(field);
        if ignore == i64::from(ALWAYS) {
            return;
        }
        if !is_set && (required || field.supports_presence() || ignore == i64::from(IF_ZERO_VALUE)) {
            if required {
                self.0.insert(path.to_owned());
            }
            return;
        }
        let value = message.get_field(field);
        for (kind, of_kind) in rules.iter().flat_map(kinds) {
            for (name, rule) in stated(&of_kind) {
                if (kind.as_str(), name.as_str()) == ("repeated", "items") {
                    let items = rule.as_message().expect("the rules of items");
                    self.items(value.as_list().unwrap_or_default(), field, items, path);
                } else if !keeps(&value, field, &kind, &name, &rule) {
                    self.0.insert(path.to_owned());
                }
            }
        }
        match (&*value, field.kind()) {
            (Value::Message(inner), _) => self.message(inner, &format!("{path}.")),
            (Value::List(list), Kind::Message(_)) => {
                let elements = list.iter().filter_map(Value::as_message).enumerate();
                elements.for_each(|(index, element)| self.message(element, &format!("{path}[{index}].")));
            }
            _ => {}
        }
    }

    fn items(&mut self, list: &[Value], field: &FieldDescriptor, rules: &DynamicMessage, path: &str) {
        for (kind, of_kind) in kinds(rules) {
            for (name, rule) in stated(&of_kind) {
                let wrong = list.iter().enumerate().filter(|(_, value)| !keeps(value, field, &kind, &name, &rule));
                self.0.extend(wrong.map(|(index, _)| format!("{path}[{index}]")));
            }
        }
    }
}

/// A message among the options of a field.
pub(super) fn option(field: &FieldDescriptor, name: &str) -> Option<DynamicMessage> {
    option_of(&field.options(), field.parent_message(), name)
}

/// A message among the options of an element of a message.
fn option_of(options: &DynamicMessage, of: &MessageDescriptor, name: &str) -> Option<DynamicMessage> {
    let extension = of.parent_pool().get_extension_by_name(name).expect("the option is known");
    let found = options.has_extension(&extension).then(|| options.get_extension(&extension).into_owned());
    found.and_then(|value| value.as_message().cloned())
}

/// The fields that are set in a message, by name.
fn stated(message: &DynamicMessage) -> Vec<(String, Value)> {
    message.fields().map(|(field, value)| (field.name().to_owned(), value.clone())).collect()
}

/// The rules of each kind that a field has, such as `string` or `repeated`.
fn kinds(rules: &DynamicMessage) -> Vec<(String, DynamicMessage)> {
    let kinds = stated(rules).into_iter().filter(|(name, _)| !["ignore", "required"].contains(&name.as_str()));
    let rules = kinds.map(|(name, value)| match value {
        Value::Message(rules) => (name, rules),
        other => panic!("this test cannot judge {name} = {other:?}: teach it, or say it otherwise"),
    });
    rules.collect()
}

/// A flag, an enum or a number of a message, if it is set.
fn number(message: &DynamicMessage, name: &str) -> Option<i64> {
    let field = message.descriptor().get_field_by_name(name).filter(|field| message.has_field(field))?;
    match *message.get_field(&field) {
        Value::Bool(flag) => Some(flag.into()),
        Value::EnumNumber(number) | Value::I32(number) => Some(number.into()),
        Value::I64(number) => Some(number),
        _ => None,
    }
}

/// Whether a value of a field, or of its list, keeps one rule.
fn keeps(value: &Value, field: &FieldDescriptor, kind: &str, name: &str, rule: &Value) -> bool {
    let at_most = |length: usize| rule.as_u64().is_some_and(|most| length as u64 <= most);
    let unknown = || panic!("this test cannot judge {kind}.{name} = {rule:?}: teach it, or say it otherwise");
    match (kind, name, value) {
        ("string", "max_len", Value::String(text)) => at_most(text.chars().count()),
        ("string", "pattern", Value::String(text)) => matches(rule.as_str().expect("a pattern"), text),
        ("string", "uuid", Value::String(text)) => UUID.is_match(text),
        ("repeated", "max_items", Value::List(list)) => at_most(list.len()),
        ("repeated", "unique", Value::List(list)) => {
            rule.as_bool() == Some(false) || (1..list.len()).all(|at| !list[..at].contains(&list[at]))
        }
        ("enum", "defined_only", Value::EnumNumber(number)) => {
            let kind = field.kind();
            rule.as_bool() == Some(false) || kind.as_enum().is_some_and(|of| of.get_value(*number).is_some())
        }
        ("enum", "not_in", Value::EnumNumber(number)) => {
            !rule.as_list().unwrap_or_default().iter().any(|other| other.as_i32() == Some(*number))
        }
        ("int32", "gte", Value::I32(number)) => rule.as_i32().is_some_and(|limit| *number >= limit),
        ("int32", "lte", Value::I32(number)) => rule.as_i32().is_some_and(|limit| *number <= limit),
        ("duration", "gte", Value::Message(span)) => {
            nanoseconds(span) >= nanoseconds(rule.as_message().expect("a span"))
        }
        ("duration", "lte", Value::Message(span)) => {
            nanoseconds(span) <= nanoseconds(rule.as_message().expect("a span"))
        }
        ("field_mask", "in", Value::Message(mask)) => {
            let allowed: Vec<&str> = rule.as_list().unwrap_or_default().iter().filter_map(Value::as_str).collect();
            let paths = mask.get_field_by_name("paths").expect("the paths of a mask");
            let mut paths = paths.as_list().unwrap_or_default().iter().filter_map(Value::as_str);
            paths.all(|path| allowed.iter().any(|allowed| is_or_is_below(path, allowed)))
        }
        _ => unknown(),
    }
}

static UUID: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new("^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$").expect("a pattern")
});

fn matches(pattern: &str, text: &str) -> bool {
    Regex::new(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}")).is_match(text)
}

fn is_or_is_below(path: &str, allowed: &str) -> bool {
    path.strip_prefix(allowed).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn nanoseconds(span: &DynamicMessage) -> i128 {
    let part = |name| i128::from(number(span, name).unwrap_or_default());
    part("seconds") * 1_000_000_000 + part("nanos")
}

/// The CEL rules of a message: the id of each, which is the path of a field, and its expression.
pub(super) fn expressions(of: &MessageDescriptor) -> Vec<(String, String)> {
    let Some(rules) = option_of(&of.options(), of, "buf.validate.message") else { return Vec::new() };
    let cel = rules.get_field_by_name("cel").map(std::borrow::Cow::into_owned);
    let rules = cel.as_ref().and_then(Value::as_list).unwrap_or_default().iter().filter_map(Value::as_message);
    let text =
        |rule: &DynamicMessage, name| rule.get_field_by_name(name).and_then(|text| text.as_str().map(str::to_owned));
    rules.map(|rule| (text(rule, "id").expect("an id"), text(rule, "expression").expect("an expression"))).collect()
}

/// The forms of CEL that the contract uses: a field is set, or is not empty, or matches; perhaps only where another is
/// set.
static FORM: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^(?:!has\(this\.(?<unless>\w+)\) \|\| )?(?:has\(this\.(?<set>\w+)\)|this\.(?<full>[\w.]+) != ''|this\.(?<field>[\w.]+)\.matches\('(?<pattern>[^']*)'\))$")
        .expect("a pattern")
});

/// Whether a CEL rule of a message is kept.
fn holds(message: &DynamicMessage, expression: &str) -> bool {
    let form = FORM.captures(expression).unwrap_or_else(|| panic!("this test cannot judge {expression}"));
    let part = |name| form.name(name).map(|part| part.as_str());
    let text = |path: &str| text_at(message, path).unwrap_or_else(|| panic!("{expression}: there is no text {path}"));
    if part("unless").is_some_and(|field| !message.has_field_by_name(field)) {
        return true;
    }
    match (part("set"), part("full"), part("field").zip(part("pattern"))) {
        (Some(field), ..) => message.has_field_by_name(field),
        (_, Some(path), _) => !text(path).is_empty(),
        (.., Some((path, pattern))) => matches(pattern, &text(path)),
        _ => unreachable!("one of the forms matched"),
    }
}

/// The text of a field by its path; empty where it is not set.
fn text_at(message: &DynamicMessage, path: &str) -> Option<String> {
    match path.split_once('.') {
        Some((field, rest)) => text_at(message.get_field_by_name(field)?.as_message()?, rest),
        None => message.get_field_by_name(path)?.as_str().map(str::to_owned),
    }
}
