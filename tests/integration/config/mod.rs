//! The config file, and many accounts in it.

mod accounts;
mod file;
