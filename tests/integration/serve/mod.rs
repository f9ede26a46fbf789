//! `wxtoken serve`: routes, TLS, refreshing, reloads, metrics, the page, and load.

mod first_bytes;
mod jssdk;
mod load;
mod memory;
mod metrics;
mod over_tls;
mod page;
mod paths;
mod refresh;
mod reload;
mod repeated;
mod routes;
mod sdk_routes;
mod slots;
