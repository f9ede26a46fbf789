//! IP addresses and networks as users write them, parsed strictly. Knows nothing of access rules.

use cidr::errors::NetworkParseError;
use cidr::{IpCidr, IpInet};

use crate::language::{bilingual, in_both};

/// Parses an address (`10.1.2.3`) or a network (`10.0.0.0/8`). The error says what is wrong and, where that is clear, what
/// to write instead. It repeats nothing but addresses.
pub(crate) fn parse(entry: &str) -> Result<IpCidr, String> {
    entry.parse().map_err(|err| explain(entry, &err))
}

fn explain(entry: &str, err: &NetworkParseError) -> String {
    match (err, entry.parse::<IpInet>()) {
        (NetworkParseError::InvalidHostPart, Ok(inet)) => {
            let (network, address) = (inet.network(), inet.address());
            in_both(
                format!("bits are set beyond the prefix, write {network} or {address}"),
                format!("前缀之外还有为 1 的位，请写 {network} 或 {address}"),
            )
        }
        (
            NetworkParseError::NetworkLengthTooLongError(_)
            | NetworkParseError::NetworkLengthParseError(_),
            _,
        ) => bilingual!(
            "the prefix length must be 0 to 32, or to 128 for IPv6",
            "前缀长度须为 0 至 32，IPv6 至 128"
        )
        .to_owned(),
        _ => bilingual!(
            "expected an address or a network, like 10.1.2.3 or 10.0.0.0/8",
            "须为地址或网段，如 10.1.2.3 或 10.0.0.0/8"
        )
        .to_owned(),
    }
}
