//! The sentences of a documentation comment.

/// The sentences of the documentation of `item` in `source`, without markup. Headings and code are
/// left out. `item` is the start of the line that the documentation stands before.
pub(crate) fn sentences(source: &str, item: &str) -> Vec<String> {
    paragraphs(&documentation(source, item)).iter().flat_map(|text| split(&plain(text))).collect()
}

/// The lines of the documentation before `item`, without `///`.
fn documentation<'a>(source: &'a str, item: &str) -> Vec<&'a str> {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let at = lines.iter().position(|line| line.starts_with(item));
    let at = at.unwrap_or_else(|| panic!("no line starts with {item:?}"));
    let above = lines[..at].iter().rev().take_while(|line| line.starts_with("///") || line.starts_with("#["));
    let mut found: Vec<&str> = above.filter_map(|line| line.strip_prefix("///")).map(str::trim).collect();
    found.reverse();
    found
}

fn paragraphs(lines: &[&str]) -> Vec<String> {
    let (mut found, mut in_code) = (vec![String::new()], false);
    for line in lines {
        in_code ^= line.starts_with("```");
        if line.is_empty() || line.starts_with('#') || line.starts_with("```") || in_code {
            found.push(String::new());
        } else if let Some(last) = found.last_mut() {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(line);
        }
    }
    found.retain(|paragraph| !paragraph.is_empty());
    found
}

/// The text without links, code marks and emphasis.
fn plain(text: &str) -> String {
    let (mut plain, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("](") {
        plain += before;
        rest = after.split_once(')').map_or("", |(_, behind)| behind);
    }
    plain += rest;
    plain.replace(['[', ']', '`', '*'], "")
}

/// Splits before each capital that follows a full stop. A single word is a heading, and goes with
/// the next sentence.
fn split(text: &str) -> Vec<String> {
    let (mut found, mut start) = (Vec::new(), 0);
    let bytes = text.as_bytes();
    for at in 1..bytes.len().saturating_sub(1) {
        let ends = bytes[at - 1] == b'.' && bytes[at] == b' ' && bytes[at + 1].is_ascii_uppercase();
        if ends && text[start..at].contains(' ') {
            found.push(text[start..at].to_owned());
            start = at + 1;
        }
    }
    found.push(text[start..].to_owned());
    found
}

#[test]
fn sentences_come_without_markup() {
    let source = "/// **Order.** A [`put`](X::put) wins. It\n/// stays, e.g. here.\n///\n/// # Errors\n/// `Closed`.\n/// ```\n/// code. Code.\n/// ```\n#[inline]\nfn put() {}";
    assert_eq!(sentences(source, "fn put"), ["Order. A put wins.", "It stays, e.g. here.", "Closed."]);
}
