//! What is handed out, and who may have it: one state of both, in which an account's place is the same. Changes never;
//! another one takes its place.

use super::access::Access;
use crate::accounts::Accounts;

pub(crate) struct Service {
    pub(crate) access: Access,
    pub(crate) accounts: Accounts,
}
