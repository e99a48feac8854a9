//! The program: parses the command line and runs one command.

use std::future::Future;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use asr_edge::authenticate::keys;
use asr_edge::capture::TranslateArgs;
use asr_edge::config::{Config, ConfigFault, Log, ServeFlags};
use asr_edge::demo::DemoArgs;
use asr_edge::gateway::once;
use asr_edge::gateway::serve::{self, Order};
use asr_edge::observe;
use asr_edge::preflight::{self, Verdict};
use asr_edge::probe::{self, Trust};
use asr_edge::stub::StubArgs;
use asr_edge::transcribe::{self, TranscribeArgs};
use clap::{CommandFactory, Parser, Subcommand};
use futures_util::{Stream, stream};
use mimalloc::MiMalloc;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

/// Every request takes and gives back buffers of tens of KiB, which the system's allocator hands back to the kernel each
/// time.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

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
    /// The endpoint: OpenAI's audio API in front, a Codex login behind.
    Serve(Box<ServeFlags>),
    /// One file, or standard input, without a server: `asr-edge FILE` is the same.
    Transcribe(Box<TranscribeArgs>),
    /// What a captured request becomes, offline: for bug reports.
    Translate(TranslateArgs),
    /// Everything embedded: a stand-in upstream, a fresh key, a bundled clip, one real request.
    Demo(DemoArgs),
    /// Names every fault in the configuration.
    Check(Box<CheckArgs>),
    /// Makes keys for callers.
    #[command(subcommand)]
    Key(KeyCommand),
    /// The stand-in for Codex's /transcribe.
    UpstreamStub(Box<StubArgs>),
    /// Asks a running server whether it is well: exit code 0 or 1.
    Health {
        /// What to ask.
        #[arg(default_value = "http://127.0.0.1:8788/healthz")]
        url: http::Uri,
        /// Trusts the roots in this PEM file too.
        #[arg(long)]
        ca_root: Option<PathBuf>,
    },
}

#[derive(clap::Args)]
struct CheckArgs {
    #[command(flatten)]
    serve: ServeFlags,
    /// Looks at names, ports, CA, clock, storage, upstream and login too. Orders nothing.
    #[arg(long)]
    online: bool,
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
    let line = transcribe::implied(std::env::args_os().collect(), |word| {
        word == "help" || CommandLine::command().find_subcommand(word).is_some()
    });
    let command = match CommandLine::try_parse_from(line) {
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

impl From<once::Failure> for Failure {
    fn from(failure: once::Failure) -> Self {
        match failure {
            once::Failure::Config(faults) => faults.into(),
            other => Self { lines: vec![other.to_string()], code: 1 },
        }
    }
}

impl From<Vec<ConfigFault>> for Failure {
    fn from(faults: Vec<ConfigFault>) -> Self {
        Self { lines: faults.iter().map(ToString::to_string).collect(), code: USAGE }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve(flags) => {
            let config = load(&flags)?;
            observe::start(&config.log);
            config.notices.iter().for_each(|notice| tracing::warn!("{notice}"));
            block_on(async {
                let bound = if flags.upgrade { serve::take_over(&config) } else { serve::bind(&config) }?;
                bound.lines().iter().for_each(|line| say(line));
                bound.serve(orders(flags)?).await;
                Ok(())
            })
        }
        Command::Check(args) => {
            let config = load(&args.serve)?;
            serve::check(&config)?.iter().chain(&config.notices).for_each(|line| say(line));
            if args.online { block_on(look_around(&config)) } else { Ok(()) }
        }
        Command::Transcribe(args) => {
            let config = args.config(&variable)?;
            observe::start(&Log { level: "warn".to_owned(), ..config.log.clone() });
            let runtime = runtime()?;
            let reply = runtime.block_on(args.run(&config));
            // A read of standard input may still be under way, and never end.
            runtime.shutdown_background();
            say(String::from_utf8_lossy(&reply?.body).trim_end_matches('\n'));
            Ok(())
        }
        Command::Translate(args) => {
            let setting = args.setting(&variable)?;
            Ok(std::io::stdout().write_all(&args.run(&setting)?)?)
        }
        Command::Demo(args) => block_on(async { Ok(args.run(say, asked_to_stop()?).await?) }),
        Command::Key(KeyCommand::New { name, file }) => {
            let key = keys::add(&file, &name)
                .map_err(|fault| Failure { lines: vec![format!("{}: {fault}", file.display())], code: 1 })?;
            say(key.expose());
            Ok(())
        }
        Command::UpstreamStub(args) => block_on(async { Ok(args.run().await?) }),
        Command::Health { url, ca_root } => {
            let trust = ca_root.map_or_else(|| Ok(Trust::default()), |path| Trust::with_file(&path))?;
            Ok(block_on(async { Ok(probe::health(&url, &trust, Duration::from_secs(5)).await?) })?)
        }
    }
}

/// `check --online`: one line for each finding; exit code 1 if any would keep the server from working.
async fn look_around(config: &Config) -> Result<(), Failure> {
    let findings = preflight::run(config, Duration::from_secs(10)).await;
    findings.iter().for_each(|finding| say(&finding.to_string()));
    match findings.iter().any(|finding| finding.verdict == Verdict::Fail) {
        true => Err(Failure { lines: Vec::new(), code: 1 }),
        false => Ok(()),
    }
}

fn load(flags: &ServeFlags) -> Result<Config, Vec<ConfigFault>> {
    Config::load(flags, &variable)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    runtime()?.block_on(work)
}

/// SIGHUP: reload, by the same flags and variables. SIGTERM, SIGINT: stop.
fn orders(flags: Box<ServeFlags>) -> std::io::Result<impl Stream<Item = Order>> {
    let signals =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?);
    Ok(stream::unfold((signals, flags), async |((mut term, mut int, mut hup), flags)| {
        let order = tokio::select! { biased;
            _ = term.recv() => Order::Stop,
            _ = int.recv() => Order::Stop,
            _ = hup.recv() => Order::Reload(load(&flags).map(Box::new)),
        };
        Some((order, ((term, int, hup), flags)))
    }))
}

/// Ends with the first SIGTERM or SIGINT.
fn asked_to_stop() -> std::io::Result<impl Future<Output = ()>> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

#[expect(clippy::print_stdout, reason = "what a command is asked for")]
fn say(line: &str) {
    println!("{line}");
}

#[expect(clippy::print_stderr, reason = "why a command failed")]
fn say_error(line: &str) {
    eprintln!("{line}");
}
