//! `memtrace heap` of dumps that are packed, or come through a pipe: the same answer as of the plain file.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use flate2::{Compression, GzBuilder, write::GzEncoder};
use memtrace_tests::{
    heap_dump::{HeapDump, HeapReport, heap},
    hprof::Format,
    java::system_jdk,
    memtrace::{Memtrace, program},
    skip::skip,
    subject::Subject,
};
use tempfile::TempDir;

const BLOCK_BYTES: usize = 1 << 20;

/// gzip as HotSpot writes it: a member for each block, the first with a comment.
fn gzip_blocks(plain: &[u8]) -> Vec<u8> {
    let member = |(n, block): (usize, &[u8])| {
        let mut builder = GzBuilder::new();
        if n == 0 {
            builder = builder.comment(format!("HPROF BLOCKSIZE={BLOCK_BYTES}"));
        }
        let mut encoder = builder.write(Vec::new(), Compression::fast());
        encoder.write_all(block).expect("memory can be written");
        encoder.finish().expect("memory can be written")
    };
    plain.chunks(BLOCK_BYTES).enumerate().flat_map(member).collect()
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).expect("memory can be written");
    encoder.finish().expect("memory can be written")
}

fn xz(plain: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(plain).expect("memory can be written");
    encoder.finish().expect("memory can be written")
}

fn zstd(plain: &[u8]) -> Vec<u8> {
    zstd::encode_all(plain, 1).expect("memory can be written")
}

type Pack = fn(&[u8]) -> Vec<u8>;
const PACKINGS: [(&str, Pack); 4] =
    [("gzip", gzip), ("gzip blocks", gzip_blocks), ("xz", xz), ("zstd", zstd)];

fn written(folder: &TempDir, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join("packed");
    fs::write(&path, bytes).expect("the temporary folder is writable");
    path
}

/// What memtrace says of a dump that reaches it through a pipe.
fn piped(bytes: &[u8], temporary: &Path) -> (Option<i32>, String, String) {
    let mut memtrace = Command::new(program())
        .args(["heap", "-", "--json", "-"])
        .env("TMPDIR", temporary)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("memtrace starts");
    let mut stdin = memtrace.stdin.take().expect("it is a pipe");
    std::thread::scope(|scope| {
        // It may refuse to read all of it.
        scope.spawn(move || stdin.write_all(bytes).ok());
        let outcome = memtrace.wait_with_output().expect("it is our child");
        let text = |bytes| String::from_utf8(bytes).expect("it prints UTF-8");
        (outcome.status.code(), text(outcome.stdout), text(outcome.stderr))
    })
}

/// All of an answer but how many bytes the file has.
fn answer(json: &str) -> (u64, u64, String) {
    let report = HeapReport::parse(json);
    let classes = format!("{:?}", report.histogram());
    (report.total("objects"), report.total("shallow_bytes"), classes)
}

/// Packed, or through a pipe, it is the same dump, and nothing is left behind.
#[test]
fn same_answer() {
    let (dump, truth) = HeapDump::made_up(Format::JDK_17, 200_000);
    let plain = fs::read(dump.path()).unwrap();
    assert!(plain.len() > 4 * BLOCK_BYTES, "{}", plain.len());
    let want = answer(&heap(&[], &dump.path()).stdout);
    assert!(want.0 > 0 && truth.n_objects <= want.0, "{want:?}");
    let (folder, temporary) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let none: (&str, Pack) = ("plain", <[u8]>::to_vec);
    for (name, pack) in PACKINGS.into_iter().chain([none]) {
        let packed = pack(&plain);
        let file = written(&folder, &packed);
        let mut memtrace = Memtrace::new();
        memtrace.raw().env("TMPDIR", temporary.path());
        let outcome = memtrace.arg("heap").arg(&file).args(["--json", "-"]).run();
        assert_eq!(outcome.code(), Some(0), "{name}: {}", outcome.stderr);
        assert_eq!(answer(&outcome.stdout), want, "{name}");
        let says = outcome.stderr.contains("temporary file in");
        assert_eq!(says, name != "plain", "{name}: {}", outcome.stderr);
        let (code, stdout, stderr) = piped(&packed, temporary.path());
        assert_eq!((code, answer(&stdout)), (Some(0), want.clone()), "{name}: {stderr}");
        assert!(stderr.contains("temporary file in"), "{name}: {stderr}");
    }
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
}

