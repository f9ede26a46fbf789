//! `wxtoken fetch`: what it publishes, how it reaches WeChat, tickets, hooks and mirrors.

mod files;
mod hook;
mod memory;
mod mirror;
mod over_tls;
mod publishing;
mod tickets;
mod trouble;
mod two_hosts;
mod waits;
mod wecom;
