//! `asr-edge upstream-stub`: the command.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use super::{Http2, Options, Script, bind};

/// A strict stand-in for Codex's `POST /backend-api/transcribe`: for tests, demonstrations and benchmarks.
///
/// `GET /seen` tells what it saw, `DELETE /seen` forgets it, `POST /script` makes it misbehave.
#[derive(Debug, clap::Args)]
pub struct StubArgs {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    pub listen: SocketAddr,
    /// Speak TLS with a certificate made at start for localhost, 127.0.0.1 and ::1
    #[arg(long)]
    pub tls: bool,
    /// Write the root to trust to this file, as PEM
    #[arg(long, value_name = "FILE", requires = "tls")]
    pub root: Option<PathBuf>,
    /// Speak HTTP/1.1 only
    #[arg(long)]
    pub no_h2: bool,
    /// Speak HTTP/2 only
    #[arg(long, conflicts_with = "no_h2")]
    pub h2_only: bool,
    /// Refuse requests without Content-Length on HTTP/2 too
    #[arg(long)]
    pub require_length: bool,
    /// Wait this long before every answer
    #[arg(long, value_name = "MS")]
    pub latency: Option<u64>,
    /// The transcript, instead of a word on what was heard
    #[arg(long)]
    pub text: Option<String>,
    /// How to behave for the whole run: the JSON that POST /script takes
    #[arg(long, value_name = "JSON", value_parser = |json: &str| Script::parse(json.as_bytes()))]
    pub script: Option<Script>,
    /// Do not hash what is heard, for benchmarks
    #[arg(long)]
    pub no_hash: bool,
    /// Size of the sockets' receive buffers: small ones let a client feel at once that nobody reads
    #[arg(long, value_name = "BYTES")]
    pub receive_buffer: Option<u32>,
}

impl StubArgs {
    /// What the flags mean together.
    pub fn options(&self) -> Options {
        let mut script = self.script.clone().unwrap_or_default();
        script.delay_ms = self.latency.unwrap_or(script.delay_ms);
        script.text = self.text.clone().or(script.text);
        Options {
            tls: self.tls,
            script,
            http2: match (self.no_h2, self.h2_only) {
                (true, _) => Http2::Never,
                (_, true) => Http2::Only,
                _ => Http2::Offered,
            },
            require_length: self.require_length,
            hash: !self.no_hash,
            receive_buffer: self.receive_buffer,
            ..Options::new(self.listen)
        }
    }

    /// Runs the stand-in until it is interrupted. Prints one line once it listens, after the root has been written.
    ///
    /// # Errors
    /// When it cannot listen, or cannot write the root.
    pub async fn run(self) -> io::Result<()> {
        let stub = bind(self.options()).await?;
        if let (Some(file), Some(pem)) = (&self.root, stub.root_pem()) {
            tokio::fs::write(file, pem).await?;
        }
        let scheme = if self.tls { "https" } else { "http" };
        let mut out = io::stdout().lock();
        writeln!(out, "listening on {scheme}://{}", stub.address())?;
        out.flush()?;
        drop(out);
        tokio::select! {
            () = stub.run() => Ok(()),
            interrupted = tokio::signal::ctrl_c() => interrupted,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        stub: StubArgs,
    }

    #[test]
    fn flags_for_latency_and_text_go_over_the_script_s() {
        let script = r#"{"status": 503, "delay_ms": 1, "text": "a"}"#;
        let line = ["stub", "--listen", "127.0.0.1:0", "--latency", "20", "--script", script, "--h2-only"];
        let options = Line::try_parse_from(line).unwrap().stub.options();
        assert_eq!(options.http2, Http2::Only);
        let wanted =
            Script { status: Some(503), delay_ms: 20, text: Some("a".to_owned()), ..Script::default() };
        assert_eq!(options.script, wanted);
    }

    #[test]
    fn flags_that_make_no_sense_are_refused() {
        for wrong in [["--root", "x.pem"].as_slice(), &["--no-h2", "--h2-only"], &["--script", "{\"x\": 1}"]]
        {
            let line = ["stub", "--listen", "127.0.0.1:0"].iter().chain(wrong);
            assert!(Line::try_parse_from(line).is_err(), "{wrong:?}");
        }
    }
}
