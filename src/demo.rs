//! The whole program on a machine with no login and no network: a stand-in upstream, self-signed HTTPS, a fresh
//! key, a bundled clip, one real request over real sockets.

mod certificate;
pub mod clip;

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Uri};
use http_body_util::Full;
use tempfile::TempDir;

use self::certificate::SelfSigned;
use crate::base::secret::Secret;
use crate::base::{clock, file, random};
use crate::config::{CodexFlags, Config, ConfigFault, ServeFlags, TlsFiles};
use crate::gateway::serve::{self, Bound, Order};
use crate::probe::{self, Trust};
use crate::stub;

/// The flags of `demo`.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoArgs {
    /// Port of the endpoint; 0 lets the system pick.
    #[arg(long, default_value_t = 8788)]
    port: u16,
    /// Exits after the one request.
    #[arg(long)]
    once: bool,
}

impl DemoArgs {
    /// Runs the demo, telling what happens through `say`; keeps serving until `stop` ends, unless `--once`.
    ///
    /// # Errors
    /// The port is taken; or the request did not come back as it should.
    pub async fn run(self, say: impl Fn(&str), stop: impl Future<Output = ()>) -> io::Result<()> {
        let mut options = stub::Options::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        options.script.text = Some(clip::TEXT.to_owned());
        let stub = stub::bind(options).await?;
        let endpoint = format!("http://{}/backend-api/transcribe", stub.address());
        let upstream = tokio::spawn(stub.run());

        let key = Secret::new(format!("sk-asr-{}", random::hex::<24>()));
        let own = SelfSigned::new().map_err(io::Error::other)?;
        let (bound, _folder) = bind(&endpoint, &key, self.port, &own)?;
        let address = bound.addresses().first().copied().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let url = format!("https://{address}/v1/audio/transcriptions");
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let server = tokio::spawn(bound.serve(stream::once(async move {
            let _ = ended.await;
            Order::Stop
        })));

        say(&format!("stand-in upstream  {endpoint}"));
        say(&format!("endpoint           https://{address}/v1"));
        say(&format!("key                {}", key.expose()));
        let began = clock::instant();
        let request = upload(&url, &key).map_err(io::Error::other)?;
        let trust = Trust::with_pem(own.certificate.as_bytes())?;
        let (status, answer) = probe::send(&uri(&url)?, request, &trust, Duration::from_secs(10)).await?;
        let answer = String::from_utf8_lossy(&answer);
        let took = began.elapsed().as_millis();
        say(&format!(
            "POST /v1/audio/transcriptions, {} bytes of FLAC: {status} in {took} ms",
            clip::AUDIO.len()
        ));
        say(&answer);
        if status != 200 || !answer.contains(clip::TEXT) {
            return Err(io::Error::other("the demo's own request went wrong"));
        }
        if !self.once {
            let clip = std::env::temp_dir().join("asr-edge-demo.flac");
            let root = clip.with_extension("pem");
            file::replace(&clip, clip::AUDIO)?;
            file::replace(&root, own.certificate.as_bytes())?;
            say(&format!("\nyour turn, until ^C:\n\n{}\n", curl(&url, &key, &clip, &root)));
            stop.await;
        }
        let _ = end.send(());
        let _ = server.await;
        upstream.abort();
        Ok(())
    }
}

/// The same settings that flags and a config file would make. The folder holds the certificate, which is followed.
fn bind(endpoint: &str, key: &Secret<String>, port: u16, own: &SelfSigned) -> io::Result<(Bound, TempDir)> {
    let flags = ServeFlags {
        api_key: Some(key.clone()),
        codex: CodexFlags {
            endpoint: Some(endpoint.to_owned()),
            bearer: Some(Secret::new("demo".to_owned())),
            ..CodexFlags::default()
        },
        ..ServeFlags::default()
    };
    let folder = tempfile::tempdir()?;
    let (certificate, key) = (folder.path().join("certificate.pem"), folder.path().join("key.pem"));
    file::replace(&certificate, own.certificate.as_bytes())?;
    file::replace(&key, own.key.as_bytes())?;
    let mut config = Config::load(&flags, &|_| None).map_err(lines)?;
    config.server.http.clear();
    config.server.https = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))];
    config.tls = Some(TlsFiles { certificate, key });
    Ok((serve::bind(&config).map_err(lines)?, folder))
}

/// The upload that an OpenAI client would send.
fn upload(url: &str, key: &Secret<String>) -> http::Result<Request<Full<Bytes>>> {
    let boundary = random::hex::<16>();
    let mut body = Vec::new();
    for (disposition, value) in [
        ("name=\"model\"", &b"whisper-1"[..]),
        ("name=\"response_format\"", b"verbose_json"),
        ("name=\"file\"; filename=\"clip.flac\"", clip::AUDIO),
    ] {
        body.extend_from_slice(
            format!("--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n").as_bytes(),
        );
        body.extend_from_slice(value);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    let uri: Uri = url.parse()?;
    Request::post(uri.path())
        .header("host", uri.authority().map_or("", |authority| authority.as_str()))
        .header("authorization", format!("Bearer {}", key.expose()))
        .header("content-type", format!("multipart/form-data; boundary={boundary}"))
        .body(Full::from(body))
}

fn uri(url: &str) -> io::Result<Uri> {
    url.parse().map_err(io::Error::other)
}

fn curl(url: &str, key: &Secret<String>, clip: &Path, root: &Path) -> String {
    format!(
        "  curl {url} \\\n    --cacert {} \\\n    -H 'Authorization: Bearer {}' \\\n    -F model=whisper-1 -F file=@{}",
        root.display(),
        key.expose(),
        clip.display()
    )
}

/// Several faults as one error.
fn lines(faults: Vec<ConfigFault>) -> io::Error {
    io::Error::other(faults.into_iter().map(|fault| fault.to_string()).collect::<Vec<_>>().join("\n"))
}
