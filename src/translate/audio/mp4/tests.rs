use super::super::Refusal;
use super::super::feed::cutting;
use super::*;

fn leaf(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    [&(content.len() as u32 + 8).to_be_bytes()[..], kind, content].concat()
}

fn node(kind: &[u8; 4], boxes: &[Vec<u8>]) -> Vec<u8> {
    leaf(kind, &boxes.concat())
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// Ticks a second of the movie, and of its track.
const MOVIE: u32 = 1000;
const TRACK: u32 = 8000;

fn ftyp() -> Vec<u8> {
    leaf(b"ftyp", b"M4A \0\0\0\0")
}

/// A track with samples of 1000 ticks; sizes differ.
fn trak(handler: &[u8; 4], sizes: &[u32], edits: &[[u32; 2]]) -> Vec<u8> {
    let count = sizes.len() as u32;
    let mut list = words(&[0, edits.len() as u32]);
    list.extend(edits.iter().flat_map(|[duration, from]| words(&[*duration, *from, 0x1_0000])));
    let stbl = node(
        b"stbl",
        &[
            leaf(b"stsd", &[words(&[0, 1, 36]), b"mp4a".to_vec(), vec![0; 28]].concat()),
            leaf(b"stts", &words(&[0, 1, count, 1000])),
            leaf(b"stsz", &[words(&[0, 0, count]), words(sizes)].concat()),
        ],
    );
    let media = [
        leaf(b"mdhd", &words(&[0, 0, 0, TRACK, 1_000_000, 0])),
        leaf(b"hdlr", &[words(&[0, 0]), handler.to_vec(), vec![0; 13]].concat()),
        node(b"minf", &[stbl]),
    ];
    let head = leaf(b"tkhd", &words(&[3, 0, 0, 7, 0]));
    node(b"trak", &[head, node(b"edts", &[leaf(b"elst", &list)]), node(b"mdia", &media)])
}

fn moov(inside: &[Vec<u8>]) -> Vec<u8> {
    node(b"moov", &[&[leaf(b"mvhd", &words(&[0, 0, 0, MOVIE, 99_000]))], inside].concat())
}

fn mdat(size: usize) -> Vec<u8> {
    leaf(b"mdat", &vec![0xaa; size])
}

/// A fragment with samples that say all of themselves.
fn moof(track: u32, samples: &[[u32; 2]]) -> Vec<u8> {
    let run = [words(&[0x301, samples.len() as u32, 0]), words(samples.as_flattened())].concat();
    let traf = node(b"traf", &[leaf(b"tfhd", &words(&[0, track])), leaf(b"trun", &run)]);
    node(b"moof", &[leaf(b"mfhd", &words(&[0, 1])), traf])
}

fn measure(boxes: &[Vec<u8>]) -> Length {
    cutting::measure(&boxes.concat(), Mp4::default).unwrap()
}

fn millis(millis: u64) -> Length {
    Length::Lasts(Duration::from_millis(millis))
}

/// 16 samples, 2 s, in 600 bytes.
const SIZES: [u32; 16] = [10, 20, 30, 40, 50, 10, 20, 30, 40, 50, 10, 20, 30, 40, 50, 150];

#[test]
fn the_samples_last_as_long_as_their_table_says_wherever_it_stands() {
    let moov = moov(&[trak(b"soun", &SIZES, &[])]);
    assert_eq!(measure(&[ftyp(), moov.clone(), mdat(600)]), millis(2000));
    assert_eq!(measure(&[ftyp(), mdat(600), moov.clone()]), millis(2000));
    assert_eq!(measure(&[ftyp(), leaf(b"free", b"."), mdat(300), moov.clone(), mdat(300)]), millis(2000));
    let endless = [&[0, 0, 0, 0][..], b"mdat", &[0; 600]].concat();
    assert_eq!(measure(&[ftyp(), moov.clone(), endless]), millis(2000));
    let long = [&[0, 0, 0, 1][..], b"mdat", &616_u64.to_be_bytes(), &[0; 600]].concat();
    assert_eq!(measure(&[ftyp(), long, moov]), millis(2000));
}

#[test]
fn an_edit_list_says_what_is_played() {
    let with = |edits: &[[u32; 2]]| measure(&[moov(&[trak(b"soun", &SIZES, edits)]), mdat(600)]);
    assert_eq!(with(&[[1500, 1024]]), millis(1500));
    assert_eq!(with(&[[500, u32::MAX], [1500, 1024]]), millis(2000));
    // not more than there is, and nothing new without a duration
    assert_eq!(with(&[[3_600_000, 4000]]), millis(1500));
    assert_eq!(with(&[[0, 1024]]), millis(2000));
}

#[test]
fn samples_whose_bytes_have_not_come_are_not_believed() {
    let moov = moov(&[trak(b"soun", &SIZES, &[])]);
    assert_eq!(measure(&[ftyp(), moov.clone(), mdat(599)]), Length::Unknown);
    let torn = [ftyp(), moov.clone(), mdat(700)].concat();
    assert_eq!(measure(&[torn[..torn.len() - 1].to_vec()]), Length::Unknown);
    assert_eq!(measure(&[ftyp(), mdat(600), moov[..moov.len() - 1].to_vec()]), Length::Unknown);
    assert_eq!(measure(&[ftyp(), mdat(600)]), Length::Unknown);
}

#[test]
fn fragments_add_up_as_their_bytes_come() {
    let start = [ftyp(), moov(&[trak(b"soun", &[], &[]), trak(b"vide", &[], &[])])].concat();
    let one = moof(7, &[[1000, 10], [3000, 20]]);
    let both = [start.clone(), one.clone(), mdat(30), one.clone(), mdat(40)];
    assert_eq!(measure(&both), millis(1000));
    assert_eq!(
        measure(&[start.clone(), one.clone(), mdat(30), one.clone(), mdat(30)[..37].to_vec()]),
        millis(500)
    );
    assert_eq!(measure(&[start.clone(), one.clone(), mdat(30)[..37].to_vec()]), Length::Unknown);
    assert_eq!(measure(&[start.clone(), moof(9, &[[1000, 10]]), mdat(10)]), Length::Empty);
    // samples of no size
    assert_eq!(measure(&[start.clone(), moof(7, &[[28_800_000, 0]]), mdat(10)]), Length::Unknown);
    assert_eq!(measure(&[start]), Length::Empty);
}

#[test]
fn fragments_may_leave_duration_and_size_to_their_defaults() {
    let trex = node(b"mvex", &[leaf(b"trex", &words(&[0, 7, 1, 800, 5, 0]))]);
    let start = moov(&[trak(b"soun", &[], &[]), trex]);
    let with = |head: &[u32], run: &[u32], size| {
        let traf = node(b"traf", &[leaf(b"tfhd", &words(head)), leaf(b"trun", &words(run))]);
        measure(&[start.clone(), node(b"moof", &[traf]), mdat(size)])
    };
    assert_eq!(with(&[0, 7], &[0, 10], 50), millis(1000));
    assert_eq!(with(&[0, 7], &[0, 10], 49), Length::Unknown);
    // base offset and description skipped, own duration and size
    assert_eq!(with(&[0x1b, 7, 0, 0, 1, 1600, 4], &[0x5, 10, 0, 0], 40), millis(2000));
    // sizes given, durations not
    assert_eq!(with(&[0, 7], &[0x200, 2, 15, 5], 20), millis(200));
}

#[test]
fn without_a_sound_track_the_file_is_refused() {
    let video = moov(&[trak(b"vide", &SIZES, &[])]);
    for file in [[ftyp(), video.clone(), mdat(600)].concat(), [ftyp(), mdat(600), video.clone()].concat()] {
        assert!(cutting::measure(&file, Mp4::default).is_err());
    }
    let both = moov(&[trak(b"vide", &SIZES, &[]), trak(b"soun", &SIZES[..8], &[])]);
    assert_eq!(measure(&[both, mdat(840)]), millis(1000));
    let mut encrypted = moov(&[trak(b"soun", &SIZES, &[])]);
    let at = encrypted.windows(4).position(|kind| kind == b"mp4a").unwrap();
    encrypted[at..at + 4].copy_from_slice(b"enca");
    let refused = cutting::measure(&encrypted, Mp4::default);
    assert!(matches!(refused, Err(Refusal::AudioUnsupported(Some(found))) if found.kind == Kind::Encrypted));
}

#[test]
fn tables_without_end_and_boxes_that_do_not_fit_are_let_go() {
    let mut huge = moov(&[trak(b"soun", &SIZES, &[])]);
    let at = huge.windows(4).position(|kind| kind == b"stsz").unwrap();
    huge[at + 12..at + 16].copy_from_slice(&[0xff; 4]);
    assert_eq!(measure(&[huge, mdat(600)]), Length::Unknown);
    assert_eq!(measure(&[leaf(b"moov", &words(&[100, 0, 0]))]), Length::Unknown);
    assert_eq!(measure(&[words(&[4, 0])]), Length::Unknown);
}

#[test]
fn the_header_claims_before_the_data_has_come() {
    let mut feed = super::super::feed::Feed::new(Mp4::default(), 0);
    feed.push(&[ftyp(), moov(&[trak(b"soun", &SIZES, &[])]), mdat(0)].concat()).unwrap();
    assert_eq!(feed.claim().map(Length::Lasts), Some(millis(2000)));
}
