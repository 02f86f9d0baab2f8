//! Small dumps for tests, written record by record.

/// A dump under construction: identifiers of four bytes or of eight.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    pub(super) bytes: Vec<u8>,
    id_bytes: usize,
    segment: Vec<u8>,
    n_names: u64,
}

impl Writer {
    pub(super) fn new(id_bytes: usize) -> Self {
        let mut bytes = b"JAVA PROFILE 1.0.2\0".to_vec();
        bytes.extend((id_bytes as u32).to_be_bytes());
        bytes.extend([0; 8]);
        Self { bytes, id_bytes, segment: Vec::new(), n_names: 0 }
    }

    fn id(&self, id: u64) -> Vec<u8> {
        id.to_be_bytes()[8 - self.id_bytes..].to_vec()
    }

    fn record(&mut self, tag: u8, parts: &[&[u8]]) {
        let body = parts.concat();
        self.bytes.push(tag);
        self.bytes.extend([0; 4]);
        self.bytes.extend((body.len() as u32).to_be_bytes());
        self.bytes.extend(body);
    }

    pub(super) fn name(&mut self, name: &str) -> u64 {
        self.n_names += 1;
        let id = 0x9000 + self.n_names;
        self.record(0x01, &[&self.id(id), name.as_bytes()]);
        id
    }

    /// A class with fields that are references or ints, and static references.
    pub(super) fn class(
        &mut self,
        id: u64,
        name: &str,
        (superclass, loader): (u64, u64),
        fields: &[(&str, u8)],
        statics: &[(&str, u64)],
    ) {
        let name = self.name(name);
        let parts = [vec![0, 0, 0, 1], self.id(id), vec![0; 4], self.id(name)].concat();
        self.record(0x02, &[&parts]);
        let mut body =
            [vec![0x20], self.id(id), vec![0; 4], self.id(superclass), self.id(loader)].concat();
        body.extend(vec![0; 4 * self.id_bytes + 4 + 2]);
        body.extend((statics.len() as u16).to_be_bytes());
        for (name, value) in statics {
            let name = self.name(name);
            body.extend([self.id(name), vec![2], self.id(*value)].concat());
        }
        body.extend((fields.len() as u16).to_be_bytes());
        for (name, kind) in fields {
            let name = self.name(name);
            body.extend([self.id(name), vec![*kind]].concat());
        }
        self.segment.extend(body);
    }

    pub(super) fn instance(&mut self, id: u64, class: u64, references: &[u64]) {
        let data: Vec<u8> = references.iter().flat_map(|&id| self.id(id)).collect();
        self.raw_instance(id, class, &data);
    }

    pub(super) fn raw_instance(&mut self, id: u64, class: u64, data: &[u8]) {
        let head = [vec![0x21], self.id(id), vec![0; 4], self.id(class)].concat();
        self.segment.extend(head);
        self.segment.extend((data.len() as u32).to_be_bytes());
        self.segment.extend(data);
    }

    pub(super) fn objects(&mut self, id: u64, class: u64, elements: &[u64]) {
        let n = (elements.len() as u32).to_be_bytes().to_vec();
        let head = [vec![0x22], self.id(id), vec![0; 4], n, self.id(class)].concat();
        self.segment.extend(head);
        let elements: Vec<u8> = elements.iter().flat_map(|&id| self.id(id)).collect();
        self.segment.extend(elements);
    }

    pub(super) fn bytes(&mut self, id: u64, text: &[u8]) {
        let n = (text.len() as u32).to_be_bytes().to_vec();
        let head = [vec![0x23], self.id(id), vec![0; 4], n, vec![8]].concat();
        self.segment.extend(head);
        self.segment.extend(text);
    }

    /// A global reference.
    pub(super) fn root(&mut self, id: u64) {
        let root = [vec![0x01], self.id(id), self.id(0)].concat();
        self.segment.extend(root);
    }

