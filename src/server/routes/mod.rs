//! What a request asks for and how it is answered.

pub(crate) mod body;
pub(crate) mod handler;
pub(crate) mod metrics;
pub(crate) mod page;
pub(crate) mod response;
pub(crate) mod route;
pub(crate) mod sdk;
