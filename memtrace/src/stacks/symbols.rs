//! Names of native functions.

use std::rc::Rc;

use blazesym::symbolize::{Input, Symbolizer, source};

use super::modules::Module;

/// Finds names in the symbol tables of the modules' own files.
pub(super) struct Symbols {
    symbolizer: Symbolizer,
}

impl Symbols {
    pub(super) fn new() -> Self {
        let symbolizer = Symbolizer::builder()
            .enable_auto_reload(false)
            .enable_code_info(false)
            .enable_inlined_fns(false)
            .enable_demangling(true)
            .build();
        Self { symbolizer }
    }

    /// The function at `address` of `module`, demangled, or `module+0x1a2b`.
    pub(super) fn name(&self, module: &Rc<Module>, address: u64) -> String {
        self.symbol(module, address).unwrap_or_else(|| format!("{}+{address:#x}", module.name))
    }

    fn symbol(&self, module: &Module, address: u64) -> Option<String> {
        let mut elf = source::Elf::new(module.path()?);
        elf.debug_syms = false;
        let found = self
            .symbolizer
            .symbolize_single(&source::Source::Elf(elf), Input::VirtOffset(address))
            .ok()?;
        found.into_sym().map(|symbol| symbol.name.into_owned())
    }
}

impl std::fmt::Debug for Symbols {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Symbols")
    }
}
