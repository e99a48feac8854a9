//! What looking at the audio costs: files of 25 MiB through the scanners, in CPU time, and that as a share of what a
//! whole upload of 25 MiB costs.
//!
//! `cargo bench --bench audio`: the last lines are the shares. Before a piece of a file gets to a scanner it is searched
//! for the form's boundary, which brings it into the cache. That search is done here too, and taken off.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a measuring stick, not the product"
)]

#[path = "audio/cpu.rs"]
mod cpu;
#[path = "audio/files.rs"]
mod files;
#[path = "audio/upload.rs"]
mod upload;

use std::hint::black_box;
use std::time::Duration;

use asr_edge::translate::Audio;
use bytes::Bytes;
use criterion::Criterion;
use memchr::memmem::Finder;

fn main() {
    let mut criterion = Criterion::default()
        .with_measurement(cpu::Cpu)
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let mut group = criterion.benchmark_group("25 MiB");
    let mut medians = Vec::new();
    for (name, file) in files::all() {
        let pieces = file.pieces();
        let audio = measure(&pieces, |_| {});
        assert!(audio.duration().is_some(), "{name} is measured");
        let mut samples = Vec::new();
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| {
                let used = (0..count).map(|_| scan(&pieces)).sum::<Duration>().max(Duration::from_nanos(1));
                samples.push(used / u32::try_from(count).unwrap());
                used
            });
        });
        samples.sort_unstable();
        medians.push((name, samples.get(samples.len() / 2).copied()));
    }
    group.finish();
    criterion.final_summary();
    // Not when the benchmark is only tried out, or listed.
    if std::env::args().any(|argument| argument == "--bench") {
        let (plain, tls) = (upload::cpu(false), upload::cpu(true));
        println!("\n{:42} {:>9} ms", "an upload to an upstream in plain HTTP", millis(plain));
        println!("{:42} {:>9} ms", "an upload to an upstream with TLS", millis(tls));
        for (name, median) in medians {
            let Some(median) = median else { continue };
            let share = |whole: Duration| 100.0 * median.as_secs_f64() / whole.as_secs_f64();
            println!("{name:42} {:>9} ms {:6.2} % {:6.2} %", millis(median), share(plain), share(tls));
        }
    }
}

fn millis(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64() * 1000.0)
}

/// What measuring a file costs more than searching it.
fn scan(pieces: &[Bytes]) -> Duration {
    let finder = Finder::new(b"\r\n--------------------------d74496d66958873e");
    let search = |piece: &Bytes| {
        black_box(finder.find(black_box(piece)));
    };
    let start = cpu::used();
    pieces.iter().for_each(search);
    let searched = cpu::used();
    black_box(measure(pieces, search));
    (cpu::used() - searched).saturating_sub(searched - start)
}

fn measure(pieces: &[Bytes], before: impl Fn(&Bytes)) -> Audio {
    let mut audio = Audio::default();
    for piece in pieces {
        before(piece);
        black_box(audio.push(piece.clone()).unwrap());
    }
    audio.end().unwrap();
    audio
}
