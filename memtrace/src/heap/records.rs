//! The outermost layer of a dump: its header and its records.
//!
//! In: the bytes of a file. Out: where the parts with objects lie, and the names that they refer to by number. The layout
//! is told by the comment at the top of HotSpot's `src/hotspot/share/services/heapDumper.cpp`.

use rustc_hash::FxHashMap;

use super::bytes::Bytes;

const STRING: u8 = 0x01;
const LOAD_CLASS: u8 = 0x02;
const FRAME: u8 = 0x04;
const TRACE: u8 = 0x05;
const HEAP_DUMP: u8 = 0x0c;
const HEAP_DUMP_SEGMENT: u8 = 0x1c;
const HEAP_DUMP_END: u8 = 0x2c;

/// What makes a file no heap dump.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoDump {
    /// It has no byte.
    #[error("the file is empty")]
    Empty,
    /// It begins with something else.
    #[error("the file is no heap dump: it does not begin with `JAVA PROFILE`")]
    Magic,
    /// Its header is cut.
    #[error("the file ends within the header of a heap dump")]
    Header,
    /// Identifiers are of another size.
    #[error("the heap dump has identifiers of {0} bytes, and only 4 and 8 are known")]
    IdBytes(u32),
    /// Objects are numbered with 32 bits.
    #[error("the heap dump has more than {0} {1}, which is more than can be told apart")]
    TooMany(u32, &'static str),
    /// The memory that may be taken is too little for who refers to whom.
    #[error("{0} bytes of memory are needed for anything but a histogram")]
    NoRoom(u64),
}

/// A range of bytes of the dump that holds objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) at: usize,
    pub(super) end: usize,
}

/// A place of the dump that holds a name.
#[derive(Clone, Copy, Debug)]
struct Text {
    at: usize,
    len: u32,
}

/// A method that a thread was in.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameRecord {
    pub(super) method: u64,
    pub(super) source: u64,
    pub(super) class_serial: u32,
    pub(super) line: i32,
}

/// The header and the records of a dump.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// What follows `JAVA PROFILE ` in the header.
    pub(super) version: String,
    pub(super) id_bytes: usize,
    pub(super) segments: Vec<Segment>,
    /// How many whole dumps the file holds: an old agent writes one for each signal.
    pub(super) n_dumps: u32,
    /// Whether the file ends before its dump does.
    pub(super) is_truncated: bool,
    /// Bytes that were read, up to where the file is cut or broken.
    pub(super) bytes_read: usize,
    texts: FxHashMap<u64, Text>,
    /// Class ids to the ids of their names.
    class_names: FxHashMap<u64, u64>,
    class_of_serial: FxHashMap<u32, u64>,
    pub(super) frames: FxHashMap<u64, FrameRecord>,
    /// Frames of a trace, by its serial number: offset and number.
    traces: FxHashMap<u32, (usize, u32)>,
}

impl Records {
    pub(super) fn read(dump: &[u8]) -> Result<Self, NoDump> {
        let (version, id_bytes, at) = header(dump)?;
        let mut records = Self { version, id_bytes, bytes_read: at, ..Self::default() };
        let mut bytes = Bytes::new(dump, at, dump.len(), id_bytes);
        let mut is_ended = false;
        while !bytes.is_at_end() {
            let Some((tag, length)) = record_header(&mut bytes) else {
                records.is_truncated = true;
                break;
            };
            is_ended = tag == HEAP_DUMP_END;
            if !records.record(dump, &mut bytes, tag, length) {
                records.is_truncated = true;
                break;
            }
            records.bytes_read = bytes.at();
        }
        // Segments are ended by a record of their own; a whole dump in one record is not.
        records.is_truncated |= !is_ended && records.has_segments_only();
        Ok(records)
    }

    fn has_segments_only(&self) -> bool {
        self.n_dumps == 0
    }

    /// Takes one record in; `false` where it is cut.
    fn record(&mut self, dump: &[u8], bytes: &mut Bytes<'_>, tag: u8, length: u32) -> bool {
        let at = bytes.at();
        let mut length = length as usize;
        if tag == HEAP_DUMP || tag == HEAP_DUMP_SEGMENT {
            length = whole_length(dump, at, length, tag, self.id_bytes);
            let end = at.saturating_add(length).min(dump.len());
            if tag == HEAP_DUMP {
                // Each is a whole dump. The last is the newest.
                self.segments.clear();
                self.n_dumps += 1;
            }
            self.segments.push(Segment { at, end });
        }
        if bytes.take(length).is_none() {
            self.bytes_read = dump.len();
            return false;
        }
        let mut body = Bytes::new(dump, at, at + length, self.id_bytes);
        // A record that is too short for what it should hold names nothing.
        match tag {
            STRING => self.string(&mut body, at + length),
            LOAD_CLASS => self.load_class(&mut body),
            FRAME => self.frame(&mut body),
            TRACE => self.trace(&mut body),
            _ => Some(()),
        };
        true
    }

    fn string(&mut self, body: &mut Bytes<'_>, end: usize) -> Option<()> {
        let id = body.id()?;
        let text = Text { at: body.at(), len: (end - body.at()) as u32 };
        self.texts.insert(id, text);
        Some(())
    }

