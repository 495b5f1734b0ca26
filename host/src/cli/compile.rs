//! `taffrail compile`: compiles a component ahead of its start.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::guest;
use crate::settings::STANDARD_STREAM;

/// Compiles `component` and writes `output`, whole or not at all.
///
/// # Errors
/// What is wrong with the component, or why the file cannot be written.
pub fn run(component: &Path, output: &Path) -> anyhow::Result<ExitCode> {
    let compiled = guest::precompile(component)?;
    if output == Path::new(STANDARD_STREAM) {
        std::io::stdout().write_all(&compiled).context("cannot write to standard output")?;
        return Ok(ExitCode::SUCCESS);
    }
    let cannot = || format!("cannot write {}", output.display());
    let unfinished = output.with_extension("unfinished");
    let written = std::fs::File::create(&unfinished).and_then(|mut file| {
        file.write_all(&compiled)?;
        file.sync_all()
    });
    written.and_then(|()| std::fs::rename(&unfinished, output)).with_context(cannot)?;
    println!("{}: {} bytes, for this version of Taffrail and this kind of CPU", output.display(), compiled.len());
    Ok(ExitCode::SUCCESS)
}
