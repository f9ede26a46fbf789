//! The access rules: addresses, trusted proxies and clients' keys, as flags and files give them. A reload replaces each part
//! of them while the server runs. Answers no request.

pub(crate) mod allowlist;
pub(crate) mod browser;
pub(crate) mod forwarded;
pub(crate) mod host;
pub(crate) mod keys;
pub(crate) mod line_file;
pub(crate) mod opaque;
pub(crate) mod peer;
pub(crate) mod retry_storm;
pub(crate) mod token_loop;

use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;

use self::allowlist::Allowlist;
use self::forwarded::TrustedProxies;
use self::host::ServerNames;
use self::keys::Keys;
use self::opaque::Opened;
use self::peer::Peer;
use crate::accounts::Accounts;
use crate::error::Exit;

/// The access rules that flags and config give.
#[derive(Debug, Default)]
pub(crate) struct ConfiguredRules {
    allow: Allowlist,
    /// Where the operator adds an address, for messages.
    allow_place: String,
    proxies: TrustedProxies,
    server_names: ServerNames,
    /// The addresses that may have an account's token, by the account's index. `None` if all allowed addresses may.
    accounts: Vec<Option<Allowlist>>,
    /// Whether clients are handed opaque tokens.
    opaque_tokens: bool,
}

impl ConfiguredRules {
    /// Whether flags and config allow all addresses of a family.
    pub(crate) fn allow_all(&self) -> bool {
        self.allow.allows_all()
    }
}

/// The access rules of flags and config, and of the files that these name. A client needs an allowed address and, if there are keys, a key.
#[derive(Clone, Debug, Default)]
pub(crate) struct AccessRules {
    pub(crate) configured: Rc<ConfiguredRules>,
    /// The addresses of the allow file; `None` if there is no such file.
    pub(crate) listed: Option<Rc<Allowlist>>,
    /// `None` if clients need no key.
    pub(crate) keys: Option<Rc<Keys>>,
}

/// Why a request does not pass the access rules. The routes make a response from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AccessError {
    /// The peer sent proxy headers and is not a trusted proxy.
    UntrustedProxy,
    /// A trusted proxy does not name its client.
    NoForwardedClient,
    /// A trusted proxy names its client by something other than an IP address.
    BadForwardedClient,
    /// Two headers of a trusted proxy name different clients.
    ConflictingClients,
    /// The request names another host than this server.
    Misdirected,
    /// A page of another site makes a browser send the request.
    CrossSite,
    /// The client's certificate has expired.
    ExpiredCertificate,
    /// The client's certificate is not valid yet.
    FutureCertificate,
    /// No CA that is trusted now has signed the client's certificate.
    UntrustedCertificate,
    /// The request has more than one `Authorization` header.
    SeveralAuthorizations,
    /// No account that the client may see has this name.
    NoSuchAccount,
    /// The request names no account, and the client may see several.
    AmbiguousAccount,
}

/// The flags and files from which the access rules are made.
#[derive(Clone, Debug, Default)]
pub(crate) struct AccessSources {
    pub(crate) allow: Vec<String>,
    pub(crate) allow_file: Option<PathBuf>,
    pub(crate) trusted_proxies: Vec<String>,
    pub(crate) server_names: Vec<String>,
    pub(crate) keys: Option<PathBuf>,
    pub(crate) opaque_tokens: bool,
    /// The accounts, sorted by name, each with its own `allow`.
    pub(crate) accounts: Vec<(String, Option<Vec<String>>)>,
}

impl AccessSources {
    /// Whether only this machine is allowed, because no allowlist is given.
    pub(crate) fn defaults_to_loopback(&self) -> bool {
        self.allow.is_empty() && self.allow_file.is_none()
    }

