//! What files that ffmpeg makes are taken for, and how long they are found to play, judged by ffprobe.
//!
//! Without ffmpeg there is nothing to test: that is said, and passes.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use asr_edge::translate::refusal::Kind;
use asr_edge::translate::{Audio, Container, Refusal};
use bytes::Bytes;

/// How far from ffprobe a measured duration may be.
const TOLERANCE: f64 = 0.05;

/// The longest that is held of any file.
const HELD: usize = 66 << 10;

/// How a file is made, and who says how long it plays.
struct Recipe {
    /// Also the file's name.
    name: &'static str,
    rate: u32,
    arguments: &'static str,
    judge: Judge,
}

#[derive(Clone, Copy, PartialEq)]
enum Judge {
    /// What ffprobe says.
    Probe,
    /// What ffprobe says of the audio alone.
    Stream,
    /// ffprobe does not know, or guesses from the bit rate: its packets together.
    Packets,
}

use Judge::{Packets, Probe, Stream};

const fn recipe(name: &'static str, rate: u32, arguments: &'static str, judge: Judge) -> Recipe {
    Recipe { name, rate, arguments, judge }
}

/// `|` at the end: written to a pipe, so that nothing can be put right afterwards.
const WAV: &[Recipe] = &[
    recipe("s16.wav", 16_000, "-c:a pcm_s16le", Probe),
    recipe("u8.wav", 8_000, "-c:a pcm_u8", Probe),
    recipe("s24.wav", 44_100, "-c:a pcm_s24le -ac 2", Probe),
    recipe("f32.wav", 48_000, "-c:a pcm_f32le", Probe),
    recipe("six.wav", 16_000, "-c:a pcm_s16le -ac 6", Probe),
    recipe("mulaw.wav", 8_000, "-c:a pcm_mulaw", Probe),
    recipe("alaw.wav", 8_000, "-c:a pcm_alaw", Probe),
    recipe("ima.wav", 16_000, "-c:a adpcm_ima_wav", Probe),
    recipe("ms.wav", 44_100, "-c:a adpcm_ms -ac 2", Probe),
    recipe("gsm.wav", 8_000, "-c:a libgsm_ms", Probe),
    recipe("g722.wav", 16_000, "-c:a g722", Probe),
    recipe("mp3.wav", 44_100, "-c:a libmp3lame", Probe),
    recipe("streamed.wav", 16_000, "-c:a pcm_s16le -f wav |", Probe),
    recipe("streamed-mulaw.wav", 8_000, "-c:a pcm_mulaw -f wav |", Probe),
];

const FLAC: &[Recipe] = &[
    recipe("plain.flac", 44_100, "", Probe),
    recipe("speech.flac", 16_000, "-compression_level 12", Probe),
    recipe("high.flac", 96_000, "-sample_fmt s32 -ac 2", Probe),
    recipe("small.flac", 44_100, "-frame_size 192", Probe),
    recipe("streamed.flac", 16_000, "-f flac |", Packets),
];

const OGG: &[Recipe] = &[
    recipe("opus.ogg", 48_000, "-c:a libopus", Probe),
    recipe("opus-60ms.ogg", 16_000, "-c:a libopus -frame_duration 60 -b:a 16k", Probe),
    recipe("opus-2ms.ogg", 48_000, "-c:a libopus -frame_duration 2.5 -ac 2", Probe),
    recipe("opus-pages.ogg", 48_000, "-c:a libopus -page_duration 20000", Probe),
    recipe("opus-streamed.ogg", 48_000, "-c:a libopus -f ogg |", Probe),
    recipe("vorbis.ogg", 44_100, "-c:a libvorbis", Probe),
    recipe("vorbis-8k.ogg", 8_000, "-c:a libvorbis", Probe),
    recipe("flac.ogg", 44_100, "-c:a flac", Probe),
    recipe("speex.ogg", 16_000, "-c:a libspeex", Probe),
    recipe("speex-three.ogg", 8_000, "-c:a libspeex -frames_per_packet 3", Probe),
];

