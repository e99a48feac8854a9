//! The flags of `serve`, the same as codex-asr's, plus `--config`, `--admin` and `--ca-root`.
//!
//! They are kept as text: a bad number is then reported together with all other faults. Variables are not bound here
//! (`env = ...`): [`super::Config::load`] looks them up, so that they are tested without the process environment and
//! never show up in `--help`.

use std::convert::Infallible;
use std::path::PathBuf;

use super::raw::LogFormat;
use crate::base::secret::Secret;

/// What `serve` and `check` take.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ServeFlags {
    /// Config file (TOML); flags and variables win over it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Address to listen on [default: 127.0.0.1].
    #[arg(long, value_name = "ADDR")]
    pub host: Option<String>,

    /// Port to listen on [default: 8788].
    #[arg(long, value_name = "PORT")]
    pub port: Option<String>,

    /// Address and port for /live, /ready, /metrics and /status [default: none].
    #[arg(long, value_name = "ADDR:PORT")]
    pub admin: Option<String>,

    /// Key that callers must send [variable: CODEX_ASR_SERVER_KEY].
    #[arg(long, value_name = "KEY", value_parser = secret)]
    pub api_key: Option<Secret<String>>,

    /// Serve without a key; only on loopback addresses.
    #[arg(long)]
    pub no_api_key: bool,

    /// Take the listening sockets over from the server that runs; it then finishes what it has begun and ends.
    #[arg(long)]
    pub upgrade: bool,

    /// Transcriptions in flight at most [default: 16].
    #[arg(long, value_name = "N")]
    pub concurrency: Option<String>,

    /// Longest upload in MiB [variable: CODEX_ASR_MAX_UPLOAD_MB] [default: 50].
    #[arg(long, value_name = "MIB")]
    pub max_upload_mb: Option<String>,

    /// Log lines for people or for machines [default: text].
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,

    /// off, error, warn, info, debug or trace, or directives such as info,asr_edge=debug [default: info].
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,

    /// Flags about the upstream.
    #[command(flatten)]
    pub codex: CodexFlags,
}

/// The flags that are about the upstream: what one shot without a server needs too.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct CodexFlags {
    /// Access token, instead of a login file [variable: CODEX_ASR_BEARER].
    #[arg(long, value_name = "TOKEN", value_parser = secret)]
    pub bearer: Option<Secret<String>>,

    /// ChatGPT account id [default: what the login says].
    #[arg(long, value_name = "ID")]
    pub account_id: Option<String>,

    /// Codex login file [variable: CODEX_ASR_AUTH_FILE] [default: $CODEX_HOME/auth.json, or ~/.codex/auth.json].
    #[arg(long, value_name = "FILE")]
    pub auth_file: Option<PathBuf>,

    /// Transcription endpoint [default: Codex's own on chatgpt.com].
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,

    /// HTTP proxy for the endpoint [variables: CODEX_ASR_PROXY, HTTPS_PROXY, ALL_PROXY].
    #[arg(long, value_name = "URL", value_parser = secret)]
    pub proxy: Option<Secret<String>>,

    /// Longest transcription upstream [variable: CODEX_ASR_REQUEST_TIMEOUT_SECONDS] [default: 300].
    #[arg(long, value_name = "SECONDS")]
    pub request_timeout_seconds: Option<String>,

    /// Longest connect upstream [variable: CODEX_ASR_CONNECT_TIMEOUT_SECONDS] [default: 15].
    #[arg(long, value_name = "SECONDS")]
    pub connect_timeout_seconds: Option<String>,

    /// Language of requests that name none, such as en or zh.
    #[arg(long, value_name = "LANGUAGE")]
    pub language: Option<String>,

    /// PEM file of roots to trust for the endpoint, beside the system's.
    #[arg(long, value_name = "FILE")]
    pub ca_root: Option<PathBuf>,
}

// Never failing keeps the value out of clap's error messages.
fn secret(text: &str) -> Result<Secret<String>, Infallible> {
    Ok(Secret::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    /// Runs the proxy.
    #[derive(Debug, Parser)]
    struct Serve {
        #[command(flatten)]
        flags: ServeFlags,
    }

    #[test]
    fn every_flag_of_codex_asr_is_taken() {
        Serve::command().debug_assert();
        let flags = Serve::parse_from(
            "serve --host 0.0.0.0 --port 1 --api-key K --no-api-key --bearer T --account-id A --auth-file F \
             --endpoint U --proxy P --request-timeout-seconds 2 --connect-timeout-seconds 3 --concurrency 4 \
             --max-upload-mb 5 --language L --ca-root C --config G --admin D"
                .split_whitespace(),
        )
        .flags;
        assert_eq!(flags.api_key.unwrap().expose(), "K");
        assert_eq!(flags.codex.proxy.unwrap().expose(), "P");
        assert_eq!(flags.codex.ca_root.unwrap(), PathBuf::from("C"));
        assert!(flags.no_api_key);
        assert_eq!(Serve::command().get_about().unwrap().to_string(), "Runs the proxy");
    }

    #[test]
    fn secrets_show_neither_in_debug_nor_in_help() {
        let planted =
            ["serve", "--api-key", "PLANTED", "--bearer", "PLANTED", "--proxy", "http://u:PLANTED@p"];
        let shown = format!("{:?}{}", Serve::parse_from(planted), Serve::command().render_long_help());
        assert!(!shown.contains("PLANTED"), "{shown}");
    }
}