    /// Returns the names of the accounts, sorted.
    pub(crate) fn account_names(&self) -> Vec<String> {
        self.accounts.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Parses all but the files. The error names all problems.
    pub(crate) fn parse(&self) -> anyhow::Result<ConfiguredRules> {
        let mut problems = Vec::new();
        let given = or_default(allowlist::parse_networks("--allow", &self.allow), &mut problems);
        let proxies = or_default(TrustedProxies::parse(&self.trusted_proxies), &mut problems);
        let server_names = or_default(ServerNames::parse(&self.server_names), &mut problems);
        let mut accounts = Vec::new();
        for (name, allow) in &self.accounts {
            accounts.push(allow.as_ref().map(|allow| {
                let networks = allowlist::parse_networks(&format!("account.{name}.allow"), allow);
                Allowlist::from_networks(or_default(networks, &mut problems))
            }));
        }
        if !problems.is_empty() {
            return Err(Exit::Usage.error(problems.join("; ")));
        }
        let allow = match self.defaults_to_loopback() {
            true => Allowlist::loopback(),
            false => Allowlist::from_networks(given),
        };
        let allow_place = match &self.allow_file {
            Some(path) if self.allow.is_empty() => path.display().to_string(),
            _ => "--allow".to_owned(),
        };
        let opaque_tokens = self.opaque_tokens;
        Ok(ConfiguredRules { allow, allow_place, proxies, server_names, accounts, opaque_tokens })
    }
}

/// Returns the value; on an error the default, and adds the error to the problems.
fn or_default<T: Default>(result: anyhow::Result<T>, problems: &mut Vec<String>) -> T {
    result.unwrap_or_else(|err| {
        problems.push(format!("{err:#}"));
        T::default()
    })
}

impl AccessRules {
    /// Whether a client may ask from this address.
    pub(crate) fn allows(&self, ip: IpAddr) -> bool {
        self.configured.allow.contains(ip)
            || self.listed.as_ref().is_some_and(|listed| listed.contains(ip))
    }

    /// Returns the flag or the file to which addresses are added.
    pub(crate) fn allow_place(&self) -> &str {
        &self.configured.allow_place
    }

    /// Whether a peer may send requests at all, as a client or as a trusted proxy.
    pub(crate) fn allows_connection(&self, peer: Peer) -> bool {
        match peer {
            Peer::Ip(ip) => self.allows(ip) || self.proxies().contains(peer),
            // The mode of the socket's file decides.
            Peer::Unix => true,
        }
    }

    /// Whether a client's address is allowed to have the token of this account.
    pub(crate) fn allows_account(&self, client: Peer, account: usize) -> bool {
        match (client, self.configured.accounts.get(account)) {
            (Peer::Ip(ip), Some(Some(allow))) => allow.contains(ip),
            _ => true,
        }
    }

    /// Whether clients are handed opaque tokens, and never WeChat's.
    pub(crate) fn hands_out_opaque(&self) -> bool {
        self.configured.opaque_tokens
    }