const MP3: &[Recipe] = &[
    recipe("cbr.mp3", 44_100, "-b:a 128k", Probe),
    recipe("cbr-320.mp3", 48_000, "-b:a 320k -ac 2", Probe),
    recipe("speech.mp3", 16_000, "-b:a 32k", Probe),
    recipe("phone.mp3", 8_000, "-b:a 8k", Probe),
    recipe("half.mp3", 22_050, "-b:a 56k -ac 2", Probe),
    recipe("vbr.mp3", 44_100, "-q:a 4", Probe),
    recipe("abr.mp3", 32_000, "-b:a 64k -abr 1", Probe),
    recipe("cbr-bare.mp3", 44_100, "-b:a 128k -write_xing 0 -id3v2_version 0", Packets),
    recipe("vbr-bare.mp3", 44_100, "-q:a 4 -write_xing 0 -id3v2_version 0", Packets),
    recipe("id3v1.mp3", 44_100, "-b:a 64k -write_id3v1 1 -metadata title=Title", Probe),
    recipe("id3v1-bare.mp3", 44_100, "-q:a 6 -write_xing 0 -write_id3v1 1 -metadata title=Title", Packets),
    recipe("streamed.mp3", 16_000, "-b:a 24k -f mp3 |", Packets),
    recipe("layer2.mp3", 44_100, "-c:a mp2 -b:a 128k -f mp2", Packets),
];

const MP4: &[Recipe] = &[
    recipe("last.m4a", 44_100, "", Probe),
    recipe("first.m4a", 16_000, "-movflags +faststart", Probe),
    recipe("no-edits.m4a", 44_100, "-use_editlist 0", Probe),
    recipe("fragments.m4a", 44_100, "-movflags +frag_keyframe+empty_moov", Probe),
    recipe("fragments-base.m4a", 16_000, "-movflags +frag_keyframe+empty_moov+default_base_moof", Probe),
    recipe("fragments-short.m4a", 44_100, "-frag_duration 100000 -movflags +frag_keyframe", Probe),
    recipe(
        "fragments-piped.m4a",
        44_100,
        "-frag_duration 500000 -f mp4 -movflags +frag_keyframe+empty_moov |",
        Probe,
    ),
    recipe("dash.m4a", 44_100, "-frag_duration 1000000 -movflags +dash", Probe),
    recipe("cmaf.m4a", 48_000, "-frag_duration 1000000 -movflags +cmaf+global_sidx", Probe),
    recipe("alac.m4a", 44_100, "-c:a alac", Probe),
    recipe("opus.mp4", 48_000, "-c:a libopus -strict -2", Probe),
    recipe("flac.mp4", 44_100, "-c:a flac -strict -2", Probe),
    recipe("mp3.mp4", 44_100, "-c:a libmp3lame", Probe),
    recipe("pcm.mov", 44_100, "-c:a pcm_s16le", Probe),
    recipe("ima.mov", 44_100, "-c:a adpcm_ima_qt", Probe),
    recipe("film.mp4", 44_100, "-f lavfi -i color=s=64x64:r=10 -shortest -c:v mpeg4", Stream),
    recipe(
        "film-fragments.mp4",
        44_100,
        "-f lavfi -i color=s=64x64:r=10 -shortest -c:v mpeg4 -movflags +frag_keyframe+empty_moov",
        Packets,
    ),
];

const WEBM: &[Recipe] = &[
    recipe("opus.webm", 48_000, "-c:a libopus", Probe),
    recipe("vorbis.webm", 44_100, "-c:a libvorbis", Probe),
    recipe("opus-60ms.webm", 16_000, "-c:a libopus -frame_duration 60", Probe),
    recipe("live.webm", 48_000, "-c:a libopus -live 1 -f webm |", Packets),
    recipe("piped.webm", 48_000, "-c:a libopus -f webm |", Packets),
    recipe("clusters.webm", 48_000, "-c:a libopus -cluster_time_limit 100", Probe),
    recipe("aac.mka", 44_100, "-c:a aac", Probe),
    recipe("flac.mka", 44_100, "-c:a flac", Probe),
    recipe("mp3.mka", 44_100, "-c:a libmp3lame", Probe),
    recipe("pcm.mka", 44_100, "-c:a pcm_s16le", Probe),
    recipe(
        "film.webm",
        48_000,
        "-f lavfi -i color=s=64x64:r=10 -shortest -c:v libvpx -deadline realtime -c:a libopus",
        Packets,
    ),
];

/// Why nothing can be tested, if that is so.
fn without_ffmpeg() -> bool {
    let is_there = |tool: &str| Command::new(tool).arg("-version").stdout(Stdio::null()).status().is_ok();
    let missing = !(is_there("ffmpeg") && is_there("ffprobe"));
    if missing {
        eprintln!("SKIPPED: ffmpeg and ffprobe are not installed (Debian package `ffmpeg`)");
    }
    missing
}

