//! The calls of WeChat's that the stand-in knows, by name.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Api {
    /// GET /cgi-bin/token
    Token,
    /// POST /cgi-bin/stable_token
    StableToken,
    /// GET /cgi-bin/get_api_domain_ip: the cheapest call that needs a live token
    DomainIp,
}
