//! `wxtoken serve`: hands out published tokens over HTTP, to allowed addresses only. Never asks WeChat, and never reads
//! the AppSecret.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use hyper::body::Bytes;

use crate::cli::{Api, Common, Serve};
use crate::clock::{Clock, SystemClock};
use crate::exit::Exit;
use crate::report::{failure, printable, step};
use crate::server::{self, Allowlist, Listen, Options, Tokens};
use crate::store::reader::Watched;
use crate::{config, wire};

pub(crate) fn run(common: &Common, args: &Serve) -> Result<Exit> {
    let (path, listen, allow) = config::all(
        config::document_path(common, &args.account),
        Listen::parse_all(&args.listen),
        if args.allow.is_empty() {
            Ok(Allowlist::loopback())
        } else {
            Allowlist::parse(&args.allow)
        },
    )?;
    let desk = Desk {
        names: vec![config::DEFAULT_ACCOUNT.to_owned()],
        accounts: RefCell::new(vec![Account {
            watched: Watched::new(&path),
            appid: args.account.appid.clone(),
            api: args.account.api,
            refresh_before: args.account.refresh_before,
            trouble: None,
            handout: None,
        }]),
    };
    server::serve(
        Options { listen, allow, max_connections: args.max_connections as usize },
        Rc::new(desk),
    )?;
    Ok(Exit::Done)
}

/// Where the listener gets its tokens: the published documents.
struct Desk {
    names: Vec<String>,
    /// In the order of `names`.
    accounts: RefCell<Vec<Account>>,
}

impl Tokens for Desk {
    fn accounts(&self) -> &[String] {
        &self.names
    }

    fn token(&self, name: &str) -> Option<Bytes> {
        let place = self.names.iter().position(|account| account == name)?;
        self.accounts.borrow_mut()[place].handout(name)
    }
}

/// One account's document, and what was last made of it.
struct Account {
    watched: Watched,
    appid: Option<String>,
    api: Api,
    refresh_before: Duration,
    /// What is wrong with the document, as it was last reported: the same trouble is told once, not at each request.
    trouble: Option<String>,
    /// The life promised and the answer that says so: the same for all who ask within a second.
    handout: Option<(Duration, Bytes)>,
}

impl Account {
    /// The answer to hand out now; `None` if there is no live token.
    fn handout(&mut self, name: &str) -> Option<Bytes> {
        match self.watched.look() {
            Ok(false) => {}
            Ok(true) => {
                self.handout = None;
                self.trouble = None;
                if let Some(document) = self.watched.document() {
                    step!("serve: {name}: token {} is published", document.token.fingerprint());
                }
            }
            Err(err) => {
                self.report(name, format!("{err:#}; the last good token stays while it lives"))
            }
        }
        let document = self.watched.document()?;
        if self.appid.as_ref().is_some_and(|appid| *appid != document.appid) {
            let whose = printable(&document.appid, 64);
            self.report(
                name,
                format!("the document belongs to {whose}, another account; nothing is handed out"),
            );
            return None;
        }
        let promise = document.promise(SystemClock.now(), self.api, self.refresh_before);
        if promise.is_zero() {
            return None;
        }
        match &self.handout {
            Some((life, body)) if *life == promise => Some(body.clone()),
            _ => {
                let body = Bytes::from(wire::token(&document.token, promise));
                self.handout = Some((promise, body.clone()));
                Some(body)
            }
        }
    }

    fn report(&mut self, name: &str, trouble: String) {
        if self.trouble.as_ref() != Some(&trouble) {
            failure!("serve: {name}: {trouble}");
            self.trouble = Some(trouble);
        }
    }
}
