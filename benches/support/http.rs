//! Servers that print their address.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use super::Server;

/// Starts a server, and returns it with the address that it prints.
pub fn start_server(mut command: Command) -> (Server, SocketAddr) {
    let mut server = Server::start({
        command.stdout(Stdio::piped());
        command
    });
    let stdout = server.child().stdout.take().expect("a pipe");
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    let address = line.trim().strip_prefix("listening on http://").and_then(|it| it.parse().ok());
    (server, address.unwrap_or_else(|| panic!("it does not listen: {line}")))
}
