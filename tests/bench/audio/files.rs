//! Files of 25 MiB, made in place, with the frames, pages and boxes that real ones have.

use bytes::Bytes;

pub(crate) const SIZE: usize = 25 << 20;

/// What one read brings: a TLS record.
const PIECE: usize = 16 << 10;

/// As much of a file as is made before it begins again: it stays in the processor's second cache, as what has just been
/// received does.
const AGAIN: usize = 256 << 10;

/// A start, a middle that comes again and again, and an end.
#[derive(Default)]
pub(crate) struct File {
    start: Vec<u8>,
    middle: Vec<u8>,
    end: Vec<u8>,
}

impl File {
    /// The whole file as reads would bring it.
    pub(crate) fn pieces(self) -> Vec<Bytes> {
        let times = (SIZE - self.start.len() - self.end.len()) / self.middle.len();
        let middle = cut(self.middle);
        let middle = std::iter::repeat_n(middle, times).flatten();
        cut(self.start).into_iter().chain(middle).chain(cut(self.end)).collect()
    }
}

fn cut(bytes: Vec<u8>) -> Vec<Bytes> {
    let bytes = Bytes::from(bytes);
    (0..bytes.len()).step_by(PIECE).map(|at| bytes.slice(at..bytes.len().min(at + PIECE))).collect()
}

/// Sizes as a variable bit rate makes them, around `mean`.
fn sizes(mean: usize) -> impl Iterator<Item = usize> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        mean * 3 / 4 + (state >> 33) as usize % (mean / 2)
    })
}

/// All named containers, in their usual and in their worst shapes.
pub(crate) fn all() -> Vec<(&'static str, File)> {
    vec![
        ("wav", wav()),
        ("flac", flac()),
        ("m4a, moov behind", m4a()),
        ("m4a in fragments of a second", fragments(43)),
        ("m4a in fragments of 0.1 s", fragments(4)),
        ("mp3 with Info", tagged_mp3()),
        ("mp3 without, 128 kbit/s", mp3([0xff, 0xfb, 0x90, 0x64], 417, 959_184)),
        ("mp3 without, 32 kbit/s at 44.1 kHz", mp3([0xff, 0xfb, 0x10, 0xc4], 104, 489_796)),
        ("mp3 without, 32 kbit/s at 16 kHz", mp3([0xff, 0xf3, 0x48, 0xc4], 144, 0)),
        ("mp3 without, variable bit rate", vbr_mp3()),
        ("ogg opus, a page a second", ogg(50)),
        ("ogg opus, a page every 20 ms", ogg(1)),
        ("webm with Duration", whole_webm()),
        ("webm live, blocks of 60 ms", webm(60, 360)),
        ("webm live, blocks of 20 ms at 64 kbit/s", webm(20, 160)),
        ("webm live, blocks of 20 ms at 32 kbit/s", webm(20, 80)),
    ]
}

fn wav() -> File {
    let mut start = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
    start.extend(b"\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0data\xff\xff\xff\xff");
    File { start, middle: vec![7; AGAIN], ..File::default() }
}

/// One frame that is found, at the very end.
fn flac() -> File {
    let mut start = b"fLaC\x80\0\0\x22\x10\0\x10\0\0\0\0\0\0\0".to_vec();
    start.extend((44_100_u64 << 44 | 1 << 41 | 15 << 36).to_be_bytes());
    start.extend([0; 16]);
    let mut end = vec![0xff, 0xf8, 0xc9, 0x18, 9, 0xfd];
    end.extend([7; 5000]);
    File { start, middle: vec![7; AGAIN], end }
}

/// Frames of `size` bytes, and of one more so often that `rest` millionths of a byte are made up for.
fn mp3(head: [u8; 4], size: usize, rest: usize) -> File {
    let (mut middle, mut owed) = (Vec::new(), 0);
    while middle.len() < AGAIN {
        owed += rest;
        let padding = usize::from(owed >= 1_000_000);
        owed -= padding * 1_000_000;
        middle.extend([head[0], head[1], head[2] | (padding as u8) << 1, head[3]]);
        middle.extend(vec![7; size - 4 + padding]);
    }
    File { middle, ..File::default() }
}

/// Bit rates from 64 to 160 kbit/s, by turns.
fn vbr_mp3() -> File {
    let rates = [(5, 208), (6, 261), (7, 313), (8, 365), (9, 417), (10, 522)];
    let mut middle = Vec::new();
    for size in sizes(4096) {
        let (code, size) = rates[size % rates.len()];
        middle.extend([0xff, 0xfb, code << 4, 0x64]);
        middle.extend(vec![7; size - 4]);
        if middle.len() >= AGAIN {
            break;
        }
    }
    File { middle, ..File::default() }
}

fn tagged_mp3() -> File {
    let File { middle, .. } = mp3([0xff, 0xfb, 0x90, 0x64], 417, 0);
    let mut start = [&[0xff, 0xfb, 0x90, 0x64], &[0; 413][..]].concat();
    let times = (SIZE - start.len()) / middle.len();
    let frames = (times * middle.len() / 417) as u32;
    start[36..44].copy_from_slice(b"Info\0\0\0\x03");
    start[44..48].copy_from_slice(&frames.to_be_bytes());
    start[48..52].copy_from_slice(&(frames * 417 + 417).to_be_bytes());
    File { start, middle, ..File::default() }
}

