//! The rules of the house that a compiler does not know: who may use whom.
//!
//! Sources are parsed, not searched: a name counts wherever it stands (an import in a group, a path, the inside of a
//! macro), but not in comments, in text, or in what is compiled for tests only.

use std::{
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute, File, ImplItem, Item, ItemMod, Macro, UseTree,
    visit::{self, Visit},
};

/// The rooms in their order: a room uses only rooms before it.
const ROOMS: [&str; 16] = [
    "target",
    "probes",
    "events",
    "jvm",
    "stacks",
    "ledger",
    "footprint",
    "trace",
    "owners",
    "findings",
    "attach",
    "trials",
    "heap",
    "spool",
    "report",
    "commands",
];

/// Only these rooms know what loads BPF.
const KNOW_AYA: [&str; 2] = ["probes", "events"];
const AYA: [&[&str]; 3] = [&["aya"], &["aya_log"], &["aya_obj"]];

/// Rooms that read no clock, file or process.
const PURE: [&str; 3] = ["ledger", "owners", "findings"];
const IMPURE: [&[&str]; 15] = [
    &["std", "env"],
    &["std", "fs"],
    &["std", "io"],
    &["std", "net"],
    &["std", "os"],
    &["std", "process"],
    &["std", "thread"],
    &["std", "time", "Instant"],
    &["std", "time", "SystemTime"],
    &["libc"],
    &["memmap2"],
    &["tokio"],
    &["crate", "target"],
    &["crate", "probes"],
    &["crate", "attach"],
];

/// A path from the crate or from another one, such as `crate::stacks::StackId`; a group makes one path for each name.
type Name = Vec<String>;

/// All names that a source uses, but for those of its tests.
fn names(code: &str, module: &[String]) -> Vec<Name> {
    let mut file: File = syn::parse_str(code).expect("sources are Rust");
    file.items.retain(|item| !is_test(item_attributes(item)));
    let mut names = Names { module: module.to_vec(), found: Vec::new() };
    names.visit_file(&file);
    names.found
}

struct Names {
    module: Name,
    found: Vec<Name>,
}

impl Names {
    /// Takes note of a name, with `self` and `super` resolved.
    fn add(&mut self, name: &[String]) {
        let n_up = name.iter().take_while(|part| *part == "super" || *part == "self").count();
        if n_up == 0 {
            return self.found.push(name.to_vec());
        }
        let n_super = name[..n_up].iter().filter(|part| *part == "super").count();
        let kept = self.module.len().saturating_sub(n_super);
        let whole = ["crate".to_owned()].into_iter().chain(self.module[..kept].iter().cloned());
        self.found.push(whole.chain(name[n_up..].iter().cloned()).collect());
    }

    fn add_tree(&mut self, before: &[String], tree: &UseTree) {
        let with = |part: String| [before, &[part]].concat();
        match tree {
            UseTree::Path(path) => self.add_tree(&with(path.ident.to_string()), &path.tree),
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.add_tree(before, tree));
            }
            UseTree::Name(name) if name.ident == "self" => self.add(before),
            UseTree::Name(name) => self.add(&with(name.ident.to_string())),
            UseTree::Rename(name) if name.ident == "self" => self.add(&with("*".into())),
            // What has another name from here on can't be followed: all that lies below counts.
            UseTree::Rename(name) => {
                self.add(&[with(name.ident.to_string()), vec!["*".into()]].concat())
            }
            UseTree::Glob(_) => self.add(&with("*".into())),
        }
    }

    /// The names inside a macro, which may be anything.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut name: Name = Vec::new();
        let mut n_colons = 2;
        for token in tokens {
            match token {
                TokenTree::Punct(mark) if mark.as_char() == ':' => n_colons += 1,
                TokenTree::Ident(ident) => {
                    if n_colons != 2 || name.is_empty() {
                        self.end(&mut name);
                    }
                    name.push(ident.to_string());
                    n_colons = 0;
                }
                other => {
                    self.end(&mut name);
                    if let TokenTree::Group(group) = other {
                        self.add_tokens(group.stream());
                    }
                }
            }
        }
        self.end(&mut name);
    }

    fn end(&mut self, name: &mut Name) {
        if !name.is_empty() {
            self.add(&std::mem::take(name));
        }
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_test(item_attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let is_for_tests = matches!(item, ImplItem::Fn(function) if is_test(&function.attrs));
        if !is_for_tests {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        self.module.push(module.ident.to_string());
        visit::visit_item_mod(self, module);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.add_tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Name = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.add(&parts);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, invoked: &'ast Macro) {
        self.add_tokens(invoked.tokens.clone());
        visit::visit_macro(self, invoked);
    }
}

fn item_attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Whether it is there only in tests: `#[cfg(test)]` and nothing else.
fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    })
}

/// Whether `name` is `prefix`, lies below it, or takes in all that lies beside it.
fn is_of(name: &[String], prefix: &[&str]) -> bool {
    let n = name.iter().zip(prefix).take_while(|(part, other)| part == *other).count();
    n == prefix.len() || (n > 0 && name.get(n).is_some_and(|part| part == "*"))
}

fn first_of(names: &[Name], prefixes: &[&[&str]]) -> Option<String> {
    let found = names.iter().find(|name| prefixes.iter().any(|prefix| is_of(name, prefix)));
    found.map(|name| name.join("::"))
}

