//! Bytes as text and back: escapes, hexadecimal, sizes.
//!
//! Keys and values may be anything, and a terminal acts on what it is sent: nothing that came out
//! of a file is printed unescaped by the tools.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::Value;

/// `bytes` on one line, in a form that no other bytes have: UTF-8 that can be seen is left as it
/// is, everything else, and the backslash, becomes `\n`, `\r`, `\t`, `\\` or `\x` and two digits
/// for each byte.
pub fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            push_escaped(&mut out, c);
        }
        for byte in chunk.invalid() {
            push_hex_escape(&mut out, *byte);
        }
    }
    out
}

fn push_escaped(out: &mut String, c: char) {
    match c {
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c if is_visible(c) => out.push(c),
        c => {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                push_hex_escape(out, byte);
            }
        }
    }
}

fn push_hex_escape(out: &mut String, byte: u8) {
    write!(out, "\\x{byte:02x}").expect("writing to a String cannot fail");
}

/// Whether a terminal shows `c` as itself and does nothing else with it.
fn is_visible(c: char) -> bool {
    // `escape_debug` knows the classes of Unicode; quotes it escapes for another reason.
    matches!(c, '"' | '\'') || c.escape_debug().len() == 1
}

/// `bytes` as they are if they are text that a terminal can be sent, or `None`.
///
/// Text is UTF-8 of visible characters, line ends and tabs.
pub fn as_text(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    text.chars().all(is_plain).then_some(text)
}

/// Whether `c` may stand in text of several lines and columns.
fn is_plain(c: char) -> bool {
    matches!(c, '\n' | '\t' | '\\') || is_visible(c)
}

/// `text` of lines, in which what a terminal would act on is escaped as by [`escape`].
///
/// For whole messages, whose parts need not all be known; a name that must not look like more than
/// one line is escaped where it is put in.
pub fn plain(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_plain(c) {
            out.push(c);
        } else {
            push_escaped(&mut out, c);
        }
    }
    Cow::Owned(out)
}

/// `document` on one line, in which all that a terminal would act on is escaped.
pub fn json_line(document: &Value) -> String {
    plain_json(document.to_string())
}

/// JSON as it is written everywhere, which means the same to its readers: control characters below
/// a space it has escaped already, and all others can only stand in strings.
pub fn plain_json(json: String) -> String {
    let may_stay = |c: char| matches!(c, ' '..='~' | '\n') || is_visible(c);
    if json.chars().all(may_stay) {
        return json;
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if may_stay(c) {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            write!(out, "\\u{unit:04x}").expect("writing to a String cannot fail");
        }
    }
    out
}

/// `bytes` as lowercase hexadecimal digits.
pub fn to_hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(out, "{byte:02x}").expect("writing to a String cannot fail");
    }
    out
}

/// The bytes that `text` gives as hexadecimal digits, or what is wrong with it.
///
/// # Errors
/// If the number of digits is odd, or something else than a digit stands there.
pub fn from_hex(text: &str) -> Result<Vec<u8>, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text).as_bytes();
    if !digits.len().is_multiple_of(2) {
        return Err("an odd number of hexadecimal digits".to_owned());
    }
    digits
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).unwrap_or("");
            let is_plain = pair.bytes().all(|byte| byte.is_ascii_hexdigit());
            u8::from_str_radix(pair, 16)
                .ok()
                .filter(|_| is_plain)
                .ok_or_else(|| "not hexadecimal digits".to_owned())
        })
        .collect()
}

/// A count of bytes for people: three digits and a unit of 1024.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown of it")]
pub fn bytes_for_people(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = usize::from(value < 99.95) + usize::from(value < 9.995);
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// A count with its thousands set apart.
pub fn count_for_people(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// So many of what `noun`, of one, names, as in a sentence: `1 entry`, `1,200 entries`.
pub fn counted(count: u64, noun: &str) -> String {
    let number = count_for_people(count);
    if count == 1 {
        return format!("{number} {noun}");
    }
    let stem = noun.strip_suffix('y').filter(|stem| {
        let last = stem.chars().next_back();
        last.is_some_and(|c| !"aeiou".contains(c))
    });
    match stem {
        Some(stem) => format!("{number} {stem}ies"),
        None if noun.ends_with("ch") || noun.ends_with("sh") => format!("{number} {noun}es"),
        None => format!("{number} {noun}s"),
    }
}

/// The number of bytes that `text` means: digits, and `K`, `M`, `G` or `T` for powers of 1024
/// (`KiB` and the like are taken too).
///
/// # Errors
/// A sentence about what is wrong.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits_end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let number: u64 = digits
        .parse()
        .map_err(|_| "expected a number of bytes such as 64M".to_owned())?;
    let unit = unit.trim().to_ascii_lowercase();
    let shift = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err("unknown unit: use K, M, G or T".to_owned()),
    };
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "too large".to_owned())
}

