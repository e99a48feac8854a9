//! An upstream that does what the stand-in cannot: answers in bytes of the test's choice.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Runs until the test's process ends.
pub(crate) struct Puppet {
    address: SocketAddr,
    served: Arc<AtomicUsize>,
}

impl Puppet {
    /// Calls `play` with every connection's socket and number, each on a thread of its own.
    pub(crate) fn start(play: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (play, served) = (Arc::new(play), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&served);
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let (play, number) = (Arc::clone(&play), count.fetch_add(1, Ordering::SeqCst));
                socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                std::thread::spawn(move || play(socket, number));
            }
        });
        Self { address, served }
    }

    /// What `--endpoint` is told.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/backend-api/transcribe", self.address)
    }

    /// How many connections came.
    pub(crate) fn connections(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }

    /// Reads one request, head and body. False when it does not come whole.
    pub(crate) fn read_request(socket: &mut TcpStream) -> bool {
        let (mut request, mut buffer) = (Vec::new(), [0; 16 * 1024]);
        loop {
            if let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
                let length: usize = length.unwrap_or("0").trim().parse().unwrap();
                if request.len() >= end + 4 + length {
                    return true;
                }
            }
            match socket.read(&mut buffer) {
                Ok(read @ 1..) => request.extend_from_slice(&buffer[..read]),
                _ => return false,
            }
        }
    }
}
