//! The bytes of an HPROF file.
//!
//! In: names, classes, objects and roots. Out: records as HotSpot's heapDumper.cpp (JDK 8 and 17) and the older hprof agent
//! write them. Nothing here knows whether what is written makes sense.

use std::io::{self, Write};

use super::classes::{Class, Kind};

/// HotSpot's limit since JDK 17.
const SEGMENT_BYTES: usize = 1 << 20;

/// How a dump is written.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// Behind `JAVA PROFILE `.
    pub version: &'static str,
    /// Bytes of an id: 4 or 8.
    pub id_bytes: usize,
    /// Many HEAP_DUMP_SEGMENTs and an end, rather than one HEAP_DUMP.
    pub segments: bool,
    /// What comes first in the dump.
    pub order: Order,
    /// Bytes before an object's first field.
    pub header_bytes: u64,
    /// Bytes before an array's first element.
    pub array_header_bytes: u64,
    /// Bytes of a reference in the heap, whatever an id has.
    pub reference_bytes: u64,
    /// Strings of bytes (JDK 9 on) rather than of chars.
    pub compact_strings: bool,
}

/// In which order classes, objects and roots are dumped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As HotSpot does until JDK 21.
    ClassesObjectsRoots,
    /// As the hprof agent does.
    RootsObjectsClasses,
}

impl Format {
    /// JDK 17 with compressed references.
    pub const JDK_17: Self = Self {
        version: "1.0.2",
        id_bytes: 8,
        segments: true,
        order: Order::ClassesObjectsRoots,
        header_bytes: 12,
        array_header_bytes: 16,
        reference_bytes: 4,
        compact_strings: true,
    };
    /// JDK 5 to 7 on 32 bits, all in one record.
    pub const JDK_5_32_BITS: Self = Self {
        version: "1.0.1",
        id_bytes: 4,
        segments: false,
        header_bytes: 8,
        array_header_bytes: 12,
        compact_strings: false,
        ..Self::JDK_17
    };
    /// The hprof agent of JDK 8 on 32 bits: roots first, classes last.
    pub const AGENT_32_BITS: Self =
        Self { order: Order::RootsObjectsClasses, ..Self::JDK_5_32_BITS };
}

/// What of the dump is being written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Section {
    Classes,
    Objects,
    Roots,
}

/// An HPROF file being written.
#[derive(Debug)]
pub(super) struct Records<W> {
    file: W,
    pub(super) format: Format,
    /// Of what is not written yet: a segment's worth, or everything if the format wants it in one record or another order.
    sections: [Vec<u8>; 3],
    pub(super) n_bytes: u64,
}

