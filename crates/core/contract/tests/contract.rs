//! Tests the promises of the contract: the descriptors are complete, every element has a comment, the API changes only
//! on purpose, and events stored by any release still decode.
//!
//! `GOLDEN=update` rewrites `golden/api.txt` and writes the bytes of event samples that have none yet. It never changes
//! existing bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use contract::event::v1::EventEnvelope;
use prost::Message;
use prost_reflect::text_format::FormatOptions;
use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor,
    MethodDescriptor, Value,
};
use similar::TextDiff;

/// One pool for all tests: messages of different pools never compare equal.
fn pool() -> &'static DescriptorPool {
    static POOL: LazyLock<DescriptorPool> =
        LazyLock::new(|| DescriptorPool::decode(contract::DESCRIPTORS).expect("the descriptor set decodes"));
    &POOL
}

/// The files of this project, ordered by package.
fn files() -> Vec<FileDescriptor> {
    let mut files: Vec<_> = pool().files().filter(|file| file.package_name().starts_with("checkup.")).collect();
    files.sort_by_key(|file| file.name().to_owned());
    files
}

/// A message and those nested in it, depth first.
fn with_nested(message: MessageDescriptor) -> Vec<MessageDescriptor> {
    let nested: Vec<_> = message.child_messages().flat_map(with_nested).collect();
    [message].into_iter().chain(nested).collect()
}

fn messages(file: &FileDescriptor) -> Vec<MessageDescriptor> {
    file.messages().flat_map(with_nested).collect()
}

fn enums(file: &FileDescriptor) -> Vec<EnumDescriptor> {
    let nested = messages(file).into_iter().flat_map(|message| message.child_enums().collect::<Vec<_>>());
    nested.chain(file.enums()).collect()
}

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(path)
}

fn updating() -> bool {
    std::env::var("GOLDEN").is_ok_and(|value| value == "update")
}

fn diff(expected: &str, found: &str) -> String {
    TextDiff::from_lines(expected, found).unified_diff().context_radius(2).header("expected", "found").to_string()
}

#[test]
fn the_descriptor_set_is_whole() {
    let packages: Vec<_> = files().iter().map(|file| file.package_name().to_owned()).collect();
    let expected = ["capacity", "error", "event", "hospital", "marketing", "mypage", "reservation", "screening"];
    assert_eq!(packages, expected.map(|service| format!("checkup.{service}.v1")));
    assert!(pool().get_message_by_name("google.rpc.ErrorInfo").is_some(), "imports are included");
    let created = pool().get_message_by_name("checkup.screening.v1.CreateScreeningRequest").expect("a request");
    let screening = created.get_field_by_name("screening").expect("its field");
    assert_eq!(behaviors(&screening), ["REQUIRED"], "options are included");
}

mod api {
    use super::*;

    #[test]
    fn changes_only_on_purpose() {
        let (path, found) = (golden("api.txt"), render());
        if updating() {
            fs::write(&path, found).expect("the golden file can be written");
            return;
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            expected == found,
            "the API is not what tests/golden/api.txt says; if that is on purpose, run GOLDEN=update\n{}",
            diff(&expected, &found)
        );
    }

    fn render() -> String {
        let files = files();
        let parts = files.iter().map(|file| {
            let package = file.package_name();
            let services = file.services().map(|service| {
                let methods = service.methods().map(|method| {
                    let side = |of: MessageDescriptor, streaming: bool| {
                        format!("{}{}", if streaming { "stream " } else { "" }, short(of.full_name(), package))
                    };
                    let input = side(method.input(), method.is_client_streaming());
                    let output = side(method.output(), method.is_server_streaming());
                    let rest = rest(&method).map_or_else(String::new, |rule| format!(" = {rule}"));
                    format!("  {}({input}): {output}{rest}\n", method.name())
                });
                format!("\nservice {}\n{}", service.name(), methods.collect::<String>())
            });
            let messages = messages(file).into_iter().map(|message| render_message(&message, package));
            let enums = enums(file).into_iter().map(|of| render_enum(&of, package));
            let body: String = services.chain(messages).chain(enums).collect();
            format!("package {package}\n{body}")
        });
        parts.collect::<Vec<_>>().join("\n\n")
    }

