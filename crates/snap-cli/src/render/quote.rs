//! Words for a shell.

use std::fmt::Write;

use super::text;

/// `bytes` as one word that a shell reads as just these bytes, on one line and of nothing that steers a terminal. What no
/// plain quotes can hold is written as `$'…'`, which bash, zsh, ksh and POSIX of 2024 know.
pub fn word(bytes: &[u8]) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+:@%,=".contains(byte);
    // A tilde or an equals sign in front means something to some shells.
    if !bytes.is_empty() && bytes.iter().all(is_plain) && !bytes.starts_with(b"=") {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(text::is_unsafe) => format!("'{}'", text.replace('\'', "'\\''")),
        _ => escaped(bytes),
    }
}

fn escaped(bytes: &[u8]) -> String {
    let mut out = String::from("$'");
    let octal = |out: &mut String, bytes: &[u8]| {
        for byte in bytes {
            let _ = write!(out, "\\{byte:03o}");
        }
    };
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' => out.push_str("\\n"),
                '\t' => out.push_str("\\t"),
                '\r' => out.push_str("\\r"),
                '\'' | '\\' => out.extend(['\\', c]),
                c if text::is_unsafe(c) => octal(&mut out, c.encode_utf8(&mut [0; 4]).as_bytes()),
                c => out.push(c),
            }
        }
        octal(&mut out, chunk.invalid());
    }
    out.push('\'');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_as_little_as_needed() {
        assert_eq!(word(b"4f2a:/srv/a-b_c.txt"), "4f2a:/srv/a-b_c.txt");
        assert_eq!(word(b""), "''");
        assert_eq!(word(b"/a b"), "'/a b'");
        assert_eq!(word(b"/it's"), "'/it'\\''s'");
        assert_eq!(word("/ä".as_bytes()), "'/ä'");
        assert_eq!(word(b"/a\nb\xff'\x1b"), "$'/a\\nb\\377\\'\\033'");
        assert_eq!(word("\u{202e}x".as_bytes()), "$'\\342\\200\\256x'");
    }

    #[test]
    fn a_shell_reads_the_same_bytes() {
        let all: Vec<u8> = (1..=255).collect();
        for name in [
            &all[..],
            b"$HOME `id` $(id) \"x\" *?[a] ~ ! #",
            b"'\\''",
            b"-n",
            b"=x",
            "\u{2028}\u{85}".as_bytes(),
        ] {
            let script = format!("printf %s {}", word(name));
            assert!(!script.contains('\n'), "{script}");
            let output = std::process::Command::new("bash").args(["-c", &script]).output().unwrap();
            assert_eq!(output.stdout, name, "{script}");
        }
    }
}
