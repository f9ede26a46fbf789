//! What `contrib` ships, with the real programs it is for.

mod alert;
mod nginx;
mod sdk;
mod sdks_unchanged;
mod systemd;
