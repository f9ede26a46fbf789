//! The APIs by which tokens are given, by the names that people give them.

use clap::ValueEnum;

/// By which rules an account's token is given. WeChat's families of tokens do not affect each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Api {
    /// POST /cgi-bin/stable_token: asking again gives the same token and kills nothing
    #[default]
    Stable,
    /// GET /cgi-bin/token: every call mints a new token, and the one before dies five minutes later
    Classic,
    /// GET /cgi-bin/gettoken of WeCom (企业微信): asking again gives the same token while it lives
    Work,
    /// Another wxtoken's, which holds the AppSecret: it gives its token with the life that is promised there
    #[value(skip)]
    Mirror,
}

impl Api {
    /// Where it is answered, if there is only one such place.
    pub(crate) fn base_url(self) -> &'static str {
        match self {
            Api::Stable | Api::Classic => "https://api.weixin.qq.com",
            Api::Work => "https://qyapi.weixin.qq.com",
            Api::Mirror => "",
        }
    }
}
