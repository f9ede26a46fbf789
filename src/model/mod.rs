//! The domain types that all other modules share: accounts, documents, errcodes, client keys, addresses. No clock and no
//! I/O.

pub(crate) mod account;
pub(crate) mod address;
pub(crate) mod api;
pub(crate) mod client_key;
pub(crate) mod document;
pub(crate) mod errcode;
pub(crate) mod exposition;
pub(crate) mod jssdk;
pub(crate) mod kind;
pub(crate) mod location;
pub(crate) mod response;
pub(crate) mod secret;
pub(crate) mod status;
