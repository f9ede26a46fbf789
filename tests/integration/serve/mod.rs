//! `wxtoken serve`: routes, access, TLS, refreshing, metrics, the page, and load.

mod browsers;
mod client_certificates;
mod forwarded;
mod keys;
mod load;
mod memory;
mod metrics;
mod over_tls;
mod page;
mod paths;
mod refresh;
mod refusals;
mod reload;
mod revocation;
mod routes;
mod sdk_routes;
