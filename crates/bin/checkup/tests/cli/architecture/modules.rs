//! The modules of a crate, read from its text, and which of them use which.
//!
//! It follows `mod`, `use` and written-out paths such as `crate::a::b` or `super::c`, through re-exports to the file
//! that has the definition. It cannot see a call of another file's method, a trait that is implemented elsewhere, a
//! name that a glob import brings in, a module that a macro declares, or code behind a `cfg` that is off: that last one
//! counts. Test modules are left out, because a test may use more than the code beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A module's path below the root of its crate, or a path as the code writes it.
pub(super) type Names = Vec<String>;

/// One module as its text declares it.
#[derive(Debug, Default)]
struct Module {
    /// The module whose file contains this one: itself, unless it is declared with braces.
    file: Names,
    children: BTreeSet<String>,
    items: BTreeSet<String>,
    /// The names that `use` brings in, with their paths.
    imports: BTreeMap<String, Names>,
    globs: Vec<Names>,
    /// The paths of two names and more that the code writes out, those of `use` included.
    paths: BTreeSet<Names>,
}

/// The modules of one crate by their paths.
#[derive(Debug, Default)]
pub(super) struct Modules(BTreeMap<Names, Module>);

/// One file uses something that another one has.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Usage {
    pub(super) from: Names,
    pub(super) to: Names,
    /// The path as the code writes it.
    pub(super) by: String,
}

impl Modules {
    /// Reads the crate with this root file and every file that it declares.
    pub(super) fn of(root: &Path) -> Self {
        let mut modules = Self::default();
        modules.read(root, Names::new(), root.parent().unwrap());
        modules
    }

    /// What files use of each other. A module that is only imported is not used yet: the paths through it are.
    pub(super) fn usages(&self) -> BTreeSet<Usage> {
        let mut found = BTreeSet::new();
        for (at, module) in &self.0 {
            for path in module.paths.iter().chain(&module.globs) {
                let Some((to, rest)) = self.resolve(at, path, 0) else { continue };
                let is_glob = module.globs.contains(path);
                let to = &self.0[&to].file;
                if (rest || is_glob) && *to != module.file {
                    found.insert(Usage { from: module.file.clone(), to: to.clone(), by: path.join("::") });
                }
            }
        }
        found
    }

    /// The module that has what a path names, and whether the path goes on behind the module. `None` for what is not of
    /// this crate.
    fn resolve(&self, at: &Names, path: &[String], depth: usize) -> Option<(Names, bool)> {
        const LONGEST_CHAIN: usize = 20;
        let first = path.first().filter(|_| depth < LONGEST_CHAIN)?;
        let supers = path.iter().take_while(|name| *name == "super").count();
        match first.as_str() {
            "crate" => self.walk(Names::new(), &path[1..], depth),
            "self" => self.walk(at.clone(), &path[1..], depth),
            "super" => self.walk(at[..at.len().checked_sub(supers)?].to_vec(), &path[supers..], depth),
            name if self.0[at].has(name) => self.walk(at.clone(), path, depth),
            _ => None,
        }
    }

    fn walk(&self, mut at: Names, path: &[String], depth: usize) -> Option<(Names, bool)> {
        for (index, name) in path.iter().enumerate() {
            let module = self.0.get(&at)?;
            if module.children.contains(name) {
                at.push(name.clone());
                continue;
            }
            if let Some(import) = module.imports.get(name).filter(|_| !module.items.contains(name)) {
                let whole: Names = import.iter().chain(&path[index + 1..]).cloned().collect();
                return self.resolve(&at, &whole, depth + 1).or(Some((at, true)));
            }
            let globs = module.globs.iter().filter_map(|glob| Some(self.resolve(&at, glob, depth + 1)?.0));
            return match globs.into_iter().find(|glob| !module.has(name) && self.0[glob].has(name)) {
                Some(glob) => self.walk(glob, &path[index..], depth + 1),
                None => Some((at, true)),
            };
        }
        self.0.contains_key(&at).then_some((at, false))
    }

    fn read(&mut self, file: &Path, module: Names, below: &Path) {
        let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let place = Place { file: file.to_owned(), of: module.clone(), below: below.to_owned() };
        self.read_body(&tokens(&text), module, &place);
    }