/// A room that `room` may not use, but does.
fn later_room(room: &str, names: &[Name]) -> Option<String> {
    let place = ROOMS.iter().position(|other| *other == room).unwrap_or_default();
    let later: Vec<[&str; 2]> = ROOMS[place + 1..].iter().map(|room| ["crate", *room]).collect();
    first_of(names, &later.iter().map(|prefix| &prefix[..]).collect::<Vec<_>>())
}

/// What breaks the rules in a source of `room`.
fn broken_rule(room: &str, names: &[Name]) -> Option<String> {
    if let Some(name) = later_room(room, names) {
        return Some(format!("uses {name}, which comes after {room}"));
    }
    if let Some(name) = first_of(names, &AYA).filter(|_| !KNOW_AYA.contains(&room)) {
        return Some(format!("mentions {name}"));
    }
    let impure = first_of(names, &IMPURE).filter(|_| PURE.contains(&room));
    impure.map(|name| format!("mentions {name}, though {room} is pure"))
}

/// Every source file of a room that is not one of tests, with the module that it is.
fn sources(room: &str) -> Vec<(PathBuf, Name)> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../memtrace/src");
    let mut found = Vec::new();
    let mut folders = vec![source.join(room)];
    while let Some(folder) = folders.pop() {
        // A room that is not built yet has no folder.
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("the folder is readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("tests.rs")
            {
                let module = path.strip_prefix(&source).expect("it is below").with_extension("");
                let parts = module.iter().map(|part| part.to_string_lossy().into_owned());
                found.push((path.clone(), parts.filter(|part| part != "mod").collect()));
            }
        }
    }
    found
}

/// No source breaks a rule.
#[test]
fn rooms_keep_the_rules() {
    let mut n_sources = 0;
    for room in ROOMS {
        for (path, module) in sources(room) {
            n_sources += 1;
            let code = fs::read_to_string(&path).expect("sources are text");
            let broken = broken_rule(room, &names(&code, &module));
            assert_eq!(broken, None, "{}", path.display());
        }
    }
    assert!(n_sources > 90, "only {n_sources} sources were found");
}

/// Every folder of the library is a room of the list.
#[test]
fn every_folder_is_a_room() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../memtrace/src");
    for entry in fs::read_dir(source).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(ROOMS.contains(&name), "{name} is no room of the architecture");
        }
    }
}

/// Each rule finds what breaks it, however it is written, and nothing else.
#[test]
fn rules_find_what_breaks_them() {
    let after = |name: &str, room: &str| Some(format!("uses {name}, which comes after {room}"));
    let mentions = |name: &str| Some(format!("mentions {name}"));
    let impure = |name: &str| Some(format!("mentions {name}, though ledger is pure"));
    // (room, code, what is said)
    let cases = [
        ("ledger", "use crate::stacks::StackId; fn f() -> super::Metric {}", None),
        ("stacks", "use crate::trace::Record;", after("crate::trace::Record", "stacks")),
        ("stacks", "use crate::{events::Event, report};", after("crate::report", "stacks")),
        ("stacks", "use crate::{jvm, ledger::{self, x}};", after("crate::ledger", "stacks")),
        ("stacks", "fn f() -> crate::trace::Record {}", after("crate::trace::Record", "stacks")),
        ("stacks", "use super::super::report::text;", after("crate::report::text", "stacks")),
        ("stacks", "mod a { use super::super::super::heap; }", after("crate::heap", "stacks")),
        ("stacks", "use crate::*;", after("crate::*", "stacks")),
        ("stacks", "use crate as house;", after("crate::*", "stacks")),
        (
            "stacks",
            "fn f() { log!(\"{}\", [crate::attach::x()]) }",
            after("crate::attach::x", "stacks"),
        ),
        ("stacks", "// crate::trace\nconst A: &str = \"crate::trace\"; use crate::targets;", None),
        ("stacks", "#[cfg(test)] mod t { use crate::trace; } use crate::jvm;", None),
        (
            "stacks",
            "#[cfg(test)]\nuse crate::jvm;\nuse crate::trace;",
            after("crate::trace", "stacks"),
        ),
        ("stacks", "#[cfg(not(test))] use crate::trace;", after("crate::trace", "stacks")),
        ("stacks", "impl A { #[cfg(test)] fn f() { crate::trace::x() } }", None),
        ("stacks", "use std::io;", None),
        ("probes", "use aya::Ebpf; use aya_log::EbpfLogger;", None),
        ("stacks", "use aya::{Ebpf, maps};", mentions("aya::Ebpf")),
        ("commands", "use {log, aya_log::EbpfLogger};", mentions("aya_log::EbpfLogger")),
        ("trace", "fn f() { aya::programs::loaded() }", mentions("aya::programs::loaded")),
        ("ledger", "use std::{collections::BTreeMap, io::{self, Read}};", impure("std::io")),
        ("ledger", "use std::time::{Duration, Instant};", impure("std::time::Instant")),
        ("ledger", "use std::time::*;", impure("std::time::*")),
        ("ledger", "use std as s;", impure("std::*")),
        ("ledger", "use crate::{probes::Ring, stacks};", impure("crate::probes::Ring")),
        ("ledger", "use crate::target::maps;", impure("crate::target::maps")),
        ("ledger", "fn f() { unsafe { libc::getpid() }; }", impure("libc::getpid")),
        ("ledger", "use std::time::Duration; fn f(time_ns: u64) {}", None),
    ];
    for (room, code, said) in cases {
        assert_eq!(broken_rule(room, &names(code, &[room.to_owned()])), said, "{code}");
    }
}
