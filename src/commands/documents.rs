//! Reads what is published for an account, and says why it cannot be used: what `get`, `status`, `check` and `fetch` have
//! in common. Reads one document at a time; opens no connection but to a store.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use super::messages;
use crate::config::SYSTEM_DIR;
use crate::language::in_both;
use crate::log::printable;
use crate::message::command::{command, has_config};
use crate::message::{action_first, span};
use crate::model::account::Account;
use crate::model::document::{Document, whole_seconds};
use crate::model::kind::DocumentKind;
use crate::model::status::{AccountStatus, DocumentStatus, Problem};
use crate::os::local_time::local;
use crate::os::timestamp::Timestamp;
use crate::store::{Found, Stores};

/// Reads the account's document of this kind.
pub(super) fn read(
    stores: &Stores,
    account: &Account,
    kind: &DocumentKind,
) -> Result<Document, Problem> {
    match stores.read(&account.location, kind) {
        Ok(Found::Document(document)) if account.owns(&document) => Ok(document),
        Ok(Found::Document(document)) => Err(Problem::Foreign { appid: document.appid }),
        Ok(Found::Nothing) => Err(Problem::Missing),
        Ok(Found::Damaged(damage)) => Err(Problem::Damaged(damage)),
        Err(err) => Err(Problem::Unreadable(format!("{err:#}"))),
    }
}

/// Reads all documents of the account for its status.
pub(super) fn account_status(stores: &Stores, account: &Account, now: Timestamp) -> AccountStatus {
    AccountStatus::new(account, |kind| document_status(stores, account, kind, now), None)
}

/// Reads the account's document of this kind for its status.
pub(super) fn document_status(
    stores: &Stores,
    account: &Account,
    kind: &DocumentKind,
    now: Timestamp,
) -> DocumentStatus {
    let document = read(stores, account, kind);
    let status = DocumentStatus::new(account, kind, document.as_ref().map_err(Problem::clone), now);
    let published = status.published.as_ref().ok();
    let appid = account.appid.as_deref().or(published.map(|it| it.appid.as_str()));
    let record = stores.record(&account.location, kind, appid.unwrap_or_default(), now.wall);
    let trouble_since = account.on_trouble.as_ref().and_then(|_| record.as_ref()?.trouble_since());
    // What was published later was given. The record has whole seconds; in the same one, publishing would have removed it.
    let is_last = |at| published.is_none_or(|it| whole_seconds(it.created_at) <= at);
    let refusal = record.and_then(|it| it.last_refusal(now.wall)).filter(|(_, at)| is_last(*at));
    DocumentStatus { trouble_since, refusal, ..status }
}

/// Says why the document of this kind cannot be used for at least `min_life`; `None` if it can.
pub(super) fn unusable(
    account: &Account,
    kind: &DocumentKind,
    status: &DocumentStatus,
    min_life: Duration,
    now: Timestamp,
) -> Option<String> {
    let what = match kind {
        DocumentKind::Token => "token".to_owned(),
        DocumentKind::Ticket(kind) => format!("{kind} ticket"),
    };
    let place = &status.place;
    let fetch = || command("fetch", Some(&account.name), &[]);
    let why = match &status.published {
        // A token without any life left is not usable, whatever `min_life` is.
        Ok(published) if published.life.is_zero() => {
            let ago = (now.wall - published.expires_at).whole_seconds().max(0) as u64;
            let ago = span(Duration::from_secs(ago));
            let expires_at = local(published.expires_at);
            messages::EXPIRED.first([&what, &expires_at, &ago, &fetch()])
        }
        Ok(published) if published.life < min_life => {
            let [life, min_life] = [published.life, min_life].map(span);
            match published.is_due {
                true => messages::TOO_SHORT.first([&what, &life, &min_life, &fetch()]),
                false => messages::NOT_DUE.first([&what, &life, &min_life]),
            }
        }
        Ok(_) => return None,
        Err(Problem::Missing) => match kind {
            DocumentKind::Ticket(kind) if !account.tickets.contains(kind) => match has_config() {
                true => messages::NOT_IN_TICKETS.first([kind, &fetch(), place]),
                false => messages::NEEDS_CONFIG.first([kind]),
            },
            kind => {
                let hint = missing_hint(account, kind);
                messages::NO_DOCUMENT.first([&what, place, &fetch(), &hint])
            }
        },
        Err(Problem::Unreadable(why) | Problem::Damaged(why)) => action_first(&format!(
            "{}: {why}",
            in_both(format!("no {what}"), format!("没有 {what}"))
        )),
        Err(Problem::Foreign { appid }) => {
            messages::OTHERS_DOCUMENT.first([&what, place, &printable(appid, 64)])
        }
    };
    Some(format!("{}: {why}", account.name))
}

/// What else may be the reason that a document is missing.
fn missing_hint(account: &Account, kind: &DocumentKind) -> String {
    let system_dir = Path::new(SYSTEM_DIR);
    let looked_in = match account.location.path(kind).parent() {
        Some(dir) if has_no_document(dir) => messages::LOOKED_IN.with([&dir.display()]),
        _ => String::new(),
    };
    match system_dir.exists() && !account.location.is_under(system_dir) {
        true => looked_in + &messages::OR_SYSTEM_DIR.with([&SYSTEM_DIR]),
        false => looked_in,
    }
}

/// Whether nothing is published in a directory, for any account.
fn has_no_document(dir: &Path) -> bool {
    let is_document = |name: &OsStr| Path::new(name).extension().is_some_and(|it| it == "json");
    let files = dir.read_dir().into_iter().flatten().flatten();
    !files.into_iter().any(|file| is_document(&file.file_name()))
}