    fn short<'a>(name: &'a str, package: &str) -> &'a str {
        name.strip_prefix(package).and_then(|rest| rest.strip_prefix('.')).unwrap_or(name)
    }

    fn render_message(message: &MessageDescriptor, package: &str) -> String {
        let mut text = format!("\nmessage {}\n", short(message.full_name(), package));
        text += &rules(&message.options(), message, "message").map_or_else(String::new, |rules| format!(" {rules}\n"));
        for field in message.fields() {
            let kind = match field.kind() {
                Kind::Message(of) => short(of.full_name(), package).to_owned(),
                Kind::Enum(of) => short(of.full_name(), package).to_owned(),
                scalar => format!("{scalar:?}").to_lowercase(),
            };
            let oneof = field.containing_oneof();
            let label = match &oneof {
                _ if field.is_list() => "repeated ",
                Some(oneof) if oneof.is_synthetic() => "optional ",
                _ => "",
            };
            let oneof = oneof.filter(|oneof| !oneof.is_synthetic());
            let oneof = oneof.map_or_else(String::new, |oneof| format!(" (one of {})", oneof.name()));
            let behaviors: String = behaviors(&field).iter().map(|behavior| format!(" {behavior}")).collect();
            let rules = rules(&field.options(), message, "field").unwrap_or_default();
            text += &format!("  {} {}: {label}{kind}{oneof}{behaviors}{rules}\n", field.number(), field.name());
        }
        for range in message.reserved_ranges() {
            text += &reserved(range.start, range.end - 1);
        }
        text
    }

    /// What `buf.validate` says of an element.
    fn rules(options: &DynamicMessage, of: &MessageDescriptor, element: &str) -> Option<String> {
        let name = format!("buf.validate.{element}");
        let extension = of.parent_pool().get_extension_by_name(&name).expect("the option is known");
        let rules = options.has_extension(&extension).then(|| options.get_extension(&extension).into_owned())?;
        rules.as_message().map(|rules| format!(" {{{}}}", rules.to_text_format()))
    }

    fn reserved<Number: Display + PartialEq>(first: Number, last: Number) -> String {
        if first == last { format!("  {first} reserved\n") } else { format!("  {first}..={last} reserved\n") }
    }

    fn render_enum(of: &EnumDescriptor, package: &str) -> String {
        let mut text = format!("\nenum {}\n", short(of.full_name(), package));
        for value in of.values() {
            text += &format!("  {} {}\n", value.number(), value.name());
        }
        for range in of.reserved_ranges() {
            text += &reserved(range.start(), range.end());
        }
        text
    }
}

/// The names of a field's `google.api.field_behavior`.
fn behaviors(field: &FieldDescriptor) -> Vec<String> {
    let extension =
        field.parent_pool().get_extension_by_name("google.api.field_behavior").expect("the option is known");
    let Kind::Enum(of) = extension.kind() else { panic!("field_behavior is an enum") };
    let options = field.options();
    let values = options.get_extension(&extension);
    let numbers = values.as_list().expect("it is repeated").iter().filter_map(Value::as_enum_number);
    numbers.map(|number| of.get_value(number).expect("a known behavior").name().to_owned()).collect()
}

#[test]
fn every_field_of_a_request_or_resource_says_how_it_behaves() {
    let apis = files().into_iter().filter(|file| file.services().len() > 0);
    let fields = apis.flat_map(|file| messages(&file)).flat_map(|message| message.fields().collect::<Vec<_>>());
    let silent: Vec<_> = fields
        .filter(|field| {
            let of = field.parent_message();
            !of.name().ends_with("Response") && of.name() != "Heartbeat" && behaviors(field).is_empty()
        })
        .map(|field| field.full_name().to_owned())
        .collect();
    assert!(silent.is_empty(), "without google.api.field_behavior: {silent:#?}");
}

/// A method as REST, from its `google.api.http`.
struct Rest {
    verb: String,
    path: String,
    /// The field that becomes the body; `*` for every field that is not in the path; empty for no body.
    body: String,
}

impl Display for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.path)?;
        if self.body.is_empty() { Ok(()) } else { write!(f, " {}", self.body) }
    }
}