/// Opus in packets of 20 ms around 160 bytes, so many on a page.
fn ogg(packets: usize) -> File {
    let page = |flags: u8, granule: u64, packets: &[Vec<u8>]| {
        let mut page =
            [b"OggS\0", &[flags][..], &granule.to_le_bytes(), &[0; 12], &[packets.len() as u8]].concat();
        page.extend(packets.iter().map(|packet| packet.len() as u8));
        page.extend(packets.concat());
        page
    };
    let head = page(2, 0, &[b"OpusHead\x01\x01\x38\x01\x80\xbb\0\0\0\0\0".to_vec()]);
    let start = [head, page(0, 0, &[b"OpusTags".to_vec()])].concat();
    let (mut middle, mut granule, mut sizes) = (Vec::new(), 0, sizes(160));
    while middle.len() < AGAIN {
        granule += packets as u64 * 960;
        let packets = sizes.by_ref().take(packets).map(|size| [&[0x78][..], &vec![7; size - 1]].concat());
        middle.extend(page(0, granule, &packets.collect::<Vec<_>>()));
    }
    File { start, middle, ..File::default() }
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

fn m4a() -> File {
    let start = leaf(b"ftyp", b"M4A \0\0\0\0");
    let times = SIZE * 97 / 100 / AGAIN;
    let end = moov((times * AGAIN / 186) as u32);
    let start = [start, ((times * AGAIN + 8) as u32).to_be_bytes().to_vec(), b"mdat".to_vec()].concat();
    File { start, middle: vec![7; AGAIN], end }
}

/// `count` frames a fragment.
fn fragments(count: usize) -> File {
    let start = [leaf(b"ftyp", b"M4A \0\0\0\0"), moov(0)].concat();
    let run = [words(&[0x301, count as u32, 0]), words(&[1024, 186]).repeat(count)].concat();
    let traf = [leaf(b"tfhd", &words(&[0, 1])), leaf(b"trun", &run)].concat();
    let moof = [leaf(b"mfhd", &words(&[0, 1])), leaf(b"traf", &traf)].concat();
    let fragment = [leaf(b"moof", &moof), leaf(b"mdat", &vec![7; count * 186])].concat();
    let middle = fragment.repeat(AGAIN / fragment.len());
    File { start, middle, ..File::default() }
}

/// As a browser records: nothing has a size but the blocks. Opus, in blocks around `size` bytes.
fn webm(millis: u32, size: usize) -> File {
    let mut start = b"\x1a\x45\xdf\xa3\x84\x42\x86\x81\x01\x18\x53\x80\x67\xff".to_vec();
    start.extend(b"\x16\x54\xae\x6b\x90\xae\x8e\xd7\x81\x01\x83\x81\x02\x86\x86A_OPUS");
    let (mut middle, mut time) = (Vec::new(), 0_u32);
    for size in sizes(size) {
        if time.is_multiple_of(1020) {
            middle.extend(b"\x1f\x43\xb6\x75\xff\xe7\x84");
            middle.extend(time.to_be_bytes());
        }
        middle.extend(block((time % 1020) as u16, size));
        time += millis;
        if middle.len() >= AGAIN && time.is_multiple_of(1020) {
            break;
        }
    }
    File { start, middle, ..File::default() }
}

fn block(time: u16, size: usize) -> Vec<u8> {
    let [high, low] = (size as u16 + 4).to_be_bytes();
    let [late, early] = time.to_be_bytes();
    let head = [0xa3, 0x40 | high, low, 0x81, late, early, 0x80, 0x78];
    [&head[..], &vec![7; size - 1]].concat()
}

/// As a program writes it: everything has a size, and the length is told.
fn whole_webm() -> File {
    let cluster = |time: u32| {
        let blocks: Vec<u8> = (0..250).flat_map(|block| self::block(block * 20, 160)).collect();
        let head = [b"\xe7\x84", &time.to_be_bytes()[..]].concat();
        let size = (head.len() + blocks.len()) as u32;
        [b"\x1f\x43\xb6\x75\x08".to_vec(), size.to_be_bytes()[1..].to_vec(), head, blocks].concat()
    };
    let mut cluster = cluster(0);
    cluster[4] = 0x10;
    let times = AGAIN / cluster.len();
    let middle = cluster.repeat(times);
    let info = [b"\x15\x49\xa9\x66\x8b\x44\x89\x88", &5000_f64.to_be_bytes()[..]].concat();
    let tracks = b"\x16\x54\xae\x6b\x90\xae\x8e\xd7\x81\x01\x83\x81\x02\x86\x86A_OPUS";
    let ebml = b"\x1a\x45\xdf\xa3\x84\x42\x86\x81\x01";
    let head = ebml.len() + 12 + info.len() + tracks.len();
    let size = (SIZE - head) / middle.len() * middle.len() + info.len() + tracks.len();
    let segment = [b"\x18\x53\x80\x67\x01", &(size as u64).to_be_bytes()[1..]].concat();
    let start = [&ebml[..], &segment, &info, &tracks[..]].concat();
    File { start, middle, ..File::default() }
}
