//! The APIs by which WeChat gives tokens, by the names that people give them.

use clap::ValueEnum;

/// Which of WeChat's families of tokens an account uses; they do not affect each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Api {
    /// POST /cgi-bin/stable_token: asking again gives the same token and kills nothing
    #[default]
    Stable,
    /// GET /cgi-bin/token: every call mints a new token, and the one before dies five minutes later
    Classic,
    /// GET /cgi-bin/gettoken of WeCom (企业微信): asking again gives the same token while it lives
    Work,
}

impl Api {
    /// Where WeChat answers it.
    pub(crate) fn base_url(self) -> &'static str {
        match self {
            Api::Stable | Api::Classic => "https://api.weixin.qq.com",
            Api::Work => "https://qyapi.weixin.qq.com",
        }
    }
}
