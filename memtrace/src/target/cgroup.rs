//! The control group that a process's memory is charged to: its limit, and what it is charged.
//!
//! In: a pid. Out: numbers as the kernel has them, of version 1 or 2 of the interface. Hosts may have both mounted: the
//! one with the memory controller counts. Files that are hidden (a container sees no group but its own) make it unknown.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::proc;

/// Where a limit is none (`PAGE_COUNTER_MAX` in bytes, mm/memcontrol-v1.c).
const NO_LIMIT: u64 = 1 << 62;
/// Groups above a group; the kernel allows as many as it is told to.
const MAX_DEPTH: usize = 256;

/// Numbers of `memory.stat` that tell usage and resident bytes apart, by version.
const PARTS_1: [&str; 5] =
    ["total_rss", "total_cache", "total_mapped_file", "total_inactive_file", "total_shmem"];
const PARTS_2: [&str; 11] = [
    "anon",
    "file",
    "kernel",
    "kernel_stack",
    "pagetables",
    "slab",
    "sock",
    "shmem",
    "file_mapped",
    "inactive_file",
    "percpu",
];

/// The container that a process is in, as the kernel has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Version of the interface, 1 or 2.
    pub version: u8,
    /// The limit, the lowest of the group and all above; `None` where there is none.
    pub limit_bytes: Option<u64>,
    /// What it is charged.
    pub usage_bytes: u64,
    /// Its parts by the kernel's names, those that tell usage and RSS apart.
    pub parts: Vec<(String, u64)>,
}

/// A group, found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    version: u8,
    /// Where the hierarchy is mounted.
    mount: PathBuf,
    /// Its folder.
    folder: PathBuf,
}

/// The container of process `pid`; `None` where nothing counts memory for it.
///
/// # Errors
///
/// Where its files can't be read.
pub fn container(pid: u32) -> io::Result<Option<Container>> {
    let groups = proc::text(pid, "cgroup");
    let mounts = proc::text_of(Path::new("/proc/self/mountinfo"));
    match find(&groups, &mounts) {
        Some(group) => read(&group),
        None => Ok(None),
    }
}

/// The group whose memory controller a process with these lines of `/proc/PID/cgroup` is charged to.
fn find(groups: &str, mounts: &str) -> Option<Group> {
    let lines = || groups.lines().filter_map(group_line);
    let of_version_1 = lines()
        .find(|(controllers, _)| controllers.split(',').any(|name| name == "memory"))
        .and_then(|(_, path)| place(path, mounts, "cgroup", Some("memory")).map(|at| (1, at)));
    let of_version_2 = || {
        let (_, path) = lines().find(|(controllers, _)| controllers.is_empty())?;
        place(path, mounts, "cgroup2", None).map(|at| (2, at))
    };
    let (version, (mount, folder)) = of_version_1.or_else(of_version_2)?;
    Some(Group { version, mount, folder })
}

/// `4:memory:/path` and `0::/path`.
fn group_line(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.split_once(':')?;
    rest.split_once(':')
}

/// Where the group `path` is found below a mount of this kind that has `controller`: mount point and folder.
fn place(
    path: &str,
    mounts: &str,
    kind: &str,
    controller: Option<&str>,
) -> Option<(PathBuf, PathBuf)> {
    mounts.lines().find_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        let mut source = source.split(' ');
        let is_kind = source.next() == Some(kind);
        let options = source.next_back().unwrap_or_default();
        let has = controller.is_none_or(|name| options.split(',').any(|option| option == name));
        let mut mount = mount.split(' ').skip(3);
        let (root, point) = (mount.next()?, mount.next()?);
        // What is mounted may be a group's own folder; a group outside of it has no place there.
        let below = if root == "/" { path } else { path.strip_prefix(root)? };
        let is_below = (below.is_empty() || below.starts_with('/')) && !below.contains("/..");
        let folder = Path::new(point).join(below.trim_start_matches('/'));
        (is_kind && has && is_below).then(|| (PathBuf::from(point), folder))
    })
}

fn read(group: &Group) -> io::Result<Option<Container>> {
    if group.version == 1 {
        return read_1(&group.folder).map(Some);
    }
    match number(&group.folder.join("memory.current")) {
        // The uppermost group has none, and no limit.
        Err(error) if error.kind() == io::ErrorKind::NotFound && group.folder.is_dir() => Ok(None),
        usage => read_2(group, usage?).map(Some),
    }
}

fn read_1(folder: &Path) -> io::Result<Container> {
    let usage_bytes = number(&folder.join("memory.usage_in_bytes"))?;
    let stat = fs::read_to_string(folder.join("memory.stat"))?;
    let limit = stat_number(&stat, "hierarchical_memory_limit");
    let mut parts = parts(&stat, &PARTS_1);
    let kernel = number(&folder.join("memory.kmem.usage_in_bytes")).ok();
    parts.extend(kernel.map(|bytes| ("kernel".to_owned(), bytes)));
    let limit_bytes = limit.filter(|&limit| limit < NO_LIMIT);
    Ok(Container { version: 1, limit_bytes, usage_bytes, parts })
}

fn read_2(group: &Group, usage_bytes: u64) -> io::Result<Container> {
    let stat = fs::read_to_string(group.folder.join("memory.stat"))?;
    let above = group.folder.ancestors().take_while(|folder| folder.starts_with(&group.mount));
    // A group without a limit says `max`, the uppermost one says nothing.
    let limits = above.take(MAX_DEPTH).filter_map(|folder| number(&folder.join("memory.max")).ok());
    let limit_bytes = limits.min();
    Ok(Container { version: 2, limit_bytes, usage_bytes, parts: parts(&stat, &PARTS_2) })
}

