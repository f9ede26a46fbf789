//! `wxtoken get`: prints the published token with the life it has left. Opens no socket, takes no lock, reads no secret.

use anyhow::Result;

use super::published::Published;
use crate::cli::{Common, Get};
use crate::clock::{Clock, SystemClock};
use crate::exit::Exit;
use crate::{answer, config};

pub(crate) fn run(common: &Common, args: &Get) -> Result<Exit> {
    let account = config::account(common, &args.account)?;
    let published = Published::look(&account, SystemClock.now());
    let document =
        published.usable(args.min_life).map_err(|why| Exit::NoToken.error(why.to_string()))?;
    let answer = if args.raw {
        document.token.expose().to_owned()
    } else {
        answer::token(&document.token, published.life)
    };
    super::answer(&format!("{answer}\n"))?;
    Ok(Exit::Done)
}
