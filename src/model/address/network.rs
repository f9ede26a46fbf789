//! IP addresses and networks as users write them, parsed strictly. Knows nothing of access rules.

use cidr::errors::NetworkParseError;
use cidr::{IpCidr, IpInet};

use super::faults;
use crate::message::messages;

messages! {
    BEYOND_PREFIX<2> {
        "Write {0} or {1}.", "bits are set beyond the prefix";
        "请改为 {0} 或 {1}。", "网络地址的主机位不为 0";
    }
}

/// Parses an address (`10.1.2.3`) or a network (`10.0.0.0/8`). The error says what is wrong and, where that is clear, what
/// to write instead. It repeats nothing but addresses.
pub(crate) fn parse(entry: &str) -> Result<IpCidr, String> {
    entry.parse().map_err(|err| explain(entry, &err))
}

fn explain(entry: &str, err: &NetworkParseError) -> String {
    match (err, entry.parse::<IpInet>()) {
        (NetworkParseError::InvalidHostPart, Ok(inet)) => {
            BEYOND_PREFIX.first([&inet.network(), &inet.address()])
        }
        (
            NetworkParseError::NetworkLengthTooLongError(_)
            | NetworkParseError::NetworkLengthParseError(_),
            _,
        ) => faults::NO_PREFIX_LENGTH.to_owned(),
        _ => faults::NO_NETWORK.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_in_a_network_is_explained_by_what_to_write_instead() {
        let beyond = BEYOND_PREFIX.first([&"10.0.0.0/8", &"10.1.2.3"]);
        for (entry, problem) in [
            ("10.1.2.3/8", beyond.as_str()),
            ("10.0.0.0/33", faults::NO_PREFIX_LENGTH),
            ("2001:db8::/129", faults::NO_PREFIX_LENGTH),
            ("10.0.0.0/x", faults::NO_PREFIX_LENGTH),
            ("10.0.0", faults::NO_NETWORK),
            ("host.example", faults::NO_NETWORK),
            ("", faults::NO_NETWORK),
        ] {
            assert_eq!(parse(entry).unwrap_err(), problem, "{entry}");
        }
        assert_eq!(parse("10.1.2.3").unwrap().to_string(), "10.1.2.3");
        assert_eq!(parse("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
    }
}