    /// Returns what an opaque token stands for, even if they are no longer handed out: clients keep them until their end.
    pub(crate) fn open_opaque<'a>(
        &'a self,
        presented: &str,
        accounts: &Accounts,
    ) -> Option<Opened<'a>> {
        opaque::open(presented, self.keys.as_deref()?, accounts)
    }

    pub(crate) fn proxies(&self) -> &TrustedProxies {
        &self.configured.proxies
    }

    pub(crate) fn server_names(&self) -> &ServerNames {
        &self.configured.server_names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::Language;

    const LOOPBACK: &str = "127.0.0.1";

    fn rules(sources: &AccessSources) -> AccessRules {
        AccessRules { configured: Rc::new(sources.parse().unwrap()), ..AccessRules::default() }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|it| (*it).to_owned()).collect()
    }

    #[test]
    fn only_without_an_address_and_a_file_of_them_is_this_machine_allowed_by_itself() {
        let none = AccessSources::default();
        let addresses = AccessSources { allow: words(&["10.0.0.0/8"]), ..none.clone() };
        let file = AccessSources { allow_file: Some("allow".into()), ..none.clone() };
        for (sources, is_loopback, is_net) in
            [(none, true, false), (addresses, false, true), (file, false, false)]
        {
            assert_eq!(sources.defaults_to_loopback(), is_loopback, "{sources:?}");
            let rules = rules(&sources);
            assert!(!rules.configured.allow_all());
            let allowed = (rules.allows(ip(LOOPBACK)), rules.allows(ip("10.1.2.3")));
            assert_eq!(allowed, (is_loopback, is_net), "{sources:?}");
        }
    }

    #[test]
    fn messages_name_the_file_of_addresses_if_there_is_no_other_place_to_add_one() {
        let file = AccessSources { allow_file: Some("/d/allow".into()), ..Default::default() };
        let both = AccessSources { allow: words(&["10.0.0.1"]), ..file.clone() };
        for (sources, place) in
            [(file, "/d/allow"), (both, "--allow"), (AccessSources::default(), "--allow")]
        {
            assert_eq!(rules(&sources).allow_place(), place, "{sources:?}");
        }
    }

    #[test]
    fn all_are_allowed_by_a_network_of_all_addresses() {
        let sources = AccessSources { allow: words(&["10.0.0.1", "::/0"]), ..Default::default() };
        assert!(rules(&sources).configured.allow_all());
    }

    #[test]
    fn opaque_tokens_are_handed_out_if_they_are_asked_for() {
        for opaque_tokens in [true, false] {
            let sources = AccessSources { opaque_tokens, ..Default::default() };
            assert_eq!(rules(&sources).hands_out_opaque(), opaque_tokens);
        }
    }

    #[test]
    fn addresses_of_the_allow_file_are_allowed_beside_those_of_flags() {
        let sources = AccessSources { allow: words(&["10.0.0.0/8"]), ..Default::default() };
        let networks = allowlist::parse_networks("allow", words(&["192.0.2.1"])).unwrap();
        let listed = Some(Rc::new(Allowlist::from_networks(networks)));
        let rules = AccessRules { listed, ..rules(&sources) };
        for (address, expected) in [("10.0.0.1", true), ("192.0.2.1", true), ("192.0.2.2", false)] {
            assert_eq!(rules.allows(ip(address)), expected, "{address}");
        }
    }

    #[test]
    fn clients_and_trusted_proxies_may_connect_and_processes_that_may_open_the_socket() {
        let sources = AccessSources {
            allow: words(&["10.0.0.0/8"]),
            trusted_proxies: words(&["192.0.2.1"]),
            ..Default::default()
        };
        let rules = rules(&sources);
        for (address, expected) in [("10.0.0.1", true), ("192.0.2.1", true), ("192.0.2.2", false)] {
            assert_eq!(rules.allows_connection(Peer::Ip(ip(address))), expected, "{address}");
        }
        assert!(rules.allows_connection(Peer::Unix));
        assert!(!rules.allows(ip("192.0.2.1")), "a proxy is no client by itself");
    }

    #[test]
    fn server_names_are_those_that_are_given() {
        let sources = AccessSources { server_names: words(&["a.example"]), ..Default::default() };
        let rules = rules(&sources);
        assert!(rules.server_names().admits("a.example", true));
        assert!(!rules.server_names().admits("b.example", false));
    }

    #[test]
    fn an_account_with_addresses_of_its_own_is_for_these_alone() {
        let accounts = [("branch", None), ("shop", Some(words(&["10.0.0.1"])))];
        let accounts = accounts.map(|(name, allow)| (name.to_owned(), allow)).to_vec();
        let sources =
            AccessSources { allow: words(&["10.0.0.0/8"]), accounts, ..Default::default() };
        assert_eq!(sources.account_names(), ["branch", "shop"]);
        let rules = rules(&sources);
        for (address, expected) in [("10.0.0.1", [true, true]), ("10.0.0.2", [true, false])] {
            let client = Peer::Ip(ip(address));
            assert_eq!([0, 1].map(|it| rules.allows_account(client, it)), expected, "{address}");
        }
        assert!(rules.allows_account(Peer::Unix, 1), "its mode decides");
    }

    #[test]
    fn all_that_is_wrong_with_flags_and_config_is_named_at_once() {
        let wrong = || words(&["10.0.0.0/33"]);
        let sources = AccessSources {
            allow: wrong(),
            trusted_proxies: wrong(),
            server_names: words(&["no host"]),
            accounts: vec![("shop".to_owned(), Some(wrong()))],
            ..Default::default()
        };
        let said =
            Language::English.resolve(&sources.parse().unwrap_err().to_string()).into_owned();
        for name in ["--allow", "--trusted-proxy", "--server-name", "account.shop.allow"] {
            assert!(said.contains(name), "{name}: {said}");
        }
        assert_eq!(said.matches("; ").count(), 3, "{said}");
    }
}
