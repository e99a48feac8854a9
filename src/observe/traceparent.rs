//! W3C Trace Context: the `traceparent` header, checked (<https://www.w3.org/TR/trace-context/#traceparent-header>).

/// The trace's id in a valid `traceparent`: 32 lower-case hexadecimal digits, not all of them zero. Later versions may
/// say more behind another dash.
pub fn trace_id(header: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(header).ok()?;
    let mut parts = text.splitn(5, '-');
    let (version, id, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let well_formed = is_hex(version, 2) && is_hex(id, 32) && is_hex(parent, 16) && is_hex(flags, 2);
    let ends = parts.next().is_none() || version != "00";
    let said = [id, parent].iter().all(|id| id.bytes().any(|digit| digit != b'0'));
    (well_formed && ends && said && version != "ff").then_some(id)
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn the_id_is_found_in_this_version_and_in_later_ones() {
        for header in [
            format!("00-{ID}-00f067aa0ba902b7-01"),
            format!("00-{ID}-00f067aa0ba902b7-00"),
            format!("cc-{ID}-00f067aa0ba902b7-01"),
            format!("cc-{ID}-00f067aa0ba902b7-01-what-the-future-will-be-like"),
        ] {
            assert_eq!(trace_id(header.as_bytes()), Some(ID), "{header}");
        }
    }

    #[test]
    fn what_is_not_valid_is_nothing() {
        let zeros = "0".repeat(32);
        for header in [
            String::new(),
            "00".to_owned(),
            format!("00-{ID}-00f067aa0ba902b7"),
            format!("ff-{ID}-00f067aa0ba902b7-01"),
            format!("00-{zeros}-00f067aa0ba902b7-01"),
            format!("00-{ID}-0000000000000000-01"),
            format!("00-{}-00f067aa0ba902b7-01", ID.to_uppercase()),
            format!("00-{ID}-00f067aa0ba902b7-1"),
            format!("00-{ID}-00f067aa0ba902b7-01-more"),
            format!("00-{ID}-00f067aa0ba902b7-01-"),
            format!("cc-{ID}-00f067aa0ba902b7-01more"),
            format!(" 00-{ID}-00f067aa0ba902b7-01"),
            format!("00_{ID}-00f067aa0ba902b7-01"),
            format!("00-{ID}é-00f067aa0ba902b7-01"),
        ] {
            assert_eq!(trace_id(header.as_bytes()), None, "{header:?}");
        }
        assert_eq!(trace_id(&[0xff; 55]), None);
    }
}
