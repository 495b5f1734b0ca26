//! Precompiled components: what `taffrail compile` writes, and how it is told from everything else.
//!
//! Machine code that is loaded is trusted: only `--allow-precompiled` takes it. The seal at the end finds what is
//! damaged; it is no signature. Wasmtime finds code of another version or of other settings.

use anyhow::{Context as _, bail};
use serde_json::json;
use sha2::{Digest, Sha256};

/// The last bytes of a file that `taffrail compile` wrote.
const MARK: &[u8; 16] = b"taffrail cwasm 1";
const HASH: usize = 32;
const LENGTH: usize = 4;

/// A file that `taffrail compile` wrote: machine code, and what it was made from.
#[derive(Debug)]
pub(crate) struct Precompiled {
    /// How long the code for Wasmtime is, in bytes; the file begins with it.
    pub(crate) code: usize,
    /// SHA-256 of the component, in hex.
    pub(crate) digest: String,
    /// Size of the component in bytes.
    pub(crate) size: usize,
    /// The version of Taffrail that made it.
    pub(crate) made_by: String,
    /// Whether the code is for an engine of WASI 0.3.
    pub(crate) concurrent: bool,
}

/// The hex digits of a SHA-256.
pub(crate) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Puts machine code and its origin together: code, facts as JSON, their length, a hash of all that, the mark.
pub(crate) fn seal(code: &[u8], component: &[u8], concurrent: bool) -> Vec<u8> {
    let facts = json!({
        "digest": digest(component),
        "size": component.len(),
        "made_by": env!("CARGO_PKG_VERSION"),
        "concurrent": concurrent,
    });
    let (facts, mut file) = (facts.to_string(), code.to_vec());
    file.extend_from_slice(facts.as_bytes());
    file.extend_from_slice(&(facts.len() as u32).to_le_bytes());
    let hash = Sha256::digest(&file);
    file.extend_from_slice(&hash);
    file.extend_from_slice(MARK);
    file
}

/// Whether a file says that `taffrail compile` wrote it.
pub(crate) fn is_sealed(file: &[u8]) -> bool {
    file.ends_with(MARK)
}

/// Takes a file apart.
///
/// # Errors
/// When it is damaged.
pub(crate) fn open(file: &[u8]) -> anyhow::Result<Precompiled> {
    let damaged = "it is damaged; copy it again, or make it anew with `taffrail compile`";
    let rest = file.strip_suffix(MARK).context(damaged)?;
    let (rest, hash) = rest.split_last_chunk::<HASH>().context(damaged)?;
    if Sha256::digest(rest).as_slice() != hash {
        bail!(damaged);
    }
    let (rest, length) = rest.split_last_chunk::<LENGTH>().context(damaged)?;
    let code = rest.len().checked_sub(u32::from_le_bytes(*length) as usize).context(damaged)?;
    let facts: serde_json::Value = serde_json::from_slice(&rest[code..]).context(damaged)?;
    let text = |name: &str| facts[name].as_str().unwrap_or_default().to_owned();
    let size = usize::try_from(facts["size"].as_u64().unwrap_or_default())?;
    let concurrent = facts["concurrent"].as_bool().unwrap_or_default();
    Ok(Precompiled { code, digest: text("digest"), size, made_by: text("made_by"), concurrent })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_comes_back_and_what_is_damaged_does_not() {
        let file = seal(b"code", b"component", true);
        let opened = open(&file).unwrap();
        assert_eq!((&file[..opened.code], opened.size, opened.digest), (&b"code"[..], 9, digest(b"component")));
        assert!(opened.concurrent);
        assert!(is_sealed(&file) && !is_sealed(b"\0asm"));
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 1;
            assert!(open(&damaged).is_err(), "byte {at}");
            assert!(open(&file[at + 1..]).is_err(), "without its first {at} bytes");
        }
    }
}
