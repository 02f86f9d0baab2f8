//! Fields of objects by name, and the few of the JDK's classes whose content is read: strings, lists, enums, URLs.

use super::{
    bytes::Bytes,
    classes::ClassNumber,
    graph::{Heap, Node},
    objects::{Entry, OBJECT, RootKind, width},
};

/// Longer texts and lists are cut.
const MAX_TEXT: usize = 4096;
const MAX_LIST: usize = 4096;

/// A field with its value: a number, or the identifier of an object.
#[derive(Clone, Debug)]
pub(super) struct FieldValue {
    pub(super) name: String,
    pub(super) kind: u8,
    pub(super) value: u64,
}

impl Heap<'_> {
    fn name_of(&self, id: u64) -> String {
        let name = self.records.text(self.dump, id).unwrap_or(b"?");
        String::from_utf8_lossy(name).into_owned()
    }

    /// Lets `take` look at each field of an instance until it has enough.
    fn each_field(&self, node: Node, mut take: impl FnMut(u64, u8, u64) -> bool) {
        let Some(Entry::Instance { data, .. }) = self.entry(node) else { return };
        let Some(class) = self.class_of(node) else { return };
        let id_bytes = self.records.id_bytes;
        let mut bytes = Bytes::new(data, 0, data.len(), id_bytes);
        let supers = self.classes.get(class).supers.iter().copied();
        for class in [class].into_iter().chain(supers) {
            for field in &self.classes.get(class).fields {
                let value = width(field.kind, id_bytes).and_then(|width| bytes.take(width));
                let Some(value) = value else { return };
                let value = value.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
                if take(field.name, field.kind, value) {
                    return;
                }
            }
        }
    }

    /// All fields of an instance, those of its own class first.
    pub(super) fn fields(&self, node: Node) -> Vec<FieldValue> {
        let mut fields = Vec::new();
        self.each_field(node, |name, kind, value| {
            fields.push(FieldValue { name: self.name_of(name), kind, value });
            false
        });
        fields
    }

    /// Static fields of a class.
    pub(super) fn statics(&self, class: ClassNumber) -> Vec<FieldValue> {
        let statics = self.classes.get(class).statics.iter();
        statics
            .map(|it| FieldValue { name: self.name_of(it.name), kind: it.kind, value: it.value })
            .collect()
    }

    /// The value of the field `name`.
    pub(super) fn value(&self, node: Node, name: &str) -> Option<u64> {
        let mut found = None;
        self.each_field(node, |id, _, value| {
            if self.records.text(self.dump, id) == Some(name.as_bytes()) {
                found = Some(value);
            }
            found.is_some()
        });
        found
    }

    /// The object that the field `name` refers to.
    pub(super) fn reference(&self, node: Node, name: &str) -> Option<Node> {
        self.node(self.value(node, name)?)
    }

    /// The text that a string, or an array of characters, holds.
    pub(super) fn text(&self, node: Node) -> Option<String> {
        let is_string = self.class_name(node) == "java.lang.String";
        let array = if is_string { self.reference(node, "value")? } else { node };
        let Some(Entry::Primitives { kind, elements, .. }) = self.entry(array) else { return None };
        let elements = &elements[..elements.len().min(MAX_TEXT)];
        let wide = |order: fn([u8; 2]) -> u16| {
            let units = elements.chunks_exact(2).map(|unit| order([unit[0], unit[1]]));
            char::decode_utf16(units).map(|unit| unit.unwrap_or('\u{fffd}')).collect()
        };
        match kind {
            5 => Some(wide(u16::from_be_bytes)),
            // The VM writes UTF-16 in its own order, which is that of x86-64 and AArch64.
            8 if is_string && self.value(node, "coder") == Some(1) => {
                Some(wide(u16::from_le_bytes))
            }
            8 => Some(elements.iter().map(|&byte| char::from(byte)).collect()),
            _ => None,
        }
    }

    /// The text of the field `name`.
    pub(super) fn text_field(&self, node: Node, name: &str) -> Option<String> {
        self.text(self.reference(node, name)?)
    }

    /// The name of an enum's constant.
    pub(super) fn enum_field(&self, node: Node, name: &str) -> Option<String> {
        self.text_field(self.reference(node, name)?, "name")
    }

    /// The elements of an array or of one of the JDK's lists, without nulls.
    pub(super) fn list(&self, node: Node) -> Vec<Node> {
        let array = match self.entry(node) {
            Some(Entry::Objects { .. }) => Some(node),
            Some(Entry::Instance { .. }) => ["elementData", "elements", "array", "a"]
                .iter()
                .find_map(|name| self.reference(node, name)),
            _ => None,
        };
        let Some(Entry::Objects { elements, .. }) = array.and_then(|array| self.entry(array))
        else {
            return Vec::new();
        };
        let mut bytes = Bytes::new(elements, 0, elements.len(), self.records.id_bytes);
        let ids = std::iter::from_fn(|| bytes.id());
        ids.take(MAX_LIST).filter_map(|id| self.node(id)).collect()
    }

    /// What a `java.net.URL` says.
    pub(super) fn url(&self, node: Node) -> Option<String> {
        let protocol = self.text_field(node, "protocol")?;
        let host = self.text_field(node, "host").filter(|host| !host.is_empty());
        let host = host.map(|host| format!("//{host}")).unwrap_or_default();
        let file = self.text_field(node, "file").or_else(|| self.text_field(node, "path"))?;
        Some(format!("{protocol}:{host}{file}"))
    }

    /// The name of an object's class; of a class, its own.
    pub(super) fn class_name(&self, node: Node) -> &str {
        let class = self.as_class(node).or_else(|| self.class_of(node));
        class.map_or("", |class| self.classes.name(class))
    }

    /// What a thread is called.
    pub(super) fn thread_name(&self, node: Node) -> String {
        self.text_field(node, "name").unwrap_or_else(|| "(without a name)".to_owned())
    }

    /// All objects of the classes of which `is_wanted`.
    pub(super) fn instances(&self, is_wanted: impl Fn(ClassNumber) -> bool) -> Vec<Node> {
        let wanted: Vec<bool> = (0..self.classes.len() as ClassNumber).map(is_wanted).collect();
        self.objects_by_class(&wanted)
    }

    /// All objects of classes that are `name` or extend it.
    pub(super) fn instances_of(&self, name: &str) -> Vec<Node> {
        self.instances(|class| self.classes.is_a(class, name))
    }

    /// What the reference from one node to another is called.
    pub(super) fn edge_name(&self, from: Node, to: Node) -> String {
        let id = self.id(to);
        if let Some(class) = self.as_class(from) {
            let statics = self.statics(class).into_iter();
            let found = statics.filter(|it| it.kind == OBJECT).find(|it| it.value == id);
            let name = found.map_or_else(|| "<class>".to_owned(), |it| it.name);
            return format!("static {}.{name}", self.classes.name(class));
        }
        let class = self.class_name(from);
        if let Some(Entry::Objects { elements, .. }) = self.entry(from) {
            let mut bytes = Bytes::new(elements, 0, elements.len(), self.records.id_bytes);
            let at = std::iter::from_fn(|| bytes.id()).position(|element| element == id);
            return at.map_or_else(|| format!("{class}[]"), |at| format!("[{at}]"));
        }
        let fields = self.fields(from).into_iter();
        let found = fields.filter(|it| it.kind == OBJECT).find(|it| it.value == id);
        match found {
            Some(field) => format!("{class}.{}", field.name),
            None if self.as_class(to).is_some() => format!("{class}.<class>"),
            None => self.local_name(from, id).unwrap_or_else(|| format!("{class}.<local>")),
        }
    }

    /// The method whose local variable `id` is, of a thread.
    fn local_name(&self, thread: Node, id: u64) -> Option<String> {
        let thread_id = self.id(thread);
        let is_thread =
            |it: &&super::objects::Root| it.kind == RootKind::Thread && it.id == thread_id;
        let of = self.roots.iter().find(is_thread)?;
        let local = self.roots.iter().find(|it| {
            let is_local = matches!(it.kind, RootKind::JavaFrame | RootKind::JniLocal);
            is_local && it.id == id && it.thread_serial == of.thread_serial
        })?;
        let frames = self.frames(of.extra);
        let frame = frames.get(local.extra as usize);
        Some(
            frame.map_or_else(
                || "local variable".to_owned(),
                |it| format!("local variable of {it}"),
            ),
        )
    }

    /// The frames of a stack, the innermost first.
    pub(super) fn frames(&self, trace: u32) -> Vec<String> {
        const MAX_FRAMES: usize = 1024;
        let frames = self.records.trace_frames(self.dump, trace, MAX_FRAMES);
        let frame = |id: &u64| {
            let frame = self.records.frames.get(id)?;
            let class = self.records.class_of_serial(frame.class_serial);
            let class = class.and_then(|id| self.classes.number(id));
            let class = class.map_or("?", |class| self.classes.name(class));
            let method = self.name_of(frame.method);
            let source = match frame.line {
                line @ 1.. => format!("({}:{line})", self.name_of(frame.source)),
                -3 => "(native)".to_owned(),
                _ => String::new(),
            };
            Some(format!("{class}.{method}{source}"))
        };
        frames.iter().filter_map(frame).collect()
    }
}
