//! The document that the account of the command line leaves behind when the config gets accounts. A part of [`Config`].

use std::path::PathBuf;

use super::Config;
use crate::model::account::DEFAULT_ACCOUNT;

impl Config<'_> {
    /// Returns where the account of the command line has published its document before there were accounts in the file;
    /// `None` if an account has that place, or if the command line has an account now, too.
    pub(crate) fn leftover(&self) -> Option<PathBuf> {
        let document = format!("{DEFAULT_ACCOUNT}.json");
        let mut accounts = self.file.accounts.iter();
        let is_used = self.is_account_given()
            || accounts.any(|account| match &account.file {
                Some(file) => file.ends_with(&document),
                None => account.name == DEFAULT_ACCOUNT,
            });
        match is_used {
            true => None,
            false => Some(self.directory().ok()?.join(document)),
        }
    }
}
