//! `wxtoken serve`: hands out published tokens over HTTP, to allowed addresses only. Never asks WeChat.

use std::rc::Rc;

use crate::cli;
use crate::exit::Exit;
use crate::server::{self, Allowlist, Listen, Options, Tokens};

/// Stands in for the documents.
struct Constant(Vec<String>);

impl Tokens for Constant {
    fn accounts(&self) -> &[String] {
        &self.0
    }

    fn token(&self, account: &str) -> Option<hyper::body::Bytes> {
        (account != "dead").then(|| {
            hyper::body::Bytes::from_static(br#"{"access_token":"constant","expires_in":7200}"#)
        })
    }
}

pub(crate) fn run(flags: &cli::Serve) -> anyhow::Result<Exit> {
    let listen = Listen::parse_all(&flags.listen)?;
    let allow = if flags.allow.is_empty() {
        Allowlist::loopback()
    } else {
        Allowlist::parse(&flags.allow)?
    };
    let options = Options { listen, allow, max_connections: flags.max_connections as usize };
    let names = std::env::var("TOY_ACCOUNTS").unwrap_or("default".to_owned());
    server::serve(options, Rc::new(Constant(names.split(',').map(str::to_owned).collect())))?;
    Ok(Exit::Done)
}
