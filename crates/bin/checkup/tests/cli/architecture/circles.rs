//! No circles between the files of a crate, except between a parent and its child.
//!
//! Of two modules beside each other only one may use the other, each taken with everything below it. A parent uses its
//! children and a child may use what its parents have. See [`super::modules`] for what the text cannot tell.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::modules::{Modules, Names, Usage};
use super::targets;

/// What the modules beside each other use of each other, with the places that say so.
#[derive(Default)]
struct Graph(BTreeMap<(Names, Names), BTreeSet<String>>);

impl Graph {
    fn of(usages: impl IntoIterator<Item = Usage>) -> Self {
        let mut graph = Self::default();
        for Usage { from, to, by } in usages {
            let shared = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
            // a parent and its child, or what is below that child
            if shared == from.len() || shared == to.len() {
                continue;
            }
            let edge = (from[..=shared].to_vec(), to[..=shared].to_vec());
            graph.0.entry(edge).or_default().insert(format!("{} has {by}", from.join("::")));
        }
        graph
    }

    fn leads(&self, from: &Names, to: &Names) -> bool {
        let (mut seen, mut todo) = (BTreeSet::new(), vec![from]);
        while let Some(next) = todo.pop() {
            if next == to {
                return true;
            }
            if seen.insert(next) {
                todo.extend(self.0.keys().filter(|(from, _)| from == next).map(|(_, to)| to));
            }
        }
        false
    }

    /// The uses that are part of a circle, one per line, each with an example.
    fn circles(&self) -> String {
        let mut found = String::new();
        for ((from, to), by) in self.0.iter().filter(|((from, to), _)| self.leads(to, from)) {
            let example = by.first().map_or("", String::as_str);
            writeln!(found, "{} uses {}: {example}", from.join("::"), to.join("::")).unwrap();
        }
        found
    }
}

#[test]
fn files_use_each_other_in_one_direction() {
    let (mut broken, mut seen) = (String::new(), 0);
    for (package, root) in targets() {
        let graph = Graph::of(Modules::of(&root).usages());
        seen += graph.0.len();
        let circles = graph.circles();
        if !circles.is_empty() {
            writeln!(broken, "{package} ({}):\n{circles}", root.display()).unwrap();
        }
    }
    assert!(broken.is_empty(), "move what both sides need to where it belongs:\n{broken}");
    assert!(seen > 300, "the workspace has hundreds of uses between its modules, and {seen} were found");
}

/// A crate in a temporary folder, of files with their texts.
fn graph(files: &[(&str, &str)]) -> Graph {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let file = folder.path().join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    Graph::of(Modules::of(&folder.path().join("lib.rs")).usages())
}

#[test]
fn a_circle_is_seen_through_re_exports_imports_and_folders() {
    let root = ("lib.rs", "mod a; mod b; mod c; pub use a::A;");
    let b = ("b/mod.rs", "mod below;\npub(crate) use self::below::{self as under, B};");
    let below = ("b/below.rs", "use super::super::c;\npub struct B(c::inner::C);");
    let c = ("c.rs", "pub mod inner { pub struct C; fn f() -> super::super::A { let x = X { ..crate::a::f() }; } }");
    let a = |text| graph(&[root, ("a.rs", text), b, below, c]).circles();
    let expected = "a uses b: a has crate::b::B\nb uses c: b::below has c::inner::C\nc uses a: c has crate::a::f\n";
    assert_eq!(a("use crate::{b::B, c as other};\npub struct A;\npub fn f() {}"), expected);
    assert_eq!(a("pub struct A;\npub fn f() {} // crate::b::B"), "");
    assert_eq!(a("pub struct A; const T: &str = r#\"\"crate::b::B\"#; const C: char = '\"'; fn f<'a>() {}"), "");
    assert_eq!(a("pub struct A; /* /* */ crate::b::B */ #[cfg(test)] mod tests { use crate::b::B; }"), "");
    assert_eq!(a("pub struct A; pub fn f() { super::b::under::g() }").lines().count(), 3);
}

#[test]
fn a_parent_and_its_child_may_use_each_other() {
    let files = [
        ("lib.rs", "#[path = \"elsewhere/one.rs\"] pub(crate) mod a; pub struct Root; fn f() { a::child::g() }"),
        ("elsewhere/one.rs", "mod child; pub struct A(child::C);"),
        ("elsewhere/child.rs", "use super::A; use crate::Root; pub struct C; impl std::fmt::Debug for C {}"),
    ];
    assert_eq!(graph(&files).circles(), "");
}
