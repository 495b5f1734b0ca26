//! A memory cgroup of a test's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::not_run;

/// A memory cgroup of version 2 or 1. Made by root, or by `sudo` where that asks for no password, as on the runners of CI.
pub struct MemoryGroup {
    folder: PathBuf,
    is_v2: bool,
}

/// A shell as root, with these arguments as `$0`, `$1`, …
fn as_root(script: &str, arguments: &[&str]) -> Command {
    let mut command = match rustix::process::geteuid().is_root() {
        true => Command::new("sh"),
        false => {
            let mut sudo = Command::new("sudo");
            sudo.args(["--non-interactive", "sh"]);
            sudo
        }
    };
    command.args(["-euc", script]).args(arguments);
    command
}

impl MemoryGroup {
    fn hierarchy() -> Option<(PathBuf, bool)> {
        let v2 = Path::new("/sys/fs/cgroup");
        let v1 = v2.join("memory");
        let has_memory = fs::read_to_string(v2.join("cgroup.controllers")).is_ok_and(|list| list.contains("memory"));
        if has_memory { Some((v2.to_owned(), true)) } else { v1.is_dir().then_some((v1, false)) }
    }

    /// A group of so many bytes, swap included. None, and a line that says so, where none can be had; in CI that is a failure.
    pub fn of(bytes: u64) -> Option<Self> {
        let group = Self::create(bytes);
        group.map_err(|why| not_run(&format!("no memory cgroup can be made (root or sudo is needed): {why}"))).ok()
    }

    fn create(bytes: u64) -> Result<Self, String> {
        let (hierarchy, is_v2) = Self::hierarchy().ok_or("there is no memory controller below /sys/fs/cgroup")?;
        let folder = hierarchy.join(format!("taffrail-test-{}-{bytes}", std::process::id()));
        let script = match is_v2 {
            // The controller may be on already; where it cannot be put on, the limit below cannot be written.
            true => {
                "echo +memory >\"$0/../cgroup.subtree_control\" || :
                 echo \"$1\" >\"$0/memory.max\"
                 [ ! -e \"$0/memory.swap.max\" ] || echo 0 >\"$0/memory.swap.max\""
            }
            false => {
                "echo \"$1\" >\"$0/memory.limit_in_bytes\"
                 [ ! -e \"$0/memory.memsw.limit_in_bytes\" ] || echo \"$1\" >\"$0/memory.memsw.limit_in_bytes\""
            }
        };
        let path = folder.to_str().expect("text");
        let made = as_root(&format!("mkdir \"$0\"\n{script}"), &[path, &bytes.to_string()]).output();
        let group = Self { folder: folder.clone(), is_v2 }; // whose end removes what there is of it
        match made {
            Ok(made) if made.status.success() => Ok(group),
            Ok(made) => Err(String::from_utf8_lossy(&made.stderr).trim().to_owned()),
            Err(error) => Err(format!("sudo: {error}")),
        }
    }

    /// The most that the group has held, in bytes.
    pub fn peak(&self) -> u64 {
        let file = self.folder.join(if self.is_v2 { "memory.peak" } else { "memory.max_usage_in_bytes" });
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        text.trim().parse().expect("a number")
    }

    /// The same command in this group. A shell has itself moved there before it becomes the command.
    pub fn run(&self, inner: &Command) -> Command {
        let procs = self.folder.join("cgroup.procs");
        let mover = as_root("echo \"$1\" >\"$0\"", &[procs.to_str().expect("text")]);
        let mut command = Command::new("bash");
        // The mover's words, `--`, the command's.
        command.args([
            "-ec",
            "words=(); while [ \"$1\" != -- ]; do words+=(\"$1\"); shift; done; shift
            \"${words[@]}\" $$
            exec \"$@\"",
            "bash",
        ]);
        command.arg(mover.get_program()).args(mover.get_args()).arg("--");
        command.arg(inner.get_program()).args(inner.get_args());
        command
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _ = as_root("[ ! -d \"$0\" ] || rmdir \"$0\"", &[self.folder.to_str().expect("text")]).output();
    }
}
