//! The floor to measure against: bare Pingora passing requests on, with the same listener settings as ours.
//! `passthrough LISTEN UPSTREAM`

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a measuring stick, not the product")]

use std::net::SocketAddr;
use std::sync::Arc;

use asr_edge::accept::listener::{self, Listener};
use async_trait::async_trait;
use pingora::proxy::{ProxyHttp, Session, http_proxy};
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;

struct Passthrough(SocketAddr);

#[async_trait]
impl ProxyHttp for Passthrough {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.0, false, String::new())))
    }
}

#[tokio::main]
async fn main() {
    let mut arguments =
        std::env::args().skip(1).map(|address| address.parse::<SocketAddr>().expect("address"));
    let (listen, upstream) = (arguments.next().expect("listen"), arguments.next().expect("upstream"));
    let listener = Listener::bind(listen).expect("bind");
    println!("listening on http://{}", listener.address);
    let proxy = http_proxy(&Arc::new(ServerConf::default()), Passthrough(upstream));
    let (_stop, shutdown) = tokio::sync::watch::channel(false);
    listener::serve(vec![listener], "passthrough", proxy, shutdown).await;
}
