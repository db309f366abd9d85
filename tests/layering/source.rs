//! Reads Rust source text: which paths a file names, and where each begins.
//!
//! Owns: a tokenizer and the resolution of `crate`, `self`, `super` and groups. Does not know: layers or modules'
//! rules. Text goes in, paths with line numbers come out.

use std::path::Path;

/// `http/api/mod.rs` → http, api; `id.rs` → id; `lib.rs` → nothing.
pub(crate) fn module_path(file: &Path) -> Vec<String> {
    let mut segments: Vec<String> =
        file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if segments.last().is_some_and(|last| last == "mod" || last == "lib") {
        segments.pop();
    }
    segments
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Root {
    /// Begins at this crate's root: `crate::`, `commingle::`, or enough `super::`.
    Crate,
    /// Begins with a name that is a crate or something in scope.
    Relative,
    /// `::name`, always a crate.
    Extern,
}

#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) root: Root,
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
    /// In a `use`, which gives its module the name.
    pub(crate) import: bool,
}

/// Every path of two or more segments and every `use`, with groups written out.
pub(crate) fn paths(tokens: &[Token], own: &[String]) -> Vec<Found> {
    let mut found = Vec::new();
    // Names of the inline modules open at this point, and the brace depth at which each opened.
    let mut inline: Vec<usize> = Vec::new();
    let mut depth = 0usize;
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                if inline.last() == Some(&depth) {
                    inline.pop();
                }
            }
            "mod" if text_at(tokens, at + 2) == "{" => inline.push(depth),
            "use" => {
                let mut trees = Vec::new();
                at = use_tree(tokens, at + 1, &[], &mut trees);
                found.extend(trees.into_iter().filter_map(|path| resolve(path, own, inline.len())));
                continue;
            }
            _ => {
                if let Some((segments, next)) = path_at(tokens, at) {
                    found.extend(resolve(Raw { segments, line: tokens[at].line, import: false }, own, inline.len()));
                    at = next;
                    continue;
                }
            }
        }
        at += 1;
    }
    found
}

struct Raw {
    segments: Vec<String>,
    line: usize,
    import: bool,
}

fn text_at(tokens: &[Token], at: usize) -> &str {
    tokens.get(at).map_or("", |token| &token.text)
}

/// The path of at least two segments that begins at this token, and where to go on.
fn path_at(tokens: &[Token], at: usize) -> Option<(Vec<String>, usize)> {
    let before = at.checked_sub(1).map_or("", |before| &tokens[before].text);
    // The middle of a path, a method, or the end of `<T as Trait>::name`.
    if matches!(before, "::" | "." | ">") && (before != ">" || tokens[at].text == "::") {
        return None;
    }
    let mut segments = Vec::new();
    let mut next = at;
    if tokens[at].text == "::" {
        segments.push("::".into());
        next += 1;
    }
    while let Some(token) = tokens.get(next).filter(|token| token.word) {
        segments.push(token.text.clone());
        next += 1;
        if text_at(tokens, next) != "::" || !tokens.get(next + 1).is_some_and(|after| after.word) {
            break;
        }
        next += 1;
    }
    (segments.len() > 1).then_some((segments, next))
}

/// Reads one tree of a `use` item into `out`; returns where to go on.
fn use_tree(tokens: &[Token], mut at: usize, prefix: &[String], out: &mut Vec<Raw>) -> usize {
    let mut segments = prefix.to_vec();
    let line = tokens.get(at).map_or(0, |token| token.line);
    while at < tokens.len() {
        let token = &tokens[at];
        match token.text.as_str() {
            "{" => {
                at += 1;
                while at < tokens.len() && tokens[at].text != "}" {
                    at = use_tree(tokens, at, &segments, out);
                    if text_at(tokens, at) == "," {
                        at += 1;
                    }
                }
                return at + 1;
            }
            "as" => at += 2,
            "::" if segments.is_empty() => {
                segments.push("::".into());
                at += 1;
            }
            "," | "}" | ";" => break,
            _ => {
                if token.word {
                    segments.push(token.text.clone());
                }
                at += 1;
            }
        }
    }
    if segments.len() > prefix.len() {
        out.push(Raw { segments, line, import: true });
    }
    // Stay on `,` and `}` for the group around, step over the `;` that ends the item.
    if text_at(tokens, at) == ";" { at + 1 } else { at }
}

