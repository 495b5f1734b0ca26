//! A directory of values, as Kubernetes mounts a Secret or a ConfigMap.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

/// A value may be as large as a whole Kubernetes Secret (1 MiB), and no larger.
const FILE_MAX: u64 = 1024 * 1024;

/// How often a directory is read anew while a link in it leads nowhere: the kubelet swaps what all of them lead to by one rename,
/// and removes links of keys that have gone after that.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(20);

/// What a directory holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ConfigDir {
    /// One value a file.
    pub(super) values: BTreeMap<String, String>,
    /// What was left out and why, a sentence each.
    pub(super) warnings: Vec<String>,
}

/// Reads one key per file. Names that begin with `..` are Kubernetes' own, and never touched; folders hold no value. A value that
/// is no text, and a link that goes on leading nowhere, are left out with a warning.
///
/// # Errors
/// What cannot be read, or is larger than 1 MiB.
pub(super) fn read(dir: &Path) -> Result<ConfigDir, String> {
    read_patiently(dir, || std::thread::sleep(PAUSE))
}

fn read_patiently(dir: &Path, mut pause: impl FnMut()) -> Result<ConfigDir, String> {
    for _ in 1..ATTEMPTS {
        match read_once(dir)? {
            (found, false) => return Ok(found),
            (_, true) => pause(),
        }
    }
    read_once(dir).map(|(found, _)| found)
}

/// Reads the directory once. Also says whether a link led nowhere, as it may while the kubelet swaps the files.
fn read_once(dir: &Path) -> Result<(ConfigDir, bool), String> {
    let at = |path: &Path, what: String| format!("{}: {what}", path.display());
    let entries = std::fs::read_dir(dir).map_err(|error| at(dir, format!("cannot be listed: {error}")))?;
    let (mut found, mut dangling) = (ConfigDir::default(), false);
    for entry in entries {
        let entry = entry.map_err(|error| at(dir, error.to_string()))?;
        if entry.file_name().as_bytes().starts_with(b"..") {
            continue;
        }
        let path = entry.path();
        let bytes = match read_file(&path) {
            Ok(None) => continue,
            Ok(Some(bytes)) if bytes.len() as u64 > FILE_MAX => {
                return Err(at(&path, format!("is larger than {FILE_MAX} bytes")));
            }
            Ok(Some(bytes)) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                dangling = true;
                found.warnings.push(at(&path, "leads nowhere, so the component does not get this key".to_owned()));
                continue;
            }
            Err(error) => return Err(at(&path, error.to_string())),
        };
        match (entry.file_name().into_string(), String::from_utf8(bytes)) {
            (Ok(name), Ok(text)) => {
                let line = text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
                found.values.insert(name, line.unwrap_or(&text).to_owned());
            }
            _ => found.warnings.push(at(&path, "is not UTF-8 text, so the component does not get this key".to_owned())),
        }
    }
    Ok((found, dangling))
}

/// The bytes of a file, at most one more than it may have; `None` for what is no file.
fn read_file(path: &Path) -> io::Result<Option<Vec<u8>>> {
    if !std::fs::metadata(path)?.is_file() {
        return Ok(None); // before it is opened: a pipe would wait for its writer
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_mounted_secret_is_its_keys_and_names_with_two_dots_are_never_touched() {
        let dir = directory();
        let data = dir.path().join("..2026_11_25");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("key"), "value\n").unwrap();
        symlink("..2026_11_25", dir.path().join("..data")).unwrap();
        symlink("..data/key", dir.path().join("key")).unwrap();
        symlink("..loop", dir.path().join("..loop")).unwrap(); // to look at it would be an error
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        let expected = BTreeMap::from([("key".to_owned(), "value".to_owned())]);
        assert_eq!(read(dir.path()), Ok(ConfigDir { values: expected, warnings: Vec::new() }));
        symlink("loop", dir.path().join("loop")).unwrap();
        assert!(read(dir.path()).unwrap_err().contains("loop: "), "the same under another name is");
    }

    #[test]
    fn a_link_that_leads_nowhere_for_a_moment_is_read_when_it_leads_somewhere() {
        let dir = directory();
        symlink("..data/key", dir.path().join("key")).unwrap();
        let mut pauses = 0;
        let swapped = || {
            pauses += 1;
            if pauses == 2 {
                std::fs::create_dir(dir.path().join("..data")).unwrap();
                std::fs::write(dir.path().join("..data/key"), "value").unwrap();
            }
        };
        let found = read_patiently(dir.path(), swapped).unwrap();
        assert_eq!((&*found.values["key"], found.warnings.len(), pauses), ("value", 0, 2));
    }

    #[test]
    fn what_is_no_text_or_stays_nowhere_is_left_out_by_name() {
        let dir = directory();
        symlink("..data/gone", dir.path().join("gone")).unwrap();
        std::fs::write(dir.path().join("keystore.p12"), [0xff, 0xfe]).unwrap();
        std::fs::write(dir.path().join("text"), "kept").unwrap();
        let mut found = read(dir.path()).unwrap();
        found.warnings.sort();
        assert_eq!(found.values.len(), 1);
        assert!(found.warnings[0].contains("gone: leads nowhere"), "{found:?}");
        assert!(found.warnings[1].contains("keystore.p12: is not UTF-8 text"), "{found:?}");
        assert_eq!(found.warnings.len(), 2);
    }

    #[test]
    fn a_value_has_a_mebibyte_at_the_most() {
        let dir = directory();
        std::fs::write(dir.path().join("key"), vec![b'x'; FILE_MAX as usize]).unwrap();
        assert_eq!(read(dir.path()).unwrap().values["key"].len() as u64, FILE_MAX);
        std::fs::write(dir.path().join("key"), vec![b'x'; FILE_MAX as usize + 1]).unwrap();
        assert!(read(dir.path()).unwrap_err().contains("key: is larger than 1048576 bytes"));
    }
}
