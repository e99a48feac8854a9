//! What an operator sees: records as text or JSON, on standard error; and what is counted.

pub mod exposition;
pub mod metrics;
pub mod traceparent;

use std::panic::{self, PanicHookInfo};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_log::log;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat};

/// What we record ourselves. Libraries print raw request heads at `debug` and `trace`, keys and all: whoever is not
/// named here is never heard below `info`, whatever the filter says.
const OURS: [&str; 3] = ["asr_edge", "access", "panic"];
/// What these say is of clients that break off; our own access line says it better. Heard at `debug` only.
const CHATTY: [&str; 3] = ["pingora_core", "pingora_proxy", "rustls"];

type SetFilter = Box<dyn Fn(&str) -> Result<(), LevelFault> + Send + Sync>;

/// Puts another filter in force; there once recording has started.
static SET_FILTER: OnceLock<SetFilter> = OnceLock::new();
/// Panics in this process, whoever caught them.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// Why the level stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum LevelFault {
    /// No level and no list of `target=level`.
    #[error("no level: {0}")]
    Syntax(#[from] ParseError),
    /// Nothing is recorded by us: [`start`] has not been called, or came too late.
    #[error("recording has not been started")]
    NotStarted,
}

/// Starts recording, and counting panics. Later calls do nothing.
pub fn start(log: &Log) {
    let filter = filter(&log.level).or_else(|_| filter("info"));
    let (filter, handle) = reload::Layer::new(filter.ok());
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    let started = match log.format {
        LogFormat::Text => registry.with(layer.with_ansi(false)).try_init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    };
    if started.is_err() {
        return;
    }
    // What libraries say by way of the `log` crate is not even formatted below this.
    log::set_max_level(log::LevelFilter::Info);
    let set = move |level: &str| {
        let filter = self::filter(level)?;
        handle.reload(Some(filter)).map_err(|_| LevelFault::NotStarted)
    };
    let _ = SET_FILTER.set(Box::new(set));
    count_panics();
}

/// Records at another level from now on: a level, or a list of `target=level` as in `[log] level`.
///
/// # Errors
/// [`LevelFault`]; the level from before stays in force.
pub fn set_level(level: &str) -> Result<(), LevelFault> {
    SET_FILTER.get().ok_or(LevelFault::NotStarted)?(level)
}

/// Counts panics and records where they happen, in place of Rust's own message on standard error: that one can quote
/// the data at hand, such as the text that was cut in the middle of a character.
pub fn count_panics() {
    panic::set_hook(Box::new(|info: &PanicHookInfo<'_>| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        let at = info.location().map(tracing::field::display);
        tracing::error!(target: "panic", at, "panicked: please report this");
    }));
}

/// How often something has panicked in this process.
pub fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// What is asked for, as far as it may be had.
fn filter<S: Subscriber>(level: &str) -> Result<impl Layer<S> + use<S>, ParseError> {
    let wanted = EnvFilter::try_new(level)?;
    let chatty = wanted.max_level_hint().is_some_and(|level| level < LevelFilter::DEBUG);
    let cap = Targets::new()
        .with_default(LevelFilter::INFO)
        .with_targets(OURS.map(|target| (target, LevelFilter::TRACE)))
        .with_targets(chatty.then_some(CHATTY).into_iter().flatten().map(|target| (target, LevelFilter::OFF)))
        // A listener that can accept no more is worth hearing of.
        .with_target("pingora_core::services", LevelFilter::ERROR);
    Ok(wanted.and_then(cap))
}