/// What a JVM packs itself.
#[test]
fn of_a_jvm() {
    let mut subject = Subject::ready_java(&system_jdk(), &["-Xmx64m"], "Crowd", &["3"]);
    subject.finish();
    let folder = TempDir::with_prefix_in("memtrace-heap-", "/tmp").unwrap();
    let file = folder.path().join("dump.hprof.gz");
    let path = file.to_str().unwrap();
    let Some(_) = memtrace_tests::heap_app::jcmd(subject.pid(), &["GC.heap_dump", "-gz=1", path])
    else {
        return skip("heap_packed::of_a_jvm", "jcmd can't talk to the JVM");
    };
    let outcome = heap(&[], &file);
    assert_eq!(outcome.code(), Some(0), "{}", outcome.stderr);
    let mut plain = Vec::new();
    let packed = fs::File::open(&file).unwrap();
    flate2::read::MultiGzDecoder::new(packed).read_to_end(&mut plain).unwrap();
    let plain = HeapDump::of_bytes(&plain);
    assert_eq!(answer(&outcome.stdout), answer(&heap(&[], &plain.path()).stdout));
}

/// Of a file that is cut, or damaged, what can be unpacked is told of, with a status of its own; nothing panics.
#[test]
fn cut_and_damaged() {
    let (dump, _) = HeapDump::made_up(Format::JDK_17, 100_000);
    let plain = fs::read(dump.path()).unwrap();
    let folder = TempDir::new().unwrap();
    for (name, pack) in PACKINGS {
        let packed = pack(&plain);
        let file = written(&folder, &packed[..packed.len() * 2 / 3]);
        let outcome = heap(&[], &file);
        assert_eq!(outcome.code(), Some(3), "{name}: {}", outcome.stderr);
        assert!(HeapReport::parse(&outcome.stdout).total("objects") > 0, "{name}");
        assert!(outcome.stderr.contains("was unpacked in part"), "{name}: {}", outcome.stderr);
        let mut damaged = packed.clone();
        let middle = damaged.len() / 2;
        damaged[middle..middle + 8].iter_mut().for_each(|byte| *byte ^= 0x55);
        let outcome = heap(&[], &written(&folder, &damaged));
        assert_eq!(outcome.code(), Some(3), "damaged {name}: {}", outcome.stderr);
        for n in [3, 6, 12, 20, 40] {
            let outcome = heap(&[], &written(&folder, &packed[..n]));
            assert_eq!(outcome.code(), Some(2), "{n} bytes of {name}: {}", outcome.stderr);
            assert!(!outcome.stderr.contains("panicked"), "{name}: {}", outcome.stderr);
        }
    }
    // Packed, and no dump at all; and more behind its end.
    let outcome = heap(&[], &written(&folder, &gzip(b"no dump")));
    assert_eq!(outcome.code(), Some(2), "{}", outcome.stderr);
}

/// What unpacks to more than there is room for is refused, and leaves the room as it was.
#[test]
fn bomb() {
    let bomb = gzip(&vec![0; 64 << 20]);
    let folder = TempDir::new().unwrap();
    let file = written(&folder, &bomb);
    let room = TempDir::new().unwrap();
    let path = room.path().to_str().unwrap();
    let mut memtrace = Memtrace::with_mounts("mount -t tmpfs -o size=8m small \"$1\"", path);
    memtrace.raw().env("TMPDIR", path);
    let outcome = memtrace.arg("heap").arg(&file).run();
    assert_eq!(outcome.code(), Some(2), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("no more are free for it in"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("hint: TMPDIR"), "{}", outcome.stderr);
}