impl Rest {
    /// The variables of the path: the field each fills, and the pattern it has to match.
    fn variables(&self) -> Vec<(&str, &str)> {
        let variables = self.path.split('{').skip(1).map(|rest| rest.split('}').next().unwrap_or_default());
        variables.map(|variable| variable.split_once('=').unwrap_or((variable, "*"))).collect()
    }

    /// The path as a proxy matches it: the names of variables do not count.
    fn route(&self) -> String {
        let mut path = self.path.clone();
        for (field, pattern) in self.variables() {
            path = path.replace(&format!("{{{field}={pattern}}}"), pattern).replace(&format!("{{{field}}}"), pattern);
        }
        format!("{} {path}", self.verb)
    }
}

/// How a method is called with JSON over HTTP; `None` if it has no REST route.
fn rest(method: &MethodDescriptor) -> Option<Rest> {
    let extension = method.parent_pool().get_extension_by_name("google.api.http").expect("the option is known");
    let options = method.options();
    if !options.has_extension(&extension) {
        return None;
    }
    let rule = options.get_extension(&extension).as_message().expect("it is a message").clone();
    let text = |field: &str| rule.get_field_by_name(field).and_then(|value| value.as_str().map(str::to_owned));
    let additional = rule.get_field_by_name("additional_bindings").expect("its field");
    assert!(additional.as_list().is_some_and(<[Value]>::is_empty), "{}: one way is enough", method.full_name());
    let mut verbs = ["get", "put", "post", "delete", "patch"].into_iter();
    let used = verbs.find_map(|verb| Some((verb, text(verb).filter(|path| !path.is_empty())?)));
    let (verb, path) = used.unwrap_or_else(|| panic!("{} has no verb", method.full_name()));
    Some(Rest { verb: verb.to_uppercase(), path, body: text("body").unwrap_or_default() })
}

/// REST is the mesh's translation of these annotations, so they are as binding as names.
mod rest_annotations {
    use super::*;

    /// Services that nobody outside the mesh calls.
    const INTERNAL: [&str; 1] = ["checkup.capacity.v1.CapacityService"];

    fn methods() -> Vec<MethodDescriptor> {
        files()
            .iter()
            .flat_map(|file| file.services().collect::<Vec<_>>())
            .flat_map(|service| service.methods().collect::<Vec<_>>())
            .collect()
    }

    fn public() -> Vec<(MethodDescriptor, Rest)> {
        methods().into_iter().filter_map(|method| rest(&method).map(|rule| (method, rule))).collect()
    }

    /// Whether a path is below one that a gateway opens.
    fn is_open(path: &str) -> bool {
        let collections = ["hospitals", "screenings", "reservations", "marketing"];
        let below = |root: &str| {
            path.strip_prefix(root)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || rest.starts_with(':'))
        };
        collections.iter().any(|collection| below(&format!("/v1/{collection}"))) || below("/v1/customers/*/myPage")
    }

    #[test]
    fn are_on_every_public_method_and_on_no_internal_one() {
        for method in methods() {
            let internal = INTERNAL.contains(&method.parent_service().full_name());
            assert_eq!(rest(&method).is_none(), internal, "google.api.http of {}", method.full_name());
        }
    }

    #[test]
    fn lead_to_one_method_each_below_the_paths_that_are_open() {
        let mut taken = BTreeMap::new();
        for (method, rule) in public() {
            let route = rule.route();
            let path = route.split_once(' ').map_or("", |(_, path)| path);
            assert!(is_open(path), "{}: {path} is below no open path", method.full_name());
            if let Some(other) = taken.insert(route.clone(), method.full_name().to_owned()) {
                panic!("{other} and {} are both {route}", method.full_name());
            }
        }
        assert!(!is_open("/v1/hospitalsearch") && !is_open("/v1/customers/*") && is_open("/v1/hospitals:search"));
    }

    #[test]
    fn name_fields_that_there_are() {
        for (method, rule) in public() {
            let field = |path: &str| {
                let mut of = Some(method.input());
                let mut found = None;
                for name in path.split('.') {
                    found = of.as_ref().and_then(|message| message.get_field_by_name(name));
                    of = found.as_ref().and_then(|field| field.kind().as_message().cloned());
                }
                found.unwrap_or_else(|| panic!("{} has no field {path}", method.input().full_name()))
            };
            for (variable, pattern) in rule.variables() {
                assert_eq!(field(variable).kind(), Kind::String, "{}: {variable}", method.full_name());
                assert!(!pattern.is_empty(), "{}: {variable}", method.full_name());
            }
            if !["", "*"].contains(&rule.body.as_str()) {
                assert!(field(&rule.body).kind().as_message().is_some(), "{}: {}", method.full_name(), rule.body);
            }
            let changes = !["GET", "DELETE"].contains(&rule.verb.as_str());
            assert_eq!(!rule.body.is_empty(), changes, "{}: a body belongs to {}", method.full_name(), rule.verb);
            reaches_every_required_field(&method, &rule);
        }
    }

    /// A field that is neither in the path nor in the body travels in the query. The query cannot carry messages or
    /// lists of messages, except dates (`start_date.year=2027`).
    fn reaches_every_required_field(method: &MethodDescriptor, rule: &Rest) {
        if rule.body == "*" {
            return;
        }
        for field in method.input().fields() {
            let in_path = rule.variables().iter().any(|(variable, _)| *variable == field.name());
            if in_path || field.name() == rule.body {
                continue;
            }
            let message = field.kind().as_message().map(|of| of.full_name().to_owned());
            let fits = message.as_deref().is_none_or(|name| {
                !field.is_list() && ["google.type.Date", "google.protobuf.FieldMask"].contains(&name)
            });
            assert!(fits, "{}: {} does not fit into a query string", method.full_name(), field.name());
        }
    }
}

