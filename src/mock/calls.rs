//! The calls of WeChat's that the stand-in knows, by name.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Api {
    /// GET /cgi-bin/token
    Token,
    /// POST /cgi-bin/stable_token
    StableToken,
    /// GET /cgi-bin/gettoken, and every call with one of its tokens: WeCom has words of its own
    Work,
    /// GET /cgi-bin/get_api_domain_ip and its like: the cheapest calls that need a live token
    DomainIp,
}