impl<W: Write> Records<W> {
    pub(super) fn new(file: W, format: Format) -> io::Result<Self> {
        let sections = [Vec::new(), Vec::new(), Vec::new()];
        let mut records = Self { file, format, sections, n_bytes: 0 };
        let mut header = format!("JAVA PROFILE {}\0", format.version).into_bytes();
        header.extend((format.id_bytes as u32).to_be_bytes());
        // 1 January 2024: nothing that changes from run to run.
        header.extend(1_704_067_200_000_u64.to_be_bytes());
        records.write(&header)?;
        Ok(records)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.n_bytes += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    fn record(&mut self, tag: u8, body: &[u8]) -> io::Result<()> {
        let mut head = [tag, 0, 0, 0, 0, 0, 0, 0, 0];
        head[5..].copy_from_slice(&u32::try_from(body.len()).map_err(too_long)?.to_be_bytes());
        self.write(&head)?;
        self.write(body)
    }

    fn id(&self, body: &mut Vec<u8>, id: u64) {
        push_id(body, self.format.id_bytes, id);
    }

    /// UTF8
    pub(super) fn name(&mut self, id: u64, name: &str) -> io::Result<()> {
        let mut body = Vec::new();
        self.id(&mut body, id);
        body.extend(name.as_bytes());
        self.record(0x01, &body)
    }

    /// LOAD_CLASS
    pub(super) fn load_class(&mut self, serial: u32, class: u64, name: u64) -> io::Result<()> {
        let mut body = serial.to_be_bytes().to_vec();
        self.id(&mut body, class);
        body.extend(0_u32.to_be_bytes());
        self.id(&mut body, name);
        self.record(0x02, &body)
    }

    /// STACK_FRAME, of which source file and signature are the empty name `nothing`.
    pub(super) fn frame(
        &mut self,
        id: u64,
        method: u64,
        nothing: u64,
        class_serial: u32,
    ) -> io::Result<()> {
        let mut body = Vec::new();
        [id, method, nothing, nothing].iter().for_each(|id| self.id(&mut body, *id));
        body.extend(class_serial.to_be_bytes());
        body.extend(42_u32.to_be_bytes());
        self.record(0x04, &body)
    }

    /// STACK_TRACE
    pub(super) fn trace(&mut self, serial: u32, thread: u32, frames: &[u64]) -> io::Result<()> {
        let mut body = Vec::new();
        for number in [serial, thread, frames.len() as u32] {
            body.extend(number.to_be_bytes());
        }
        frames.iter().for_each(|id| self.id(&mut body, *id));
        self.record(0x05, &body)
    }

    /// CLASS_DUMP
    pub(super) fn class(&mut self, of: &Class, names: &[u64], loader: u64) -> io::Result<()> {
        let id_bytes = self.format.id_bytes;
        let body = &mut self.sections[Section::Classes as usize];
        body.push(0x20);
        push_id(body, id_bytes, of.address);
        body.extend(1_u32.to_be_bytes());
        for id in [of.superclass, loader, 0, 0, 0, 0] {
            push_id(body, id_bytes, id);
        }
        let field_bytes: usize = of.fields.iter().map(|field| field.1.dumped_bytes(id_bytes)).sum();
        body.extend((field_bytes as u32).to_be_bytes());
        body.extend(0_u16.to_be_bytes());
        body.extend((of.statics.len() as u16).to_be_bytes());
        for ((_, value), name) in of.statics.iter().zip(&names[of.fields.len()..]) {
            push_id(body, id_bytes, *name);
            body.push(Kind::Object as u8);
            push_id(body, id_bytes, *value);
        }
        body.extend((of.fields.len() as u16).to_be_bytes());
        for ((_, kind), name) in of.fields.iter().zip(names) {
            push_id(body, id_bytes, *name);
            body.push(*kind as u8);
        }
        self.flush_if_full(Section::Classes)
    }

    /// INSTANCE_DUMP
    pub(super) fn instance(&mut self, id: u64, class: u64, fields: &[u8]) -> io::Result<()> {
        let id_bytes = self.format.id_bytes;
        let body = &mut self.sections[Section::Objects as usize];
        body.push(0x21);
        push_id(body, id_bytes, id);
        body.extend(1_u32.to_be_bytes());
        push_id(body, id_bytes, class);
        body.extend((fields.len() as u32).to_be_bytes());
        body.extend(fields);
        self.flush_if_full(Section::Objects)
    }

    /// OBJECT_ARRAY_DUMP
    pub(super) fn references(&mut self, id: u64, class: u64, elements: &[u64]) -> io::Result<()> {
        let id_bytes = self.format.id_bytes;
        let body = &mut self.sections[Section::Objects as usize];
        body.push(0x22);
        push_id(body, id_bytes, id);
        body.extend(1_u32.to_be_bytes());
        body.extend((elements.len() as u32).to_be_bytes());
        push_id(body, id_bytes, class);
        elements.iter().for_each(|element| push_id(body, id_bytes, *element));
        self.flush_if_full(Section::Objects)
    }

    /// PRIMITIVE_ARRAY_DUMP; the elements are in the file's byte order.
    pub(super) fn primitives(&mut self, id: u64, kind: Kind, elements: &[u8]) -> io::Result<()> {
        let id_bytes = self.format.id_bytes;
        let length = elements.len() / kind.dumped_bytes(id_bytes);
        let body = &mut self.sections[Section::Objects as usize];
        body.push(0x23);
        push_id(body, id_bytes, id);
        body.extend(1_u32.to_be_bytes());
        body.extend((length as u32).to_be_bytes());
        body.push(kind as u8);
        body.extend(elements);
        self.flush_if_full(Section::Objects)
    }

    /// ROOT_STICKY_CLASS
    pub(super) fn sticky_class(&mut self, class: u64) -> io::Result<()> {
        self.root(0x05, class, &[])
    }

    /// ROOT_JNI_GLOBAL
    pub(super) fn jni_global(&mut self, id: u64) -> io::Result<()> {
        let handle = 0x7f00_u64.to_be_bytes();
        let bytes = &handle[8 - self.format.id_bytes..];
        self.root(0x01, id, bytes)
    }

    /// ROOT_THREAD_OBJECT, whose trace has the thread's own number.
    pub(super) fn thread(&mut self, id: u64, serial: u32) -> io::Result<()> {
        self.root(0x08, id, &[serial.to_be_bytes(), serial.to_be_bytes()].concat())
    }

    /// ROOT_JAVA_FRAME
    pub(super) fn local(&mut self, id: u64, thread: u32, frame: u32) -> io::Result<()> {
        self.root(0x03, id, &[thread.to_be_bytes(), frame.to_be_bytes()].concat())
    }

    fn root(&mut self, tag: u8, id: u64, rest: &[u8]) -> io::Result<()> {
        let id_bytes = self.format.id_bytes;
        let body = &mut self.sections[Section::Roots as usize];
        body.push(tag);
        push_id(body, id_bytes, id);
        body.extend(rest);
        self.flush_if_full(Section::Roots)
    }

    fn flush_if_full(&mut self, section: Section) -> io::Result<()> {
        let Format { segments, order, .. } = self.format;
        let is_full = self.sections[section as usize].len() >= SEGMENT_BYTES;
        match segments && order == Order::ClassesObjectsRoots && is_full {
            true => self.flush(section),
            false => Ok(()),
        }
    }

    /// One segment with what is there of a section.
    fn flush(&mut self, section: Section) -> io::Result<()> {
        let mut body = std::mem::take(&mut self.sections[section as usize]);
        if !body.is_empty() {
            self.record(0x1c, &body)?;
        }
        body.clear();
        self.sections[section as usize] = body;
        Ok(())
    }

    /// All classes are written, before any object is if that is the order.
    pub(super) fn end_of_classes(&mut self) -> io::Result<()> {
        match self.format.segments && self.format.order == Order::ClassesObjectsRoots {
            true => self.flush(Section::Classes),
            false => Ok(()),
        }
    }

    /// Writes what is left; returns how many bytes the file has.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        let mut order = [Section::Classes, Section::Objects, Section::Roots];
        if self.format.order == Order::RootsObjectsClasses {
            order.reverse();
        }
        if self.format.segments {
            order.into_iter().try_for_each(|section| self.flush(section))?;
            self.record(0x2c, &[])?;
        } else {
            let body = order.map(|section| std::mem::take(&mut self.sections[section as usize]));
            self.record(0x0c, &body.concat())?;
        }
        self.file.flush()?;
        Ok(self.n_bytes)
    }
}

/// An id as it stands in the file.
pub(super) fn push_id(body: &mut Vec<u8>, id_bytes: usize, id: u64) {
    body.extend(&id.to_be_bytes()[8 - id_bytes..]);
}

fn too_long(_: std::num::TryFromIntError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "a record of more than 4 GiB")
}
