//! Which SVG documents are drawn: those whose cost is limited by their length.
//!
//! Owns: a scan over the tags. Does not know: what they draw; the parser that does runs in the mixer. In: text; out:
//! what is to be removed.

/// Longest SVG, in bytes: its elements take more memory than its text.
const BYTES_MAX: usize = 1024 * 1024;
/// Deepest nesting: each level may need a picture of its own.
const DEPTH_MAX: usize = 32;
/// Most `use` elements: each copies others, and so on.
const USES_MAX: usize = 24;
/// Elements that load files, run programs, or repeat what they contain.
const REFUSED: [&str; 9] =
    ["image", "feImage", "filter", "script", "foreignObject", "pattern", "marker", "animate", "set"];

/// Checks a document that begins like an SVG.
///
/// # Errors
/// What is to be removed.
pub(super) fn check(text: &str) -> Result<(), String> {
    if text.len() > BYTES_MAX {
        return Err(format!("the SVG has more than {BYTES_MAX} bytes: simplify it, or send a PNG"));
    }
    let (mut depth, mut uses, mut rest) = (0usize, 0, text);
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let skip_to = if rest.starts_with("!--") {
            "-->"
        } else if rest.starts_with("![CDATA[") {
            "]]>"
        } else if rest.starts_with('?') {
            "?>"
        } else if rest.starts_with("!DOCTYPE") && !rest.split('>').next().is_some_and(|tag| tag.contains('[')) {
            ">"
        } else if rest.starts_with('!') {
            return Err("the SVG has declarations such as `<!ENTITY`: remove them, or send a PNG".into());
        } else if let Some(closing) = rest.strip_prefix('/') {
            depth = depth.saturating_sub(1);
            rest = closing;
            continue;
        } else {
            let (tag, after) = rest.split_at(end_of_tag(rest));
            let name = tag.split(|c: char| c.is_whitespace() || c == '/').next().unwrap_or_default();
            let local = name.rsplit(':').next().unwrap_or_default();
            if REFUSED.contains(&local) {
                return Err(format!("the SVG has `<{local}`, which is not drawn: remove it, or send a PNG"));
            }
            uses += usize::from(local == "use");
            depth += usize::from(!tag.ends_with('/'));
            if uses > USES_MAX || depth > DEPTH_MAX {
                return Err(format!(
                    "the SVG has more than {USES_MAX} `use` elements or {DEPTH_MAX} levels: simplify it, or send a PNG"
                ));
            }
            rest = after;
            continue;
        };
        rest = rest.split_once(skip_to).map_or("", |(_, after)| after);
    }
    Ok(())
}

/// The length of a tag before its `>`, which may also stand in quotes.
fn end_of_tag(rest: &str) -> usize {
    let mut quote = None;
    for (at, c) in rest.char_indices() {
        match (c, quote) {
            ('>', None) => return at,
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            _ => {}
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_accepted() {
        for svg in [
            "<?xml version='1.0'?><!DOCTYPE svg><svg><g><path d='M0 0'/></g></svg>",
            "<svg><title>a &lt;image&gt; of a set</title><style><![CDATA[ a > b {} <script> ]]></style></svg>",
            "<svg><!-- <image/> --><rect data-a='>' width='1'/></svg>",
            "<svg><linearGradient id='a'><stop/></linearGradient><clipPath/><mask/><symbol/></svg>",
        ] {
            assert_eq!(check(svg), Ok(()), "{svg}");
        }
        let many = format!("<svg>{}</svg>", "<g><rect/></g>".repeat(5_000));
        assert_eq!(check(&many), Ok(()));
    }

    #[test]
    fn what_may_cost_more_than_its_length_is_refused() {
        let deep = "<g opacity='.5'>".repeat(33);
        let hidden = format!("<svg>{}", "<g a='/'><!-- </g> --><![CDATA[</g>]]>".repeat(33));
        for (svg, part) in [
            ("<svg><image/></svg>", "<image"),
            ("<s:svg><s:image href='file:///etc/passwd'/></s:svg>", "<image"),
            ("<svg><script\n>1</script></svg>", "<script"),
            ("<!DOCTYPE svg [<!ENTITY a 'b'>]><svg/>", "<!ENTITY"),
            ("<!DOCTYPE svg PUBLIC 'a' 'b' [\n<!-- > --><!ENTITY a 'b'>]><svg/>", "<!ENTITY"),
            ("<!DOCTYPE svg><!ENTITY a 'b'><svg/>", "<!ENTITY"),
            (&format!("<svg>{}</svg>", "<x:use/>".repeat(25)), "`use`"),
            (&deep, "32 levels"),
            (&hidden, "32 levels"),
            (&" ".repeat(BYTES_MAX + 1), "1048576 bytes"),
        ] {
            let why = check(svg).expect_err(part);
            assert!(why.contains(part), "{why}");
        }
    }
}
