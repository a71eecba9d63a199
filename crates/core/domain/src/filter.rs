//! Filters of lists: AIP-160 comparisons joined by AND, for the fields each list names.
//!
//! `customer="customers/kim" AND state=CONFIRMED AND date>="2027-01-01"`. Anything more (OR, NOT, parentheses,
//! functions) is refused rather than half understood.

use fault::{Reason, Violations};
use jiff::Timestamp;
use jiff::civil::Date;

use crate::ids::{CustomerId, HospitalId, SlotId, parse_date};
use crate::text::{MACHINE_TEXT_MAX, nfc};

/// The type of a field, which decides the operators and values it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Free text: `=`, `!=`, and `:` for a substring.
    Text,
    /// `customers/{customer}`: `=` and `!=`.
    Customer,
    /// `hospitals/{hospital}`: `=` and `!=`.
    Hospital,
    /// `hospitals/{hospital}/slots/{date}`: `=` and `!=`.
    Slot,
    /// One of these words: `=` and `!=`.
    OneOf(&'static [&'static str]),
    /// A civil date: `=`, `!=`, `<`, `<=`, `>` and `>=`.
    Date,
    /// An instant, RFC 3339 with an offset: `=`, `!=`, `<`, `<=`, `>` and `>=`.
    Time,
    /// A number: `=`, `!=`, `<`, `<=`, `>` and `>=`.
    Number,
}

/// A field a list can be filtered by.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its name in the contract.
    pub name: &'static str,
    /// The type of its values.
    pub kind: Kind,
}

/// How a field is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `=`, equal
    Equal,
    /// `!=`, not equal
    NotEqual,
    /// `<`, less or earlier
    Less,
    /// `<=`, less or equal
    LessOrEqual,
    /// `>`, greater or later
    Greater,
    /// `>=`, greater or equal
    GreaterOrEqual,
    /// `:`, contains the substring
    Has,
}

/// The right-hand side of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Free text, a resource name or a word.
    Text(String),
    /// A civil date, written YYYY-MM-DD.
    Date(Date),
    /// An instant.
    Time(Timestamp),
    /// A decimal number, for example `0.9`.
    Number(f64),
}

/// One comparison of a filter, for example `state=CONFIRMED`.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// The field's name in the contract.
    pub field: &'static str,
    /// How the field is compared.
    pub operator: Operator,
    /// What the field is compared with.
    pub value: Value,
}

/// Reads a filter after bringing it to NFC, the form in which texts are stored. An empty filter has no comparisons.
pub fn decode(violations: &mut Violations, text: &str, fields: &[Field]) -> Vec<Comparison> {
    match parse(&nfc(text), fields) {
        Ok(comparisons) => comparisons,
        Err(description) => {
            violations.add("filter", Reason::FilterInvalid, description);
            Vec::new()
        }
    }
}

fn parse(text: &str, fields: &[Field]) -> Result<Vec<Comparison>, String> {
    if text.chars().count() > MACHINE_TEXT_MAX {
        return Err(format!("must have at most {MACHINE_TEXT_MAX} characters"));
    }
    let tokens = tokenize(text)?;
    let mut comparisons = Vec::new();
    if tokens.is_empty() {
        return Ok(comparisons);
    }
    for group in tokens.split(|token| *token == Token::Word("AND".into())) {
        let [Token::Word(name), Token::Operator(operator), value] = group else {
            return Err("must be comparisons such as state=CONFIRMED joined by AND".into());
        };
        let field = fields.iter().find(|field| field.name == name).ok_or_else(|| {
            let known: Vec<_> = fields.iter().map(|field| field.name).collect();
            format!("{name} is not a field of this filter; there are {}", known.join(", "))
        })?;
        let value = match value {
            Token::Word(value) | Token::Quoted(value) => value,
            Token::Operator(_) => return Err(format!("{name} is compared with nothing")),
        };
        comparisons.push(compare(field, *operator, value)?);
    }
    Ok(comparisons)
}

fn compare(field: &Field, operator: Operator, value: &str) -> Result<Comparison, String> {
    let name = field.name;
    let allowed = match operator {
        Operator::Equal | Operator::NotEqual => true,
        Operator::Has => field.kind == Kind::Text,
        Operator::Less | Operator::LessOrEqual | Operator::Greater | Operator::GreaterOrEqual => {
            matches!(field.kind, Kind::Date | Kind::Time | Kind::Number)
        }
    };
    if !allowed {
        return Err(format!("{name} does not take that operator"));
    }
    let text = || Value::Text(value.to_owned());
    let named = |well_formed: bool, pattern: &str| {
        if well_formed { Ok(text()) } else { Err(format!("{name} must be compared with {pattern}")) }
    };
    let value = match field.kind {
        Kind::Text => text(),
        Kind::Customer => named(CustomerId::parse(value).is_ok(), "\"customers/{customer}\"")?,
        Kind::Hospital => named(HospitalId::parse(value).is_ok(), "\"hospitals/{hospital}\"")?,
        Kind::Slot => named(SlotId::parse(value).is_ok(), "\"hospitals/{hospital}/slots/{YYYY-MM-DD}\"")?,
        Kind::OneOf(words) => named(words.contains(&value), &format!("one of {}", words.join(", ")))?,
        Kind::Date => {
            Value::Date(parse_date(value).ok_or_else(|| format!("{name} must be compared with \"YYYY-MM-DD\""))?)
        }
        Kind::Time => Value::Time(
            value
                .parse()
                .map_err(|_| format!("{name} must be compared with an instant such as \"2027-01-31T09:00:00Z\""))?,
        ),
        Kind::Number => {
            let number = value.parse().ok().filter(|number: &f64| number.is_finite());
            Value::Number(number.ok_or_else(|| format!("{name} must be compared with a number"))?)
        }
    };
    Ok(Comparison { field: name, operator, value })
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Quoted(String),
    Operator(Operator),
}