mod comments {
    use super::*;

    #[test]
    fn lead_every_element() {
        let faults: Vec<_> = files().iter().flat_map(faults_of).collect();
        assert!(faults.is_empty(), "{faults:#?}");
    }

    /// The faults of a file's comments: an element without a leading comment, a comment that is not in sentences, or a
    /// comment where documentation tools do not read it.
    fn faults_of(file: &FileDescriptor) -> Vec<String> {
        let mut faults = Vec::new();
        let source = file.file_descriptor_proto().source_code_info.as_ref().expect("source info is included");
        for (element, path) in elements(file) {
            let location = source.location.iter().find(|location| location.path == path);
            let comment = location.and_then(|location| location.leading_comments.as_deref()).unwrap_or_default().trim();
            if comment.is_empty() {
                faults.push(format!("{element} has no leading comment"));
            } else if !comment.ends_with('.') {
                faults.push(format!("the comment of {element} does not end with a full stop"));
            }
        }
        for location in &source.location {
            if location.trailing_comments.is_some() || !location.leading_detached_comments.is_empty() {
                faults.push(format!("{}:{}: a comment that leads nothing", file.name(), location.span[0] + 1));
            }
        }
        faults
    }

    /// Every named element of a file, with its path in the descriptor.
    fn elements(file: &FileDescriptor) -> Vec<(String, Vec<i32>)> {
        const SYNTAX: i32 = 12;
        let mut found = vec![(file.name().to_owned(), vec![SYNTAX])];
        for service in file.services() {
            found.push((service.full_name().to_owned(), service.path().to_vec()));
            found.extend(service.methods().map(|method| (method.full_name().to_owned(), method.path().to_vec())));
        }
        for message in messages(file) {
            found.push((message.full_name().to_owned(), message.path().to_vec()));
            found.extend(message.fields().map(|field| (field.full_name().to_owned(), field.path().to_vec())));
            // An optional field stands in a oneof that nobody wrote.
            let oneofs = message.oneofs().filter(|oneof| !oneof.is_synthetic());
            found.extend(oneofs.map(|oneof| (oneof.full_name().to_owned(), oneof.path().to_vec())));
        }
        for of in enums(file) {
            found.push((of.full_name().to_owned(), of.path().to_vec()));
            found.extend(of.values().map(|value| (value.full_name().to_owned(), value.path().to_vec())));
        }
        found
    }
}

/// Samples of events as releases stored them, in `golden/events`. `{fact}.binpb` holds the stored bytes; `{fact}.txt`
/// holds their meaning, written by hand as an `EventEnvelope` in protobuf text form. A fact that gains a field gets
/// another pair, `{fact}.2.txt` and so on. The older pair stays, because such events are still stored.
mod events {
    use super::*;

    /// A stored sample. Its name starts with the fact it carries.
    struct Sample {
        name: String,
        message: DynamicMessage,
    }

