//! The APIs that issue tokens, by the names used in flags and config, and the rules by which tokens are refreshed.

use clap::ValueEnum;

use crate::model::errcode::Platform;

/// The API that issues an account's token. Tokens of one API do not affect those of another.
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

/// The rules by which a token expires and is replaced: those of an API, or those of a mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rules {
    Stable,
    Classic,
    Work,
    /// Another wxtoken holds the AppSecret and hands out its token with the lifetime it promises.
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

impl Rules {
    /// The rules of a ticket, on every API: those of WeCom's tokens. A request returns the same ticket while it lives, and invalidates
    /// none.
    pub(crate) const OF_TICKETS: Rules = Rules::Work;
}

impl Api {
    /// Returns the platform that it belongs to.
    pub(crate) fn platform(self) -> Platform {
        match self {
            Api::Stable | Api::Classic => Platform::Official,
            Api::Work => Platform::Work,
        }
    }

    /// Returns the base URL of WeChat or WeCom.
    pub(crate) fn base_url(self) -> &'static str {
        self.platform().base_url()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_has_the_address_of_its_platform() {
        for (api, base_url) in [
            (Api::Stable, "https://api.weixin.qq.com"),
            (Api::Classic, "https://api.weixin.qq.com"),
            (Api::Work, "https://qyapi.weixin.qq.com"),
        ] {
            assert_eq!(api.base_url(), base_url);
        }
    }
}
