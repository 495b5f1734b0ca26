//! How a server is started, so that all of them listen on loopback, serve the same component and log nothing of a request.

use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::servers::artifacts::Artifacts;
use crate::servers::process::Process;
use crate::servers::server::{Component, Form, Program, Server, Wasi};

/// Precompiles the hello component for a server's program.
///
/// # Errors
/// With what the compiler says.
pub fn precompile(artifacts: &Artifacts, program: Program) -> anyhow::Result<()> {
    let wasm = artifacts.component(Component::Hello, Wasi::V02);
    std::fs::create_dir_all(artifacts.out())
        .with_context(|| format!("{} cannot be made", artifacts.out().display()))?;
    let output = Command::new(artifacts.program(program)?)
        .args(["compile".as_ref(), wasm.as_os_str(), "-o".as_ref(), artifacts.precompiled(program).as_os_str()])
        .output()?;
    ensure!(output.status.success(), "cannot precompile: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Starts a server.
///
/// # Errors
/// With the end of its log.
pub fn start(artifacts: &Artifacts, server: &Server, component: Component) -> anyhow::Result<Process> {
    let wasm = match server.form {
        Form::Wasm => artifacts.component(component, server.wasi),
        Form::Precompiled => artifacts.precompiled(server.program),
    };
    let mut command = Command::new(artifacts.program(server.program)?);
    let tokens = format!("auth-tokens={}", artifacts.token);
    let listen = "127.0.0.1:0";
    let marker = match server.program {
        Program::Native => {
            command.args(["native", "--listen", listen, "--token", &artifacts.token]);
            "listening on "
        }
        Program::Bare => {
            command.args(["bare", "--listen", listen, "--token", &artifacts.token, "--compiled"]).arg(&wasm);
            "listening on "
        }
        Program::Taffrail | Program::AllOff => {
            command.arg("serve").arg(&wasm).args(["--listen", listen, "--admin-listen", listen]);
            command.args(["--config", &tokens, "--access-log", "off", "--log-format", "json"]);
            "\"listen\":\""
        }
        Program::Wasmtime => {
            command.args(["serve", "--addr", listen, "-Scli", "-Sconfig"]).arg(format!("-Sconfig-var={tokens}"));
            command.args(if server.wasi == Wasi::V03 { &["-Sp3", "-Wcomponent-model-async"][..] } else { &[] });
            "Serving HTTP on http://"
        }
        Program::Flask => {
            // Threads, because gunicorn's other workers close the connection after each response.
            command.args(["--workers", "4", "--worker-class", "gthread", "--threads", "4", "--keep-alive", "75"]);
            command.args(["--bind", listen, "flask_app:app", "--chdir"]).arg(artifacts.root().join("host/benches"));
            command.env("AUTH_TOKENS", &artifacts.token).env("PYTHONDONTWRITEBYTECODE", "1");
            "Listening at: http://"
        }
    };
    command.args(&server.flags);
    if server.form == Form::Precompiled && matches!(server.program, Program::Taffrail | Program::Wasmtime) {
        command.arg("--allow-precompiled");
    }
    if server.program == Program::Wasmtime {
        command.arg(wasm);
    }
    // Nothing of the caller's environment may change what is measured.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("OTEL_") || name.starts_with("TAFFRAIL_")) {
        command.env_remove(name);
    }
    command.envs(server.environment.iter().map(|(name, value)| (name, value)));
    Process::start(command, marker).with_context(|| format!("{} cannot be measured", server.title))
}