/// A moment, given in microseconds since 1970, as `2026-02-03T04:05:06.000007Z`.
pub fn time_of_micros(micros: u64) -> String {
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date_of_day(days);
    let (hour, minute) = (second_of_day / 3600, second_of_day / 60 % 60);
    let second = second_of_day % 60;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z")
}

/// Year, month and day of the day that lies `days` after 1 January 1970.
fn date_of_day(days: u64) -> (u64, u64, u64) {
    // Counted from 1 March of the year 0, so that a leap day is the last of its year; 400 years
    // always have 146,097 days.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let leap_days = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Five months have 153 days, whichever five in a row.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_act_on_is_escaped() {
        let cases: [(&[u8], &str); 8] = [
            (b"plain 'and' \"quoted\"", "plain 'and' \"quoted\""),
            ("gr\u{fc}n \u{732b}".as_bytes(), "gr\u{fc}n \u{732b}"),
            (b"a\nb\tc\\d\r", "a\\nb\\tc\\\\d\\r"),
            (b"\x1b[31m\0", "\\x1b[31m\\x00"),
            (b"\xff\xfe", "\\xff\\xfe"),
            (b"cut \xe7\x8c", "cut \\xe7\\x8c"),
            ("\u{202e}".as_bytes(), "\\xe2\\x80\\xae"),
            ("\u{9b}".as_bytes(), "\\xc2\\x9b"),
        ];
        for (bytes, want) in cases {
            assert_eq!(escape(bytes), want);
        }
    }

    #[test]
    fn text_is_told_from_bytes() {
        assert_eq!(as_text(b"two\nlines\t\\"), Some("two\nlines\t\\"));
        for bytes in [&b"\xff"[..], b"\x1b[0m", b"\0", b"line\r"] {
            assert_eq!(as_text(bytes), None);
        }
    }

    #[test]
    fn messages_keep_their_lines_and_nothing_else() {
        assert_eq!(plain("two\nlines\t\\x1b"), "two\nlines\t\\x1b");
        assert_eq!(
            plain("\x1b[2J\r\u{9b}\u{202e}"),
            "\\x1b[2J\\r\\xc2\\x9b\\xe2\\x80\\xae"
        );
    }

    #[test]
    fn json_says_the_same_in_characters_that_can_be_seen() {
        let text = "\x1b\u{7f}\u{9b}\u{202e}\u{e0001}\n\"\\gr\u{fc}n";
        let document = serde_json::json!({ text: [text] });
        let line = json_line(&document);
        let string = r#""\u001b\u007f\u009b\u202e\udb40\udc01\n\"\\gr"#.to_owned() + "\u{fc}n\"";
        assert_eq!(line, format!("{{{string}:[{string}]}}"));
        assert_eq!(serde_json::from_str::<Value>(&line).ok(), Some(document));
    }

    #[test]
    fn hexadecimal_goes_both_ways() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(from_hex(&to_hex(&bytes)), Ok(bytes));
        assert_eq!(from_hex("0x0AfF"), Ok(vec![10, 255]));
        assert_eq!(from_hex(""), Ok(vec![]));
        for wrong in ["0", "0g", "+1", "\u{fc}", "a\u{20ac}"] {
            assert!(from_hex(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn moments_have_their_dates() {
        let cases = [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400_000_001, "2000-02-29T00:00:00.000001Z"),
            (1_709_251_199_999_999, "2024-02-29T23:59:59.999999Z"),
            (1_709_251_200_000_000, "2024-03-01T00:00:00.000000Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000000Z"),
        ];
        for (micros, want) in cases {
            assert_eq!(time_of_micros(micros), want);
        }
    }

    #[test]
    fn sizes_are_read_and_written() {
        let read = [
            ("0", 0),
            ("512", 512),
            ("64k", 64 << 10),
            ("64 MiB", 64 << 20),
            ("2G", 2 << 30),
            ("1TB", 1 << 40),
        ];
        for (text, want) in read {
            assert_eq!(parse_bytes(text), Ok(want), "{text}");
        }
        for wrong in ["", "M", "-1", "1X", "99999999999T", "1.5G"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
        let written = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (10 << 10, "10.0 KiB"),
            (1_048_575, "1.00 MiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (bytes, want) in written {
            assert_eq!(bytes_for_people(bytes), want);
        }
        assert_eq!(count_for_people(1_234_567), "1,234,567");
        assert_eq!(count_for_people(999), "999");
    }

    #[test]
    fn one_is_no_plural() {
        let cases = [
            (0, "entry", "0 entries"),
            (1, "entry", "1 entry"),
            (1200, "user key", "1,200 user keys"),
            (2, "flush", "2 flushes"),
            (2, "batch", "2 batches"),
            (2, "table", "2 tables"),
        ];
        for (count, noun, want) in cases {
            assert_eq!(counted(count, noun), want);
        }
    }
}
