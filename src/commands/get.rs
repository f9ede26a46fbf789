//! `wxtoken get`: prints the published token or ticket with the life it has left. Opens no socket but to a store, takes no
//! lock, and reads no secret.

use std::sync::Arc;

use anyhow::Result;

use super::{documents, output};
use crate::cli::{CommonArgs, GetArgs};
use crate::config::{Config, Secrets};
use crate::error::Exit;
use crate::model::kind::{DocumentKind, TicketType};
use crate::model::response;
use crate::model::status::{DocumentStatus, Problem};
use crate::os::clock::{Clock, SystemClock};
use crate::store::Stores;

/// Runs `wxtoken get`.
pub(crate) fn run(common: &CommonArgs, args: &GetArgs) -> Result<Exit> {
    let clock = SystemClock;
    let config = Config::read(common, &args.account, Secrets::Unneeded)?;
    let account = config.account(args.name.as_ref())?;
    let kind = match args.ticket.as_deref() {
        None => DocumentKind::Token,
        Some(name) => DocumentKind::Ticket(
            TicketType::on(account.api, name)
                .map_err(|what| Exit::Usage.error(format!("--ticket: {what}")))?,
        ),
    };
    let stores = Stores::new(Arc::new(SystemClock));
    let document = documents::read(&stores, &account, &kind);
    let now = clock.now();
    let published = document.as_ref().map_err(Problem::clone);
    let status = DocumentStatus::new(&account, &kind, published, now);
    let unusable = documents::unusable(&account, &kind, &status, args.min_life, now);
    let token = match (document, unusable) {
        (Ok(document), None) => document.token,
        (_, why) => {
            let failure = (account.name.clone(), why.unwrap_or_default());
            return Err(Exit::NoToken.errors_of(vec![failure]));
        }
    };
    let answer = match kind {
        _ if args.raw => token.expose().to_owned(),
        DocumentKind::Token => response::token(&token, status.life()),
        DocumentKind::Ticket(_) => response::ticket(&token, status.life()),
    };
    output::print(&format!("{answer}\n"))?;
    Ok(Exit::Done)
}
