//! The program: parses the command line and runs one command.

use std::future::Future;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use asr_edge::authenticate::keys;
use asr_edge::capture::TranslateArgs;
use asr_edge::stub::StubArgs;
use clap::{Parser, Subcommand};

/// Command line or configuration at fault (`EX_USAGE` of sysexits.h).
const USAGE: u8 = 64;

#[derive(Parser)]
#[command(version, about, max_term_width = 110)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What a captured request becomes, offline: for bug reports.
    Translate(TranslateArgs),
    /// Makes keys for callers.
    #[command(subcommand)]
    Key(KeyCommand),
    /// The stand-in for Codex's /transcribe.
    UpstreamStub(Box<StubArgs>),
}

#[derive(Subcommand)]
enum KeyCommand {
    /// Prints a new key once and adds its hash to the key file.
    New {
        /// Whose key it is; shows in logs.
        #[arg(long)]
        name: String,
        /// The key file; created if need be.
        #[arg(long, default_value = "keys.toml")]
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    let command = match CommandLine::try_parse() {
        Ok(line) => line.command,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { lines, code }) => {
            lines.iter().for_each(|line| say_error(line));
            ExitCode::from(code)
        }
    }
}

/// Why a command failed, and the exit code for it.
struct Failure {
    lines: Vec<String>,
    code: u8,
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self { lines: vec![error.to_string()], code: 1 }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Translate(args) => Ok(std::io::stdout().write_all(&args.run()?)?),
        Command::Key(KeyCommand::New { name, file }) => {
            let key = keys::add(&file, &name)
                .map_err(|fault| Failure { lines: vec![format!("{}: {fault}", file.display())], code: 1 })?;
            say(key.expose());
            Ok(())
        }
        Command::UpstreamStub(args) => block_on(async { Ok(args.run().await?) }),
    }
}

fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

#[expect(clippy::print_stdout, reason = "what a command is asked for")]
fn say(line: &str) {
    println!("{line}");
}

#[expect(clippy::print_stderr, reason = "why a command failed")]
fn say_error(line: &str) {
    eprintln!("{line}");
}
