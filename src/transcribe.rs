//! `asr-edge transcribe FILE`: one transcription without a server.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, IsTerminal, Seek, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use crate::answer::Reply;
use crate::config::{CodexFlags, Config, ConfigFault};
use crate::gateway::once::{Failure, Upload, transcribe};

/// The file that stands for standard input.
const STDIN: &str = "-";
/// How often the progress bar moves.
const STEP: Duration = Duration::from_millis(100);
/// Width of the progress bar, characters.
const WIDTH: u64 = 30;

/// The flags of `transcribe`.
#[derive(Debug, Clone, clap::Args)]
pub struct TranscribeArgs {
    /// The audio; `-` reads standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Prints the whole answer, `{"text": ...}`, instead of the text.
    #[arg(long)]
    pub json: bool,
    /// Media type of the audio; what it is is seen from its bytes.
    #[arg(long, value_name = "TYPE", default_value = "application/octet-stream", value_parser = printable)]
    pub content_type: String,
    /// Name of the audio [default: the file's own].
    #[arg(long, value_name = "NAME")]
    pub filename: Option<String>,
    /// Words that come up in the audio, or what was said before it.
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// Config file (TOML), of which `codex` and `limits` count.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Flags about the upstream.
    #[command(flatten)]
    pub codex: CodexFlags,
}

impl TranscribeArgs {
    /// The settings that its flags, the variables and the file make.
    ///
    /// # Errors
    /// Every fault found.
    pub fn config(&self, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Vec<ConfigFault>> {
        Config::load_upstream(self.config.as_deref(), &self.codex, env)
    }

    /// Transcribes; shows a progress bar on standard error if that is a terminal.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(self, config: &Config) -> Result<Reply, Failure> {
        let (file, length) = open(&self.file)?;
        let own = self.file.file_name().filter(|_| self.file != Path::new(STDIN));
        let name = self.filename.or_else(|| own.map(|name| name.to_string_lossy().into_owned()));
        let mut fields = vec![("response_format", if self.json { "json" } else { "text" }.to_owned())];
        fields.extend(self.prompt.map(|prompt| ("prompt", prompt)));
        let upload = Upload {
            file: file.into(),
            length,
            name: name.unwrap_or_else(|| "audio".to_owned()),
            content_type: self.content_type,
            fields,
            progress: progress(length),
        };
        let reply = transcribe(config, upload).await;
        clear();
        reply
    }
}

/// Puts the word `transcribe` before a command line that begins with a file, or with a flag of `transcribe`. A word that
/// is neither a command nor a file is left to be told as a misspelt command.
pub fn implied(mut line: Vec<OsString>, is_command: impl Fn(&str) -> bool) -> Vec<OsString> {
    let implied = line.get(1).and_then(|first| first.to_str()).is_none_or(|first| match first {
        "-h" | "--help" | "-V" | "--version" => false,
        _ if is_command(first) => false,
        _ => first.starts_with('-') || first.contains(['.', '/']) || Path::new(first).is_file(),
    });
    if implied && line.len() > 1 {
        line.insert(1, OsStr::new("transcribe").to_owned());
    }
    line
}

/// The file, and how long it is from here, if it is one that has a length.
fn open(path: &Path) -> io::Result<(File, Option<u64>)> {
    let mut file = if path == Path::new(STDIN) {
        File::from(io::stdin().as_fd().try_clone_to_owned()?)
    } else {
        File::open(path)
            .and_then(|file| match file.metadata()?.is_dir() {
                true => Err(io::ErrorKind::IsADirectory.into()),
                false => Ok(file),
            })
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?
    };
    let whole = Some(file.metadata()?).filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
    let length = match whole {
        Some(whole) => Some(whole.saturating_sub(file.stream_position()?)),
        None => None,
    };
    Ok((file, length))
}

/// Draws on standard error, if that is a terminal.
fn progress(length: Option<u64>) -> Box<dyn FnMut(u64, bool) + Send> {
    if !io::stderr().is_terminal() {
        return Box::new(|_, _| {});
    }
    let mut drawn: Option<Instant> = None;
    Box::new(move |read, end| {
        if end {
            draw("waiting for the transcript");
        } else if drawn.is_none_or(|at| at.elapsed() >= STEP) {
            drawn = Some(Instant::now());
            draw(&bar(read, length));
        }
    })
}

fn bar(read: u64, length: Option<u64>) -> String {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    match length.filter(|length| *length > 0) {
        None => format!("{:.1} MiB", mib(read)),
        Some(length) => {
            let filled = usize::try_from(WIDTH * read.min(length) / length).unwrap_or_default();
            let (width, full) = (WIDTH as usize, "#".repeat(filled));
            format!("[{full:<width$}] {:.1} of {:.1} MiB", mib(read), mib(length))
        }
    }
}

/// Over what stands in the line.
fn draw(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = write!(stderr, "\r\x1b[K{text}");
    let _ = stderr.flush();
}

fn clear() {
    if io::stderr().is_terminal() {
        draw("");
    }
}

fn printable(text: &str) -> Result<String, &'static str> {
    match text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && !text.is_empty() {
        true => Ok(text.to_owned()),
        false => Err("must be printable ASCII"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn implied_of(line: &str) -> String {
        let line = line.split(' ').map(OsString::from).collect();
        let line = implied(line, |word| ["serve", "help"].contains(&word));
        line.join(OsStr::new(" ")).into_string().unwrap()
    }

    #[test]
    fn a_file_alone_is_a_transcription() {
        for line in
            ["a.wav", "./serve", "/tmp/clip --json", "-", "--json a.wav", "Cargo.toml", "--language en x"]
        {
            assert_eq!(implied_of(&format!("asr-edge {line}")), format!("asr-edge transcribe {line}"));
        }
        for line in ["serve", "serve --port 1", "help serve", "--help", "-V", "sevre"] {
            assert_eq!(implied_of(&format!("asr-edge {line}")), format!("asr-edge {line}"));
        }
        assert_eq!(implied_of("asr-edge"), "asr-edge");
    }

    #[test]
    fn the_bar_fills_and_never_overflows() {
        assert_eq!(bar(0, Some(1 << 20)), "[                              ] 0.0 of 1.0 MiB");
        assert_eq!(bar(1 << 19, Some(1 << 20)), "[###############               ] 0.5 of 1.0 MiB");
        assert_eq!(bar(2 << 20, Some(1 << 20)), "[##############################] 2.0 of 1.0 MiB");
        assert_eq!(bar(3 << 20, None), "3.0 MiB");
        assert_eq!(bar(0, Some(0)), "0.0 MiB");
    }
}
