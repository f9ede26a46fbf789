//! The settings of a scheduled account, with the store of its token. A reload that keeps the scheduler swaps in new settings.

use std::sync::Arc;

use crate::model::account::Account;
use crate::model::kind::{DocumentKind, TicketType};
use crate::store::{Store, Stores};

/// A store that job threads can use.
pub(super) type SharedStore = Arc<dyn Store + Send + Sync>;

/// The settings of an account.
pub(super) struct Settings {
    pub(super) account: Account,
    /// The mode of document files.
    mode: u32,
    pub(super) token_store: SharedStore,
}

impl Settings {
    /// Returns the settings. Removes what a killed process left behind beside the document: no refresh may do so for hours.
    pub(super) fn new(account: Account, mode: u32, stores: &Stores) -> Settings {
        let token_store = stores.open(&account.location, &DocumentKind::Token, mode);
        token_store.clean_up();
        Settings { account, mode, token_store }
    }

    /// Returns these settings with another account at the same location.
    pub(super) fn with_account(&self, account: Account) -> Settings {
        Settings { account, mode: self.mode, token_store: Arc::clone(&self.token_store) }
    }

    /// Opens the store of a ticket, and removes what a killed process left behind beside it.
    pub(super) fn open_ticket_store(&self, kind: &TicketType, stores: &Stores) -> SharedStore {
        let kind = DocumentKind::Ticket(kind.clone());
        let store = stores.open(&self.account.location, &kind, self.mode);
        store.clean_up();
        store
    }
}