fn tokenize(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(next) = rest.next() {
        match next {
            _ if next.is_whitespace() => {}
            '"' => tokens.push(Token::Quoted(quoted(&mut rest)?)),
            '=' => tokens.push(Token::Operator(Operator::Equal)),
            ':' => tokens.push(Token::Operator(Operator::Has)),
            '<' if rest.next_if_eq(&'=').is_some() => tokens.push(Token::Operator(Operator::LessOrEqual)),
            '<' => tokens.push(Token::Operator(Operator::Less)),
            '>' if rest.next_if_eq(&'=').is_some() => tokens.push(Token::Operator(Operator::GreaterOrEqual)),
            '>' => tokens.push(Token::Operator(Operator::Greater)),
            '!' if rest.next_if_eq(&'=').is_some() => tokens.push(Token::Operator(Operator::NotEqual)),
            _ if is_word(next) => {
                let mut word = String::from(next);
                while let Some(next) = rest.next_if(|next| is_word(*next)) {
                    word.push(next);
                }
                tokens.push(Token::Word(word));
            }
            _ => return Err(format!("{next:?} is not understood here; texts go in double quotes")),
        }
    }
    Ok(tokens)
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || "_.-/~".contains(character)
}

fn quoted(rest: &mut impl Iterator<Item = char>) -> Result<String, String> {
    let mut text = String::new();
    while let Some(next) = rest.next() {
        match next {
            '"' => return Ok(text),
            '\\' => match rest.next() {
                Some(escaped @ ('"' | '\\')) => text.push(escaped),
                _ => return Err("a backslash in a text must be followed by \" or \\".into()),
            },
            _ => text.push(next),
        }
    }
    Err("a text has no closing quote".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: &[Field] = &[
        Field { name: "customer", kind: Kind::Customer },
        Field { name: "state", kind: Kind::OneOf(&["CONFIRMED", "CANCELLED"]) },
        Field { name: "date", kind: Kind::Date },
        Field { name: "display_name", kind: Kind::Text },
        Field { name: "fill_ratio", kind: Kind::Number },
        Field { name: "update_time", kind: Kind::Time },
    ];

    #[test]
    fn comparisons_joined_by_and_are_read() {
        let read = parse(
            r#"customer="customers/kim" AND state = CONFIRMED AND date>="2027-01-01" AND fill_ratio<0.5"#,
            FIELDS,
        )
        .unwrap();
        assert_eq!(read.len(), 4);
        assert_eq!(read[1].value, Value::Text("CONFIRMED".into()));
        assert_eq!(read[2].operator, Operator::GreaterOrEqual);
        assert_eq!(read[3].value, Value::Number(0.5));
        assert_eq!(parse(r#"display_name:"삼성 \"1\"""#, FIELDS).unwrap()[0].value, Value::Text("삼성 \"1\"".into()));
        let time = Value::Time("2027-01-01T00:00:00.5Z".parse().unwrap());
        assert_eq!(parse(r#"update_time>"2027-01-01T09:00:00.5+09:00""#, FIELDS).unwrap()[0].value, time);
        assert_eq!(parse("  ", FIELDS).unwrap(), vec![]);
    }

    #[test]
    fn a_text_is_compared_in_the_form_in_which_it_is_stored() {
        let mut violations = Violations::new();
        let read = decode(&mut violations, "display_name:\"\u{1112}\u{1161}\u{11AB}강\"", FIELDS);
        assert_eq!(read[0].value, Value::Text("한강".into()));
    }

    #[test]
    fn anything_more_is_refused() {
        for text in [
            "state=CONFIRMED OR state=CANCELLED",
            "NOT state=CONFIRMED",
            "(state=CONFIRMED)",
            "state",
            "state=",
            "=CONFIRMED",
            "state=PENDING",
            "state>CONFIRMED",
            "date=2027-13-01",
            "nothing=1",
            "display_name:\"open",
            "state=CONFIRMED AND",
            "customer=kim",
            "fill_ratio=NaN",
            "AND",
            "state=CONFIRMED state=CANCELLED",
            "date:2027-01-01",
            "update_time>2027-01-01",
            r#"update_time>"2027-01-01T09:00:00""#,
            r#"update_time:"2027-01-01T00:00:00Z""#,
        ] {
            assert!(parse(text, FIELDS).is_err(), "{text}");
        }
    }
}
