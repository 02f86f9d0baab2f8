//! The classes of a dump: what they are called, who loaded them, and where in their instances the references lie.
//!
//! A class may come before or after its instances, may name a superclass that is not there, or be its own superclass.

use rustc_hash::FxHashMap;

use super::{
    bytes::{Bytes, id_at},
    objects::{FIRST_PRIMITIVE, OBJECT, PRIMITIVES, width},
    records::Records,
};

/// More superclasses no class has; those that lie about it may be each other's.
const MAX_SUPERCLASSES: usize = 100;

/// A field: the id of its name and its type.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) name: u64,
    pub(super) kind: u8,
}

/// A static field with its value, which is an id where it is a reference.
#[derive(Clone, Copy, Debug)]
pub(super) struct Static {
    pub(super) name: u64,
    pub(super) kind: u8,
    pub(super) value: u64,
}

/// Number of a class in [`Classes`]: first the primitive arrays, then what the dump has, then what it only speaks of.
pub(super) type ClassNumber = u32;

#[derive(Clone, Debug, Default)]
pub(super) struct Class {
    pub(super) id: u64,
    pub(super) superclass: u64,
    pub(super) loader: u64,
    /// Signers and protection domain.
    others: [u64; 2],
    pub(super) statics: Vec<Static>,
    pub(super) fields: Vec<Field>,
    /// Its superclasses, the nearest first.
    pub(super) supers: Vec<ClassNumber>,
    /// Where in an instance references begin that keep their target.
    pub(super) references: Vec<u32>,
    /// Bytes of all fields, with references of four bytes and of eight.
    pub(super) field_bytes: [u64; 2],
    /// Whether it is an array of references.
    pub(super) is_array: bool,
}

/// All classes.
#[derive(Debug, Default)]
pub(super) struct Classes {
    all: Vec<Class>,
    names: Vec<String>,
    numbers: FxHashMap<u64, ClassNumber>,
    id_bytes: usize,
}

impl Classes {
    /// Reads the classes that begin at `places`.
    pub(super) fn read(dump: &[u8], records: &Records, places: &[usize]) -> Self {
        let mut classes = Self { id_bytes: records.id_bytes, ..Self::default() };
        for name in PRIMITIVES {
            classes.all.push(Class::default());
            classes.names.push(format!("{name}[]"));
        }
        for &at in places {
            let Some(class) = class(Bytes::new(dump, at, dump.len(), records.id_bytes)) else {
                continue;
            };
            // Told of twice, the first counts.
            if !classes.numbers.contains_key(&class.id) {
                classes.add(class, dump, records);
            }
        }
        classes.lay_out(dump, records);
        classes
    }

    fn add(&mut self, mut class: Class, dump: &[u8], records: &Records) {
        let name = records.class_name(dump, class.id).map_or_else(
            || format!("(class {:#x})", class.id),
            |name| java_name(&String::from_utf8_lossy(name)),
        );
        class.is_array = name.ends_with("[]");
        self.numbers.insert(class.id, self.all.len() as ClassNumber);
        self.all.push(class);
        self.names.push(name);
    }

    /// Classes that instances have and the dump lacks.
    pub(super) fn add_missing(&mut self, dump: &[u8], records: &Records, ids: &[u64]) {
        for &id in ids {
            if !self.numbers.contains_key(&id) {
                self.add(Class { id, ..Class::default() }, dump, records);
            }
        }
    }

    fn lay_out(&mut self, dump: &[u8], records: &Records) {
        // Many classes that share a huge superclass may not cost more than the dump itself.
        let mut room = dump.len() + self.all.len();
        for number in 0..self.all.len() {
            let supers = self.find_supers(number);
            let n_fields = |class: ClassNumber| self.all[class as usize].fields.len();
            let n_all: usize = supers.iter().map(|&class| n_fields(class)).sum();
            let Some(left) = room.checked_sub(n_all + supers.len()) else { break };
            room = left;
            let mut places = Vec::new();
            let mut at = 0_usize;
            let mut field_bytes = [0_u64; 2];
            let chain = [number as ClassNumber].into_iter().chain(supers.iter().copied());
            for class in chain {
                let is_reference = self.names[class as usize] == "java.lang.ref.Reference";
                let is_weak = is_reference && self.is_weak(number as ClassNumber, &supers);
                for field in &self.all[class as usize].fields {
                    let is_object = field.kind == OBJECT;
                    let is_referent =
                        is_weak && records.text(dump, field.name) == Some(b"referent");
                    if is_object && !is_referent {
                        places.push(at as u32);
                    }
                    at += width(field.kind, self.id_bytes).unwrap_or_default();
                    let width = width(field.kind, 0).unwrap_or_default() as u64;
                    field_bytes[0] += if is_object { 4 } else { width };
                    field_bytes[1] += if is_object { 8 } else { width };
                }
            }
            let class = &mut self.all[number];
            (class.supers, class.references) = (supers, places);
            class.field_bytes = field_bytes;
        }
    }

