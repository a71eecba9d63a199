//! Which language a caller reads, from `accept-language` (RFC 9110, section 12.5.4).
//!
//! Sentences are the table of `fault`; `status` puts one into a refusal.

use fault::Language;
use http::header::ACCEPT_LANGUAGE;
use http::{HeaderMap, HeaderValue};

/// What a call said of the languages that its caller reads. It is kept as it came, because only a refusal reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Languages(HeaderValue);

impl Languages {
    /// The header of a call; `None` if it has none. Several such headers are one list.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(ACCEPT_LANGUAGE).iter();
        let first = values.next()?;
        if values.next().is_none() {
            return Some(Self(first.clone()));
        }
        let all: Vec<&[u8]> = headers.get_all(ACCEPT_LANGUAGE).iter().map(HeaderValue::as_bytes).collect();
        HeaderValue::from_bytes(&all.join(&b","[..])).ok().map(Self)
    }

    /// The language that the caller likes best of those that there are. `None` if it accepts none of them: a sentence
    /// in a language that somebody does not read is of no use to them, and the status has its English message anyway.
    ///
    /// A range counts for its primary language, so `ko-KR` is Korean. Of equal weights the first in the list wins.
    /// `*` is any language that the list does not name, and then English, in which everything else is said: what sends
    /// `*` is a program whose author chose no language. What is no range is passed over.
    pub(crate) fn preferred(&self) -> Option<Language> {
        let mut found: [Option<u16>; Language::ALL.len()] = [None; Language::ALL.len()];
        let (mut order, mut any) = (Vec::new(), 0);
        for element in self.0.as_bytes().split(|byte| *byte == b',') {
            let Some((range, weight)) = std::str::from_utf8(element).ok().and_then(range) else { continue };
            if range == "*" {
                any = any.max(weight);
                continue;
            }
            let primary = range.split('-').next().unwrap_or_default();
            let named = Language::ALL.iter().position(|language| language.tag().eq_ignore_ascii_case(primary));
            let Some(at) = named else { continue };
            if found[at].is_none() {
                order.push(at);
            }
            found[at] = found[at].max(Some(weight));
        }
        let unnamed =
            [Language::English, Language::Korean].into_iter().filter(|language| found[*language as usize].is_none());
        let candidates = order.into_iter().map(|at| (Language::ALL[at], found[at].unwrap_or_default()));
        let mut best = None;
        for (language, weight) in candidates.chain(unnamed.map(|language| (language, any))) {
            if weight > best.map_or(0, |(_, most)| most) {
                best = Some((language, weight));
            }
        }
        best.map(|(language, _)| language)
    }
}

/// A range of languages and its weight in thousandths: `ko-KR;q=0.8`. `None` if the text is neither that nor a range
/// alone, which has the weight 1.
fn range(element: &str) -> Option<(&str, u16)> {
    let mut parts = element.split(';').map(str::trim);
    let range = parts.next().filter(|range| !range.is_empty())?;
    let weight = match (parts.next(), parts.next()) {
        (None, _) => 1_000,
        (Some(parameter), None) => {
            let (name, value) = parameter.split_once('=')?;
            if !name.trim().eq_ignore_ascii_case("q") {
                return None;
            }
            thousandths(value.trim())?
        }
        (Some(_), Some(_)) => return None,
    };
    Some((range, weight))
}

/// A weight: `0` or `1`, with at most three decimals, and never more than 1.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if !matches!(whole, "0" | "1") || decimals.len() > 3 || !decimals.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let weight = format!("{whole}{decimals:0<3}").parse().ok()?;
    (weight <= 1_000).then_some(weight)
}

#[cfg(test)]
mod tests {
    use Language::{English, Korean};

    use super::*;

    fn preferred(values: &[&str]) -> Option<Language> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(ACCEPT_LANGUAGE, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        Languages::of(&headers).and_then(|languages| languages.preferred())
    }

    #[test]
    fn languages_stand_where_their_numbers_point() {
        for (at, language) in Language::ALL.into_iter().enumerate() {
            assert_eq!(language as usize, at);
        }
    }

    #[test]
    fn the_best_liked_of_our_languages_is_taken() {
        let cases: &[(&[&str], Option<Language>)] = &[
            (&[], None),
            (&["ko"], Some(Korean)),
            (&["en"], Some(English)),
            (&["KO-kr"], Some(Korean)),
            (&["en-GB,en;q=0.9"], Some(English)),
            (&["ko-KR,ko;q=0.9,en-US;q=0.8,en;q=0.7"], Some(Korean)),
            (&["en;q=0.2, ko;q=0.9"], Some(Korean)),
            (&["ko;q=0.2, en;q=0.25"], Some(English)),
            (&["fr-CH, fr;q=0.9, en;q=0.8, de;q=0.7, *;q=0.5"], Some(English)),
            (&["ja, ko ; q=0.001"], Some(Korean)),
            // equal weights: the first
            (&["en, ko"], Some(English)),
            (&["ko, en"], Some(Korean)),
            // several headers are one list
            (&["fr", "ko;q=0.3"], Some(Korean)),
            // the greater weight of two ranges of one language
            (&["en-US;q=0.1, ko;q=0.5, en;q=0.9"], Some(English)),
            // neither Korean nor English
            (&["fr"], None),
            (&["zh-Hant-TW, ja;q=0.5"], None),
            // what weighs 0 is not acceptable
            (&["ko;q=0"], None),
            (&["ko;q=0.000, en;q=0"], None),
            (&["*;q=0"], None),
            // any language is English, unless English is not acceptable
            (&["*"], Some(English)),
            (&["en;q=0, *;q=0.5"], Some(Korean)),
            (&["ko, *"], Some(Korean)),
            (&["ko;q=0.2, *;q=0.8"], Some(English)),
            (&["ko;q=0, *"], Some(English)),
            // a tag that only begins like one of these two is another language
            (&["kok"], None),
            (&["eng"], None),
        ];
        for (values, language) in cases {
            assert_eq!(preferred(values), *language, "{values:?}");
        }
    }

    #[test]
    fn what_is_no_range_is_passed_over() {
        let wrong = [
            "",
            ",,,",
            ";q=1",
            "ko;q=1.5",
            "ko;q=2",
            "ko;q=-1",
            "ko;q=0.1234",
            "ko;q=",
            "ko;q",
            "ko;level=1",
            "ko;q=1;q=1",
            "ko;q=\u{661}",
            "\u{d55c}\u{ad6d}\u{c5b4}",
        ];
        for wrong in wrong {
            assert_eq!(preferred(&[wrong]), None, "{wrong:?}");
            assert_eq!(preferred(&[&format!("{wrong},en;q=0.1")]), Some(English), "{wrong:?}");
        }
        assert_eq!(preferred(&[&"ko;".repeat(4000)]), None);
        assert_eq!(preferred(&["ko;q=1.000"]), Some(Korean));
        assert_eq!(preferred(&["ko;q=1."]), Some(Korean), "RFC 9110 allows a point without decimals");
    }
}
