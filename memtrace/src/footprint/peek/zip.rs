//! Members of zip files (jars, too): the headers that stand before each of them and in the directory at the end.
//!
//! Source facts: PKWARE's APPNOTE, 4.3.7 and 4.3.12.

/// Bytes of a local header and of one in the directory, without names.
const LOCAL_BYTES: usize = 30;
const CENTRAL_BYTES: usize = 46;
/// The highest version that anyone needs (6.3), and the longest name that is believed.
const MAX_VERSION: u16 = 63;
const MAX_NAME_BYTES: usize = 1024;

/// The name of the first member of which a header stands in `bytes`.
pub(super) fn member(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes;
    while let Some(at) = rest.windows(2).position(|window| window == b"PK") {
        rest = &rest[at..];
        let name = match rest.get(2..4) {
            Some([3, 4]) => name(rest, LOCAL_BYTES, 4, 26),
            Some([1, 2]) => name(rest, CENTRAL_BYTES, 6, 28),
            _ => None,
        };
        if name.is_some() {
            return name;
        }
        rest = &rest[2..];
    }
    None
}

/// The name behind a header of `len` bytes, with the version it needs at `version` and the name's length at `name_len`.
fn name(header: &[u8], len: usize, version: usize, name_len: usize) -> Option<&[u8]> {
    let half = |at: usize| Some(u16::from_le_bytes([*header.get(at)?, *header.get(at + 1)?]));
    // Stored, or one of the ways of packing that were ever given a number.
    let is_method = matches!(half(version + 4)?, 0 | 8 | 9 | 12 | 14 | 93 | 95);
    let is_plausible = half(version)? & 0xff <= MAX_VERSION && is_method;
    let n = usize::from(half(name_len)?);
    let name = header.get(len..(len + n).min(header.len()))?;
    let is_name = (1..=MAX_NAME_BYTES).contains(&n) && name.iter().all(|&byte| byte >= b' ');
    (is_plausible && is_name && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(name: &[u8]) -> Vec<u8> {
        let mut header = vec![0; LOCAL_BYTES];
        header[..10].copy_from_slice(&[b'P', b'K', 3, 4, 20, 0, 0, 8, 8, 0]);
        header[26..28].copy_from_slice(&(name.len() as u16).to_le_bytes());
        [&header, name].concat()
    }

    /// A header anywhere, of a member or in the directory; what only looks like one is none.
    #[test]
    fn headers() {
        let mut central = vec![0; CENTRAL_BYTES];
        central[..12].copy_from_slice(&[b'P', b'K', 1, 2, 20, 3, 20, 0, 0, 8, 8, 0]);
        central[28] = 3;
        central.extend(b"a/b and more");
        let mut other = local(b"x");
        other[8] = 77;
        // (bytes, name)
        type Name = Option<&'static [u8]>;
        let cases: [(&str, Vec<u8>, Name); 7] = [
            ("a member", local(b"META-INF/MANIFEST.MF"), Some(b"META-INF/MANIFEST.MF")),
            ("behind others", [&b"PKPK\x03PK"[..], &local(b"x.class")].concat(), Some(b"x.class")),
            ("in the directory", central, Some(b"a/b")),
            ("cut in its name", local(b"abcdef")[..33].to_vec(), Some(b"abc")),
            ("cut before it", local(b"abcdef")[..30].to_vec(), None),
            ("another method", other, None),
            ("a name with controls", local(b"a\x1b"), None),
        ];
        for (what, bytes, want) in cases {
            assert_eq!(member(&bytes), want, "{what}");
        }
        assert_eq!(member(b"PK"), None);
        assert_eq!(member(&b"PK\x03\x04".repeat(1024)), None);
    }
}
