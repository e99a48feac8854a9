//! A proxy between two, which breaks one connection at one byte.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::time::sleep;

/// From the client, or to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Up,
    Down,
}

/// What happens at the byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Both connections are closed.
    Cut,
    /// Both connections are reset.
    Reset,
    /// Nothing moves any more in either direction.
    Stall,
    /// This direction ends; the other goes on.
    HalfClose,
    /// Some bytes are put in.
    Garbage,
    /// From here on a byte at a time.
    Drip,
}

/// What happens to the next connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) way: Way,
    pub(super) at: usize,
    pub(super) act: Act,
}

/// Longer than the program waits for anything.
const STALL: Duration = Duration::from_secs(5);
const GARBAGE: &[u8] = b"\x00\xff\r\n\r\n\x16\x03garbage";

/// What has been passed on to the server, by connection.
type Uploads = Arc<Mutex<Vec<Vec<u8>>>>;

/// Runs until dropped.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    plan: Arc<Mutex<Option<Plan>>>,
    struck: Arc<AtomicBool>,
    /// Bytes each way on the connection that ended last.
    carried: Arc<Mutex<Option<[usize; 2]>>>,
    uploads: Uploads,
    frozen: Arc<AtomicUsize>,
    _runtime: Runtime,
}

impl Proxy {
    pub(super) fn start(target: SocketAddr) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (plan, carried) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(None)));
        let (struck, uploads) = (Arc::<AtomicBool>::default(), Uploads::default());
        let all = Arc::clone(&uploads);
        let frozen = Arc::<AtomicUsize>::default();
        let freezes = Arc::clone(&frozen);
        let (plans, counts, strikes) = (Arc::clone(&plan), Arc::clone(&carried), Arc::clone(&struck));
        runtime.spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let Ok(server) = TcpStream::connect(target).await else { continue };
                let (plan, counts) = (plans.lock().unwrap().take(), Arc::clone(&counts));
                let strikes = Arc::clone(&strikes);
                let upload = Upload::of(&all);
                let freezes = Arc::clone(&freezes);
                tokio::spawn(async move {
                    let carried = carry([client, server], plan, &strikes, &upload, &freezes).await;
                    *counts.lock().unwrap() = Some(carried);
                });
            }
        });
        Self { address, plan, struck, carried, uploads, frozen, _runtime: runtime }
    }

    /// The next connection breaks so.
    pub(super) fn plan(&self, plan: Plan) {
        self.struck.store(false, Ordering::SeqCst);
        *self.plan.lock().unwrap() = Some(plan);
    }

    /// Whether the last plan's byte has come.
    pub(super) fn struck(&self) -> bool {
        self.struck.load(Ordering::SeqCst)
    }

    /// No connection came to be broken.
    pub(super) fn forget_plan(&self) {
        *self.plan.lock().unwrap() = None;
    }

    /// Looks at what has been passed on to the server so far, connection by connection.
    pub(super) fn uploads<T>(&self, look: impl Fn(&[u8]) -> T) -> Vec<T> {
        self.uploads.lock().unwrap().iter().map(|upload| look(upload)).collect()
    }

    /// Forgets them. No connection may be under way.
    pub(super) fn forget_uploads(&self) {
        self.uploads.lock().unwrap().clear();
    }

    /// Nothing moves any more on the connections that are there; they stay open.
    pub(super) fn freeze(&self) {
        self.frozen.store(self.uploads.lock().unwrap().len(), Ordering::SeqCst);
    }

    /// Bytes up and down on the connection that ended last.
    pub(super) fn carried(&self) -> Option<[usize; 2]> {
        *self.carried.lock().unwrap()
    }
}

/// One of the [`Uploads`].
struct Upload(Uploads, usize);

impl Upload {
    fn of(all: &Uploads) -> Self {
        let mut uploads = all.lock().unwrap();
        uploads.push(Vec::new());
        Self(Arc::clone(all), uploads.len() - 1)
    }

    fn passed(&self, bytes: &[u8]) {
        if let Some(upload) = self.0.lock().unwrap().get_mut(self.1) {
            upload.extend_from_slice(bytes);
        }
    }
}

/// Carries bytes between client and server until both have ended.
async fn carry(
    mut sides: [TcpStream; 2],
    plan: Option<Plan>,
    struck: &AtomicBool,
    upload: &Upload,
    frozen: &AtomicUsize,
) -> [usize; 2] {
    let mut carried = [0, 0];
    let mut open = [true, true];
    let mut drips = false;
    let mut buffers = [[0; 4096], [0; 4096]];
    sides.iter().for_each(|side| side.set_nodelay(true).unwrap());
    while open != [false, false] {
        let [client, server] = &mut sides;
        let [from_client, from_server] = &mut buffers;
        let (way, read) = tokio::select! {
            read = client.read(from_client), if open[0] => (Way::Up, read),
            read = server.read(from_server), if open[1] => (Way::Down, read),
        };
        let from = usize::from(way == Way::Down);
        let to = 1 - from;
        let read = read.unwrap_or(0);
        if upload.1 < frozen.load(Ordering::SeqCst) {
            if read == 0 {
                return carried;
            }
            continue;
        }
        if read == 0 {
            open[from] = false;
            let _ = sides[to].shutdown().await;
            continue;
        }
        let piece = buffers[from][..read].to_vec();
        let before = carried[from];
        carried[from] += read;
        let due = plan.filter(|plan| plan.way == way && (before..before + read).contains(&plan.at));
        let passed = due.map_or(read, |plan| plan.at - before);
        if way == Way::Up {
            upload.passed(&piece[..passed]);
        }
        let Some(plan) = due else {
            send(&mut sides[to], &piece, drips && plan.is_some_and(|plan| plan.way == way)).await;
            continue;
        };
        struck.store(true, Ordering::SeqCst);
        let (first, rest) = piece.split_at(passed);
        send(&mut sides[to], first, false).await;
        match plan.act {
            Act::Cut => return carried,
            Act::Reset => {
                sides.iter().for_each(|side| side.set_zero_linger().unwrap());
                return carried;
            }
            Act::Stall => {
                sleep(STALL).await;
                return carried;
            }
            Act::HalfClose => {
                open[from] = false;
                let _ = sides[to].shutdown().await;
            }
            Act::Garbage => {
                send(&mut sides[to], GARBAGE, false).await;
                send(&mut sides[to], rest, false).await;
            }
            Act::Drip => {
                drips = true;
                send(&mut sides[to], rest, true).await;
            }
        }
    }
    carried
}

async fn send(to: &mut TcpStream, bytes: &[u8], drips: bool) {
    if !drips {
        let _ = to.write_all(bytes).await;
        return;
    }
    for byte in bytes {
        let _ = to.write_all(&[*byte]).await;
        sleep(Duration::from_millis(1)).await;
    }
}
