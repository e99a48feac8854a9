//! What looking at the audio costs: a file of 25 MiB through the scanners, beside one plain copy of it.
//!
//! `cargo bench --bench audio`. Files are made in place, with the frames, pages and boxes that real ones have.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::hint::black_box;
use std::time::Duration;

use asr_edge::translate::Audio;
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};

const SIZE: usize = 25 << 20;

/// What one read brings.
const PIECE: usize = 16 << 10;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let mut group = criterion.benchmark_group("25 MiB");
    group.throughput(Throughput::Bytes(SIZE as u64));
    let silence = vec![0_u8; SIZE];
    group.bench_function("copied once", |bencher| {
        bencher.iter_batched_ref(
            || vec![1_u8; SIZE],
            |to| black_box(to).copy_from_slice(black_box(&silence)),
            BatchSize::PerIteration,
        );
    });
    for (name, file) in [
        ("wav", wav()),
        ("flac", flac()),
        ("mp3, 128 kbit/s, frame by frame", mp3(false, [0xff, 0xfb, 0x90, 0x64], 417)),
        ("mp3, 32 kbit/s, frame by frame", mp3(false, [0xff, 0xf3, 0x48, 0xc4], 144)),
        ("mp3 with Info", mp3(true, [0xff, 0xfb, 0x90, 0x64], 417)),
        ("ogg, pages of 4 KiB", ogg()),
        ("m4a, moov behind", m4a()),
        ("m4a in fragments of a second", fragments()),
        ("webm, blocks of 20 ms at 64 kbit/s", webm()),
    ] {
        let pieces: Vec<Bytes> = pieces(&Bytes::from(file));
        assert!(measure(&pieces).is_some(), "{name} is measured");
        group.bench_function(name, |bencher| bencher.iter(|| measure(black_box(&pieces))));
    }
    group.finish();
    criterion.final_summary();
}

fn pieces(file: &Bytes) -> Vec<Bytes> {
    (0..file.len()).step_by(PIECE).map(|at| file.slice(at..file.len().min(at + PIECE))).collect()
}

fn measure(pieces: &[Bytes]) -> Option<Duration> {
    let mut audio = Audio::default();
    for piece in pieces {
        black_box(audio.push(piece.clone()).unwrap());
    }
    audio.end().unwrap();
    audio.duration()
}

fn wav() -> Vec<u8> {
    let mut file = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
    file.extend(b"\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0data\xff\xff\xff\xff");
    file.resize(SIZE, 7);
    file
}

/// One frame that is found, at the very end.
fn flac() -> Vec<u8> {
    let mut file = b"fLaC\x80\0\0\x22\x10\0\x10\0\0\0\0\0\0\0".to_vec();
    file.extend((44_100_u64 << 44 | 1 << 41 | 15 << 36).to_be_bytes());
    file.extend([0; 16]);
    file.resize(SIZE, 7);
    file.extend([0xff, 0xf8, 0xc9, 0x18, 9, 0xfd]);
    file.extend([7; 500]);
    file
}

fn mp3(tagged: bool, head: [u8; 4], size: usize) -> Vec<u8> {
    let count = SIZE / size;
    let frame = [&head[..], &vec![7; size - 4]].concat();
    let mut file = frame.repeat(count);
    if tagged {
        file[36..44].copy_from_slice(b"Info\0\0\0\x03");
        file[44..48].copy_from_slice(&(count as u32 - 1).to_be_bytes());
        file[48..52].copy_from_slice(&((count * size) as u32).to_be_bytes());
    }
    file
}

fn ogg() -> Vec<u8> {
    let page = |flags: u8, granule: u64, packets: &[&[u8]]| {
        let mut page =
            [b"OggS\0", &[flags][..], &granule.to_le_bytes(), &[0; 12], &[packets.len() as u8]].concat();
        page.extend(packets.iter().map(|packet| packet.len() as u8));
        page.extend(packets.concat());
        page
    };
    let mut file = page(2, 0, &[b"OpusHead\x01\x01\x38\x01\x80\xbb\0\0\0\0\0"]);
    file.extend(page(0, 0, &[b"OpusTags"]));
    let packet = [&[0x78][..], &[7; 159]].concat();
    let mut granule = 0;
    while file.len() < SIZE {
        granule += 25 * 960;
        file.extend(page(0, granule, &[&packet[..]; 25]));
    }
    file
}

fn leaf(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    [&(content.len() as u32 + 8).to_be_bytes()[..], kind, content].concat()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// AAC at 64 kbit/s: frames of 186 bytes.
fn moov(count: u32) -> Vec<u8> {
    let sizes = words(&vec![186; count as usize]);
    let stbl = [
        leaf(b"stsd", &[words(&[0, 1, 36]), b"mp4a".to_vec(), vec![0; 28]].concat()),
        leaf(b"stts", &words(&[0, 1, count, 1024])),
        leaf(b"stsz", &[words(&[0, 0, count]), sizes].concat()),
    ];
    let media = [
        leaf(b"mdhd", &words(&[0, 0, 0, 44_100, 0, 0])),
        leaf(b"hdlr", &[words(&[0, 0]), b"soun".to_vec(), vec![0; 13]].concat()),
        leaf(b"minf", &leaf(b"stbl", &stbl.concat())),
    ];
    let track = [leaf(b"tkhd", &words(&[3, 0, 0, 1, 0])), leaf(b"mdia", &media.concat())].concat();
    leaf(b"moov", &[leaf(b"mvhd", &words(&[0, 0, 0, 1000, 0])), leaf(b"trak", &track)].concat())
}

fn m4a() -> Vec<u8> {
    let count = (SIZE / 186) as u32;
    [leaf(b"ftyp", b"M4A \0\0\0\0"), leaf(b"mdat", &vec![7; SIZE]), moov(count)].concat()
}

fn fragments() -> Vec<u8> {
    let mut file = [leaf(b"ftyp", b"M4A \0\0\0\0"), moov(0)].concat();
    let run = [words(&[0x301, 43, 0]), words(&[1024, 186]).repeat(43)].concat();
    let traf = [leaf(b"tfhd", &words(&[0, 1])), leaf(b"trun", &run)].concat();
    let fragment = [leaf(b"moof", &leaf(b"traf", &traf)), leaf(b"mdat", &[7; 43 * 186])].concat();
    file.extend(fragment.repeat(SIZE / fragment.len()));
    file
}

/// As a browser records: nothing has a size but the blocks.
fn webm() -> Vec<u8> {
    let mut file = b"\x1a\x45\xdf\xa3\x84\x42\x86\x81\x01\x18\x53\x80\x67\xff".to_vec();
    file.extend(b"\x16\x54\xae\x6b\x90\xae\x8e\xd7\x81\x01\x83\x81\x02\x86\x86A_OPUS");
    let mut time = 0_u32;
    while file.len() < SIZE {
        if time.is_multiple_of(1000) {
            file.extend(b"\x1f\x43\xb6\x75\xff\xe7\x84");
            file.extend(time.to_be_bytes());
        }
        file.extend([0xa3, 0x40, 164, 0x81]);
        file.extend(((time % 1000) as u16).to_be_bytes());
        file.extend([0x80, 0x78]);
        file.extend([7; 159]);
        time += 20;
    }
    file
}
