//! Choices that a structured target makes by its input.

/// What stands before the first line feed, and what stands behind it.
pub fn line(input: &[u8]) -> (&[u8], &[u8]) {
    match input.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&input[..end], &input[end + 1..]),
        None => (input, &[]),
    }
}

/// Every choice takes the next byte; when there is none left, it is the first of what may be chosen.
pub struct Choices<'a>(pub &'a [u8]);

impl Choices<'_> {
    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    /// One of these.
    pub fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::from(self.byte()) % of.len()]
    }

    /// Yes or no.
    pub fn yes(&mut self) -> bool {
        self.byte() & 1 == 1
    }
}

/// The input with a word in every place where it says `PLANTED`: easier for the fuzzer to move about than a long word.
pub fn plant(input: &[u8], word: &[u8]) -> Vec<u8> {
    const PLACE: &[u8] = b"PLANTED";
    let (mut out, mut rest) = (Vec::with_capacity(input.len()), input);
    while let Some(at) = rest.windows(PLACE.len()).position(|window| window == PLACE) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(word);
        rest = &rest[at + PLACE.len()..];
    }
    out.extend_from_slice(rest);
    out
}