    fn load_class(&mut self, body: &mut Bytes<'_>) -> Option<()> {
        let (serial, class, _trace, name) = (body.u32()?, body.id()?, body.u32()?, body.id()?);
        self.class_names.insert(class, name);
        self.class_of_serial.insert(serial, class);
        Some(())
    }

    fn frame(&mut self, body: &mut Bytes<'_>) -> Option<()> {
        let (id, method, _signature, source) = (body.id()?, body.id()?, body.id()?, body.id()?);
        let (class_serial, line) = (body.u32()?, body.u32()?.cast_signed());
        self.frames.insert(id, FrameRecord { method, source, class_serial, line });
        Some(())
    }

    fn trace(&mut self, body: &mut Bytes<'_>) -> Option<()> {
        let (serial, _thread, n_frames) = (body.u32()?, body.u32()?, body.u32()?);
        self.traces.insert(serial, (body.at(), n_frames));
        Some(())
    }

    /// The name with this id, as it is in the dump.
    pub(super) fn text<'d>(&self, dump: &'d [u8], id: u64) -> Option<&'d [u8]> {
        let text = self.texts.get(&id)?;
        dump.get(text.at..text.at + text.len as usize)
    }

    pub(super) fn class_name<'d>(&self, dump: &'d [u8], class: u64) -> Option<&'d [u8]> {
        self.text(dump, *self.class_names.get(&class)?)
    }

    pub(super) fn class_of_serial(&self, serial: u32) -> Option<u64> {
        self.class_of_serial.get(&serial).copied()
    }

    /// The ids of the frames of a trace, the innermost first, at most `max` of them.
    pub(super) fn trace_frames(&self, dump: &[u8], serial: u32, max: usize) -> Vec<u64> {
        let Some(&(at, n_frames)) = self.traces.get(&serial) else { return Vec::new() };
        let mut bytes = Bytes::new(dump, at, dump.len(), self.id_bytes);
        (0..max.min(n_frames as usize)).map_while(|_| bytes.id()).collect()
    }
}

/// Version, size of identifiers and where records begin.
fn header(dump: &[u8]) -> Result<(String, usize, usize), NoDump> {
    const MAGIC: &[u8] = b"JAVA PROFILE ";
    /// Room for a version.
    const MAX_VERSION: usize = 16;
    if dump.is_empty() {
        return Err(NoDump::Empty);
    }
    let n = dump.len().min(MAGIC.len());
    if dump[..n] != MAGIC[..n] {
        return Err(NoDump::Magic);
    }
    let version = dump.get(MAGIC.len()..).ok_or(NoDump::Header)?;
    let end = version.iter().take(MAX_VERSION).position(|&byte| byte == 0);
    let end = match end {
        Some(end) => end,
        None if version.len() < MAX_VERSION => return Err(NoDump::Header),
        None => return Err(NoDump::Magic),
    };
    let mut rest = Bytes::new(dump, MAGIC.len() + end + 1, dump.len(), 8);
    let id_bytes = rest.u32().ok_or(NoDump::Header)?;
    rest.u64().ok_or(NoDump::Header)?;
    match id_bytes {
        4 | 8 => {
            let version = String::from_utf8_lossy(&version[..end]).into_owned();
            Ok((version, id_bytes as usize, rest.at()))
        }
        other => Err(NoDump::IdBytes(other)),
    }
}

/// Tag and length of a record.
fn record_header(bytes: &mut Bytes<'_>) -> Option<(u8, u32)> {
    let (tag, _time, length) = (bytes.u8()?, bytes.u32()?, bytes.u32()?);
    Some((tag, length))
}

/// The length of a record with objects, which is more than it says where it has more than 4 GiB.
///
/// JDK 8 and before write the lower 32 bits (or, where they could not go back in the file, 0). What is right is followed
/// by a record or by the end of the file.
fn whole_length(dump: &[u8], at: usize, length: usize, tag: u8, id_bytes: usize) -> usize {
    let left = dump.len() - at;
    if tag == HEAP_DUMP && length == 0 {
        return left;
    }
    let wraps = (left.saturating_sub(length)) >> 32;
    for n in (0..=wraps).filter(|&n| n > 0 || tag == HEAP_DUMP) {
        let whole = length + (n << 32);
        if whole <= left && is_record_or_end(dump, at + whole, id_bytes) {
            return whole;
        }
        if tag == HEAP_DUMP_SEGMENT {
            break;
        }
    }
    length
}

fn is_record_or_end(dump: &[u8], at: usize, id_bytes: usize) -> bool {
    let mut bytes = Bytes::new(dump, at, dump.len(), id_bytes);
    if bytes.is_at_end() {
        return true;
    }
    // Times of the VM's are zero or small.
    let known = [STRING, LOAD_CLASS, 0x03, FRAME, TRACE, 0x06, 0x07, 0x0a, 0x0b, 0x0d, 0x0e];
    match record_header(&mut bytes) {
        Some((HEAP_DUMP | HEAP_DUMP_SEGMENT, _)) => true,
        Some((HEAP_DUMP_END, length)) => length == 0,
        Some((tag, length)) => known.contains(&tag) && bytes.take(length as usize).is_some(),
        None => false,
    }
}
