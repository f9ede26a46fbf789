//! An account: what every part of the program needs to know of it.

use std::time::Duration;

use crate::error::Exit;
use crate::model::api::{Api, Rules};
use crate::model::document::Document;
use crate::model::kind::TicketType;
use crate::model::location::Location;
use crate::os::hook::Hook;

/// The name of the account that is given on the command line.
pub(crate) const DEFAULT_ACCOUNT: &str = "default";

/// An account, as far as everybody needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    /// What people call it.
    pub(crate) name: String,
    /// WeChat's name for it; a reader may do without.
    pub(crate) appid: Option<String>,
    /// WeChat's API that gives its token: to us, or to the wxtoken that it is a mirror of. It is served under its routes.
    pub(crate) api: Api,
    /// By which its token is kept here.
    pub(crate) rules: Rules,
    /// Its token is due when this much life is left.
    pub(crate) refresh_before: Duration,
    /// Where its documents are published.
    pub(crate) place: Location,
    /// The types of the tickets that are fetched, too.
    pub(crate) tickets: Vec<TicketType>,
    /// What is run when its token changed, by whoever published the new one.
    pub(crate) on_change: Option<Hook>,
}

impl Account {
    /// Whether a document is this account's; anybody's will do where no AppID is known.
    pub(crate) fn owns(&self, document: &Document) -> bool {
        self.appid.as_ref().is_none_or(|appid| *appid == document.appid)
    }

    /// Its AppID, which whoever asks WeChat needs.
    pub(crate) fn needed_appid(&self) -> anyhow::Result<&str> {
        // A mirror asks by the account's name.
        let unneeded = (self.rules == Rules::Mirror).then_some("");
        self.appid.as_deref().or(unneeded).ok_or_else(|| {
            Exit::Usage.error(
                "no account: give --appid, or set WXTOKEN_APPID, or give a config with accounts in it",
            )
        })
    }
}
