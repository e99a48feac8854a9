//! Binds, serves, reloads, and ends well.

use std::future::pending;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::generation::{self, Constant, Current, Generation, Ready, Running};
use super::ports::Held;
use super::site::Site;
use crate::accept::Drain;
use crate::accept::handover::{self, Counter, Predecessor, Successor};
use crate::config::{self, Config, ConfigFault};
use crate::observe;

/// How often the end of the last request is looked for while draining.
const DRAIN_STEP: Duration = Duration::from_millis(10);
/// How long a drain goes on without a request in flight: for those who have just connected, and for the last answers
/// on HTTP/2.
const PARTING: Duration = Duration::from_secs(2);

/// What an operator asks of a running program.
#[derive(Debug)]
pub enum Order {
    /// Run by this config from now on, if it is any good.
    Reload(Result<Box<Config>, Vec<ConfigFault>>),
    /// Accept no more, let what is in flight end, and leave.
    Stop,
}

/// A program that has its ports and has not begun to accept.
pub struct Bound {
    generation: Generation,
    ready: Ready,
    constant: Constant,
    shut: watch::Sender<bool>,
    upgrade: Upgrade,
}

/// How sockets pass from process to process.
enum Upgrade {
    /// Not at all.
    None,
    /// The next process asks here.
    From(Counter),
    /// They came from another process, which still serves on them; then the next process asks at this path.
    To(Predecessor, PathBuf),
}

/// Reads keys, login and certificates, then binds every port. Needs a tokio runtime.
///
/// # Errors
/// Every fault found, with its key path; no port stays bound then.
pub fn bind(config: &Config) -> Result<Bound, Vec<ConfigFault>> {
    let upgrade = match &config.server.upgrade_socket {
        None => Upgrade::None,
        Some(path) => Upgrade::From(Counter::open(path).map_err(|error| vec![no_counter(path, &error)])?),
    };
    build(config, Vec::new(), upgrade)
}

/// As [`bind`], with the sockets of the program that runs: it goes on until this one serves, and drains then.
///
/// # Errors
/// As for [`bind`]; or nobody gives sockets. The other program has then not changed.
pub fn take_over(config: &Config) -> Result<Bound, Vec<ConfigFault>> {
    let fault = |why: String| vec![ConfigFault { path: "server.upgrade_socket".to_owned(), why }];
    let path = config.server.upgrade_socket.as_deref().ok_or_else(|| fault("is not set".to_owned()))?;
    let asked = Predecessor::ask(path);
    let (old, held) = asked.map_err(|error| fault(format!("no sockets from {}: {error}", path.display())))?;
    build(config, held, Upgrade::To(old, path.to_path_buf()))
}

fn build(config: &Config, held: Vec<Held>, upgrade: Upgrade) -> Result<Bound, Vec<ConfigFault>> {
    let (shut, shutdown) = watch::channel(false);
    let constant =
        Constant { in_flight: Arc::default(), metrics: Arc::default(), drain: Drain::new(shutdown) };
    let (generation, ready) = Generation::build(config, &constant, held, None)?;
    Ok(Bound { generation, ready, constant, shut, upgrade })
}

fn no_counter(path: &Path, error: &io::Error) -> ConfigFault {
    let remedy = match error.kind() {
        ErrorKind::AddrInUse => "; asr-edge runs already: start with --upgrade to take its place",
        ErrorKind::PermissionDenied => {
            "; its folder must be a folder of ours that nobody else can open (0700)"
        }
        _ => "",
    };
    ConfigFault {
        path: "server.upgrade_socket".to_owned(),
        why: format!("{}: {error}{remedy}", path.display()),
    }
}

impl Bound {
    /// One line for each listener, such as `listening on https://[::]:443`, with the ports that the system picked.
    pub fn lines(&self) -> Vec<String> {
        self.generation.ports.lines()
    }

    /// The HTTPS addresses, or, where there are none, the plain ones.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let ports = &self.generation.ports;
        let listeners = if ports.https.is_empty() { &ports.http } else { &ports.https };
        listeners.iter().map(|listener| listener.address).collect()
    }

    /// Serves until told to stop (or until there are no more orders), or until another process has taken over. Then
    /// accepts no more, lets the requests in flight end, and returns as soon as they have, or when the drain time is up,
    /// or when told to stop once more.
    pub async fn serve(self, orders: impl Stream<Item = Order>) {
        let Self { generation, ready, constant, shut, upgrade } = self;
        let mut orders = pin!(orders);
        let current = generation.current();
        // Before the first handshake: what is stored is served from then on. The ports are bound, a CA that comes soon
        // waits its turn there.
        generation.site.certify();
        let running = generation.run(&current, &constant.drain, ready);
        let mut counter = upgrade.settle().await;
        let mut serving = Serving { generation, running, current, constant };
        let successor = loop {
            tokio::select! { biased;
                order = orders.next() => match order {
                    Some(Order::Reload(config)) => serving.reload(config, &mut counter).await,
                    Some(Order::Stop) | None => break None,
                },
                // From here to the outcome no order is heard: what was handed over must not change.
                asked = asked(counter.as_ref()) => if let Some(successor) = serving.hand_over(asked).await {
                    break Some(successor);
                }
            }
        };
        let Serving { generation, running, constant, .. } = serving;
        generation.site.stop();
        drop(counter);
        if let Some(successor) = successor {
            tracing::info!("another process has taken over");
            successor.leave();
        }
        let _ = shut.send(true);
        let Generation { ports, drain, .. } = generation;
        drop(ports);
        tokio::select! { biased;
            () = stopped_again(orders) => tracing::warn!("told to stop twice"),
            drained = timeout(drain, async {
                running.close().await;
                drained(&constant).await;
            }) => {
                if drained.is_err() {
                    let in_flight = constant.in_flight.load(Ordering::Relaxed);
                    tracing::warn!(in_flight, "drain time is up");
                }
            }
        }
    }
}