/// Turns `crate`, `self`, `super` and a leading `::` into where the path really begins.
fn resolve(raw: Raw, own: &[String], inline_modules: usize) -> Option<Found> {
    let Raw { segments, line, import } = raw;
    let first = segments.first()?.as_str();
    let found = |root, segments: &[String]| Some(Found { root, segments: segments.to_vec(), line, import });
    match first {
        "crate" | "commingle" => found(Root::Crate, &segments[1..]),
        "::" => found(Root::Extern, &segments[1..]),
        "self" | "super" => {
            let ups = segments.iter().take_while(|segment| *segment == "super").count();
            let rest = segments.iter().skip_while(|segment| *segment == "super" || *segment == "self");
            let kept = (own.len() + inline_modules).saturating_sub(ups).min(own.len());
            let absolute: Vec<String> = own[..kept].iter().chain(rest).cloned().collect();
            found(Root::Crate, &absolute)
        }
        _ => found(Root::Relative, &segments),
    }
}

pub(crate) fn declared_modules(tokens: &[Token]) -> impl Iterator<Item = &String> {
    tokens.windows(2).filter(|pair| pair[0].text == "mod" && pair[1].word).map(|pair| &pair[1].text)
}

/// The C libraries that `#[link(name = "…")]` names, each with its line.
pub(crate) fn linked_libraries(text: &str) -> impl Iterator<Item = (&str, usize)> {
    text.lines().zip(1..).filter_map(|(line, number)| {
        let name = line.trim_start().strip_prefix("#[link(name = \"")?;
        Some((name.split_once('"')?.0, number))
    })
}

#[derive(Debug)]
pub(crate) struct Token {
    text: String,
    /// An identifier or keyword, not punctuation.
    word: bool,
    line: usize,
}

/// Words, `::` and single punctuation marks; comments, strings, characters and lifetimes are left out.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < bytes.len() {
        let rest = &text[at..];
        let next = match bytes[at] {
            b'/' if rest.starts_with("//") => at + rest.find('\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with("/*") => at + rest.find("*/").map_or(rest.len(), |end| end + 2),
            b'"' => at + string_length(rest),
            b'r' | b'b' if raw_string_length(rest).is_some() => at + raw_string_length(rest).expect("just asked"),
            b'\'' => at + quote_length(rest),
            byte if byte.is_ascii_alphabetic() || byte == b'_' => {
                let length = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
                out.push(Token { text: rest[..length].into(), word: true, line });
                at + length
            }
            b':' if rest.starts_with("::") => {
                out.push(Token { text: "::".into(), word: false, line });
                at + 2
            }
            byte => {
                if byte.is_ascii_punctuation() {
                    out.push(Token { text: (byte as char).into(), word: false, line });
                }
                at + rest.chars().next().expect("not at the end").len_utf8()
            }
        };
        line += text[at..next].matches('\n').count();
        at = next;
    }
    out
}

/// Length of the string literal at the beginning of `rest`, quotes included.
fn string_length(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Length of `r"…"`, `br#"…"#` and the like at the beginning of `rest`.
fn raw_string_length(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let body = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let prefix = rest.len() - body.len();
    Some(prefix + body.find(&end).map_or(body.len(), |at| at + end.len()))
}

/// Length of a character literal or a lifetime at the beginning of `rest`.
fn quote_length(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), _) => rest[3..].find('\'').map_or(rest.len(), |end| end + 4),
        (_, Some((at, '\''))) => at + 1,
        _ => 1,
    }
}