fn parts(stat: &str, names: &[&str]) -> Vec<(String, u64)> {
    let found = names.iter().filter_map(|&name| Some((name.to_owned(), stat_number(stat, name)?)));
    found.collect()
}

fn stat_number(stat: &str, name: &str) -> Option<u64> {
    let mut lines = stat.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(key, _)| *key == name)?.1.trim().parse().ok()
}

fn number(path: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    text.trim().parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const SECOND: &str = "\
30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
";
    const BOUND: &str = "\
30 23 0:26 /docker/abc /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw
";

    /// Hosts with both versions, with the second one only, and a container that sees its own group.
    #[test]
    fn groups() {
        // (/proc/PID/cgroup, mountinfo, version and folder)
        type Case = (&'static str, &'static str, Option<(u8, &'static str)>);
        let cases: [Case; 8] = [
            ("4:memory:/a/b\n1:cpu:/\n0::/", BOTH, Some((1, "/sys/fs/cgroup/memory/a/b"))),
            ("4:cpu,memory:/\n0::/x", BOTH, Some((1, "/sys/fs/cgroup/memory/"))),
            (
                "0::/system.slice/x.service",
                BOTH,
                Some((2, "/sys/fs/cgroup/unified/system.slice/x.service")),
            ),
            ("0::/kube/pod:1/c", SECOND, Some((2, "/sys/fs/cgroup/kube/pod:1/c"))),
            ("0::/docker/abc", BOUND, Some((2, "/sys/fs/cgroup/"))),
            ("0::/docker/abcd", BOUND, None),
            ("0::/../other", SECOND, None),
            ("", "", None),
        ];
        for (groups, mounts, want) in cases {
            let found = find(groups, mounts).map(|group| (group.version, group.folder));
            let want = want.map(|(version, folder)| (version, PathBuf::from(folder)));
            assert_eq!(found, want, "{groups:?}");
        }
    }

    fn write(folder: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(folder).unwrap();
        files.iter().for_each(|(name, text)| fs::write(folder.join(name), text).unwrap());
    }

    /// The lowest limit on the way up counts, and files as a kernel wrote them are understood.
    #[test]
    fn second_version() {
        let mount = tempfile::tempdir().unwrap();
        let (above, folder) = (mount.path().join("pod"), mount.path().join("pod/c"));
        let group = Group { version: 2, mount: mount.path().to_owned(), folder: folder.clone() };
        write(&above, &[("memory.max", "2147483648\n")]);
        let stat = "anon 716177408\nfile 608174080\nkernel 15204352\nkernel_stack 1261568\n\
                    pagetables 3481600\nsock 4096\nslab 7340032\nshmem 0\nfile_mapped 45056000\n\
                    inactive_file 401408000\n";
        write(
            &folder,
            &[("memory.max", "max\n"), ("memory.current", "1339555840\n"), ("memory.stat", stat)],
        );
        let found = read(&group).unwrap().unwrap();
        assert_eq!((found.limit_bytes, found.usage_bytes), (Some(2 << 30), 1_339_555_840));
        let part = |name: &str| found.parts.iter().find(|(key, _)| key == name).map(|part| part.1);
        assert_eq!(
            (part("anon"), part("kernel"), part("percpu")),
            (Some(716_177_408), Some(15_204_352), None)
        );

        write(&folder, &[("memory.max", "1073741824\n")]);
        assert_eq!(read(&group).unwrap().unwrap().limit_bytes, Some(1 << 30));
        fs::remove_file(folder.join("memory.max")).unwrap();
        fs::remove_file(above.join("memory.max")).unwrap();
        assert_eq!(read(&group).unwrap().unwrap().limit_bytes, None);
    }

    /// Version 1 sums up its limits itself; a number that means none is none.
    #[test]
    fn first_version() {
        let folder = tempfile::tempdir().unwrap();
        let group = Group { version: 1, mount: "/".into(), folder: folder.path().to_owned() };
        for (limit, want) in [("9223372036854771712", None), ("536870912", Some(512 << 20))] {
            let stat = format!(
                "cache 1\nrss 2\nhierarchical_memory_limit {limit}\ntotal_cache 583900000\ntotal_rss 683600000\n"
            );
            let files = [
                ("memory.usage_in_bytes", "1273800000\n"),
                ("memory.kmem.usage_in_bytes", "6600000\n"),
                ("memory.stat", &*stat),
            ];
            write(folder.path(), &files);
            let found = read(&group).unwrap().unwrap();
            assert_eq!((found.limit_bytes, found.usage_bytes), (want, 1_273_800_000));
            let names: Vec<&str> = found.parts.iter().map(|(name, _)| &**name).collect();
            assert_eq!(names, ["total_rss", "total_cache", "kernel"]);
        }
    }

    /// Files that are hidden or make no sense are an error, a group without the controller is none.
    #[test]
    fn hidden_files() {
        let folder = tempfile::tempdir().unwrap();
        let group = |version, folder: &Path| Group {
            version,
            mount: folder.to_owned(),
            folder: folder.to_owned(),
        };
        assert!(read(&group(1, folder.path())).is_err());
        assert_eq!(read(&group(2, folder.path())).unwrap(), None);
        assert!(read(&group(2, &folder.path().join("gone"))).is_err());
        write(folder.path(), &[("memory.current", "many\n")]);
        assert!(read(&group(2, folder.path())).is_err());
    }
}
