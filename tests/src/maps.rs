//! What the kernel lists as mapped.

use std::fs;

/// Bytes of process `pid` that can be accessed at all.
pub fn accessible_bytes(pid: u32) -> u64 {
    let list = fs::read_to_string(format!("/proc/{pid}/maps")).expect("the process is alive");
    list.lines().map(accessible_of_line).sum()
}

/// The bytes of one line of the list. The vsyscall page is the kernel's, not the process's.
fn accessible_of_line(line: &str) -> u64 {
    let mut words = line.split_whitespace();
    let (range, access) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if access.starts_with("---") || line.ends_with("[vsyscall]") {
        return 0;
    }
    let hex = |text| u64::from_str_radix(text, 16).expect("the kernel prints addresses");
    let (start, end) = range.split_once('-').expect("the kernel prints ranges");
    hex(end) - hex(start)
}

#[cfg(test)]
mod tests {
    use super::accessible_of_line;

    /// Access of any kind counts, none does not.
    #[test]
    fn lines() {
        // (line of the list, accessible bytes)
        let cases = [
            ("7f00-8000 rw-p 00000000 00:00 0", 0x100),
            ("7f0000-7f1000 r--p 00001000 fe:01 7 /a file", 0x1000),
            ("7f0000-7f1000 ---p 00001000 fe:01 7 /lib/x.so", 0),
            ("ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]", 0),
        ];
        for (line, bytes) in cases {
            assert_eq!(accessible_of_line(line), bytes, "{line}");
        }
    }
}
