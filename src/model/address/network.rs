//! Addresses and networks as people write them, taken strictly. Knows nothing of who may do what from where.

use cidr::errors::NetworkParseError;
use cidr::{IpCidr, IpInet};

/// An address (`10.1.2.3`) or a network (`10.0.0.0/8`); the error says what is wrong, and what to write instead where
/// that is plain. It repeats nothing that is no address.
pub(crate) fn parse(entry: &str) -> Result<IpCidr, String> {
    entry.parse().map_err(|err| fault(entry, &err))
}

fn fault(entry: &str, err: &NetworkParseError) -> String {
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
