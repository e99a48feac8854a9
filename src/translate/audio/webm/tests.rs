use super::super::Refusal;
use super::super::feed::cutting;
use super::*;

fn element(id: u32, content: &[u8]) -> Vec<u8> {
    [&head(id), &[0x40 | (content.len() >> 8) as u8, content.len() as u8][..], content].concat()
}

fn head(id: u32) -> Vec<u8> {
    id.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect()
}

/// A master of unknown size.
fn open(id: u32) -> Vec<u8> {
    [&head(id)[..], &[0xff]].concat()
}

fn track(number: u8, kind: u8, codec: &[u8], more: &[u8]) -> Vec<u8> {
    let fields = [
        element(element::TRACK_NUMBER, &[number]),
        element(element::TRACK_TYPE, &[kind]),
        element(element::CODEC_ID, codec),
        more.to_vec(),
    ];
    element(element::TRACK_ENTRY, &fields.concat())
}

fn opus() -> Vec<u8> {
    element(element::TRACKS, &[track(1, 1, b"V_VP8", b""), track(2, 2, b"A_OPUS", b"")].concat())
}

fn start(tracks: &[u8]) -> Vec<u8> {
    let ebml = element(0x1a45_dfa3, &element(0x4282, b"webm"));
    [
        ebml,
        open(element::SEGMENT),
        element(element::INFO, &element(element::TIMESTAMP_SCALE, &[0x0f, 0x42, 0x40])),
        tracks.to_vec(),
    ]
    .concat()
}

/// 20 ms of Opus on that track.
fn block(number: u8, time: i16) -> Vec<u8> {
    let mut block = vec![0x80 | number];
    block.extend(time.to_be_bytes());
    block.extend([0x80, 0xfc, 1, 2, 3]);
    element(element::SIMPLE_BLOCK, &block)
}

fn cluster(time: u16, blocks: &[Vec<u8>]) -> Vec<u8> {
    [open(element::CLUSTER), element(element::TIMESTAMP, &time.to_be_bytes()), blocks.concat()].concat()
}

fn measure(parts: &[Vec<u8>]) -> Length {
    cutting::measure(&parts.concat(), Webm::default).unwrap()
}

fn millis(millis: u64) -> Length {
    Length::Lasts(Duration::from_millis(millis))
}

#[test]
fn a_file_without_sizes_or_duration_plays_to_the_end_of_its_last_block() {
    let clusters =
        [cluster(0, &[block(2, 0), block(1, 5000)]), cluster(1000, &[block(2, -5), block(2, 500)])];
    assert_eq!(measure(&[start(&opus()), clusters.concat()]), millis(1520));
    // the start of one that was begun before
    assert_eq!(measure(&[start(&opus()), cluster(9000, &[block(2, 0), block(2, 20)])]), millis(40));
}

#[test]
fn blocks_of_any_size_and_order_are_walked() {
    let long = |number: u8, time: i16, size: usize| {
        let [high, low] = time.to_be_bytes();
        element(
            element::SIMPLE_BLOCK,
            &[&[0x80 | number, high, low, 0x80, 0xfc][..], &vec![9; size]].concat(),
        )
    };
    let short = |time: i16| {
        let [high, low] = time.to_be_bytes();
        vec![0xa3, 0x87, 0x82, high, low, 0x80, 0xfc, 1, 2]
    };
    let blocks = |n: i16| match n % 7 {
        0..3 => short(n * 20),
        3 => long(2, n * 20, 200),
        4 => long(1, 30_000, 90),
        5 => [short(n * 20), element(0xec, b"void")].concat(),
        _ => long(2, -n, 1),
    };
    let clusters = [0, 1000].map(|time| cluster(time, &(0..50).map(blocks).collect::<Vec<_>>()));
    // What comes before the first cluster's own time begins with it.
    assert_eq!(measure(&[start(&opus()), clusters.concat()]), millis(1000 + 49 * 20 + 20));
    let early = cluster(1000, &[short(0), long(2, -700, 30), short(20), short(40)]);
    assert_eq!(measure(&[start(&opus()), early]), millis(700 + 40 + 20));
}

