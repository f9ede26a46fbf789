//! Spans of time in messages.

use std::time::Duration;

/// The units, with their lengths in seconds.
const UNITS: [(u64, char); 4] = [(86_400, 'd'), (3600, 'h'), (60, 'm'), (1, 's')];

/// Returns a span of time in whole seconds, as options take it: `1d 2h 3m 4s`. One of less than a second has milliseconds.
pub(crate) fn span(span: Duration) -> String {
    if span.as_secs() == 0 && !span.is_zero() {
        return format!("{}ms", span.as_millis());
    }
    let mut rest = span.as_secs();
    let mut parts = Vec::new();
    for (length, unit) in UNITS {
        match rest / length {
            0 => {}
            count => parts.push(format!("{count}{unit}")),
        }
        rest %= length;
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_whole_seconds_and_is_read_as_an_option() {
        for (millis, text) in [
            (0, "0s"),
            (500, "500ms"),
            (1_999, "1s"),
            (60_000, "1m"),
            (3_661_000, "1h 1m 1s"),
            (86_400_000, "1d"),
            (200_000_000_000, "2314d 19h 33m 20s"),
        ] {
            let written = span(Duration::from_millis(millis));
            assert_eq!(written, text);
            let read = humantime::parse_duration(&written).unwrap();
            assert!(read.as_millis().abs_diff(millis.into()) < 1000, "{text}");
        }
    }
}