/// Where made files are kept; they are made once.
fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("audio");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// The file of a recipe, `seconds` long. Recipes that this ffmpeg has no codec for make none.
fn make(recipe: &Recipe, seconds: f64) -> Option<PathBuf> {
    let path = folder().join(format!("{seconds}-{}", recipe.name));
    if path.exists() {
        return Some(path);
    }
    let sound = format!("sine=f=330:beep_factor=4:r={}:d={seconds}", recipe.rate);
    let part = folder().join(format!("part-{seconds}-{}", recipe.name));
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-nostdin", "-y", "-f", "lavfi", "-i", &sound]);
    let piped = recipe.arguments.ends_with('|');
    ffmpeg.args(recipe.arguments.trim_end_matches('|').split_whitespace());
    if piped {
        ffmpeg.arg("pipe:1").stdout(Stdio::from(std::fs::File::create(&part).unwrap()));
    } else {
        ffmpeg.arg(&part);
    }
    let made = ffmpeg.output().unwrap();
    if !made.status.success() {
        eprintln!("SKIPPED {}: {}", recipe.name, String::from_utf8_lossy(&made.stderr).trim());
        return None;
    }
    std::fs::rename(part, &path).unwrap();
    Some(path)
}

/// Seconds that the judge gives a file.
fn judged(path: &Path, judge: Judge) -> f64 {
    match judge {
        Probe => probe(path, "format=duration").parse().unwrap(),
        Stream => probe(path, "stream=duration").parse().unwrap(),
        Packets => {
            let times = probe(path, "packet=duration_time");
            times.lines().filter_map(|line| line.trim_end_matches(',').parse::<f64>().ok()).sum()
        }
    }
}

/// Where the last packet that ffprobe finds ends, seconds.
fn last(path: &Path) -> f64 {
    let packets = probe(path, "packet=pts_time,duration_time");
    let ends = packets.lines().map(|line| line.split(',').filter_map(|time| time.parse::<f64>().ok()).sum());
    ends.fold(0.0, f64::max)
}

fn probe(path: &Path, entries: &str) -> String {
    let mut ffprobe = Command::new("ffprobe");
    ffprobe
        .args(["-v", "quiet", "-select_streams", "a", "-of", "csv=p=0", "-show_entries", entries])
        .arg(path);
    String::from_utf8(ffprobe.output().unwrap().stdout).unwrap().trim().to_owned()
}

type Measured = Result<(Container, Option<Duration>), Refusal>;

/// What a file is found to be when it comes in these pieces.
fn measure(file: &Bytes, pieces: impl IntoIterator<Item = usize>) -> Measured {
    let (mut audio, mut rest, mut out) = (Audio::default(), file.clone(), 0);
    for piece in pieces {
        let piece = rest.split_to(piece.min(rest.len()));
        let seen = file.len() - rest.len();
        out += audio.push(piece)?.map_or(0, |piece| piece.len());
        assert!(out == seen || seen - out <= 1024, "{} bytes are held back", seen - out);
        assert!(audio.held() <= HELD, "{} bytes are held", audio.held());
        if rest.is_empty() {
            break;
        }
    }
    out += audio.end()?.map_or(0, |piece| piece.len());
    assert_eq!(out, file.len(), "every byte passes");
    Ok((audio.container().unwrap(), audio.duration()))
}

fn whole(file: &Bytes) -> Measured {
    measure(file, [file.len()])
}

fn read(path: &Path) -> Bytes {
    #[allow(clippy::disallowed_methods, reason = "files of our own making")]
    std::fs::read(path).unwrap().into()
}

/// Makes every file of the recipes, and has it measured in every way.
fn check(recipes: &[Recipe], container: Container) {
    if without_ffmpeg() {
        return;
    }
    for recipe in recipes {
        for seconds in [0.2, 3.0, 300.0] {
            let Some(path) = make(recipe, seconds) else { break };
            let file = read(&path);
            let (found, measured) = whole(&file).unwrap();
            assert_eq!(found, container, "{}", path.display());
            let measured =
                measured.unwrap_or_else(|| panic!("{}: not measured", path.display())).as_secs_f64();
            let judged = judged(&path, recipe.judge);
            eprintln!("{:9.3} {:+.3}  {seconds} {}", judged, measured - judged, recipe.name);
            assert!((measured - judged).abs() <= TOLERANCE, "{}: {measured}, not {judged}", path.display());
            truncate(&file, &path);
            if seconds < 10.0 {
                cut(&file, &path);
            }
        }
    }
}