    fn find_supers(&self, number: usize) -> Vec<ClassNumber> {
        let mut supers = Vec::new();
        let mut at = self.all[number].superclass;
        while let Some(&next) = self.numbers.get(&at) {
            if supers.len() == MAX_SUPERCLASSES || next as usize == number || supers.contains(&next)
            {
                break;
            }
            supers.push(next);
            at = self.all[next as usize].superclass;
        }
        supers
    }

    /// Whether instances don't keep what they refer to: weak, phantom and final references; soft ones do.
    fn is_weak(&self, number: ClassNumber, supers: &[ClassNumber]) -> bool {
        [number].iter().chain(supers).any(|&class| {
            let name = self.names[class as usize].as_str();
            name.strip_prefix("java.lang.ref.").is_some_and(|name| {
                ["WeakReference", "PhantomReference", "FinalReference"].contains(&name)
            })
        })
    }

    pub(super) fn number(&self, id: u64) -> Option<ClassNumber> {
        self.numbers.get(&id).copied()
    }

    pub(super) fn of_primitive(kind: u8) -> ClassNumber {
        ClassNumber::from(kind - FIRST_PRIMITIVE)
    }

    pub(super) fn get(&self, number: ClassNumber) -> &Class {
        &self.all[number as usize]
    }

    pub(super) fn name(&self, number: ClassNumber) -> &str {
        &self.names[number as usize]
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Classes that the dump has, without primitive arrays.
    pub(super) fn numbers(&self) -> impl Iterator<Item = ClassNumber> + use<> {
        PRIMITIVES.len() as ClassNumber..self.all.len() as ClassNumber
    }

    /// Whether `number` is `name` or extends it.
    pub(super) fn is_a(&self, number: ClassNumber, name: &str) -> bool {
        self.name(number) == name
            || self.get(number).supers.iter().any(|&class| self.name(class) == name)
    }
}

impl Class {
    /// What the class refers to, but for its superclass's id, which may be no object's.
    pub(super) fn targets(&self) -> impl Iterator<Item = u64> {
        let statics = self.statics.iter().filter(|field| field.kind == OBJECT);
        [self.superclass, self.loader]
            .into_iter()
            .chain(self.others)
            .chain(statics.map(|field| field.value))
            .filter(|&id| id != 0)
    }
}

/// Reads a class; its tag is at the place that `bytes` stand at.
fn class(mut bytes: Bytes<'_>) -> Option<Class> {
    bytes.u8()?;
    let (id, _trace, superclass, loader) = (bytes.id()?, bytes.u32()?, bytes.id()?, bytes.id()?);
    let others = [bytes.id()?, bytes.id()?];
    // Reserved, and the bytes of an instance's fields, which follow from the fields.
    bytes.take(2 * bytes.id_bytes() + 4)?;
    for _ in 0..bytes.u16()? {
        bytes.u16()?;
        value(&mut bytes)?;
    }
    let mut statics = Vec::new();
    for _ in 0..bytes.u16()? {
        let name = bytes.id()?;
        let (kind, value) = value(&mut bytes)?;
        statics.push(Static { name, kind, value });
    }
    let mut fields = Vec::new();
    for _ in 0..bytes.u16()? {
        fields.push(Field { name: bytes.id()?, kind: bytes.u8()? });
    }
    Some(Class { id, superclass, loader, others, statics, fields, ..Class::default() })
}

fn value(bytes: &mut Bytes<'_>) -> Option<(u8, u64)> {
    let kind = bytes.u8()?;
    let value = bytes.take(width(kind, bytes.id_bytes())?)?;
    let value = match value.len() {
        n @ (4 | 8) => id_at(value, 0, n)?,
        _ => value.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte)),
    };
    Some((kind, value))
}

/// A class's name as Java writes it, from the VM's form of it.
pub(super) fn java_name(name: &str) -> String {
    let n_arrays = name.bytes().take_while(|&byte| byte == b'[').count();
    let element = &name[n_arrays..];
    let primitive = |letter: &str| {
        let at = ["Z", "C", "F", "D", "B", "S", "I", "J"].iter().position(|&it| it == letter);
        at.map(|at| PRIMITIVES[at].to_owned())
    };
    let element = match n_arrays {
        // A hidden class: the VM writes `+0x…`, and its own histogram a dot.
        0 => element.replace('/', ".").replace("+0x", ".0x"),
        _ => primitive(element).unwrap_or_else(|| {
            let inner = element.strip_prefix('L').and_then(|name| name.strip_suffix(';'));
            inner.unwrap_or(element).replace('/', ".")
        }),
    };
    element + &"[]".repeat(n_arrays)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, want) in [
            ("java/lang/String", "java.lang.String"),
            ("[J", "long[]"),
            ("[[Ljava/lang/Object;", "java.lang.Object[][]"),
            ("[Lx", "Lx[]"),
            ("[[", "[][]"),
            ("", ""),
        ] {
            assert_eq!(java_name(name), want);
        }
    }
}
