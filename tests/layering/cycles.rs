//! Finds import cycles between the modules of one folder, at every depth.
//!
//! Owns: the graph of imports. A cycle counts when a folder takes part in it, or modules of the crate root; files of
//! one folder may use each other both ways. Does not know: layers. Files with their text go in; a cycle comes out as
//! the imports it is made of. A module and its own children are one node: that a child uses its parent's types, and
//! the parent the child, is no cycle. An import of `super::Name` counts as one of the sibling from which the parent
//! has `Name`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::iter::successors;
use std::path::{Path, PathBuf};

use crate::source::{Root, declared_modules, module_path, paths, tokens};

/// One source file: its path below `src`, and its text.
pub(crate) type File = (PathBuf, String);

/// An import of one sibling by another, and a place where it happens.
type Graph = BTreeMap<String, BTreeMap<String, String>>;

/// Every cycle found, one per folder and strongly connected group, as `a → b (FILE:LINE) → a (FILE:LINE)`.
pub(crate) fn cycles(files: &[File]) -> Vec<String> {
    let folders: BTreeSet<Vec<String>> = files.iter().filter_map(|(file, _)| folder_of(file)).collect();
    let mut found = Vec::new();
    for (folder, graph) in graphs(files) {
        let mut done: BTreeSet<&str> = BTreeSet::new();
        for start in graph.keys() {
            let path = || [&folder[1..], std::slice::from_ref(start)].concat();
            let counts = folder.len() == 1 || folders.contains(&path());
            if !counts || done.contains(start.as_str()) {
                continue;
            }
            if let Some(cycle) = cycle_through(&graph, start) {
                let mut text = format!("{}: {start}", folder.join("::"));
                for pair in cycle.windows(2) {
                    text += &format!(" → {} ({})", pair[1], graph[pair[0]][pair[1]]);
                }
                done.extend(cycle);
                found.push(text);
            }
        }
    }
    found
}

/// The folder in which a file lies, as a module's path.
fn folder_of(file: &Path) -> Option<Vec<String>> {
    Some(module_path(&file.parent()?.join("mod.rs")))
}

/// For each folder the graph of its modules, by the folder's path: `crate`, then the modules' names.
fn graphs(files: &[File]) -> BTreeMap<Vec<String>, Graph> {
    let modules: BTreeSet<Vec<String>> = files.iter().map(|(file, _)| module_path(file)).collect();
    let mut imports = Vec::new();
    let mut names: BTreeMap<Vec<String>, Vec<String>> = BTreeMap::new();
    for (file, text) in files {
        let own = module_path(file);
        let tokens = tokens(text);
        let children: Vec<&String> = declared_modules(&tokens).collect();
        for path in paths(&tokens, &own) {
            let absolute = match path.root {
                Root::Crate => path.segments,
                Root::Relative if path.segments.first().is_some_and(|first| children.contains(&first)) => {
                    own.iter().chain(&path.segments).cloned().collect::<Vec<_>>()
                }
                Root::Relative | Root::Extern => continue,
            };
            if path.import
                && let Some(name) = absolute.last()
            {
                names.insert(own.iter().chain([name]).cloned().collect(), absolute.clone());
            }
            imports.push((own.clone(), absolute, format!("src/{}:{}", file.display(), path.line)));
        }
    }

    let mut graphs: BTreeMap<Vec<String>, Graph> = BTreeMap::new();
    for (own, mut to, place) in imports {
        // What an ancestor has from elsewhere is imported from there.
        while let Some(from) = held_by_ancestor(&own, &to, &modules, &names) {
            to = from;
        }
        let common = own.iter().zip(&to).take_while(|(a, b)| a == b).count();
        let (Some(from), Some(target)) = (own.get(common), to.get(common)) else { continue };
        if !modules.contains(&to[..=common]) {
            continue;
        }
        let folder = [&["crate".to_owned()], &own[..common]].concat();
        let graph = graphs.entry(folder).or_default();
        graph.entry(from.clone()).or_default().entry(target.clone()).or_insert(place);
    }
    graphs
}

