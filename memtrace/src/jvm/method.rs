//! Methods: class, name, source file, lines.
//!
//! `Method` → `ConstMethod` → `ConstantPool` → `Symbol`, each checked on the way. A class may be unloaded while it is
//! read; what then comes of a chain is an error, or a name that [`MethodReader::is_same`] refuses later.

use super::{
    memory::{Memory, Unreadable},
    symbol::SymbolLayout,
    unsigned5::{Base, Numbers},
    vm_structs::{TablesError, VmStructs},
};

/// `JVM_ACC_NATIVE`.
const NATIVE: u32 = 0x0100;
/// Bytes of a line table that are read.
const MAX_LINE_BYTES: usize = 64 << 10;

/// What is known of a method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Method {
    /// With dots, as Java prints it.
    pub(super) class: Box<str>,
    pub(super) name: Box<str>,
    pub(super) file: Option<Box<str>>,
    pub(super) is_native: bool,
    /// Where the method's parts are: what tells it from another one at the same place.
    pub(super) identity: Identity,
    /// The address of its first bytecode.
    pub(super) code: u64,
    lines: Box<[u8]>,
    base: Base,
}

/// What tells a method from a later one at the same address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    const_method: u64,
    constants: u64,
    pub(super) code_size: u16,
    name_index: u16,
}

impl Method {
    /// Bytes that it takes.
    pub(super) fn size_bytes(&self) -> usize {
        let texts = self.class.len() + self.name.len() + self.file.as_ref().map_or(0, |f| f.len());
        size_of::<Self>() + texts + self.lines.len()
    }

    /// The line of the instruction at `bci`.
    pub(super) fn line(&self, bci: u32) -> Option<u32> {
        let mut numbers = Numbers::new(&self.lines, self.base);
        let (mut at, mut line) = (0_i64, 0_i64);
        let mut best: Option<(i64, i64)> = None;
        while let Some(byte) = numbers.byte().filter(|&byte| byte != 0) {
            if byte == 0xff {
                at += i64::from(numbers.next_signed()?);
                line += i64::from(numbers.next_signed()?);
            } else {
                at += i64::from(byte >> 3);
                line += i64::from(byte & 7);
            }
            // The table need not be sorted: the nearest entry before counts.
            if at == i64::from(bci) {
                return u32::try_from(line).ok();
            }
            if at < i64::from(bci) && best.is_none_or(|(best, _)| at >= best) {
                best = Some((at, line));
            }
        }
        best.and_then(|(_, line)| u32::try_from(line).ok())
    }
}

/// How this JVM's methods look.
#[derive(Clone, Debug)]
pub(super) struct MethodReader {
    symbols: SymbolLayout,
    const_method: u64,
    access_flags: u64,
    constants: u64,
    code_size: u64,
    name_index: u64,
    flags: u64,
    const_method_size: u64,
    pool_size: u64,
    pool_length: u64,
    pool_holder: u64,
    source_file: SourceFile,
    klass_name: u64,
    has_line_table: u64,
    base: Base,
}

#[derive(Clone, Copy, Debug)]
enum SourceFile {
    InPool(u64),
    InKlass(u64),
}

impl MethodReader {
    /// `feature` is the JVM's feature release, which alone tells how numbers are packed.
    pub(super) fn of(structs: &VmStructs, feature: Option<u32>) -> Result<Self, TablesError> {
        let need = |names: &[&str]| structs.need_offset(names);
        let source_file = match structs.offset("ConstantPool::_source_file_name_index") {
            Some(offset) => SourceFile::InPool(offset),
            None => SourceFile::InKlass(need(&["InstanceKlass::_source_file_name_index"])?),
        };
        let has_line_table = structs
            .constant("ConstMethod::_has_linenumber_table")
            .or(structs.constant("ConstMethodFlags::_misc_has_linenumber_table"));
        Ok(Self {
            symbols: SymbolLayout::of(structs)?,
            const_method: need(&["Method::_constMethod"])?,
            access_flags: need(&["Method::_access_flags"])?,
            constants: need(&["ConstMethod::_constants"])?,
            code_size: need(&["ConstMethod::_code_size"])?,
            name_index: need(&["ConstMethod::_name_index"])?,
            flags: need(&["ConstMethod::_flags._flags", "ConstMethod::_flags"])?,
            const_method_size: structs.need_size("ConstMethod")?,
            pool_size: structs.need_size("ConstantPool")?,
            pool_length: need(&["ConstantPool::_length"])?,
            pool_holder: need(&["ConstantPool::_pool_holder"])?,
            source_file,
            klass_name: need(&["Klass::_name"])?,
            has_line_table: has_line_table.unwrap_or(1),
            base: if feature.is_some_and(|feature| feature < 20) { Base::Zero } else { Base::One },
        })
    }