#[test]
fn sized_clusters_and_block_groups_are_read_too() {
    let group = |time: i16, more: &[u8]| {
        let mut block = block(2, time);
        block[0] = 0xa1;
        element(element::BLOCK_GROUP, &[&block, more].concat())
    };
    let inside = |last: Vec<u8>| [element(element::TIMESTAMP, &[0]), group(0, b""), last].concat();
    let measure = |last| measure(&[start(&opus()), element(element::CLUSTER, &inside(last))]);
    assert_eq!(measure(group(100, b"")), millis(120));
    assert_eq!(measure(group(100, &element(element::BLOCK_DURATION, &[7]))), millis(107));
    let padding = element(element::DISCARD_PADDING, &5_000_000_u32.to_be_bytes());
    assert_eq!(measure(group(100, &padding)), millis(115));
}

#[test]
fn clusters_of_a_finished_file_are_skipped_and_its_header_believed_if_it_can_be_true() {
    let sized = |time: u16| {
        element(element::CLUSTER, &[element(element::TIMESTAMP, &time.to_be_bytes()), block(2, 0)].concat())
    };
    let tracks = element(element::TRACKS, &track(2, 2, b"A_OPUS", b""));
    let file = |duration: f32, last: u16| {
        let duration = element(element::DURATION, &duration.to_be_bytes());
        let content = [duration, tracks.clone(), sized(0), sized(5000), sized(last)].concat();
        element(element::SEGMENT, &content)
    };
    assert_eq!(measure(&[file(10_777.0, 10_000)]), millis(10_777));
    for (duration, cut) in [(50_000.0, 0), (9000.0, 0), (10_777.0, 1)] {
        let file = file(duration, 10_000);
        assert_eq!(measure(&[file[..file.len() - cut].to_vec()]), millis(10_000), "{duration}");
    }
}

#[test]
fn other_codecs_last_as_their_track_says_or_as_the_block_before_did() {
    let frame = element(element::DEFAULT_DURATION, &30_000_000_u32.to_be_bytes());
    for (more, expected) in [(&frame[..], 130), (b"", 200)] {
        let tracks = element(element::TRACKS, &track(2, 2, b"A_AAC", more));
        assert_eq!(measure(&[start(&tracks), cluster(0, &[block(2, 0), block(2, 100)])]), millis(expected));
    }
}

#[test]
fn only_whole_blocks_count_and_a_header_that_says_more_does_not() {
    let file = [start(&opus()), cluster(0, &[block(2, 0), block(2, 100)])].concat();
    assert_eq!(measure(&[file[..file.len() - 1].to_vec()]), millis(100));
    let hour = element(element::DURATION, &3_600_000_f64.to_be_bytes());
    let file = [file, hour].concat();
    assert_eq!(measure(std::slice::from_ref(&file)), millis(120));
    let mut feed = super::super::feed::Feed::new(Webm::default(), 0);
    feed.push(&file).unwrap();
    feed.end().unwrap();
    assert_eq!(feed.claim(), Some(Duration::from_secs(3600)));
}

#[test]
fn without_an_audio_track_or_with_an_encrypted_one_the_file_is_refused() {
    let encoding = element(element::CONTENT_ENCODING, &element(element::CONTENT_ENCODING_TYPE, &[1]));
    let encrypted = track(1, 2, b"A_OPUS", &element(element::CONTENT_ENCODINGS, &encoding));
    for (track, kind) in [(track(1, 1, b"V_VP8", b""), Kind::Silent), (encrypted, Kind::Encrypted)] {
        let file = [start(&element(element::TRACKS, &track)), cluster(0, &[])].concat();
        let refused = cutting::measure(&file, Webm::default);
        assert!(matches!(refused, Err(Refusal::AudioUnsupported(Some(found))) if found.kind == kind));
    }
}

#[test]
fn a_second_track_that_is_encrypted_is_refused_even_where_blocks_follow_at_once() {
    let encoding = element(element::CONTENT_ENCODING, &element(element::CONTENT_ENCODING_TYPE, &[1]));
    let encrypted = track(3, 2, b"A_OPUS", &element(element::CONTENT_ENCODINGS, &encoding));
    let tracks = element(element::TRACKS, &[track(2, 2, b"A_OPUS", b""), encrypted].concat());
    let file = [start(&tracks), (0..9).flat_map(|n| block(2, n * 20)).collect()].concat();
    assert!(cutting::measure(&file, Webm::default).is_err());
}

#[test]
fn headers_alone_are_empty_and_broken_elements_leave_it_unknown() {
    assert_eq!(measure(&[start(&opus())]), Length::Empty);
    assert_eq!(measure(&[start(&opus()), cluster(0, &[block(1, 0)])]), Length::Empty);
    assert_eq!(measure(&[start(&opus()), cluster(0, &[block(2, 0)]), vec![0; 50]]), Length::Unknown);
}
