//! Finds which name was meant by a misspelt one.

use std::cmp::Reverse;

/// The length of the longest name that is corrected, in bytes. No name of ours has a longer one; a longer word may be a
/// secret.
pub(crate) const MAX_NAME: usize = 28;

/// Returns the one of `known` that `name` is probably a misspelling of. The names of `known` have small letters and `_`.
pub(crate) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    if name.len() > MAX_NAME {
        return None;
    }
    let name = name.to_ascii_lowercase().replace('-', "_");
    let by_distance =
        known.iter().map(|known| (strsim::levenshtein(&name, known), Reverse(known.len()), *known));
    let (distance, _, nearest) = by_distance.min()?;
    (distance <= nearest.len() / 3 && distance <= 2).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_is_corrected_and_a_different_one_is_not() {
        let known = ["appid", "allow", "secret_file", "base_url"];
        for (name, expected) in [
            ("app_id", Some("appid")),
            ("APPID", Some("appid")),
            ("alow", Some("allow")),
            ("base-url", Some("base_url")),
            ("secretfile", Some("secret_file")),
            ("url", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(nearest(name, &known), expected, "{name}");
        }
        assert_eq!(nearest("x", &[]), None);
    }
}
