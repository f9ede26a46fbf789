//! The APIs by which tokens are given, by the names that people give them, and the rules by which those tokens live.

use clap::ValueEnum;

/// WeChat's API that gives an account's token. Its families of tokens do not affect each other.
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

/// By which rules an account's token lives, and is given anew: those of WeChat's API, or of another wxtoken that asks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rules {
    Stable,
    Classic,
    Work,
    /// Another wxtoken holds the AppSecret, and gives its token with the life that is promised there.
    Mirror,
}

impl From<Api> for Rules {
    fn from(api: Api) -> Rules {
        match api {
            Api::Stable => Rules::Stable,
            Api::Classic => Rules::Classic,
            Api::Work => Rules::Work,
        }
    }
}

impl Api {
    /// Where it is answered.
    pub(crate) fn base_url(self) -> &'static str {
        match self {
            Api::Stable | Api::Classic => "https://api.weixin.qq.com",
            Api::Work => "https://qyapi.weixin.qq.com",
        }
    }
}
