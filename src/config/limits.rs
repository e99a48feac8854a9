//! `[limits]`: how much, how many, how long.

use std::time::Duration;

use super::check::Desk;
use super::raw::{RawLimits, Size};
use super::{Limits, ServeFlags};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// The variables that are looked at.
pub(super) const VARIABLES: [&str; 1] = ["CODEX_ASR_MAX_UPLOAD_MB"];

/// Checks `[limits]` and the flags and variables over it.
pub(super) fn check(raw: RawLimits, flags: &ServeFlags, desk: &mut Desk<'_>) -> Limits {
    let file = bytes("limits.max_upload", raw.max_upload, 50 * MIB, (1, 1024 * GIB), desk);
    let flag = ("--max-upload-mb", flags.max_upload_mb.as_ref());
    let max_upload = match desk.number(flag, &VARIABLES) {
        Some(mib) => bytes(mib.from, Some(Size(mib.value.saturating_mul(MIB))), file, (1, 1024 * GIB), desk),
        None => file,
    };

    let file = count("limits.concurrency", raw.concurrency, 16, (1, 65_536), desk);
    let concurrency = match desk.number(("--concurrency", flags.concurrency.as_ref()), &[]) {
        Some(given) => count(given.from, Some(given.value), 16, (1, 65_536), desk),
        None => file,
    };

    let spool_total = raw.spool_total.map_or_else(|| GIB.max(max_upload), |Size(total)| total);
    if spool_total != 0 && spool_total < max_upload {
        desk.fault(
            "limits.spool_total",
            "is smaller than the longest upload, which could then never be kept; make it larger, or 0",
        );
    }
    let spool_dir = raw.spool_dir.map_or_else(std::env::temp_dir, |path| desk.path(&path));
    // A file without a name, gone when closed, is what the spool makes too: it proves that the folder will do.
    if spool_total != 0
        && let Err(error) = tempfile::tempfile_in(&spool_dir)
    {
        let why = format!("cannot keep files in {}: {}", spool_dir.display(), error.kind());
        desk.fault("limits.spool_dir", why);
    }

    let max_head = bytes("limits.max_head", raw.max_head, 64 * KIB, (KIB, MIB), desk);
    let max_uri = bytes("limits.max_uri", raw.max_uri, (8 * KIB).min(max_head), (128, MIB), desk);
    if max_uri > max_head {
        desk.fault("limits.max_uri", "is larger than limits.max_head, which holds it");
    }

    let per_connection = count(
        "limits.requests_per_connection",
        raw.requests_per_connection,
        1000,
        (1, u32::MAX.into()),
        desk,
    );
    let connections = raw
        .connections
        .map(|given| to_usize(count("limits.connections", Some(given), 1, (1, 1 << 20), desk)));
    let per_address = count(
        "limits.connections_per_address",
        raw.connections_per_address,
        256.min(connections.map_or(256, |connections| connections as u64)),
        (1, 1 << 20),
        desk,
    );
    let failed_keys =
        count("limits.failed_keys_per_minute", raw.failed_keys_per_minute, 10, (0, 1_000_000), desk);
    Limits {
        max_upload,
        max_duration: raw
            .max_duration
            .map(|time| desk.period("limits.max_duration", Some(time), Duration::MAX)),
        concurrency: to_usize(concurrency),
        queue: to_usize(count("limits.queue", raw.queue, 64, (0, 65_536), desk)),
        queue_wait: desk.period("limits.queue_wait", raw.queue_wait, Duration::from_secs(30)),
        spool_dir,
        spool_total,
        head_timeout: desk.period("limits.head_timeout", raw.head_timeout, Duration::from_secs(10)),
        body_timeout: desk.period("limits.body_timeout", raw.body_timeout, Duration::from_secs(30)),
        body_floor: bytes("limits.body_floor", raw.body_floor, 16 * KIB, (0, GIB), desk),
        idle_timeout: desk.period("limits.idle_timeout", raw.idle_timeout, Duration::from_secs(75)),
        requests_per_connection: u32::try_from(per_connection).unwrap_or(u32::MAX),
        connections,
        connections_per_address: to_usize(per_address),
        failed_keys_per_minute: u32::try_from(failed_keys).unwrap_or(u32::MAX),
        max_head: to_usize(max_head),
        max_uri: to_usize(max_uri),
        parts: to_usize(count("limits.parts", raw.parts, 64, (1, 4096), desk)),
        part_head: to_usize(bytes("limits.part_head", raw.part_head, 8 * KIB, (256, MIB), desk)),
        field: to_usize(bytes("limits.field", raw.field, 256 * KIB, (KIB, 16 * MIB), desk)),
    }
}

fn bytes(
    path: &'static str,
    given: Option<Size>,
    default: u64,
    (least, most): (u64, u64),
    desk: &mut Desk<'_>,
) -> u64 {
    match given {
        None => default,
        Some(Size(bytes)) if (least..=most).contains(&bytes) => bytes,
        Some(_) => {
            let (least, most) = (bytesize::ByteSize(least), bytesize::ByteSize(most));
            desk.fault(path, format!("must be between {least} and {most}"));
            default
        }
    }
}

fn count(
    path: &'static str,
    given: Option<u64>,
    default: u64,
    (least, most): (u64, u64),
    desk: &mut Desk<'_>,
) -> u64 {
    match given {
        None => default,
        Some(count) if (least..=most).contains(&count) => count,
        Some(_) => {
            desk.fault(path, format!("must be between {least} and {most}"));
            default
        }
    }
}

/// All limits that end up here are far below 4 GiB.
fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