    /// Reads the inside of a module. Returns how many tokens it has.
    fn read_body(&mut self, tokens: &[&str], module: Names, place: &Place) -> usize {
        let mut found = Module { file: place.of.clone(), ..Module::default() };
        let (mut index, mut depth) = (0, 0);
        let mut attributes = Attributes::default();
        while let Some(token) = tokens.get(index).filter(|token| depth > 0 || **token != "}") {
            let rest = &tokens[index..];
            index += match (*token, rest) {
                ("#", _) => attributes.read(rest),
                ("mod", [_, name, end @ (";" | "{"), ..]) => {
                    let attributes = std::mem::take(&mut attributes);
                    let inside = self.read_child(name, *end == "{", &rest[3..], &module, place, &attributes);
                    found.children.extend((!attributes.test).then(|| (*name).to_owned()));
                    3 + inside
                }
                ("use", [_, next, ..]) if *next != "<" => {
                    let length = rest.iter().position(|token| *token == ";").unwrap();
                    if !std::mem::take(&mut attributes).test {
                        found.import(&rest[1..length], &Names::new());
                    }
                    length
                }
                (token, _) => {
                    depth = if token == "{" { depth + 1 } else { depth - usize::from(token == "}") };
                    if !matches!(token, "pub" | "(" | ")" | "crate" | "super" | "in") {
                        attributes = Attributes::default();
                    }
                    found.note(&tokens[..index], rest, depth == 0)
                }
            };
        }
        self.0.insert(module, found);
        index + 1
    }

    /// Reads a module that another one declares, in braces or in a file of its own. Returns how many tokens it has
    /// here.
    fn read_child(
        &mut self,
        name: &str,
        in_braces: bool,
        tokens: &[&str],
        parent: &Names,
        place: &Place,
        attributes: &Attributes,
    ) -> usize {
        let module: Names = parent.iter().cloned().chain([name.to_owned()]).collect();
        let below = place.below.join(name);
        if in_braces {
            let place = Place { below, ..place.clone() };
            let mut apart = Self::default();
            let length = if attributes.test { &mut apart } else { self }.read_body(tokens, module, &place);
            return length;
        }
        if attributes.test {
            return 0;
        }
        let here = place.file.parent().unwrap();
        let files = [below.with_extension("rs"), below.join("mod.rs")];
        match &attributes.path {
            // the modules below a file that is named by a path are looked for beside it
            Some(path) => self.read(&here.join(path), module, here.join(path).parent().unwrap()),
            None => self.read(files.iter().find(|file| file.is_file()).unwrap_or(&files[0]), module, &below),
        }
        0
    }
}

/// Where the text of a module is.
#[derive(Debug, Clone)]
struct Place {
    file: PathBuf,
    /// The module that the file is of.
    of: Names,
    /// The folder with the files of the modules below.
    below: PathBuf,
}

/// The attributes of the next item, as far as they matter here.
#[derive(Debug, Default)]
struct Attributes {
    test: bool,
    path: Option<String>,
}

impl Attributes {
    /// Reads one attribute and returns how many tokens it has.
    fn read(&mut self, tokens: &[&str]) -> usize {
        let Some(begin) = tokens.iter().take(3).position(|token| *token == "[") else { return 1 };
        let mut depth = 0;
        let length = tokens.iter().position(|token| {
            depth += usize::from(*token == "[");
            depth -= usize::from(*token == "]" && depth > 0);
            *token == "]" && depth == 0
        });
        let length = length.unwrap();
        match &tokens[begin + 1..length] {
            ["cfg", "(", "test", ")"] => self.test = true,
            ["path", "=", path] => self.path = Some(path.trim_matches('"').to_owned()),
            _ => {}
        }
        length + 1
    }
}

impl Module {
    fn has(&self, name: &str) -> bool {
        self.children.contains(name) || self.items.contains(name) || self.imports.contains_key(name)
    }

    /// Adds what a `use` brings in.
    fn import(&mut self, tree: &[&str], above: &Names) {
        let mut path = above.clone();
        for (index, token) in tree.iter().enumerate() {
            match *token {
                // another crate's
                "::" if path.is_empty() => return,
                "::" => {}
                "{" => return parts(&tree[index + 1..]).iter().for_each(|part| self.import(part, &path)),
                "*" => return self.globs.push(path),
                "as" => return self.import_as(tree[index + 1], path),
                "self" if !path.is_empty() => {}
                name => path.push(name.to_owned()),
            }
        }
        if let Some(name) = path.last().cloned() {
            self.import_as(&name, path);
        }
    }

    fn import_as(&mut self, name: &str, path: Names) {
        self.paths.insert(path.clone());
        self.imports.insert(name.to_owned(), path);
    }

