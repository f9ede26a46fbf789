//! `wxtoken get`: prints the published token with the life it has left. Opens no socket, takes no lock, reads no secret.

use anyhow::Result;

use super::output;
use super::published::Published;
use crate::cli::{CommonArgs, GetArgs};
use crate::config::{Config, Secrets};
use crate::error::Exit;
use crate::model::kind::{DocumentKind, TicketType};
use crate::model::response;
use crate::os::clock::{Clock, SystemClock};

pub(crate) fn run(common: &CommonArgs, args: &GetArgs) -> Result<Exit> {
    let config = Config::read(common, &args.account, Secrets::Unneeded)?;
    let account = config.account(args.name.as_ref())?;
    let kind = match args.ticket.as_deref() {
        None => DocumentKind::Token,
        Some(name) => DocumentKind::Ticket(
            TicketType::on(account.api, name)
                .map_err(|what| Exit::Usage.error(format!("--ticket: {what}")))?,
        ),
    };
    let published = Published::look_at(&account, kind.clone(), SystemClock.now());
    let document =
        published.usable(args.min_life).map_err(|why| Exit::NoToken.error(why.to_string()))?;
    let answer = if args.raw {
        document.token.expose().to_owned()
    } else {
        match kind {
            DocumentKind::Token => response::token(&document.token, published.life),
            DocumentKind::Ticket(_) => response::ticket(&document.token, published.life),
        }
    };
    output::print(&format!("{answer}\n"))?;
    Ok(Exit::Done)
}
