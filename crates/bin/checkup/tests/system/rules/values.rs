//! Values around what the rules of a field allow.

use jiff::{Timestamp, civil};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use prost_reflect::{DynamicMessage, EnumDescriptor, Kind, ReflectMessage as _, Value};
use regex::Regex;
use testkit::{Desk, Random, in_days};

use super::requests::{Target, day, on, rules};

/// The numbers that anything is limited to. They are tried on every number, so that a limit without a rule is found
/// too.
const LIMITS: &[i64] = &[0, 1, 100, 366, 1_000, 10_000, 100_000];
/// The longest text that is sent, and to every field: longer than any that is limited may be.
const LONGEST: usize = 2_001;
/// Random values for each pattern, and changes of each of them.
const SAMPLES: usize = 6;
const CHANGES: usize = 5;

/// The values of a field. `base` is a request in which it has a valid one.
pub(super) fn of(target: &Target, base: &DynamicMessage, random: &mut Random) -> Vec<Value> {
    let now = target.get(base);
    match (target.field.kind(), now) {
        (Kind::String, Value::List(_)) => lists(&texts_of(target, "hospitals/han-river", random)),
        (Kind::String, now) => {
            let now = now.as_str().unwrap_or_default().to_owned();
            texts_of(target, &now, random).into_iter().map(Value::String).collect()
        }
        (Kind::Message(_), Value::List(now)) => rows(&now),
        (Kind::Message(_), _) => messages(target, random),
        (Kind::Int32, _) => numbers(target, random).into_iter().map(Value::I32).collect(),
        (Kind::Int64, _) => vec![Value::I64(-1), Value::I64(i64::MAX)],
        (Kind::Enum(of), Value::List(_)) => choices(&of),
        (Kind::Enum(_), _) => [0, 1, 42, -1].map(Value::EnumNumber).to_vec(),
        (kind, _) => panic!("{}: no values of {kind:?}", target.path()),
    }
}

/// A rule of a field, by its names in `buf.validate.FieldRules`.
fn rule(target: &Target, kind: &str, name: &str) -> Option<Value> {
    let rules = rules(&target.field);
    let field = rules.descriptor().get_field_by_name(kind).filter(|field| rules.has_field(field))?;
    let of_kind = rules.get_field(&field).as_message()?.clone();
    let field = of_kind.descriptor().get_field_by_name(name).filter(|field| of_kind.has_field(field))?;
    Some(of_kind.get_field(&field).into_owned())
}

/// Each limit, the one before and the one after.
fn around(limits: impl IntoIterator<Item = i64>) -> Vec<i64> {
    let mut around: Vec<i64> = limits.into_iter().flat_map(|limit| [limit - 1, limit, limit + 1]).collect();
    around.sort_unstable();
    around.dedup();
    around
}

fn numbers(target: &Target, random: &mut Random) -> Vec<i32> {
    let stated = ["gt", "gte", "lt", "lte"].into_iter().filter_map(|name| rule(target, "int32", name)?.as_i32());
    let limits = stated.map(i64::from).chain(LIMITS.iter().copied());
    let limits = around(limits).into_iter().filter_map(|number| i32::try_from(number).ok());
    limits.chain([i32::MIN, i32::MAX, random.number() as i32]).collect()
}

/// Texts in NFC, the form in which the server counts them.
fn texts_of(target: &Target, now: &str, random: &mut Random) -> Vec<String> {
    let mut texts: Vec<String> =
        ["", " ", "a", "검", "a\u{7}b", "a b", "*", "date", "date  desc", "\tdate asc\n", "date down"]
            .map(str::to_owned)
            .to_vec();
    let stated = ["min_len", "max_len"].into_iter().filter_map(|name| rule(target, "string", name)?.as_u64());
    let stated = around(stated.filter_map(|length| i64::try_from(length).ok()));
    for length in stated.into_iter().filter_map(|length| usize::try_from(length).ok()).chain([LONGEST]) {
        // A character of one byte, of three, and of four that are two units of UTF-16.
        texts.extend(["a", "검", "😀"].map(|character| character.repeat(length)));
    }
    if rule(target, "string", "uuid").is_some() {
        texts.extend(uuids(random));
    }
    if let Some((hospital, _)) = now.split_once("/slots/") {
        texts.extend(["2027-02-30", "0000-01-01", "2027-13-01"].map(|date| format!("{hospital}/slots/{date}")));
    }
    let mut seeds = vec![now.to_owned()];
    if let Some(pattern) = rule(target, "string", "pattern").as_ref().and_then(Value::as_str) {
        seeds.extend(matching(pattern, SAMPLES, random));
        texts.extend(edges(pattern).iter().flat_map(|edge| matching(edge, 1, random)));
        texts.extend(OTHERS.iter().map(|other| inserted(now, *other, random)).filter(|_| !now.is_empty()));
    }
    for seed in seeds.into_iter().filter(|seed| !seed.is_empty()) {
        texts.extend((0..CHANGES).map(|_| changed(&seed, random)));
        texts.extend([format!("{seed}/"), format!(" {seed}"), format!("{seed}\n"), seed.to_uppercase(), seed]);
    }
    texts.sort();
    texts.dedup();
    texts
}

