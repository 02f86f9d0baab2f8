//! What a JVM says of itself: its release and its flags.
//!
//! Both are read from the VM's memory by its tables. Flags have kept their values there on every release, so what was
//! typed, what an environment variable added and what the VM decided itself all look the same.

use super::{
    memory::Memory,
    vm_structs::{TablesError, VmStructs},
};

/// Flags that are looked at; JDK 25 has about 1,400.
const MAX_FLAGS: u64 = 8192;

/// A JVM's release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// The feature release: 8, 11, 17. `None` where the VM does not tell.
    pub feature: Option<u32>,
    /// The VM's own version, as `17.0.15+6-Debian-1` or `25.504-b01`.
    pub vm: String,
}

impl Release {
    /// Reads the release.
    #[must_use]
    pub fn read(memory: &dyn Memory, structs: &VmStructs) -> Self {
        let byte = |name: &str| structs.address(name).and_then(|address| memory.u8(address).ok());
        let number =
            |name: &str| structs.address(name).and_then(|address| memory.u32(address).ok());
        // JDK_Version is gone from the tables since JDK 22; before, the VM's major number may be HotSpot's own.
        let feature = match byte("JDK_Version::_current") {
            Some(feature) => Some(u32::from(feature)),
            None => number("Abstract_VM_Version::_vm_major_version"),
        };
        let vm = structs
            .address("Abstract_VM_Version::_s_vm_release")
            .and_then(|address| memory.text(memory.u64(address).ok()?).ok());
        let vm = String::from_utf8_lossy(&vm.unwrap_or_default()).into_owned();
        Self { feature: feature.filter(|feature| (5..1000).contains(feature)), vm }
    }
}

/// Where a JVM's flags have their values.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// Name and address of the value.
    flags: Vec<(Box<[u8]>, u64)>,
}

impl Flags {
    /// Reads the names of all flags.
    pub fn read(memory: &dyn Memory, structs: &VmStructs) -> Result<Self, TablesError> {
        let kind = if structs.size("JVMFlag").is_some() { "JVMFlag" } else { "Flag" };
        let member = |name: &str| format!("{kind}::{name}");
        let stride = structs.need_size(kind)?;
        let name = structs.need_offset(&[&member("_name"), &member("name")])?;
        let place = structs.need_offset(&[&member("_addr"), &member("addr")])?;
        let first = memory.u64(structs.need_address(&[&member("flags")])?)?;
        let n_flags = memory.u64(structs.need_address(&[&member("numFlags")])?)?.min(MAX_FLAGS);
        let mut flags = Vec::new();
        for n in 0..n_flags {
            let flag = first.wrapping_add(n * stride);
            let text = memory.u64(flag.wrapping_add(name))?;
            // The last one has neither.
            if text != 0 {
                let value = memory.u64(flag.wrapping_add(place))?;
                flags.push((memory.text(text)?.into(), value));
            }
        }
        Ok(Self { flags })
    }

    /// Whether there are any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flags.is_empty()
    }

    /// Whether the flag `name` is on; `None` when this JVM has no such flag.
    #[must_use]
    pub fn is_on(&self, memory: &dyn Memory, name: &str) -> Option<bool> {
        memory.u8(self.place(name)?).ok().map(|value| value != 0)
    }

    /// The value of the 64-bit flag `name`; `None` when this JVM has no such flag.
    #[must_use]
    pub fn number(&self, memory: &dyn Memory, name: &str) -> Option<u64> {
        memory.u64(self.place(name)?).ok()
    }

    fn place(&self, name: &str) -> Option<u64> {
        self.flags.iter().find(|(known, _)| **known == *name.as_bytes()).map(|&(_, place)| place)
    }
}
