//! Redis as the store that many hosts share.

mod damage;
mod links;
mod serve;
mod store;