/// UUIDs of every kind, and texts that are nearly one.
fn uuids(random: &mut Random) -> Vec<String> {
    let (random_one, ordered) = (random.uuid(), random.uuid_v7());
    let text = random_one.to_string();
    let nil = uuid::Uuid::nil();
    vec![
        ordered.to_string(),
        text.to_uppercase(),
        nil.to_string(),
        uuid::Uuid::max().to_string(),
        random_one.simple().to_string(),
        random_one.braced().to_string(),
        random_one.urn().to_string(),
        text.replace('-', "_"),
        text[1..].to_owned(),
        format!("{text}0"),
        text.replacen(|character: char| character.is_ascii_hexdigit(), "g", 1),
        text.replacen(|character: char| character.is_ascii_hexdigit(), "０", 1),
        text,
    ]
}

/// A pattern with each of its counted repetitions in turn as often as it may be at least and at most, once less than
/// that, and once more.
fn edges(pattern: &str) -> Vec<String> {
    let counted = Regex::new(r"\{(\d+)(?:,(\d+))?\}").expect("a pattern");
    let edges = counted.captures_iter(pattern).flat_map(|found| {
        let whole = found.get(0).expect("the repetition").range();
        let number = |group| found.get(group).and_then(|digits| digits.as_str().parse::<u32>().ok());
        let least = number(1).unwrap_or_default();
        let most = number(2).unwrap_or(least);
        let counts = [least.saturating_sub(1), least, most, most + 1];
        counts.map(|count| format!("{}{{{count}}}{}", &pattern[..whole.start], &pattern[whole.end..]))
    });
    edges.collect()
}

/// Texts that match an anchored pattern.
fn matching(pattern: &str, samples: usize, random: &mut Random) -> Vec<String> {
    let inner = pattern.strip_prefix('^').and_then(|rest| rest.strip_suffix('$'));
    let inner = inner.unwrap_or_else(|| panic!("{pattern} is not anchored"));
    let strategy = proptest::string::string_regex(inner).unwrap_or_else(|error| panic!("{pattern}: {error}"));
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &random.bytes());
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    (0..samples).map(|_| strategy.new_tree(&mut runner).expect("a value").current()).collect()
}

/// Characters that names may have, and others.
const OTHERS: &[char] = &['a', 'Z', '0', '9', '-', '_', '.', '~', '/', ' ', 'é', '검', 'ａ', '\n'];

/// A text with a character more, before its end.
fn inserted(text: &str, character: char, random: &mut Random) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    characters.insert(random.below(characters.len() as u64) as usize, character);
    characters.into_iter().collect()
}

/// A text with one change, which it may or may not bear: a character more, less, another one, or many times.
fn changed(text: &str, random: &mut Random) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    let at = random.below(characters.len() as u64) as usize;
    match random.below(4) {
        0 => drop(characters.remove(at)),
        1 => characters.insert(at, *random.pick(OTHERS)),
        2 => characters[at] = *random.pick(OTHERS),
        _ => {
            let again = vec![characters[at]; random.below(70) as usize];
            characters.splice(at..at, again);
        }
    }
    characters.into_iter().collect()
}

fn counts() -> impl Iterator<Item = usize> {
    [0, 1, 2, 19, 20, 21, 99, 100, 101, 365, 366, 367].into_iter()
}

/// Lists of one text, and of different valid ones.
fn lists(texts: &[String]) -> Vec<Value> {
    let single = texts.iter().map(|text| Value::List(vec![Value::String(text.clone())]));
    let many = counts()
        .map(|count| Value::List((0..count).map(|index| Value::String(format!("hospitals/clinic-{index}"))).collect()));
    single.chain(many).collect()
}

