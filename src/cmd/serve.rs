//! `wxtoken serve`: hands out published tokens over HTTP, to allowed addresses only. Never asks WeChat, and never reads
//! the AppSecret.

use std::cell::RefCell;
use std::rc::Rc;

use anyhow::Result;
use hyper::body::Bytes;

use super::announce;
use crate::cli::{Common, Serve};
use crate::clock::{Clock, SystemClock};
use crate::config;
use crate::exit::Exit;
use crate::handout::Handout;
use crate::server::{self, Allowlist, Listen, Options, Tokens};

pub(crate) fn run(common: &Common, args: &Serve) -> Result<Exit> {
    let allow = match args.allow.as_slice() {
        [] => Ok(Allowlist::loopback()),
        given => Allowlist::parse(given),
    };
    let (account, (listen, allow)) = config::both(
        config::account(common, &args.account),
        config::both(Listen::parse_all(&args.listen), allow),
    )?;
    let options = Options { listen, allow, max_connections: args.max_connections as usize };
    server::serve(options, Rc::new(Published::of(Handout::of(account))), announce)?;
    Ok(Exit::Done)
}

/// Where the listener gets its tokens: the published documents.
struct Published {
    names: Vec<String>,
    /// In the order of `names`.
    handouts: RefCell<Vec<Handout>>,
}

impl Published {
    fn of(handout: Handout) -> Published {
        Published { names: vec![handout.name().to_owned()], handouts: RefCell::new(vec![handout]) }
    }
}

impl Tokens for Published {
    fn accounts(&self) -> &[String] {
        &self.names
    }

    fn token(&self, name: &str) -> Option<Bytes> {
        let place = self.names.iter().position(|account| account == name)?;
        self.handouts.borrow_mut()[place].answer(SystemClock.now())
    }
}
