//! What `contrib` ships, with the real programs it is for.

mod alert;
mod kubernetes;
mod mirror_host;
mod nginx;
mod runtimes_by_hosts_file;
mod sdk;
mod sdk_recipes;
mod sdks_by_hosts_file;
mod sdks_unchanged;
mod systemd;
