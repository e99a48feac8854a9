//! The end of the file, kept as it passes.

use std::collections::VecDeque;

use bytes::Bytes;

/// More pieces than this are copied together: each may keep a whole read buffer alive.
const PIECES: usize = 16;

/// The last bytes of what has been pushed, mostly as slices of the pieces they came in.
#[derive(Clone, Default)]
pub(super) struct Tail {
    pieces: VecDeque<Bytes>,
    size: usize,
}

impl Tail {
    /// Takes a piece, and lets go of what lies more than `window` bytes before its end.
    pub(super) fn push(&mut self, piece: Bytes, window: usize) {
        self.size += piece.len();
        self.pieces.push_back(piece);
        while let Some(first) = self.pieces.front_mut() {
            let surplus = self.size.saturating_sub(window);
            if surplus < first.len() {
                let _before = first.split_to(surplus);
                self.size -= surplus;
                break;
            }
            self.size -= first.len();
            self.pieces.pop_front();
        }
        if self.pieces.len() > PIECES {
            let joined = self.join();
            self.pieces.clear();
            self.pieces.push_back(joined.into());
        }
    }

    /// All that is kept, in one piece.
    pub(super) fn join(&self) -> Vec<u8> {
        let mut joined = Vec::with_capacity(self.size);
        self.pieces.iter().for_each(|piece| joined.extend_from_slice(piece));
        joined
    }

    /// Bytes kept.
    pub(super) const fn held(&self) -> usize {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bytes_are_kept_however_they_come() {
        let file: Vec<u8> = (0..=255).cycle().take(5000).collect();
        for step in [1, 7, 100, 1000, 5000] {
            let mut tail = Tail::default();
            for piece in file.chunks(step) {
                tail.push(Bytes::copy_from_slice(piece), 300);
                assert!(tail.pieces.len() <= PIECES && tail.held() <= 300);
            }
            assert_eq!(tail.join(), file[4700..]);
        }
        let mut tail = Tail::default();
        tail.push(Bytes::from_static(b"short"), 300);
        tail.push(Bytes::new(), 300);
        assert_eq!(tail.join(), b"short");
    }
}
