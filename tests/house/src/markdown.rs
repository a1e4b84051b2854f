use std::collections::HashMap;

/// The rows of the first table below a heading, its head left out; cells without code marks.
///
/// # Panics
///
/// If there is no such heading, or no table below it.
pub fn table(page: &str, heading: &str) -> Vec<Vec<String>> {
    let is_heading = |line: &str| line.starts_with('#') && line.trim_start_matches('#').trim() == heading;
    let mut lines = page.lines().skip_while(|line| !is_heading(line)).skip(1);
    let mut rows = Vec::new();
    for line in lines.by_ref() {
        if line.starts_with('|') {
            rows.push(cells(line));
        } else if !rows.is_empty() || line.starts_with('#') {
            break;
        }
    }
    assert!(rows.len() > 2, "there is no table below the heading {heading:?}");
    rows.split_off(2)
}

fn cells(line: &str) -> Vec<String> {
    // A bar that is part of a cell is escaped.
    let line = line.replace("\\|", "\u{0}");
    let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
    inner.split('|').map(|cell| cell.replace('`', "").replace('\u{0}', "|").trim().to_owned()).collect()
}

/// Lines outside of fenced blocks.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    page.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// The texts of the headings.
pub fn headings(page: &str) -> Vec<String> {
    let heading = |line: &str| {
        let text = line.trim_start_matches('#');
        (text.len() < line.len() && text.starts_with(' ')).then(|| text.trim().to_owned())
    };
    prose(page).filter_map(heading).collect()
}

/// What `#…` of a link may say: the headings in lower case, spaces as dashes, without punctuation.
pub fn anchors(page: &str) -> Vec<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let anchor = |heading: String| {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let slug: String = kept.collect::<String>().to_lowercase().replace(' ', "-");
        let count = seen.entry(slug.clone()).or_default();
        *count += 1;
        if *count == 1 { slug } else { format!("{slug}-{}", *count - 1) }
    };
    headings(page).into_iter().map(anchor).collect()
}

/// The targets of links, in the order of the page.
pub fn links(page: &str) -> Vec<String> {
    let mut out = Vec::new();
    for line in prose(page) {
        let mut rest = line;
        while let Some((_, after)) = rest.split_once("](") {
            let Some((target, after)) = after.split_once(')') else { break };
            out.push(target.to_owned());
            rest = after;
        }
    }
    out
}

/// The lines of blocks fenced as `sh`: comments removed, continued lines joined.
pub fn shell_lines(page: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let (mut is_shell, mut continues) = (false, false);
    for line in page.lines().map(str::trim) {
        if line.starts_with("```") {
            is_shell = line == "```sh";
            continues = false;
            continue;
        }
        let code =
            if line.starts_with('#') { "" } else { line.split(" # ").next().unwrap_or_default() }.trim();
        if !is_shell || code.is_empty() {
            continue;
        }
        let piece = code.trim_end_matches('\\');
        match out.last_mut().filter(|_| continues) {
            Some(last) => last.push_str(piece),
            None => out.push(piece.to_owned()),
        }
        continues = code.ends_with('\\');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_taken_apart() {
        let page = "# A `b`, c!\n\n[x](y.md#z) and [w](v)\n\n```sh\nsnap a \\\n  --b   # why\n# not this\n```\n## A b c\n";
        assert_eq!(headings(page), ["A `b`, c!", "A b c"]);
        assert_eq!(anchors(page), ["a-b-c", "a-b-c-1"]);
        assert_eq!(links(page), ["y.md#z", "v"]);
        assert_eq!(shell_lines(page), ["snap a --b"]);
    }

    #[test]
    fn an_escaped_bar_is_no_border() {
        assert_eq!(cells(r"| `a\|b` | c |"), ["a|b", "c"]);
    }
}
