//! Looks up headers of a request without hashing: there are few, and each request is looked at.

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

/// Returns the values of all headers of this name. To go through the few headers that there are takes a fraction of the time in
/// which the map hashes a name.
pub(crate) fn values(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &HeaderValue> {
    headers.iter().filter(move |(found, _)| **found == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use hyper::header;

    use super::*;

    #[test]
    fn all_values_of_a_name_are_found_in_their_order() {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("via", "1"), ("host", "a"), ("via", "2"), ("x-via", "3"), ("via", "4")]
        {
            headers.append(name, HeaderValue::from_static(value));
        }
        let found = |name| values(&headers, name).map(HeaderValue::as_bytes).collect::<Vec<_>>();
        assert_eq!(found(header::VIA), [b"1", b"2", b"4"]);
        assert_eq!(found(header::HOST), [b"a"]);
        assert_eq!(found(HeaderName::from_static("x-via")), [b"3"]);
        assert!(found(header::ORIGIN).is_empty());
    }
}
