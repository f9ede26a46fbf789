//! Whose document is which: no two accounts have the same one, and the one that the account of the command line leaves behind when
//! the config gets accounts.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::{AccountSettings, Config, messages};
use crate::error::Exit;
use crate::model::account::DEFAULT_ACCOUNT;
use crate::model::kind::DocumentKind;
use crate::os::file::dir::dir_of;
use crate::upstream::config::Origin;

impl Config<'_> {
    /// Returns where the account of the command line has published its document before there were accounts in the file;
    /// `None` if an account has that place, or if the command line has an account now, too.
    pub(crate) fn predecessor(&self) -> Option<PathBuf> {
        let document = format!("{DEFAULT_ACCOUNT}.json");
        match self.document_names()?.contains(OsStr::new(&document)) {
            true => None,
            false => Some(self.directory().ok()?.join(document)),
        }
    }

    /// Returns the names of the files that are documents of accounts in the config; `None` if the command line has an account.
    pub(crate) fn document_names(&self) -> Option<HashSet<OsString>> {
        let named = self.file.accounts.iter().map(|account| match &account.file {
            Some(file) => file.file_name().unwrap_or_default().to_owned(),
            None => format!("{}.json", account.name).into(),
        });
        (!self.is_account_given()).then(|| named.collect())
    }
}

/// Fails for two accounts with one document: they would replace each other's token for ever.
pub(super) fn check(settings: &[AccountSettings]) -> anyhow::Result<()> {
    let (mut known, mut directories) = (HashMap::new(), HashMap::new());
    let mut problems = Vec::new();
    // A directory may have several names, by symbolic links. Most accounts have the same one.
    let mut in_real_directory = |document: &Path| {
        let real = directories
            .entry(dir_of(document).to_owned())
            .or_insert_with_key(|it| it.canonicalize().ok());
        let name = document.file_name().filter(|_| real.is_some());
        name.zip(real.as_ref()).map_or(document.to_owned(), |(name, real)| real.join(name))
    };
    for AccountSettings { account, upstream, .. } in settings {
        let tickets = account.tickets.iter().map(|kind| DocumentKind::Ticket(kind.clone()));
        let kinds = std::iter::once(DocumentKind::Token).chain(tickets);
        let mut shared = None;
        for document in kinds.map(|kind| account.location.path(&kind)) {
            // What belongs to a document, such as its lock and its record, has its name but for the extension.
            let real = in_real_directory(&document).with_extension("");
            let other = known.insert(real, &account.name);
            shared = shared.or(other.map(|other| (other, document)));
        }
        // The first one suffices to find the mistake.
        if let (Some((other, document)), Origin::Config { account: place, .. }) =
            (shared, &upstream.origin)
        {
            let said = messages::SHARED_DOCUMENT.first([&document.display(), other]);
            problems.push(format!("{place}: {said}"));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(Exit::Usage.errors(problems)) }
}
