//! `taffrail compile`: compiles a component ahead of its start.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use crate::guest::{self, STANDARD_STREAM};

/// The flags of `compile`.
#[derive(Debug, Clone, Args)]
pub struct Compile {
    /// The component: a .wasm file, or - for standard input
    #[arg(value_name = "COMPONENT")]
    component: PathBuf,

    /// The file to write, usually .cwasm, or - for standard output; it needs --allow-precompiled to be
    /// served
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

impl Compile {
    /// Compiles the component and writes the output, whole or not at all.
    ///
    /// # Errors
    /// What is wrong with the component, or why the file cannot be written.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        run(&self.component, &self.output)
    }
}

fn run(component: &Path, output: &Path) -> anyhow::Result<ExitCode> {
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
