//! Which targets have tests among their own sources, for which cargo links an executable.

use std::path::{Path, PathBuf};

/// A file of a target that has a test, if there is one. A binary is its root file; a library is the rest of the folder.
pub(super) fn test_of(root: &Path, is_library: bool) -> Option<PathBuf> {
    if is_library {
        return test_below(root.parent().unwrap());
    }
    let text = std::fs::read_to_string(root).unwrap();
    (has_test(&text) || has_module(&text)).then(|| root.to_owned())
}

fn test_below(directory: &Path) -> Option<PathBuf> {
    std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).find_map(|path| {
        if path.ends_with("src/main.rs") || path.ends_with("src/bin") {
            return None;
        }
        if path.is_dir() {
            return test_below(&path);
        }
        let text = std::fs::read_to_string(&path).ok()?;
        (path.extension()? == "rs" && has_test(&text)).then_some(path)
    })
}

/// Whether a text has a test: the attribute `test`, also that of another crate, as in `#[tokio::test]`.
fn has_test(text: &str) -> bool {
    text.lines().filter_map(|line| line.trim_start().strip_prefix("#[")).any(|attribute| {
        let path = attribute.split([']', '(']).next().unwrap_or_default();
        path.rsplit("::").next() == Some("test")
    })
}

/// Whether a text declares a module. The root of a binary that does counts as having a test, so that nobody has to look
/// into its files.
fn has_module(text: &str) -> bool {
    text.lines().any(|line| line.starts_with("mod ") || line.starts_with("pub mod "))
}

#[test]
fn a_test_is_found_however_it_is_written() {
    for test in [
        "#[test]\nfn f() {}",
        "mod tests {\n    #[tokio::test(flavor = \"multi_thread\")]\n    async fn f() {}\n}",
        "proptest! {\n    #[test]\n    fn f(n in 0..9) {}\n}",
    ] {
        assert!(has_test(test), "{test}");
    }
    for other in ["#[cfg(test)]\nmod tests;", "// #[test]\nfn f() {}", "#[derive(Debug)]\nstruct Test;"] {
        assert!(!has_test(other), "{other}");
    }
    assert!(has_module("mod tests;\nfn main() {}") && !has_module("use checkup::module;\nfn main() {}"));
}