    /// What identifies the method at `address` now.
    pub(super) fn identity(
        &self,
        memory: &dyn Memory,
        address: u64,
    ) -> Result<Identity, Unreadable> {
        let const_method = memory.u64(address.wrapping_add(self.const_method))?;
        Ok(Identity {
            const_method,
            constants: memory.u64(const_method.wrapping_add(self.constants))?,
            code_size: memory.u16(const_method.wrapping_add(self.code_size))?,
            name_index: memory.u16(const_method.wrapping_add(self.name_index))?,
        })
    }

    /// The method at `address`; `None` when none can be there.
    pub(super) fn read(
        &self,
        memory: &dyn Memory,
        address: u64,
    ) -> Result<Option<Method>, Unreadable> {
        let identity = self.identity(memory, address)?;
        let Identity { const_method, constants, code_size, name_index } = identity;
        let length = memory.u32(constants.wrapping_add(self.pool_length))?;
        if (address | const_method | constants) & 7 != 0 || u32::from(name_index) >= length {
            return Ok(None);
        }
        let name = self.pool_text(memory, constants, name_index)?;
        let klass = memory.u64(constants.wrapping_add(self.pool_holder))?;
        let class = self.symbols.text(memory, memory.u64(klass.wrapping_add(self.klass_name))?)?;
        let file = match self.source_file {
            SourceFile::InPool(offset) => memory.u16(constants.wrapping_add(offset))?,
            SourceFile::InKlass(offset) => memory.u16(klass.wrapping_add(offset))?,
        };
        let file = match file {
            0 => None,
            index if u32::from(index) >= length => return Ok(None),
            index => Some(self.pool_text(memory, constants, index)?.into()),
        };
        let code = const_method.wrapping_add(self.const_method_size);
        let access = memory.u32(address.wrapping_add(self.access_flags))?;
        Ok(Some(Method {
            class: external_name(&class).into(),
            name: name.into(),
            file,
            is_native: access & NATIVE != 0,
            identity,
            code,
            lines: self.lines(memory, const_method, code.wrapping_add(u64::from(code_size)))?,
            base: self.base,
        }))
    }

    /// The packed line table that begins at `start`, up to its end or as far as it can be read.
    fn lines(
        &self,
        memory: &dyn Memory,
        const_method: u64,
        start: u64,
    ) -> Result<Box<[u8]>, Unreadable> {
        let flags = memory.u16(const_method.wrapping_add(self.flags))?;
        let mut table = Vec::new();
        if u64::from(flags) & self.has_line_table == 0 {
            return Ok(table.into());
        }
        let mut byte = memory.u8(start)?;
        while byte != 0 && table.len() < MAX_LINE_BYTES {
            table.push(byte);
            let n_numbers = if byte == 0xff { 2 } else { 0 };
            for _ in 0..n_numbers {
                for n in 0..5 {
                    byte = memory.u8(start.wrapping_add(table.len() as u64))?;
                    table.push(byte);
                    if byte < 192 || n == 4 {
                        break;
                    }
                }
            }
            byte = memory.u8(start.wrapping_add(table.len() as u64))?;
        }
        Ok(table.into())
    }

    fn pool_text(&self, memory: &dyn Memory, pool: u64, index: u16) -> Result<String, Unreadable> {
        let entry = pool.wrapping_add(self.pool_size + 8 * u64::from(index));
        self.symbols.text(memory, memory.u64(entry)? & !1)
    }
}

/// A class's name as Java prints it: dots for slashes, but a slash before the address of a hidden class.
fn external_name(internal: &str) -> String {
    let name = internal.replace('/', ".");
    match name.rfind("+0x") {
        Some(at) if name[at + 3..].bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            format!("{}/{}", &name[..at], &name[at + 1..])
        }
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        // (internal, as Java prints it)
        let cases = [
            ("java/lang/Thread", "java.lang.Thread"),
            ("App$$Lambda+0x00007f1234", "App$$Lambda/0x00007f1234"),
            ("a/B+0xyz", "a.B+0xyz"),
        ];
        for (internal, external) in cases {
            assert_eq!(external_name(internal), external);
        }
    }

    /// Entries of both forms, sorted and not.
    #[test]
    fn lines() {
        let method = |lines: &[u8]| Method {
            class: "A".into(),
            name: "a".into(),
            file: None,
            is_native: false,
            identity: Identity { const_method: 0, constants: 0, code_size: 0, name_index: 0 },
            code: 0,
            lines: lines.into(),
            base: Base::Zero,
        };
        // (0, 160) by the long form, (5, 161), (9, 163), then back to (7, 150).
        let table = [0xff, 0, 192, 2, 5 << 3 | 1, 4 << 3 | 2, 0xff, 3, 25, 0, 77];
        // (bci, line)
        for (bci, line) in
            [(0, 160), (4, 160), (5, 161), (6, 161), (7, 150), (8, 150), (9, 163), (99, 163)]
        {
            assert_eq!(method(&table).line(bci), Some(line), "{bci}");
        }
        assert_eq!(method(&[]).line(0), None);
        assert_eq!(method(&[0xff, 0]).line(0), None);
    }
}