/// Lists of values of an enum: one, all of them, one twice, too many, and several that are not to be had.
fn choices(of: &EnumDescriptor) -> Vec<Value> {
    let known: Vec<i32> = of.values().map(|value| value.number()).filter(|number| *number != 0).collect();
    let single = [0, 42, -1].into_iter().chain(known.clone()).map(|number| vec![number]);
    let twice = [vec![known[0], known[1], known[0]], [known.as_slice(), &known[..1]].concat()];
    let wrong = [vec![0, 0], vec![42, known[0], 0]];
    let lists = single.chain([known]).chain(twice).chain(wrong);
    lists.map(|list| Value::List(list.into_iter().map(Value::EnumNumber).collect())).collect()
}

/// Lists of different rows like the first one.
fn rows(now: &[Value]) -> Vec<Value> {
    let Some(Value::Message(first)) = now.first() else { panic!("a base has a row in each of its lists") };
    let row = |index: usize| {
        let mut row = first.clone();
        on(&mut row, in_days(Desk::ZONE, 31 + i32::try_from(index).unwrap_or_default()));
        Value::Message(row)
    };
    counts().map(|count| Value::List((0..count).map(row).collect())).collect()
}

fn messages(target: &Target, random: &mut Random) -> Vec<Value> {
    let Kind::Message(of) = target.field.kind() else { unreachable!("asked for messages only") };
    let span = |seconds: i64, nanos: i32| {
        let mut message = DynamicMessage::new(of.clone());
        message.set_field_by_name("seconds", Value::I64(seconds));
        message.set_field_by_name("nanos", Value::I32(nanos));
        Value::Message(message)
    };
    match of.full_name() {
        "google.protobuf.Duration" => {
            let stated = ["gte", "lte"].into_iter().filter_map(|name| rule(target, "duration", name));
            let stated = stated.filter_map(|limit| limit.as_message()?.get_field_by_name("seconds")?.as_i64());
            let whole: Vec<i64> =
                around(stated.chain([0, 3_600, 31_622_400])).into_iter().chain([i64::from(u32::MAX)]).collect();
            let parts = [(0, -1), (0, 1), (31_622_399, 999_999_999), (31_622_400, 1)];
            let random = random.below(31_622_400) as i64;
            whole
                .into_iter()
                .map(|seconds| (seconds, 0))
                .chain(parts)
                .chain([(random, 0)])
                .map(|(s, n)| span(s, n))
                .collect()
        }
        "google.protobuf.Timestamp" => {
            let now = Timestamp::now().as_second();
            [0, now - 60, now + 86_400].map(|seconds| span(seconds, 0)).to_vec()
        }
        "google.type.Date" => {
            let dates = [-400, -1, 0, 1, 29, 30, 31, 92, 93, 400].map(|days| in_days(Desk::ZONE, days));
            let edges = [civil::date(1, 1, 1), civil::date(9999, 12, 31), civil::date(2028, 2, 29)];
            let dates = dates.into_iter().chain(edges).map(|date| day(&target.field, date));
            let partial = DynamicMessage::new(of.clone());
            dates.chain([partial]).map(Value::Message).collect()
        }
        "google.protobuf.FieldMask" => masks(&of),
        _ => vec![Value::Message(DynamicMessage::new(of))],
    }
}

/// Masks of every path that may be written, of some that may not, and of two paths.
fn masks(of: &prost_reflect::MessageDescriptor) -> Vec<Value> {
    const PATHS: &[&str] = &[
        "*",
        "",
        "display_name",
        "booking_policy",
        "booking_policy.min_notice",
        "booking_policy.max_advance",
        "booking_policy.cancellation_cutoff",
        "booking_policy.waitlist_limit",
        "booking_policy.promotion_min_notice",
        "booking_policy.reschedule_limit",
        "booking_policy.customer_limit",
        "booking_policy.min",
        "customer_display_name",
        "customer",
        "state",
        "Display_name",
    ];
    let mask = |paths: &[&str]| {
        let mut message = DynamicMessage::new(of.clone());
        let paths = paths.iter().map(|path| Value::String((*path).to_owned())).collect();
        message.set_field_by_name("paths", Value::List(paths));
        Value::Message(message)
    };
    let pairs = PATHS.iter().flat_map(|first| PATHS.iter().map(move |second| vec![*first, *second]));
    let single = PATHS.iter().map(|path| vec![*path]);
    single.chain(pairs).chain([Vec::new()]).map(|paths| mask(&paths)).collect()
}
