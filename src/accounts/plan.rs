//! What an account is served with, as the config has it: two accounts with equal plans are served alike. Reads the secret
//! when it connects; asks nothing.

use std::collections::HashMap;
use std::sync::{Arc, mpsc};

use anyhow::Result;

use crate::error::Exit;
use crate::error::in_order;
use crate::log::error;
use crate::model::account::Account;
use crate::os::file::read::ReadError;
use crate::os::thread::{self, Piece};
use crate::upstream::Upstream;
use crate::upstream::config::{Origin, UpstreamConfig};
use crate::upstream::connect::{Connector, SLOW_FILES};
use crate::upstream::credentials;

/// What an account is served with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AccountPlan {
    pub(crate) account: Account,
    /// `None` if this process does not refresh the account.
    pub(crate) refresh: Option<RefreshPlan>,
}

/// A plan, with its upstream if that was connected just now.
pub(crate) type ConnectedPlan = (AccountPlan, Option<Arc<dyn Upstream>>);

/// How an account is refreshed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RefreshPlan {
    pub(crate) upstream: UpstreamConfig,
    /// The mode of its documents.
    pub(crate) mode: u32,
}

impl AccountPlan {
    /// Whether what is known of an account with this plan holds for one with the other: they differ in tickets, hooks and
    /// place in the config at most.
    pub(crate) fn is_continued_by(&self, other: &AccountPlan) -> bool {
        let mut continued = self.clone();
        continued.account.tickets = other.account.tickets.clone();
        continued.account.on_change = other.account.on_change.clone();
        continued.account.on_trouble = other.account.on_trouble.clone();
        if let (Some(refresh), Some(other)) = (&mut continued.refresh, &other.refresh) {
            refresh.upstream.origin = other.upstream.origin.clone();
        }
        continued == *other
    }

    /// Connects to the account's upstream for the first time; `None` if it is not refreshed. An account of the config
    /// that cannot be connected is logged and connected later, so that the others are served; for the only account, that
    /// of the command line, it is an error.
    fn connect(&self, connector: &Connector) -> Result<Option<Arc<dyn Upstream>>> {
        let AccountPlan { account, refresh: Some(refresh) } = self else { return Ok(None) };
        match connector.connect(account, &refresh.upstream) {
            Ok(upstream) => Ok(Some(upstream)),
            Err(err) if self.is_of_command_line() => Err(err),
            Err(err) => {
                error!(event = "not_connected", account = account.name; "serve: {}", in_order(&err));
                Ok(None)
            }
        }
    }

    fn is_of_command_line(&self) -> bool {
        self.refresh.as_ref().is_some_and(|it| it.upstream.origin == Origin::CommandLine)
    }
}

/// Connects the accounts that are not `continued` to their upstreams. One whose files take long is connected later.
pub(crate) fn connect_all(
    plans: Vec<AccountPlan>,
    continued: impl Fn(&AccountPlan) -> bool,
    connector: &Arc<Connector>,
) -> Result<Vec<ConnectedPlan>> {
    if let [plan] = &*plans
        && plan.is_of_command_line()
    {
        let upstream = if continued(plan) { None } else { plan.connect(connector)? };
        return Ok(plans.into_iter().map(|plan| (plan, upstream.clone())).collect());
    }
    let is_new = |plan: &AccountPlan| plan.refresh.is_some() && !continued(plan);
    let new: Vec<usize> = (0..plans.len()).filter(|index| is_new(&plans[*index])).collect();
    let (sender, connected) = mpsc::channel();
    let connect = |index: &usize| -> Piece {
        let (index, plan) = (*index, plans[*index].clone());
        let (connector, sender) = (Arc::clone(connector), sender.clone());
        Box::new(move || {
            let upstream = plan.connect(&connector).unwrap_or_default();
            let _ = sender.send((index, upstream)); // Not received if it took long.
        })
    };
    thread::run_beside(new.iter().map(connect).collect());
    let mut upstreams: HashMap<_, _> = connected.try_iter().collect();
    for index in new.iter().filter(|index| !upstreams.contains_key(index)) {
        let name = &plans[*index].account.name;
        error!(event = "not_connected", account = name; "serve: {name}: {}", SLOW_FILES.text());
    }
    let with_upstream = |(index, plan)| (plan, upstreams.remove(&index).flatten());
    Ok(plans.into_iter().enumerate().map(with_upstream).collect())
}

impl RefreshPlan {
    /// Connects to the account's upstream again, as its secret may have changed; `None` if the secret cannot be read
    /// again.
    pub(super) fn reconnect(
        &self,
        account: &Account,
        connector: &Connector,
    ) -> Result<Option<Arc<dyn Upstream>>> {
        match self.upstream.secret_file.as_deref() {
            // Stdin has been read to its end.
            Some(path) if path.as_os_str() == "-" => Ok(None),
            // A pipe may have no writer any more.
            Some(path) if path.metadata().is_ok_and(|found| !found.is_file()) => {
                let err = ReadError::NotRegular;
                Err(Exit::Usage.error(credentials::unreadable("secret", path, &err)))
            }
            _ => connector.connect(account, &self.upstream).map(Some),
        }
    }
}
