//! Which functions of a zlib are probed, where they lie in its file, and probing them.

use anyhow::{Context, Result};
use aya::programs::uprobe::UProbeScope;
use memtrace_common::Kind;
use object::{Object, ObjectSegment, ObjectSymbol};

use super::{
    Probes,
    call_sites::Functions,
    links::{self, Links},
    placement,
};
use crate::target::{
    Library,
    elf_parts::{self, Parts},
};

/// How a function is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Opens a stream: entry and return.
    Init,
    /// Opens a stream: where it calls zlib's own function with the stream's address.
    Opens,
    /// Ends a stream: entry.
    End,
}

/// A function to probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Site {
    pub(super) role: Role,
    pub(super) kind: Kind,
    /// Offset of the probed instruction in the file.
    pub(super) file_offset: u64,
}

/// What zlib's own function is called that a JNI function opens a stream with; the stream's address is its first
/// argument (java.base/share/native/libzip/Inflater.c and Deflater.c, from JDK 8 to 26).
fn opener(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::INFLATER_INIT => Some("inflateInit2_"),
        Kind::DEFLATER_INIT => Some("deflateInit2_"),
        _ => None,
    }
}

/// The JNI functions of `java.util.zip`, the same names from JDK 8 to 26.
const JNI: [(&str, Role, Kind); 4] = [
    ("Java_java_util_zip_Inflater_init", Role::Init, Kind::INFLATER_INIT),
    ("Java_java_util_zip_Inflater_end", Role::End, Kind::INFLATER_END),
    ("Java_java_util_zip_Deflater_init", Role::Init, Kind::DEFLATER_INIT),
    ("Java_java_util_zip_Deflater_end", Role::End, Kind::DEFLATER_END),
];

/// zlib's own functions. `inflateInit_` and `deflateInit_` call these.
const ZLIB: [(&str, Role, Kind); 4] = [
    ("inflateInit2_", Role::Init, Kind::INFLATE_INIT),
    ("inflateEnd", Role::End, Kind::INFLATE_END),
    ("deflateInit2_", Role::Init, Kind::DEFLATE_INIT),
    ("deflateEnd", Role::End, Kind::DEFLATE_END),
];

impl Probes {
    /// How many zlib functions of `library` could be probed; nothing is.
    pub fn zlib_functions(library: &Library) -> Result<usize> {
        sites(library, false).map(|sites| sites.len())
    }

    /// Probes the zlib functions of `library`, in every process that maps this file, once a file.
    ///
    /// Returns how many functions were probed; 0 where it was probed before, or where finding them has failed and the file
    /// is still the same. Attaching that failed can be tried again.
    pub fn attach_zlib(&mut self, library: &Library) -> Result<usize> {
        if self.probed.contains(&library.key()) {
            return Ok(0);
        }
        let version = library.version().context("failed to look at a library")?;
        if self.unreadable.contains(&version) {
            return Ok(0);
        }
        let sites = sites(library, self.options.zlib);
        let sites = sites.inspect_err(|_| {
            self.unreadable.insert(version);
        })?;
        let n_before = self.links.functions.len();
        for site in &sites {
            if let Err(error) = self.attach_site(library, site) {
                // Half a library would be counted twice when it is tried again.
                let functions = self.links.functions.split_off(n_before);
                links::drop_all(&mut self.ebpf, Links { functions, ..Links::default() });
                return Err(error);
            }
        }
        log::info!("probed {} functions of {}", sites.len(), library.name().display());
        self.probed.insert(library.key());
        Ok(sites.len())
    }

    fn attach_site(&mut self, library: &Library, site: &Site) -> Result<()> {
        let mut attach = |name| {
            let scope = UProbeScope::AllProcesses;
            self.attach_function(name, library, site.file_offset, site.kind.0.into(), scope)
        };
        match site.role {
            // The return first: an entry without its return would be a call that never ends.
            Role::Init => {
                attach("stream_init_return")?;
                attach("stream_init")
            }
            Role::Opens => attach("stream_opens"),
            Role::End => attach("stream_end"),
        }
    }
}

/// The functions of `library` that are probed: the JNI ones, and with `own` zlib's own.
pub(super) fn sites(library: &Library, own: bool) -> Result<Vec<Site>> {
    let path = library.name();
    let bytes = elf_parts::read(library.file(), Parts::Code)
        .with_context(|| format!("failed to read {}", path.display()))?;
    let elf = object::File::parse(&*bytes)
        .with_context(|| format!("failed to parse {}", path.display()))?;
    let functions = Functions::of(&elf)
        .with_context(|| format!("failed to find the functions of {}", path.display()))?;
    let wanted = JNI.iter().chain(if own { ZLIB.iter() } else { [].iter() });
    let site = |&(name, role, kind)| site(&elf, &functions, name, role, kind);
    Ok(wanted.filter_map(site).collect())
}

fn site(
    elf: &object::File<'_>,
    functions: &Functions<'_>,
    name: &str,
    role: Role,
    kind: Kind,
) -> Option<Site> {
    let symbol =
        elf.dynamic_symbols().find(|symbol| symbol.is_definition() && symbol.name() == Ok(name))?;
    let call = opener(kind).and_then(|callee| functions.only_call(&symbol, callee));
    let (role, address) = match call {
        Some(call_address) => (Role::Opens, call_address),
        None => (role, entry_place(functions, &symbol)),
    };
    Some(Site { role, kind, file_offset: file_offset(elf, address)? })
}

/// Where entries of a function are best probed.
fn entry_place<'a>(functions: &Functions<'_>, symbol: &impl ObjectSymbol<'a>) -> u64 {
    let entry = symbol.address();
    functions.code_of(symbol).map_or(entry, |code| placement::of_entry(code, entry))
}

/// Where the code at `address` lies in the file.
pub(super) fn file_offset(elf: &object::File<'_>, address: u64) -> Option<u64> {
    elf.segments().find_map(|segment| {
        let offset = address.checked_sub(segment.address())?;
        let (start, len) = segment.file_range();
        start.checked_add(offset).filter(|_| offset < len)
    })
}