    fn descriptor() -> MessageDescriptor {
        pool().get_message_by_name("checkup.event.v1.EventEnvelope").expect("the envelope")
    }

    fn facts() -> Vec<FieldDescriptor> {
        descriptor().oneofs().find(|oneof| oneof.name() == "payload").expect("the payload").fields().collect()
    }

    fn pretty(message: &DynamicMessage) -> String {
        message.to_text_format_with_options(&FormatOptions::new().pretty(true))
    }

    /// Every sample, found by its text file. Writes the bytes of new samples when `GOLDEN=update`.
    fn samples() -> Vec<Sample> {
        let mut texts: Vec<_> = fs::read_dir(golden("events"))
            .expect("there are samples")
            .map(|entry| entry.expect("a readable directory").path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "txt"))
            .collect();
        texts.sort();
        let samples = texts.iter().map(|text| {
            let name = text.file_stem().and_then(|stem| stem.to_str()).expect("a UTF-8 name").to_owned();
            let meaning = fs::read_to_string(text).expect("a readable sample");
            let meaning = DynamicMessage::parse_text_format(descriptor(), &meaning)
                .unwrap_or_else(|error| panic!("{name}.txt is not an EventEnvelope: {error}"));
            let stored = text.with_extension("binpb");
            if updating() && !stored.exists() {
                fs::write(&stored, meaning.encode_to_vec()).expect("the sample can be stored");
            }
            let bytes =
                fs::read(&stored).unwrap_or_else(|_| panic!("{name}.binpb is not stored yet: run GOLDEN=update"));
            // Decodes through the generated type, because services decode with it and it would lose an unknown field.
            let envelope = EventEnvelope::decode(bytes.as_slice()).expect("a stored event decodes");
            let message =
                DynamicMessage::decode(descriptor(), envelope.encode_to_vec().as_slice()).expect("and encodes");
            assert!(
                message == meaning,
                "{name}.binpb no longer means what {name}.txt says\n{}",
                diff(&pretty(&meaning), &pretty(&message))
            );
            Sample { name, message }
        });
        samples.collect()
    }

    #[test]
    fn stored_by_any_release_still_decode() {
        let texts = samples().len();
        let stored = fs::read_dir(golden("events")).expect("there are samples").count() - texts;
        assert_eq!(texts, stored, "every stored sample has its meaning beside it");
    }

    #[test]
    fn of_every_fact_are_stored_with_every_field() {
        let samples = samples();
        let mut missing = Vec::new();
        for fact in facts() {
            let of_fact = samples.iter().filter(|sample| sample.name.split('.').next() == Some(fact.name()));
            let mut set = BTreeSet::new();
            for sample in of_fact {
                assert!(sample.message.has_field(&fact), "{} does not carry its fact", sample.name);
                note_set_fields(&sample.message, "", &mut set);
            }
            missing.extend(paths(&fact, "").into_iter().filter(|path| !set.contains(path)));
        }
        let mut set = BTreeSet::new();
        for sample in &samples {
            note_set_fields(&sample.message, "", &mut set);
        }
        let envelope = descriptor();
        let common = envelope.fields().filter(|field| field.containing_oneof().is_none());
        missing.extend(common.flat_map(|field| paths(&field, "")).filter(|path| !set.contains(path)));
        assert!(
            missing.is_empty(),
            "no stored event has these fields; write a {{fact}}.txt in tests/golden/events that sets them, then run \
             GOLDEN=update: {missing:#?}"
        );
    }

    /// A field and everything below it.
    fn paths(field: &FieldDescriptor, parent: &str) -> Vec<String> {
        let path = format!("{parent}{}", field.name());
        let kind = field.kind();
        let below = kind.as_message().into_iter().flat_map(MessageDescriptor::fields);
        let below: Vec<_> = below.flat_map(|below| paths(&below, &format!("{path}."))).collect();
        [path].into_iter().chain(below).collect()
    }

    fn note_set_fields(message: &DynamicMessage, parent: &str, set: &mut BTreeSet<String>) {
        for (field, value) in message.fields() {
            let path = format!("{parent}{}", field.name());
            if let Some(below) = value.as_message() {
                note_set_fields(below, &format!("{path}."), set);
            }
            set.insert(path);
        }
    }
}
