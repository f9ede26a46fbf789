//! `wxtoken serve`: which clients are allowed, by address, key, certificate and Host, and how refusals are logged.

mod browsers;
mod client_certificates;
mod forwarded;
mod keys;
mod refusals;
mod revocation;
