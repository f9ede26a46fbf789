//! IP addresses and networks as users write them, parsed strictly. Knows nothing of access rules.

use cidr::errors::NetworkParseError;
use cidr::{IpCidr, IpInet};

/// Parses an address (`10.1.2.3`) or a network (`10.0.0.0/8`). The error says what is wrong and, where that is clear, what
/// to write instead. It repeats nothing but addresses.
pub(crate) fn parse(entry: &str) -> Result<IpCidr, String> {
    entry.parse().map_err(|err| explain(entry, &err))
}

fn explain(entry: &str, err: &NetworkParseError) -> String {
    match (err, entry.parse::<IpInet>()) {
        (NetworkParseError::InvalidHostPart, Ok(inet)) => {
            format!(
                "bits are set beyond the prefix, write {} or {}",
                inet.network(),
                inet.address()
            )
        }
        (
            NetworkParseError::NetworkLengthTooLongError(_)
            | NetworkParseError::NetworkLengthParseError(_),
            _,
        ) => "the prefix length must be 0 to 32, or to 128 for IPv6".to_owned(),
        _ => "expected an address or a network, like 10.1.2.3 or 10.0.0.0/8".to_owned(),
    }
}
