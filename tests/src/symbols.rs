//! What the symbol tables of a file say about an address, read apart from memtrace.

use std::{collections::BTreeSet, fs, path::Path};

use object::{Object, ObjectSegment, ObjectSymbol, SymbolKind};

/// The functions and segments of one ELF file.
#[derive(Debug)]
pub struct Symbols {
    functions: Vec<Function>,
    segments: Vec<Segment>,
}

#[derive(Debug)]
struct Function {
    start: u64,
    size: u64,
    name: String,
}

#[derive(Debug)]
struct Segment {
    file_offset: u64,
    size: u64,
    address: u64,
}

impl Symbols {
    /// Reads the tables of the file at `path`.
    pub fn of(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let file = object::File::parse(&*bytes);
        let file = file.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut functions = Vec::new();
        for symbol in file.symbols().chain(file.dynamic_symbols()) {
            if symbol.kind() == SymbolKind::Text && symbol.is_definition() {
                let name = symbol.name().unwrap_or_default();
                // The version that a dynamic symbol carries is no part of its name.
                let name = name.split('@').next().unwrap_or_default().to_owned();
                functions.push(Function { start: symbol.address(), size: symbol.size(), name });
            }
        }
        let segment = |segment: object::Segment<'_, '_>| {
            let (file_offset, size) = segment.file_range();
            Segment { file_offset, size, address: segment.address() }
        };
        let segments = file.segments().map(segment).collect();
        Self { functions, segments }
    }

    /// The address, as the file counts them, of what lies at `file_offset` in it.
    pub fn address(&self, file_offset: u64) -> Option<u64> {
        let holds = |segment: &&Segment| {
            (segment.file_offset..segment.file_offset + segment.size).contains(&file_offset)
        };
        let segment = self.segments.iter().find(holds)?;
        Some(file_offset - segment.file_offset + segment.address)
    }

    /// Every name of the function at `address`.
    pub fn names(&self, address: u64) -> BTreeSet<&str> {
        let holds = |function: &&Function| {
            (function.start..function.start + function.size.max(1)).contains(&address)
        };
        self.functions.iter().filter(holds).map(|function| function.name.as_str()).collect()
    }
}
