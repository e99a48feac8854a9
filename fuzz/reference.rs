//! A multipart parser that has the whole body before it and takes its time (RFC 2046 5.1.1, RFC 7578).

/// A part of a form.
pub struct Part {
    /// The field's name.
    pub name: Vec<u8>,
    /// What it holds.
    pub data: Vec<u8>,
}

/// The parts of a body that is well-formed from its first delimiter to its closing one.
pub fn parts(boundary: &[u8], body: &[u8]) -> Option<Vec<Part>> {
    let delimiter = [b"\r\n--", boundary].concat();
    let body = [b"\r\n", body].concat();
    let mut rest = after(&body, &delimiter)?.1;
    let mut parts = Vec::new();
    while !rest.starts_with(b"--") {
        let padding = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        rest = rest[padding..].strip_prefix(b"\r\n")?;
        let (head, behind) = after(rest, b"\r\n\r\n")?;
        if rest.starts_with(b"\r\n") {
            return None;
        }
        let (data, behind) = after(behind, &delimiter)?;
        parts.push(Part { name: name(head)?, data: data.to_vec() });
        rest = behind;
    }
    Some(parts)
}

/// What stands before and behind the first `needle`.
fn after<'a>(hay: &'a [u8], needle: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = (0..hay.len()).find(|at| hay[*at..].starts_with(needle))?;
    Some((&hay[..at], &hay[at + needle.len()..]))
}

/// The field name that a part's header block gives; without the empty line at its end.
pub fn name(head: &[u8]) -> Option<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    let mut rest = head;
    loop {
        let (line, behind) = after(rest, b"\r\n").unwrap_or((rest, b""));
        if line.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f) {
            return None;
        }
        match (line.first(), lines.last_mut()) {
            (Some(b' ' | b'\t'), Some(before)) => before.extend([b"  ", line].concat()),
            _ => lines.push(line.to_vec()),
        }
        if line.len() == rest.len() {
            break;
        }
        rest = behind;
    }
    if lines.len() > 32 {
        return None;
    }
    let mut name = None;
    for line in lines {
        let (field, value) = after(&line, b":")?;
        if field.is_empty() || !field.iter().all(|byte| is_token(*byte)) {
            return None;
        }
        let value = value.trim_ascii();
        if field.eq_ignore_ascii_case(b"content-disposition") && name.replace(disposition(value)?).is_some() {
            return None;
        }
        let nested = value.len() >= 10 && value[..10].eq_ignore_ascii_case(b"multipart/");
        if field.eq_ignore_ascii_case(b"content-type") && nested {
            return None;
        }
    }
    name
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn disposition(value: &[u8]) -> Option<Vec<u8>> {
    let (kind, mut rest) = after(value, b";").unwrap_or((value, b""));
    if !kind.trim_ascii().eq_ignore_ascii_case(b"form-data") {
        return None;
    }
    let mut name = None;
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return name.filter(|name: &Vec<u8>| !name.is_empty());
        }
        if let Some(behind) = rest.strip_prefix(b";") {
            rest = behind;
            continue;
        }
        let (key, behind) = after(rest, b"=")?;
        let key = key.trim_ascii();
        if key.is_empty() || !key.iter().all(|byte| is_token(*byte)) {
            return None;
        }
        let (value, behind) = value_of(behind.trim_ascii_start())?;
        rest = behind;
        if key.eq_ignore_ascii_case(b"name") && name.replace(value).is_some() {
            return None;
        }
    }
}

/// A parameter's value, and what follows it.
fn value_of(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    if !text.starts_with(b"\"") {
        let end = text.iter().position(|byte| *byte == b';').unwrap_or(text.len());
        let (value, behind) = text.split_at(end);
        return (!value.contains(&b'"')).then(|| (value.trim_ascii().to_vec(), behind));
    }
    let (mut value, mut at) = (Vec::new(), 1);
    while *text.get(at)? != b'"' {
        at += usize::from(text[at] == b'\\' && matches!(text.get(at + 1), Some(b'"' | b'\\')));
        value.push(text[at]);
        at += 1;
    }
    let behind = text[at + 1..].trim_ascii_start();
    (behind.is_empty() || behind.starts_with(b";")).then_some((value, behind))
}