/// Every cutting gives the same.
fn cut(file: &Bytes, path: &Path) {
    let expected = whole(file);
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let random = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % if state & 0x100 == 0 { 40 } else { 3000 }) as usize
    });
    assert_eq!(measure(file, random), expected, "{}", path.display());
    for step in [1, 7, 1000, 16_384] {
        assert_eq!(measure(file, std::iter::repeat(step)), expected, "{} by {step}", path.display());
    }
}

/// A file that is cut off, at any 997th byte, never plays longer than what came of it, as ffprobe counts that.
fn truncate(file: &Bytes, path: &Path) {
    let (_, full) = whole(file).unwrap();
    let mut longest = Duration::ZERO;
    let places = file.len().div_ceil(997);
    let mut audio = Audio::default();
    for (n, size) in (0..file.len()).step_by(997).enumerate() {
        // What has come so far is all there is of it.
        let mut cut = audio.clone();
        let ended = cut.end().map(|_| cut.duration());
        audio.push(file.slice(size..file.len().min(size + 997))).unwrap();
        // Some of them, since ffprobe takes its time.
        let is_judged = n % (places / 3).max(64) == 37;
        if is_judged {
            let read_anew = whole(&file.slice(..size)).map(|(_, duration)| duration);
            assert_eq!(read_anew, ended, "{} up to {size}", path.display());
        }
        let Ok(Some(measured)) = ended else { continue };
        assert!(Some(measured) <= full, "{} up to {size}: {measured:?}", path.display());
        // Where a last block's length is an estimate, the next one may take back a little of it.
        let known = measured + Duration::from_millis(3) >= longest;
        assert!(known, "{} up to {size}: {measured:?} after {longest:?}", path.display());
        longest = measured;
        if is_judged {
            let cut = path.with_extension("cut");
            std::io::Write::write_all(&mut std::fs::File::create(&cut).unwrap(), &file[..size]).unwrap();
            let there = last(&cut);
            let measured = measured.as_secs_f64();
            assert!(
                measured <= there + TOLERANCE,
                "{} up to {size}: {measured}, not {there}",
                path.display()
            );
            std::fs::remove_file(cut).unwrap();
        }
    }
    assert!(audio.end().is_ok() && audio.duration() == full, "{}", path.display());
}

#[test]
fn wav_is_measured_as_ffprobe_does() {
    check(WAV, Container::Wav);
}

#[test]
fn flac_is_measured_as_ffprobe_does() {
    check(FLAC, Container::Flac);
}

#[test]
fn ogg_is_measured_as_ffprobe_does() {
    check(OGG, Container::Ogg);
}

#[test]
fn mp3_is_measured_as_ffprobe_does() {
    check(MP3, Container::Mp3);
}

#[test]
fn mp4_is_measured_as_ffprobe_does() {
    check(MP4, Container::M4a);
}

#[test]
fn webm_is_measured_as_ffprobe_does() {
    check(WEBM, Container::Webm);
}

#[test]
fn files_in_a_row_add_up() {
    if without_ffmpeg() {
        return;
    }
    for recipe in [&OGG[0], &OGG[5], &MP3[7], &MP3[0]] {
        let one = read(&make(recipe, 3.0).unwrap());
        let twice = whole(&Bytes::from([&one[..], &one].concat())).unwrap().1.unwrap().as_secs_f64();
        assert!((twice - 6.0).abs() < 0.15, "{}: {twice}", recipe.name);
    }
}

#[test]
fn a_large_picture_in_front_of_mp3_is_skipped() {
    if without_ffmpeg() {
        return;
    }
    let bare = read(&make(&MP3[7], 3.0).unwrap());
    let size: usize = 700_000;
    let tag = [b'I', b'D', b'3', 4, 0, 0, 0, (size >> 14) as u8, (size >> 7 & 127) as u8, (size & 127) as u8];
    let picture = (0..size).map(|n| if n % 3 == 0 { 0xff } else { 0xfb });
    let file: Bytes = tag.into_iter().chain(picture).chain(bare.iter().copied()).collect();
    assert_eq!(whole(&file), whole(&bare));
    cut(&file, Path::new("picture.mp3"));
}

