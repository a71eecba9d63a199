//! Which sources have an example in a doc comment that `cargo test` would compile and run.

use std::path::{Path, PathBuf};

/// A file below a directory that has an example, if there is one.
pub(super) fn example_below(directory: &Path) -> Option<PathBuf> {
    std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).find_map(|path| {
        if path.is_dir() {
            return example_below(&path);
        }
        let text = std::fs::read_to_string(&path).ok()?;
        (path.extension()? == "rs" && has_example(&text)).then_some(path)
    })
}

/// Whether a doc comment has a block of Rust code, fenced or indented. Block comments and included texts count as such,
/// so that nobody has to look into them.
fn has_example(text: &str) -> bool {
    let (mut is_fenced, mut follows_blank) = (false, true);
    for line in text.lines().map(str::trim_start) {
        if line.starts_with("/**") || line.starts_with("/*!") || line.contains("doc = include_str!") {
            return true;
        }
        let Some(line) = line.strip_prefix("///").or_else(|| line.strip_prefix("//!")) else {
            (is_fenced, follows_blank) = (false, true);
            continue;
        };
        let line = line.strip_prefix(' ').unwrap_or(line);
        let fence = ["```", "~~~"].iter().find_map(|fence| line.trim_start().strip_prefix(fence));
        let begins = match fence {
            Some(language) => !is_fenced && is_rust(language),
            None => !is_fenced && follows_blank && line.starts_with("    ") && !line.trim().is_empty(),
        };
        if begins {
            return true;
        }
        is_fenced ^= fence.is_some();
        follows_blank = line.trim().is_empty();
    }
    false
}

/// Whether rustdoc takes a fenced block for Rust.
fn is_rust(language: &str) -> bool {
    const KNOWN: &[&str] = &["rust", "should_panic", "no_run", "ignore", "compile_fail", "test_harness"];
    let mut words = language.split([',', ' ']).map(str::trim).filter(|word| !word.is_empty());
    words.all(|word| KNOWN.contains(&word) || word.starts_with("edition") || word.starts_with("ignore-"))
}

#[test]
fn an_example_is_found_however_it_is_written() {
    for example in [
        "/// ```\n/// f();\n/// ```\nfn f() {}",
        "    //! Text.\n    //! ~~~ rust,no_run\n    //! f();\n    //! ~~~",
        "/// Text.\n///\n///     f();\nfn f() {}",
        "/// ```text\n/// no code\n/// ```\n///\n/// ```should_panic\n/// f();\n/// ```",
        "/** Text.\n```\nf();\n```\n*/",
        "#![doc = include_str!(\"../README.md\")]",
    ] {
        assert!(has_example(example), "{example}");
    }
    for other in [
        "/// ```text\n/// no code\n/// ```\nfn f() {}",
        "/// ```json\n/// {}\n/// ```\n/// Text.",
        "/// Text that goes on\n///     behind an indent.\nfn f() {}",
        "// ```\n// f();\n// ```",
        "const REPORT: &str = \"\n```\nno code\n```\n\";",
    ] {
        assert!(!has_example(other), "{other}");
    }
}
