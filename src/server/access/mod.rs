//! Who may ask, as far as files and flags say it: addresses, proxies, keys. It can change while the server runs.

pub(crate) mod allowlist;
pub(crate) mod forwarded;
pub(crate) mod host;
pub(crate) mod keys;
pub(crate) mod line_file;
pub(crate) mod peer;
pub(crate) mod retry_storm;

use std::path::PathBuf;

use self::allowlist::Allowlist;
use self::forwarded::Proxies;
use self::keys::Keys;
use self::peer::Peer;
use crate::error::Exit;
use crate::log::error;

/// Who may ask. Both the address and, where there are keys, the key must be good.
#[derive(Debug, Default)]
pub(crate) struct Access {
    pub(crate) allow: Allowlist,
    pub(crate) proxies: Proxies,
    /// `None` where no key is asked for.
    pub(crate) keys: Option<Keys>,
    /// By the accounts' places: who may have its token, of those who may ask; `None` where all of them may.
    accounts: Vec<Option<Allowlist>>,
}

/// Why a request does not pass the access rules. The routes make a response of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AccessError {
    /// The peer sent proxy headers and is not a trusted proxy.
    UntrustedProxy,
    /// A trusted proxy does not name its client.
    NoForwardedClient,
    /// A trusted proxy names its client by something other than an IP address.
    BadForwardedClient,
    /// `X-Forwarded-For` and `Forwarded` name different clients.
    ConflictingClients,
    /// The request has more than one `Authorization` header.
    SeveralAuthorizations,
    /// No account that the client may see has this name.
    NoSuchAccount,
    /// The client names no account and may see several.
    AmbiguousAccount,
}

/// Where it stands who may ask, as the user gave it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    pub(crate) allow: Vec<String>,
    pub(crate) allow_file: Option<PathBuf>,
    pub(crate) trusted_proxies: Vec<String>,
    pub(crate) keys: Option<PathBuf>,
    /// The accounts, in the order of their names, each with who may have its token.
    pub(crate) accounts: Vec<(String, Option<Vec<String>>)>,
}

impl Sources {
    /// Whether nothing was said, so that only this machine may ask.
    pub(crate) fn imply_loopback(&self) -> bool {
        self.allow.is_empty() && self.allow_file.is_none()
    }

    /// The files that are read.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.allow_file.iter().chain(&self.keys)
    }

    /// Finds out who may ask, and for which accounts; the error tells of all that is wrong. Where that is nobody, it says
    /// so.
    pub(crate) fn read(&self) -> anyhow::Result<Access> {
        let mut problems = Vec::new();
        let mut sound = |problem: anyhow::Error| problems.push(format!("{problem:#}"));
        let given =
            allowlist::of_flag("--allow", &self.allow).map_err(&mut sound).unwrap_or_default();
        let listed = self.allow_file.as_deref().map(allowlist::of_file).transpose();
        let listed = listed.map_err(&mut sound).unwrap_or_default().unwrap_or_default();
        let proxies = Proxies::parse(&self.trusted_proxies).map_err(&mut sound).unwrap_or_default();
        let names: Vec<String> = self.accounts.iter().map(|(name, _)| name.clone()).collect();
        let keys = self.keys.as_ref().map(|path| Keys::read(path, &names));
        let keys = keys.transpose().map_err(&mut sound).unwrap_or_default();
        let list = |(name, allow): &(String, Option<Vec<String>>)| {
            let allow = allow.as_ref()?;
            let networks = allowlist::of_flag(&format!("account.{name}.allow"), allow);
            Some(Allowlist::of(networks.map_err(&mut sound).unwrap_or_default()))
        };
        let accounts = self.accounts.iter().map(list).collect();
        if !problems.is_empty() {
            return Err(Exit::Usage.error(problems.join("; ")));
        }
        let allow = match self.imply_loopback() {
            true => Allowlist::loopback(),
            false => Allowlist::of(given.into_iter().chain(listed)),
        };
        if let (Some(path), true) = (&self.allow_file, allow.is_empty()) {
            error!("serve: allow file {} holds no address: nobody gets in", path.display());
        }
        if let (Some(path), true) = (&self.keys, keys.as_ref().is_some_and(Keys::is_empty)) {
            error!(
                "serve: keys file {} holds no key: nobody gets a token; `wxtoken key NAME` makes one",
                path.display()
            );
        }
        Ok(Access { allow, proxies, keys, accounts })
    }
}

impl Access {
    /// Whether somebody at the other end of a connection may speak at all: for himself, or as a proxy for somebody else.
    pub(crate) fn admits(&self, peer: Peer) -> bool {
        match peer {
            Peer::Ip(ip) => self.allow.contains(ip) || self.proxies.trusts(peer),
            // Its file's mode is who may.
            Peer::Local => true,
        }
    }

    /// Whether somebody may have the token of the account at this place, as far as his address goes.
    pub(crate) fn lets(&self, client: Peer, account: usize) -> bool {
        match (client, self.accounts.get(account)) {
            (Peer::Ip(ip), Some(Some(allow))) => allow.contains(ip),
            _ => true,
        }
    }
}
