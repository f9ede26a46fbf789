//! What stands published for an account, and whether it can be used: what `get` and `status` have in common.
//! Reads one file; asks nobody.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use time::UtcDateTime;

use crate::config::SYSTEM_DIR;
use crate::log::printable;
use crate::model::account::Account;
use crate::model::document::Document;
use crate::model::kind::DocumentKind;
use crate::store::Found;

/// An account's document as it stands now.
pub(super) struct Published<'a> {
    pub(super) account: &'a Account,
    kind: DocumentKind,
    /// The document, where there is one that belongs to this account; else why not.
    pub(super) document: Result<Document, Trouble>,
    /// How long its token may be promised to work; zero where there is none.
    pub(super) life: Duration,
    pub(super) is_due: bool,
    now: UtcDateTime,
}

/// Why there is no document.
#[derive(Debug)]
pub(super) enum Trouble {
    Missing,
    /// It could not be read; there may be a good one.
    Unread(String),
    /// It is no document.
    Damaged(String),
    Foreign {
        appid: String,
    },
}

impl Published<'_> {
    /// The account's token.
    pub(super) fn look(account: &Account, now: UtcDateTime) -> Published<'_> {
        Published::look_at(account, DocumentKind::Token, now)
    }

    /// Its document of this kind.
    pub(super) fn look_at(
        account: &Account,
        kind: DocumentKind,
        now: UtcDateTime,
    ) -> Published<'_> {
        let document = match account.place.read(&kind) {
            Ok(Found::Document(document)) if account.owns(&document) => Ok(document),
            Ok(Found::Document(document)) => Err(Trouble::Foreign { appid: document.appid }),
            Ok(Found::Nothing) => Err(Trouble::Missing),
            Ok(Found::Damaged(damage)) => Err(Trouble::Damaged(damage)),
            Err(err) => Err(Trouble::Unread(format!("{err:#}"))),
        };
        let judged = document.as_ref().ok();
        let promise = |it: &Document| match kind {
            DocumentKind::Token => it.promise(now, account.rules, account.refresh_before),
            // The next one leaves it alone.
            DocumentKind::Ticket(_) => Duration::from_secs(it.left(now).as_secs()),
        };
        let life = judged.map_or(Duration::ZERO, promise);
        let margin = |it: &Document| match kind {
            DocumentKind::Token => account.refresh_before,
            DocumentKind::Ticket(_) => it.ticket_margin(account.refresh_before),
        };
        let is_due = judged.is_none_or(|it| it.is_due(now, margin(it)));
        Published { account, kind, document, life, is_due, now }
    }

    /// Where it is published.
    pub(super) fn file(&self) -> String {
        self.account.place.name_of(&self.kind)
    }

    /// This instant of the document in Unix seconds; 0 where there is none.
    pub(super) fn secs(&self, instant: fn(&Document) -> UtcDateTime) -> i64 {
        self.document.as_ref().map_or(0, |it| instant(it).unix_timestamp())
    }

    /// The document, if its token may be used for at least `min_life`; else what to tell the person.
    pub(super) fn usable(&self, min_life: Duration) -> Result<&Document, Unusable<'_>> {
        match &self.document {
            // Never a token with nothing left, whatever was asked for.
            Ok(document) if !self.life.is_zero() && self.life >= min_life => Ok(document),
            _ => Err(Unusable { published: self, min_life }),
        }
    }
}

/// Why a token cannot be used, in words.
pub(super) struct Unusable<'a> {
    published: &'a Published<'a>,
    min_life: Duration,
}

impl fmt::Display for Unusable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Published { account, kind, life, .. } = self.published;
        let path = account.place.name_of(kind);
        let what_is_it = match kind {
            DocumentKind::Token => "token".to_owned(),
            DocumentKind::Ticket(kind) => format!("{kind} ticket"),
        };
        write!(f, "{}: ", account.name)?;
        match &self.published.document {
            Err(Trouble::Missing) => {
                write!(
                    f,
                    "no {what_is_it}: {path} does not exist; run wxtoken fetch, with the same --dir or --file"
                )?;
                if let DocumentKind::Ticket(kind) = kind
                    && !account.tickets.contains(kind)
                {
                    return write!(
                        f,
                        "; first put tickets = [\"{kind}\"] under this account in the config"
                    );
                }
                if Path::new(SYSTEM_DIR).exists() && !account.place.is_under(Path::new(SYSTEM_DIR))
                {
                    write!(f, "; or is it the one in --dir {SYSTEM_DIR}?")?;
                }
                Ok(())
            }
            Err(Trouble::Unread(what) | Trouble::Damaged(what)) => {
                write!(f, "no {what_is_it}: {what}")
            }
            Err(Trouble::Foreign { appid }) => {
                write!(
                    f,
                    "no {what_is_it}: {path} belongs to {}, another account",
                    printable(appid, 64)
                )
            }
            Ok(document) if life.is_zero() => {
                let ago =
                    (self.published.now - document.expires_at()).whole_seconds().max(0) as u64;
                let ago = humantime::format_duration(Duration::from_secs(ago));
                write!(
                    f,
                    "the {what_is_it} expired at {} ({ago} ago): run wxtoken fetch, and see why nobody did",
                    document.expires_at_rfc3339()
                )
            }
            Ok(_) => write!(
                f,
                "the {what_is_it} has {} left, less than --min-life {}",
                humantime::format_duration(*life),
                humantime::format_duration(self.min_life)
            ),
        }
    }
}
