//! Metaspace and class space: where the descriptions of classes are.
//!
//! From JDK 16 on, the VM's two lists of nodes tell it, each a stretch that was reserved. No table leads to them; but a
//! variable of the library points at each, and each says by its name which one it is. Where that finds none, all classes
//! are walked through: a mapping that holds a class is class space if classes outnumber what else is in it.

mod lists;
mod walk;

use super::{AreaKind, Areas, fields::Fields, runs::Runs};
use crate::{jvm::library::Library, target::maps::Mapping};

/// Adds both.
pub(super) fn add(fields: Fields<'_>, library: &Library, maps: &[Mapping], areas: &mut Areas) {
    let runs = Runs::reserved(maps);
    if let Some(lists) = lists::find(fields.memory, library, &runs) {
        areas.add(AreaKind::ClassSpace, lists.class_space);
        areas.add(AreaKind::Metaspace, lists.other);
        return;
    }
    match walk::find(fields, &Runs::touchable(maps)) {
        Some(found) => {
            areas.add(AreaKind::ClassSpace, found.class_space);
            areas.add(AreaKind::Metaspace, found.other);
        }
        None => areas.notes.push("this JVM's tables do not lead to its metaspace".to_owned()),
    }
}
