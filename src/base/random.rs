//! Randomness from the operating system, fit for keys.

/// `N` random bytes. Ends the process when the system gives none: keys and boundaries that can be guessed are worse
/// than no service.
#[expect(clippy::disallowed_methods, reason = "the one place that asks the system")]
pub fn fill<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if getrandom::fill(&mut bytes).is_err() {
        std::process::abort();
    }
    bytes
}

/// `N` random bytes as `2 * N` lower-case hexadecimal digits.
pub fn hex<const N: usize>() -> String {
    hex::encode(fill::<N>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_draws_are_the_same() {
        assert_ne!(fill::<32>(), fill::<32>());
    }

    #[test]
    fn hex_gives_two_digits_a_byte() {
        let text = hex::<24>();
        assert_eq!(text.len(), 48);
        assert!(text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')));
    }
}