    /// A thread that runs.
    pub(super) fn thread(&mut self, id: u64, serial: u32) {
        let root = [vec![0x08], self.id(id), serial.to_be_bytes().to_vec(), vec![0; 4]].concat();
        self.segment.extend(root);
    }

    /// A local variable of a thread.
    pub(super) fn local(&mut self, id: u64, serial: u32) {
        let root = [vec![0x03], self.id(id), serial.to_be_bytes().to_vec(), vec![0; 4]].concat();
        self.segment.extend(root);
    }

    pub(super) fn end_segment(&mut self, tag: u8) {
        let segment = std::mem::take(&mut self.segment);
        self.record(tag, &[&segment]);
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        if !self.segment.is_empty() {
            self.end_segment(0x1c);
        }
        self.record(0x2c, &[]);
        self.bytes
    }
}

pub(super) const OBJECT: u64 = 0x10_0008;
const STRING: u64 = 0x10_0010;
const THREAD: u64 = 0x10_0018;
const LOADER: u64 = 0x10_0020;
const APP_LOADER: u64 = 0x10_0028;
const HOLDER: u64 = 0x10_0030;
const WEAK: u64 = 0x10_0038;
const REFERENCE: u64 = 0x10_0040;

fn jdk(writer: &mut Writer) {
    writer.class(OBJECT, "java/lang/Object", (0, 0), &[], &[]);
    writer.class(STRING, "java/lang/String", (OBJECT, 0), &[("value", 2), ("coder", 8)], &[]);
    writer.class(LOADER, "java/lang/ClassLoader", (OBJECT, 0), &[("parent", 2)], &[]);
    let fields = [("name", 2), ("contextClassLoader", 2)];
    writer.class(THREAD, "java/lang/Thread", (OBJECT, 0), &fields, &[]);
    writer.class(REFERENCE, "java/lang/ref/Reference", (OBJECT, 0), &[("referent", 2)], &[]);
    writer.class(WEAK, "java/lang/ref/WeakReference", (REFERENCE, 0), &[], &[]);
    writer.class(APP_LOADER, "my/Loader", (LOADER, 0), &[], &[]);
}

fn string(writer: &mut Writer, id: u64, text: &str) {
    let data = [writer.id(id + 24), vec![0]].concat();
    writer.raw_instance(id, STRING, &data);
    writer.bytes(id + 24, text.as_bytes());
}

/// Three loaders of one class with the same classes: the newest is of use, a thread and a static field keep the others,
/// and weak references keep none.
pub(super) fn leaking(id_bytes: usize) -> Vec<u8> {
    let mut writer = Writer::new(id_bytes);
    jdk(&mut writer);
    let loaders = [0x20_0000, 0x20_0100, 0x20_0200, 0x20_0300];
    writer.class(
        HOLDER,
        "jdk/Registry",
        (OBJECT, 0),
        &[],
        &[("kept", 0x20_0150), ("last", 0x20_0200)],
    );
    for (n, &loader) in (0_u64..).zip(&loaders) {
        for (at, name) in (0..).zip(["app/A", "app/B", "app/C"]) {
            let id = 0x30_0000 + n * 0x100 + at * 8;
            writer.class(id, name, (OBJECT, loader), &[("next", 2)], &[]);
        }
    }
    for (n, &loader) in (0_u64..).zip(&loaders) {
        writer.instance(loader, APP_LOADER, &[0]);
        writer.instance(loader + 0x50, 0x30_0000 + n * 0x100, &[loader + 0x60]);
        writer.bytes(loader + 0x60, &[7; 64]);
    }
    string(&mut writer, 0x40_0000, "worker");
    writer.instance(0x40_0100, THREAD, &[0x40_0000, loaders[0]]);
    writer.instance(0x40_0200, WEAK, &[loaders[3]]);
    writer.thread(0x40_0100, 7);
    writer.root(0x40_0200);
    writer.finish()
}