    /// Notes an item or a path that begins here, and returns how many tokens were read.
    fn note(&mut self, before: &[&str], tokens: &[&str], outermost: bool) -> usize {
        const KINDS: &[&str] = &["struct", "enum", "fn", "trait", "type", "const", "static", "union"];
        match tokens {
            ["macro_rules", "!", name, ..] => drop(self.items.insert((*name).to_owned())),
            [kind, name, ..] if outermost && KINDS.contains(kind) => drop(self.items.insert((*name).to_owned())),
            _ => {}
        }
        let continues = match before {
            // two points are a range, or the rest of a struct
            [.., ".", "."] => false,
            [.., last] => matches!(*last, "::" | "."),
            [] => false,
        };
        if !is_name(tokens[0]) || continues {
            return 1;
        }
        let more = tokens[1..].chunks_exact(2).take_while(|pair| pair[0] == "::" && is_name(pair[1]));
        let path: Names = [tokens[0]].into_iter().chain(more.map(|pair| pair[1])).map(str::to_owned).collect();
        let length = path.len() * 2 - 1;
        if path.len() > 1 {
            self.paths.insert(path);
        }
        length
    }
}

/// The parts of a `use` in braces, up to the brace that closes them.
fn parts<'a, 'b>(tokens: &'b [&'a str]) -> Vec<&'b [&'a str]> {
    let (mut found, mut begin, mut depth) = (Vec::new(), 0, 0_usize);
    for (index, token) in tokens.iter().enumerate() {
        match (*token, depth) {
            ("{", _) => depth += 1,
            ("}", 0) => {
                found.push(&tokens[begin..index]);
                break;
            }
            ("}", _) => depth -= 1,
            (",", 0) => {
                found.push(&tokens[begin..index]);
                begin = index + 1;
            }
            _ => {}
        }
    }
    found
}

fn is_name(token: &str) -> bool {
    token.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// The tokens of a text, without comments. A literal is one token.
fn tokens(text: &str) -> Vec<&str> {
    let (mut found, mut rest) = (Vec::new(), text.trim_start());
    while !rest.is_empty() {
        let (token, after) = rest.split_at(token_length(rest));
        if !token.starts_with("//") && !token.starts_with("/*") {
            found.push(token);
        }
        rest = after.trim_start();
    }
    found
}

/// The length of the token that a text begins with, in bytes.
fn token_length(text: &str) -> usize {
    let up_to = |end: &str, from: usize| text[from..].find(end).map_or(text.len(), |index| from + index + end.len());
    let bare = text.strip_prefix('b').unwrap_or(text);
    if text.starts_with("//") {
        return up_to("\n", 0);
    }
    if text.starts_with("/*") {
        return comment_length(text);
    }
    if let Some(raw) = bare.strip_prefix('r')
        && raw.trim_start_matches('#').starts_with('"')
    {
        let hashes = "#".repeat(raw.find('"').unwrap());
        return up_to(&format!("\"{hashes}"), text.len() - raw.len() + hashes.len() + 1);
    }
    if text.starts_with('"') {
        let mut escaped = false;
        let end = text.char_indices().skip(1).find(|(_, character)| {
            let ends = *character == '"' && !escaped;
            escaped = *character == '\\' && !escaped;
            ends
        });
        return end.map_or(text.len(), |(index, _)| index + 1);
    }
    let mut characters = text.char_indices().skip(1);
    match (text.chars().next(), characters.next(), characters.next()) {
        (Some('\''), Some((_, '\\')), Some((index, escaped))) => up_to("'", index + escaped.len_utf8()),
        (Some('\''), Some(_), Some((index, '\''))) => index + 1,
        (Some(':'), Some((_, ':')), _) => 2,
        (Some(first), ..) => {
            let rest = &text[first.len_utf8()..];
            let after = rest.trim_start_matches(|character: char| character.is_alphanumeric() || character == '_');
            let is_word = first.is_alphanumeric() || matches!(first, '_' | '\'');
            first.len_utf8() + if is_word { rest.len() - after.len() } else { 0 }
        }
        (None, ..) => 0,
    }
}

/// The length of a comment, which may contain others.
fn comment_length(text: &str) -> usize {
    let (mut index, mut depth) = (0, 0_usize);
    while let Some(pair) = text.as_bytes().get(index..index + 2) {
        match pair {
            b"/*" => (index, depth) = (index + 2, depth + 1),
            b"*/" => (index, depth) = (index + 2, depth - 1),
            _ => index += 1,
        }
        if depth == 0 {
            return index;
        }
    }
    text.len()
}
