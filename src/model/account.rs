//! An account, as far as all commands need to know it. How to reach its upstream is in `upstream::config`.

use std::time::Duration;

use ring::digest::{SHA256, digest};

use crate::error::Exit;
use crate::message::messages;
use crate::model::api::{Api, Rules};
use crate::model::document::Document;
use crate::model::kind::TicketType;
use crate::model::location::Location;
use crate::os::hook::Hook;

messages! {
    NO_ACCOUNT<0> {
        "Give --appid, or set WXTOKEN_APPID, or give a config with accounts in it.", "no account";
        "请给出 --appid，或设置 WXTOKEN_APPID，或用 --config 指定含有账号的配置。", "没有账号";
    }
}

/// The name of the account that the command line defines.
pub(crate) const DEFAULT_ACCOUNT: &str = "default";

/// Identifies a key or an account in an opaque token: the first bytes of a SHA-256. Not a secret.
pub(crate) type Tag = [u8; 6];

/// Returns the tag of the account with this name.
pub(crate) fn tag(name: &str) -> Tag {
    let mut tag = Tag::default();
    tag.copy_from_slice(&digest(&SHA256, name.as_bytes()).as_ref()[..size_of::<Tag>()]);
    tag
}

/// An account for which tokens are published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    /// The name in the config.
    pub(crate) name: String,
    /// WeChat's identifier. Optional for commands that only read documents.
    pub(crate) appid: Option<String>,
    /// The API that issues its tokens, to this wxtoken or to the one that it mirrors. Determines the routes by which it is served.
    pub(crate) api: Api,
    /// The rules by which its token is refreshed here.
    pub(crate) rules: Rules,
    /// The token is due when this much of its lifetime is left.
    pub(crate) refresh_before: Duration,
    /// Where its documents are published.
    pub(crate) location: Location,
    /// The types of the tickets that are published too.
    pub(crate) tickets: Vec<TicketType>,
    /// Runs after a new token has been published, in the process that published it.
    pub(crate) on_change: Option<Hook>,
    /// Runs when refreshing is in trouble, and once more when it works again.
    pub(crate) on_trouble: Option<Hook>,
}

impl Account {
    /// Whether a document belongs to this account, as far as the AppIDs of both are known.
    pub(crate) fn owns(&self, document: &Document) -> bool {
        owns(self.appid.as_deref().unwrap_or_default(), document)
    }

    /// Returns the AppID. Fails if it is unknown, except for a mirror, which asks by the account's name.
    pub(crate) fn needed_appid(&self) -> anyhow::Result<&str> {
        let unneeded = (self.rules == Rules::Mirror).then_some("");
        self.appid.as_deref().or(unneeded).ok_or_else(|| Exit::Usage.error(NO_ACCOUNT.text()))
    }
}

#[cfg(test)]
impl Account {
    /// Returns an account on `stable` with the AppID wx1, which is published at this path and has its name.
    pub(crate) fn for_tests(path: impl Into<std::path::PathBuf>) -> Account {
        let path = path.into();
        Account {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            appid: Some("wx1".to_owned()),
            api: Api::Stable,
            rules: Rules::Stable,
            refresh_before: Duration::from_secs(300),
            location: Location::File(path),
            tickets: Vec::new(),
            on_change: None,
            on_trouble: None,
        }
    }
}

/// Whether a document may belong to the account with this AppID. An empty AppID is an unknown one, and matches any: a mirror need not
/// know its own, and publishes documents without one.
pub(crate) fn owns(appid: &str, document: &Document) -> bool {
    appid == document.appid || appid.is_empty() || document.appid.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::secret::Secret;
    use crate::os::timestamp::Timestamp;

    fn account(appid: Option<&str>, rules: Rules) -> Account {
        Account { appid: appid.map(str::to_owned), rules, ..Account::for_tests("/d/shop.json") }
    }

    #[test]
    fn a_document_of_another_appid_is_not_the_accounts() {
        let now = Timestamp::of_wall(time::UtcDateTime::UNIX_EPOCH);
        let token = Secret::new("T".to_owned());
        let document = Document::new("wx1", token, Duration::from_secs(7200), now);
        for (appid, is_own) in [(Some("wx1"), true), (Some("wx2"), false), (None, true)] {
            assert_eq!(account(appid, Rules::Stable).owns(&document), is_own, "{appid:?}");
        }
        let of_mirror = Document { appid: String::new(), ..document };
        for appid in [Some("wx1"), None] {
            assert!(account(appid, Rules::Stable).owns(&of_mirror), "its AppID is unknown");
        }
    }

    #[test]
    fn an_appid_is_needed_except_by_a_mirror() {
        for (appid, rules, needed) in [
            (Some("wx1"), Rules::Stable, Some("wx1")),
            (Some("wx1"), Rules::Mirror, Some("wx1")),
            (None, Rules::Mirror, Some("")),
            (None, Rules::Stable, None),
        ] {
            let account = account(appid, rules);
            let found = account.needed_appid();
            assert_eq!(found.as_ref().ok().copied(), needed, "{appid:?} {rules:?}");
            if let Err(err) = found {
                assert_eq!(Exit::from_error(&err), Exit::Usage);
            }
        }
    }

    #[test]
    fn a_tag_is_the_beginning_of_the_sha_256_of_the_name() {
        assert_eq!(tag("shop"), [0x8d, 0x90, 0x01, 0xd3, 0x2c, 0x6a]);
        assert_ne!(tag("mall"), tag("shop"));
    }
}
