//! Tests of the real binary on real sockets, all in one program, for each program costs its linking.
//!
//! They share a process: nothing here may change its environment, directory, umask or signals.

mod access;
mod commands;
mod config;
mod contrib;
mod documents;
mod fetch;
mod files;
mod gateway;
mod process;
mod promises;
mod redis;
mod serve;
mod support;