#[test]
fn what_the_upstream_does_not_take_is_refused_in_the_first_kilobyte() {
    if without_ffmpeg() {
        return;
    }
    const VIDEO: &str = "-f lavfi -i color=s=64x64:r=10 -t 0.5 -map 1:v";
    for (name, arguments, kind, starts) in [
        ("a.aac", "".to_owned(), Kind::Foreign, "AAC in ADTS"),
        ("latm.aac", "-c:a aac -f latm".to_owned(), Kind::Foreign, "AAC in LATM"),
        ("a.aiff", String::new(), Kind::Foreign, "AIFF"),
        ("a.caf", String::new(), Kind::Foreign, "Apple CAF"),
        ("a.au", String::new(), Kind::Foreign, "Sun AU"),
        ("a.wma", String::new(), Kind::Foreign, "Windows Media"),
        ("a.ac3", String::new(), Kind::Foreign, "Dolby"),
        ("a.wv", String::new(), Kind::Foreign, "WavPack"),
        ("a.tta", String::new(), Kind::Foreign, "True Audio"),
        ("a.ts", "-c:a aac".to_owned(), Kind::Foreign, "MPEG transport stream"),
        ("a.avi", String::new(), Kind::Foreign, "RIFF without WAVE"),
        ("a.flv", "-c:a libmp3lame".to_owned(), Kind::Foreign, "Flash"),
        ("a.w64", String::new(), Kind::Foreign, "Wave64"),
        ("v.webm", format!("{VIDEO} -c:v libvpx"), Kind::Silent, "WebM without"),
        ("v.mkv", format!("{VIDEO} -c:v mpeg4"), Kind::Silent, "WebM without"),
        ("v.mp4", format!("{VIDEO} -c:v mpeg4 -movflags +faststart"), Kind::Silent, "MP4 without"),
        ("v.ogv", format!("{VIDEO} -c:v libtheora"), Kind::Foreign, "Ogg with Theora"),
    ] {
        let recipe =
            Recipe { name, rate: 44_100, arguments: Box::leak(arguments.into_boxed_str()), judge: Probe };
        let Some(path) = make(&recipe, 1.0) else { continue };
        let file = read(&path);
        let mut audio = Audio::default();
        // The whole `moov` has to have come.
        let enough = if name == "v.mp4" { file.len() } else { 1024.min(file.len()) };
        match audio.push(file.slice(..enough)) {
            Err(Refusal::AudioUnsupported(Some(found))) => {
                assert!(found.kind == kind && found.name.starts_with(starts), "{name}: {found:?}");
            }
            other => panic!("{name}: {other:?}"),
        }
        assert!(measure(&file, std::iter::repeat(1)).is_err(), "{name}");
    }
}

#[test]
fn good_audio_of_no_length_is_too_short() {
    if without_ffmpeg() {
        return;
    }
    for (recipe, size) in [(&WAV[0], 44), (&FLAC[0], 86), (&OGG[0], 47), (&MP3[0], 45)] {
        let file = read(&make(recipe, 0.2).unwrap());
        assert_eq!(whole(&file.slice(..size)), Err(Refusal::AudioTooShort), "{}", recipe.name);
    }
}

#[test]
fn a_maximum_is_kept_as_soon_as_the_header_or_the_bytes_show_it() {
    if without_ffmpeg() {
        return;
    }
    let limit = Duration::from_secs(100);
    let all = [
        &WAV[0], &WAV[12], &FLAC[0], &OGG[0], &OGG[5], &MP3[0], &MP3[7], &MP4[1], &MP4[6], &WEBM[0], &WEBM[3],
    ];
    for (recipe, share) in all.into_iter().zip([1, 36, 1, 36, 36, 1, 36, 10, 36, 1, 36]) {
        let file = read(&make(recipe, 300.0).unwrap());
        let mut audio = Audio::new(Some(limit));
        let mut read = 0;
        let refused = file.chunks(4096).find_map(|piece| {
            read += piece.len();
            audio.push(Bytes::copy_from_slice(piece)).err()
        });
        assert!(matches!(refused, Some(Refusal::AudioTooLong { .. })), "{}: {refused:?}", recipe.name);
        let part = 100 * read / file.len();
        assert!(part <= share, "{}: only after {part} %", recipe.name);
        let mut audio = Audio::new(Some(Duration::from_secs(301)));
        assert!(audio.push(file).is_ok() && audio.end().is_ok(), "{}", recipe.name);
    }
}