/// Where an ancestor of `own` has the name from that `to` goes through; None when no ancestor imports it.
fn held_by_ancestor(
    own: &[String],
    to: &[String],
    modules: &BTreeSet<Vec<String>>,
    names: &BTreeMap<Vec<String>, Vec<String>>,
) -> Option<Vec<String>> {
    let end = (1..=to.len()).find(|end| !modules.contains(&to[..*end]))?;
    if end > own.len() || own[..end - 1] != to[..end - 1] {
        return None;
    }
    let from = names.get(&to[..end])?;
    // An import of itself would go on for ever.
    (!from.starts_with(&to[..end])).then(|| from.iter().chain(&to[end..]).cloned().collect())
}

/// The shortest cycle through a module: the modules in order, the first one again at the end.
fn cycle_through<'a>(graph: &'a Graph, start: &'a str) -> Option<Vec<&'a str>> {
    let mut importer: BTreeMap<&str, &str> = BTreeMap::new();
    let mut next = VecDeque::from([start]);
    while let Some(module) = next.pop_front() {
        for target in graph.get(module).into_iter().flat_map(BTreeMap::keys) {
            if target == start {
                let back = successors(Some(module), |last| importer.get(last).copied());
                let mut cycle: Vec<&str> = [start].into_iter().chain(back).collect();
                cycle.reverse();
                return Some(cycle);
            }
            if !importer.contains_key(target.as_str()) {
                importer.insert(target, module);
                next.push_back(target);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<File> = files.iter().map(|(file, text)| (file.into(), (*text).into())).collect();
        cycles(&files)
    }

    #[test]
    fn cycles_are_found_with_the_imports_that_make_them() {
        let two = [("a.rs", "\nuse crate::b::B;"), ("b.rs", "use crate::a::A;")];
        assert_eq!(found(&two), ["crate: a → b (src/a.rs:2) → a (src/b.rs:1)"]);

        let three = [
            ("m/mod.rs", "mod a; mod b; mod c;"),
            ("m/a/mod.rs", ""),
            ("m/a/deep.rs", "fn f() { super::super::b::f() }"),
            ("m/b.rs", "use crate::m::c;"),
            ("m/c/mod.rs", "use super::{a::A, d};"),
        ];
        let cycle = "crate::m: a → b (src/m/a/deep.rs:1) → c (src/m/b.rs:1) → a (src/m/c/mod.rs:1)";
        assert_eq!(found(&three), [cycle]);
    }

    #[test]
    fn names_that_the_parent_imports_count_as_imports_of_the_sibling() {
        let files = [
            ("m/mod.rs", "mod a; mod b; pub use b::Name; use self::b::Other;"),
            ("m/a.rs", "use super::Name;"),
            ("m/b/mod.rs", "use super::a::f;"),
        ];
        assert_eq!(found(&files), ["crate::m: b → a (src/m/b/mod.rs:1) → b (src/m/a.rs:1)"]);
    }

    #[test]
    fn each_folder_is_judged_by_itself() {
        let files = [
            ("x/mod.rs", "mod a; mod b;"),
            ("x/a/mod.rs", "use super::b::B;"),
            ("x/b.rs", "use super::a::A;"),
            ("y/mod.rs", "mod a; mod b;"),
            ("y/a/mod.rs", "use super::b::B;"),
            ("y/b.rs", "use crate::y::a::A;"),
        ];
        assert_eq!(found(&files).len(), 2);
    }

    #[test]
    fn imports_in_one_direction_and_between_files_of_a_folder_are_no_cycle() {
        let parent_and_child =
            [("m/mod.rs", "mod a; use a::f; pub struct Type;"), ("m/a.rs", "use super::Type; use super::*;")];
        let one_way = [("a.rs", "use crate::b::{B, c};"), ("b.rs", "use std::fmt; fn a() { a::f() }"), ("c.rs", "")];
        let itself = [("a/mod.rs", "mod b; use crate::a::b::B;"), ("a/b.rs", "use crate::a::b::C; use crate::a::Own;")];
        let files_of_a_folder =
            [("m/mod.rs", "mod a; mod b;"), ("m/a.rs", "use super::b::B;"), ("m/b.rs", "use super::a::A;")];
        for files in [&parent_and_child[..], &one_way, &itself, &files_of_a_folder] {
            assert_eq!(found(files), Vec::<String>::new());
        }
    }
}
