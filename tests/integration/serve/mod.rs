//! `wxtoken serve`: routes, access, TLS, refreshing, metrics, the page, and load.

mod forwarded;
mod keys;
mod load;
mod metrics;
mod over_tls;
mod page;
mod refresh;
mod reload;
mod routes;
mod sdk_routes;