impl Upgrade {
    /// Relieves the process whose sockets these were. Where the next process may ask.
    async fn settle(self) -> Option<Counter> {
        let (old, path) = match self {
            Self::None => return None,
            Self::From(counter) => return Some(counter),
            Self::To(old, path) => (old, path),
        };
        if let Err(error) = old.relieve().await {
            tracing::warn!(%error, "the old process has ended without a word");
        }
        let counter = Counter::open(&path).map_err(|error| no_counter(&path, &error));
        counter.inspect_err(|ConfigFault { path, why }| tracing::error!(path, why, "no further upgrade")).ok()
    }
}

/// A program at work.
struct Serving {
    generation: Generation,
    running: Running,
    current: Current,
    constant: Constant,
}

impl Serving {
    /// Runs by this config from now on, or goes on as before and says why.
    async fn reload(&mut self, config: Result<Box<Config>, Vec<ConfigFault>>, counter: &mut Option<Counter>) {
        let renewed = config.and_then(|config| {
            let path = config.server.upgrade_socket.as_deref();
            let stays = path == counter.as_ref().map(Counter::path);
            let fresh = path
                .filter(|_| !stays)
                .map(|path| Counter::open(path).map_err(|error| vec![no_counter(path, &error)]));
            let fresh = fresh.transpose()?;
            Ok((renew(&config, &self.generation, &self.constant)?, (!stays).then_some(fresh), config))
        });
        match renewed {
            Ok(((next, ready), fresh, config)) => {
                next.take_over(&self.current);
                next.site.succeed(&self.generation.site);
                let new = next.run(&self.current, &self.constant.drain, ready);
                std::mem::replace(&mut self.running, new).close().await;
                self.generation = next;
                if let Some(fresh) = fresh {
                    *counter = fresh;
                }
                if let Err(fault) = observe::set_level(&config.log.level) {
                    tracing::warn!(%fault, "log.level stays as it was");
                }
                self.constant.metrics.reloaded(true);
                tracing::info!(listeners = ?self.generation.ports.lines(), "reloaded");
            }
            Err(faults) => {
                self.constant.metrics.reloaded(false);
                for ConfigFault { path, why } in faults {
                    tracing::error!(path, why, "not reloaded, the old configuration stays");
                }
            }
        }
    }

    /// Gives our sockets to another process; `None` when it does not serve on them.
    async fn hand_over(&self, asked: io::Result<UnixStream>) -> Option<Successor> {
        let handed = async { handover::give(asked?, self.generation.ports.share()?.into_held()).await };
        let failed = |error: &io::Error| tracing::warn!(%error, "an upgrade came to nothing");
        handed.await.inspect_err(failed).ok()
    }
}

/// Waits for another process that wants our sockets; for ever when there is nowhere to ask.
async fn asked(counter: Option<&Counter>) -> io::Result<UnixStream> {
    match counter {
        Some(counter) => counter.asked().await,
        None => pending().await,
    }
}

/// The generation after `old`, on the same sockets where they stay.
fn renew(
    config: &Config,
    old: &Generation,
    constant: &Constant,
) -> Result<(Generation, Ready), Vec<ConfigFault>> {
    config.notices.iter().for_each(|notice| tracing::warn!("{notice}"));
    let held = old
        .ports
        .share()
        .map_err(|error| vec![ConfigFault { path: "server".to_owned(), why: error.to_string() }])?;
    Generation::build(config, constant, held.into_held(), Some(old))
}

/// Waits for another order to stop; for ever when there are none any more.
async fn stopped_again(mut orders: Pin<&mut impl Stream<Item = Order>>) {
    loop {
        match orders.next().await {
            Some(Order::Stop) => return,
            Some(Order::Reload(_)) => {}
            None => pending().await,
        }
    }
}

/// Waits for the end of all requests in flight, and a little for those that are just coming.
async fn drained(constant: &Constant) {
    let in_flight = || constant.in_flight.load(Ordering::Relaxed) > 0;
    loop {
        while in_flight() {
            sleep(DRAIN_STEP).await;
        }
        let parting = timeout(PARTING, async {
            while constant.drain.open() > 0 && !in_flight() {
                sleep(DRAIN_STEP).await;
            }
        });
        if parting.await.is_err() || !in_flight() {
            return;
        }
    }
}

/// The lines of `asr-edge check`.
///
/// # Errors
/// What [`bind`] would find wrong, but for the ports.
pub fn check(config: &Config) -> Result<Vec<String>, Vec<ConfigFault>> {
    let faults: Vec<_> =
        [generation::keys(config).err(), Site::open(config, None).err()].into_iter().flatten().collect();
    if faults.is_empty() { Ok(config::explain(config)) } else { Err(faults) }
}
