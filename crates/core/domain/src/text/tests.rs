//! Texts that people write, invisible characters, and texts that look the same.

use proptest::prelude::*;

use super::*;

fn read(text: &str, min: usize, max: usize) -> Result<String, String> {
    let mut violations = Violations::new();
    let mut kept = text.to_owned();
    check(&mut violations, "f", &mut kept, min, max);
    match violations.finish() {
        Ok(()) => Ok(kept),
        Err(fault) => Err(fault.violations()[0].description.clone()),
    }
}

#[test]
fn what_people_write_is_kept_to_the_letter() {
    for text in [
        "삼성병원",
        "김 \u{1F600}",
        "👩🏽‍⚕️",
        "👨‍👩‍👧‍👦",
        "❤️",
        "🏴\u{E0067}\u{E0062}\u{E0065}\u{E006E}\u{E0067}\u{E007F}",
        "می\u{200C}خواهم",
        "क्\u{200D}ष",
        "葛\u{E0100}",
        "مستشفى",
        "בית חולים",
        "'; DROP TABLE hospital; --",
        "<script>alert(1)</script>",
        "a\u{A0}b",
        "\u{3000}서울",
        "ᄀᆞᆷ",
        "x\u{301}",
    ] {
        assert_eq!(read(text, 1, 100).as_deref(), Ok(text), "{text:?}");
    }
    assert_eq!(read("", 0, 100).as_deref(), Ok(""));
}

#[test]
fn what_nobody_can_see_is_refused() {
    for text in [
        " ",
        "   ",
        "\u{A0}",
        "\u{2003}\u{3000}",
        "\u{2800}",
        "\u{200B}",
        "\u{200D}",
        "\u{FE0F}",
        "\u{FEFF}",
        "\u{AD}",
        "\u{2060}",
        "\u{3164}",
        "\u{115F}\u{1160}",
        "\u{FFA0}",
        "\u{E0041}",
        "\u{180E}",
        " \u{200B} ",
        "\u{FFF9}\u{FFFB}",
        // An invisible character beside a visible one: two such names would look the same.
        "서\u{200B}울",
        "\u{FEFF}서울",
        "서울\u{200D}",
        "\u{200D}서울",
        "서 \u{200D} 울",
        "서\u{3164}울",
        "서\u{AD}울",
        "서 \u{FE0F}울",
        "\u{FFF9}서울",
    ] {
        for min in [0, 1] {
            assert!(read(text, min, 100).is_err(), "{text:?} from {min}");
        }
    }
}

#[test]
fn a_text_has_one_line_that_runs_one_way() {
    for text in ["a\nb", "a\r", "a\tb", "a\0b", "\u{7F}", "\u{85}", "\u{1b}[31mred", "a\u{2028}b", "a\u{2029}b"] {
        assert!(read(text, 0, 100).unwrap_err().contains("line breaks"), "{text:?}");
    }
    for turn in ('\u{202A}'..='\u{202E}').chain('\u{2066}'..='\u{2069}').chain(['\u{200E}', '\u{200F}', '\u{61C}']) {
        let refused = read(&format!("a{turn}b"), 0, 100).unwrap_err();
        assert!(refused.contains("turn the line around"), "{turn:?}: {refused}");
        assert!(refused.contains(&format!("U+{:04X}", u32::from(turn))), "{refused}");
    }
}

#[test]
fn what_looks_the_same_is_the_same() {
    let composed = "한강검진센터";
    let decomposed = "\u{1112}\u{1161}\u{11AB}\u{1100}\u{1161}\u{11BC}\u{1100}\u{1165}\u{11B7}\u{110C}\u{1175}\u{11AB}\u{1109}\u{1166}\u{11AB}\u{1110}\u{1165}";
    assert_ne!(composed, decomposed);
    assert_eq!(read(decomposed, 1, 100).as_deref(), Ok(composed));
    assert_eq!(read("e\u{301}", 1, 100).as_deref(), Ok("é"));
    // The Kelvin sign is another character, the Ångström sign is the letter.
    assert_eq!(read("\u{212B}", 1, 100).as_deref(), Ok("Å"));
}

#[test]
fn characters_are_counted_and_not_bytes() {
    let decomposed = "\u{1112}\u{1161}\u{11AB}".repeat(100);
    assert_eq!(decomposed.chars().count(), 300);
    assert_eq!(read(&decomposed, 1, 100).map(|text| text.chars().count()), Ok(100));
    assert_eq!(read(&"한".repeat(100), 1, 100).map(|text| text.len()), Ok(300));
    assert!(read(&"한".repeat(101), 1, 100).unwrap_err().contains("has 101"));
    assert!(read("", 1, 100).unwrap_err().contains("has 0"));
}

#[test]
fn texts_of_machines_are_left_as_they_are() {
    let judged = |text: &str| {
        let mut violations = Violations::new();
        check_machine(&mut violations, "etag", text);
        violations.is_empty()
    };
    assert!(judged("") && judged("\"3\"") && judged("\u{200B}"));
    assert!(!judged("\n") && !judged(&"x".repeat(MACHINE_TEXT_MAX + 1)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_kept_is_readable_and_keeps_its_form(text in "\\PC{0,12}|[\u{200B}-\u{200F}\u{FE0F}\u{3164} 가-나😀a]{0,8}") {
        if let Ok(kept) = read(&text, 0, 100) {
            prop_assert_eq!(read(&kept, 0, 100), Ok(kept.clone()));
            prop_assert_eq!(nfc(&kept), kept.as_str());
            prop_assert!(kept.is_empty() || kept.chars().any(is_visible));
            prop_assert!(kept.chars().count() <= 100);
        }
    }
}
