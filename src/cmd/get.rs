//! `wxtoken get`: prints the published token with the life it has left. Opens no socket, takes no lock, reads no secret.

use anyhow::Result;
use serde::Serialize;

use super::published::Published;
use crate::cli::{Common, Get};
use crate::clock::{Clock, SystemClock};
use crate::exit::Exit;

/// What is printed: WeChat's own shape, with the life that is left.
#[derive(Serialize)]
struct Answer<'a> {
    access_token: &'a str,
    expires_in: u64,
}

pub(crate) fn run(common: &Common, args: &Get) -> Result<Exit> {
    let published = Published::look(common, &args.account, SystemClock.now())?;
    let document =
        published.usable(args.min_life).map_err(|why| Exit::NoToken.error(why.to_string()))?;
    let token = document.token.expose();
    if args.raw {
        super::answer(&format!("{token}\n"))?;
    } else {
        let answer = Answer { access_token: token, expires_in: published.life.as_secs() };
        super::answer(&format!("{}\n", serde_json::to_string(&answer)?))?;
    }
    Ok(Exit::Done)
}
