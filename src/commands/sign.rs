//! `wxtoken sign`: signs a page for WeChat's JS-SDK with the published ticket. Opens no socket but to a store, takes no
//! lock, and reads no secret.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::messages;
use super::{documents, output};
use crate::cli::{CommonArgs, SignArgs};
use crate::config::{Config, Secrets};
use crate::error::Exit;
use crate::model::jssdk::PageRequest;
use crate::model::kind::DocumentKind;
use crate::model::status::{DocumentStatus, Problem};
use crate::os::clock::{Clock, SystemClock};
use crate::store::Stores;

/// Runs `wxtoken sign`.
pub(crate) fn run(common: &CommonArgs, args: &SignArgs) -> Result<Exit> {
    let clock = SystemClock;
    let [ticket, agentid] =
        [&args.ticket, &args.agentid].map(|it| it.as_deref().unwrap_or_default());
    let request = PageRequest::parse(&args.url, ticket, agentid)
        .map_err(|what| Exit::Usage.error(what.to_owned()))?;
    let config = Config::read(common, &args.account, Secrets::Unneeded)?;
    let account = config.account(args.name.as_ref())?;
    let checked = request.check_api(account.api);
    checked.map_err(|what| Exit::Usage.error(format!("{}: {what}", account.name)))?;
    let stores = Stores::new(Arc::new(SystemClock));
    let kind = DocumentKind::Ticket(request.ticket.clone());
    let document = documents::read(&stores, &account, &kind);
    let now = clock.now();
    let published = document.as_ref().map_err(Problem::clone);
    let status = DocumentStatus::new(&account, &kind, published, now);
    let unusable = documents::unusable(&account, &kind, &status, Duration::from_secs(1), now);
    let document = match (document, unusable) {
        (Ok(document), None) => document,
        (_, why) => {
            let failure = (account.name.clone(), why.unwrap_or_default());
            return Err(Exit::NoToken.errors_of(vec![failure]));
        }
    };
    let appid = account.appid.as_ref().unwrap_or(&document.appid);
    if appid.is_empty() {
        return Err(Exit::Usage.error(messages::NO_APPID.with([&account.name])));
    }
    let random = [clock.random(), clock.random()];
    output::print(&format!("{}\n", request.sign(appid, &document.token, now.wall, random)))?;
    Ok(Exit::Done)
}
