//! What is known of an account at one instant: the token to hand out, why there is none, and the status that `status`,
//! `check`, `/metrics`, the page and `/readyz` show. Pure: documents and the time come in.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use time::UtcDateTime;

use crate::model::account::Account;
use crate::model::api::Rules;
use crate::model::document::Document;
use crate::model::errcode::Refusal;
use crate::model::kind::{DocumentKind, TicketType};
use crate::model::secret::Secret;
use crate::os::timestamp::Timestamp;

/// A live token, ready to be handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LiveToken {
    /// The token and the life promised with it, as JSON.
    pub(crate) json: Bytes,
    /// The life promised, in whole seconds.
    pub(crate) life: Duration,
    /// Differs for each token of the account.
    pub(crate) generation: u64,
}

/// Which token a refresh has to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenRequest {
    /// A live one. A token that is due is replaced.
    Live,
    /// One other than the published one.
    New,
    /// One other than this, which WeChat rejected.
    OtherThan(Secret),
}

/// Which token a client of `serve` wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenDemand {
    /// A live one.
    Live,
    /// A live one that WeChat accepts: this client's behaviour suggests that the current one is dead.
    Verified(ClientIdentity, Suspicion),
    /// One other than this, which WeChat rejected according to a witness.
    OtherThan(Secret, Witness),
    /// One other than this, which WeChat rejected at this instant in a call that this process passed on for this client. What WeChat
    /// said of the token earlier no longer counts.
    OtherThanRefused(Secret, ClientIdentity, Instant),
}

/// How a client's behaviour suggests that its token is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suspicion {
    /// It asks again, as others do, too.
    AsksAgain,
    /// It asks for another token by force, or without end.
    Insists,
}

/// A client, as reports and quotas tell clients apart: by key, or without keys by address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ClientIdentity {
    Key(Arc<str>),
    /// An IPv4 address, or the first half of an IPv6 address: a host can have all of a /64.
    Address(IpAddr),
    /// A process of this host.
    Local,
}

impl ClientIdentity {
    /// Whether the client is a program on this host without a key.
    pub(crate) fn is_of_this_host(&self) -> bool {
        match self {
            ClientIdentity::Key(_) => false,
            ClientIdentity::Address(ip) => ip.is_loopback(),
            ClientIdentity::Local => true,
        }
    }
}

impl fmt::Display for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientIdentity::Key(name) => name.fmt(f),
            ClientIdentity::Address(ip) => ip.fmt(f),
            ClientIdentity::Local => f.write_str("localhost"),
        }
    }
}

/// What is known of a token from asking WeChat about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenEvidence {
    /// WeChat honoured it at this instant, when it was last asked.
    Honoured(Instant),
    /// WeChat was asked lately, and could not be reached or did not tell.
    InDoubt,
    /// WeChat was not asked lately.
    None,
}

/// Who says that WeChat rejected a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Witness {
    /// WeChat itself, in its answer to another call with the token.
    WeChat,
    Client(ClientIdentity),
}

/// Why there is no token to hand out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unavailable {
    /// A sentence for people, without secrets.
    pub(crate) why: String,
    /// How long a client should wait before it asks again.
    pub(crate) retry_after: Duration,
}

impl ClientIdentity {
    /// Returns the client that asks from this address without a key.
    pub(crate) fn at(address: IpAddr) -> ClientIdentity {
        ClientIdentity::Address(match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        })
    }
}

impl Unavailable {
    /// The time to wait if the next success cannot be predicted: short enough to notice a `fetch` by another process soon, and long
    /// enough to cause no load.
    pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(10);

    /// The time to wait while an attempt to get one is under way.
    pub(crate) const DURING_ATTEMPT: Duration = Duration::from_secs(5);

    /// Returns the error for a token or ticket that is unavailable for an unknown time.
    pub(crate) fn for_now(why: &str) -> Unavailable {
        Unavailable { why: why.to_owned(), retry_after: Unavailable::RETRY_AFTER }
    }
}

/// Why there is no ticket to hand out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoTicket {
    /// Tickets of this type are not fetched for the account.
    NotKept,
    /// There is none now.
    ForNow(Unavailable),
}

/// The status of an account and its documents. Holds no secret.
#[derive(Clone, Debug)]
pub(crate) struct AccountStatus {
    pub(crate) name: String,
    /// The configured AppID; if none is configured, that of the published token.
    pub(crate) appid: Option<String>,
    pub(crate) token: DocumentStatus,
    /// The configured tickets.
    pub(crate) tickets: Vec<(TicketType, DocumentStatus)>,
    /// `None` if this process does not refresh the account.
    pub(crate) refresh: Option<RefreshStatus>,
}

/// The status of one document of an account.
#[derive(Clone, Debug)]
pub(crate) struct DocumentStatus {
    /// Where it is published, for people: a path or a Redis key.
    pub(crate) place: String,
    pub(crate) published: Result<Published, Problem>,
    /// Whether WeChat has said that the token is dead, whatever life it had left.
    pub(crate) is_dead: bool,
    /// The last failure of this process to refresh it, if no success followed.
    pub(crate) failure: Option<RefreshFailure>,
    /// When the trouble with it began that `on_trouble` is told of; `None` if there is none, or if it is not known here.
    pub(crate) trouble_since: Option<UtcDateTime>,
    /// WeChat's answer to the last request, and its time, if it is a refusal that still holds.
    pub(crate) refusal: Option<(Refusal, UtcDateTime)>,
}

/// What is known of a published document that belongs to the account.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) appid: String,
    pub(crate) created_at: UtcDateTime,
    /// The time of expiry; for a document from the future, the end of the life left.
    pub(crate) expires_at: UtcDateTime,
    /// The life it had when it was new.
    pub(crate) expires_in: Duration,
    /// The life that may be promised for it now, in whole seconds; zero once it has expired.
    pub(crate) life: Duration,
    /// Whether it is time to refresh it.
    pub(crate) is_due: bool,
    /// The first 8 hex digits of its SHA-256.
    pub(crate) fingerprint: String,
}

/// Why there is no document to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    Missing,
    /// It cannot be read, for this reason. It may be a good one.
    Unreadable(String),
    /// It is not a document, for this reason.
    Damaged(String),
    /// It belongs to another account.
    Foreign {
        appid: String,
    },
}

/// The state of a document in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DocumentState {
    Live,
    /// Live, and due to be refreshed.
    Due,
    Expired,
    /// Dead by WeChat's word.
    Dead,
    Missing,
    Unreadable,
    Foreign,
}

/// What this process knows of refreshing an account.
#[derive(Clone, Debug, Default)]
pub(crate) struct RefreshStatus {
    /// When WeChat last gave a token.
    pub(crate) succeeded_at: Option<UtcDateTime>,
    /// When WeChat is to be asked again at the latest.
    pub(crate) next_at: Option<UtcDateTime>,
    /// How often WeChat was asked, by outcome: a word (`ok`, `refused`, `unreachable`, …) and the errcode, 0 if there is
    /// none.
    pub(crate) attempts: Vec<(&'static str, i64, u64)>,
    /// What is known of `on_change`; `None` if the account has none.
    pub(crate) hook: Option<HookStatus>,
    /// What is known of `on_trouble`; `None` if the account has none.
    pub(crate) trouble_hook: Option<HookStatus>,
}

/// A failed refresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RefreshFailure {
    pub(crate) at: UtcDateTime,
    /// What failed, in English and Chinese, for clients: it says nothing about this machine.
    pub(crate) message: String,
}

/// What this process knows of an account's hook.
#[derive(Clone, Debug, Default)]
pub(crate) struct HookStatus {
    /// When it last failed, if no success followed.
    pub(crate) failed_at: Option<UtcDateTime>,
}

impl AccountStatus {
    /// Returns the status of an account. `look` returns the status of each of its documents.
    pub(crate) fn new(
        account: &Account,
        mut look: impl FnMut(&DocumentKind) -> DocumentStatus,
        refresh: Option<RefreshStatus>,
    ) -> AccountStatus {
        let token = look(&DocumentKind::Token);
        let published_appid = || token.published.as_ref().ok().map(|it| it.appid.clone());
        let ticket = |kind: &TicketType| (kind.clone(), look(&DocumentKind::Ticket(kind.clone())));
        AccountStatus {
            name: account.name.clone(),
            appid: account.appid.clone().or_else(published_appid),
            tickets: account.tickets.iter().map(ticket).collect(),
            token,
            refresh,
        }
    }
}

impl DocumentStatus {
    /// Returns the status of the account's document of this kind. `document` is what was read.
    pub(crate) fn new(
        account: &Account,
        kind: &DocumentKind,
        document: Result<&Document, Problem>,
        now: Timestamp,
    ) -> DocumentStatus {
        DocumentStatus {
            published: document.map(|document| Published::new(account, kind, document, now)),
            place: account.location.name_of(kind),
            is_dead: false,
            failure: None,
            trouble_since: None,
            refusal: None,
        }
    }

    /// Returns the state of the document.
    pub(crate) fn state(&self) -> DocumentState {
        match &self.published {
            // First: a document whose token was found dead has ended, too.
            Ok(_) if self.is_dead => DocumentState::Dead,
            Ok(published) if published.life.is_zero() => DocumentState::Expired,
            Ok(published) if published.is_due => DocumentState::Due,
            Ok(_) => DocumentState::Live,
            Err(Problem::Missing) => DocumentState::Missing,
            Err(Problem::Unreadable(_) | Problem::Damaged(_)) => DocumentState::Unreadable,
            Err(Problem::Foreign { .. }) => DocumentState::Foreign,
        }
    }

    /// Whether the document is handed out.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.state(), DocumentState::Live | DocumentState::Due)
    }

    /// Returns the life that may be promised for the document, even if WeChat called it dead; zero if there is no document.
    pub(crate) fn life(&self) -> Duration {
        self.published.as_ref().map_or(Duration::ZERO, |published| published.life)
    }
}

impl DocumentState {
    /// Returns the word for scripts.
    pub(crate) fn word(self) -> &'static str {
        match self {
            DocumentState::Live => "live",
            DocumentState::Due => "due",
            DocumentState::Expired => "expired",
            DocumentState::Dead => "dead",
            DocumentState::Missing => "missing",
            DocumentState::Unreadable => "unreadable",
            DocumentState::Foreign => "foreign",
        }
    }
}

impl Published {
    fn new(
        account: &Account,
        kind: &DocumentKind,
        document: &Document,
        now: Timestamp,
    ) -> Published {
        let (life, rules, margin) = match kind {
            DocumentKind::Token => (
                document.promise(now, account.rules, account.refresh_before),
                account.rules,
                account.refresh_before,
            ),
            DocumentKind::Ticket(_) => (
                Duration::from_secs(document.left(now).as_secs()),
                Rules::OF_TICKETS,
                document.ticket_margin(account.refresh_before),
            ),
        };
        Published {
            appid: document.appid.clone(),
            created_at: document.created_at(now),
            expires_at: document.lasts_until(now),
            expires_in: document.expires_in,
            life,
            is_due: document.is_due(now, rules, margin),
            fingerprint: document.token.fingerprint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::api::Rules;

    const NOW: Timestamp = Timestamp::of_wall(UtcDateTime::UNIX_EPOCH);

    #[test]
    fn a_client_is_its_key_or_its_address_and_of_this_host_only_without_a_key() {
        let key = ClientIdentity::Key("php".into());
        let [loopback, other] =
            ["127.0.0.1", "10.0.0.1"].map(|it| ClientIdentity::at(it.parse().unwrap()));
        for (client, name, is_of_this_host) in [
            (key, "php", false),
            (loopback, "127.0.0.1", true),
            (other, "10.0.0.1", false),
            (ClientIdentity::Local, "localhost", true),
        ] {
            assert_eq!(
                (client.to_string().as_str(), client.is_of_this_host()),
                (name, is_of_this_host)
            );
        }
    }

    fn account(appid: Option<&str>, rules: Rules) -> Account {
        Account {
            appid: appid.map(str::to_owned),
            rules,
            tickets: vec![TicketType::parse("jsapi").unwrap()],
            ..Account::for_tests("/d/shop.json")
        }
    }

    /// A document with so many seconds of its two hours left.
    fn document(left: u64) -> Document {
        let token = Secret::new("T".to_owned());
        let created_at = Timestamp::of_wall(NOW.wall - Duration::from_secs(7200 - left));
        Document::new("wx1", token, Duration::from_secs(7200), created_at)
    }

    fn status(rules: Rules, document: Result<&Document, Problem>) -> AccountStatus {
        let account = account(None, rules);
        let look = |kind: &_| DocumentStatus::new(&account, kind, document.clone(), NOW);
        AccountStatus::new(&account, look, None)
    }

    #[test]
    fn without_keys_all_of_an_ipv4_address_or_of_an_ipv6_64_are_one_client() {
        let at = |address: &str| ClientIdentity::at(address.parse().unwrap());
        assert_eq!(at("2001:db8:1:2::1"), at("2001:db8:1:2:ffff::9"));
        assert_ne!(at("2001:db8:1:2::1"), at("2001:db8:1:3::1"));
        assert_ne!(at("192.0.2.1"), at("192.0.2.2"));
    }

    #[test]
    fn a_document_is_live_then_due_then_expired() {
        use DocumentState::{Due, Expired, Live};
        for (left, state) in [(7200, Live), (301, Live), (300, Due), (1, Due), (0, Expired)] {
            let status = status(Rules::Stable, Ok(&document(left)));
            assert_eq!(status.token.state(), state, "{left}");
            assert_eq!(status.tickets[0].1.state(), state, "{left}");
            assert_eq!(status.token.life(), Duration::from_secs(left));
            assert_eq!(status.token.is_live(), left > 0);
        }
    }

    #[test]
    fn a_document_from_the_future_ends_when_what_is_promised_of_it_does() {
        let token = Secret::new("T".to_owned());
        let created_at = Timestamp::of_wall(NOW.wall + Duration::from_secs(3_000_000_000));
        let document = Document::new("wx1", token, Duration::from_secs(7200), created_at);
        let status = status(Rules::Stable, Ok(&document));
        for document in [&status.token, &status.tickets[0].1] {
            let published = document.published.as_ref().expect("it is published");
            assert_eq!(published.life, Duration::from_secs(300));
            assert_eq!(published.expires_at, NOW.wall + published.life);
            assert_eq!((published.created_at, published.is_due), (created_at.wall, true));
        }
    }

    #[test]
    fn a_classic_token_promises_no_more_than_the_next_mint_leaves_it_and_a_ticket_all() {
        let mut account = account(None, Rules::Classic);
        account.refresh_before = Duration::from_secs(600);
        let document = document(500);
        let look = |kind: &_| DocumentStatus::new(&account, kind, Ok(&document), NOW);
        let status = AccountStatus::new(&account, look, None);
        assert_eq!(status.token.life(), Duration::from_secs(300));
        assert_eq!(status.tickets[0].1.life(), Duration::from_secs(500));
    }

    #[test]
    fn a_token_that_wechat_calls_dead_is_not_live_whether_its_document_has_ended_or_not() {
        for left in [7200, 0] {
            let mut token = status(Rules::Stable, Ok(&document(left))).token;
            token.is_dead = true;
            assert_eq!((token.state(), token.is_live()), (DocumentState::Dead, false));
        }
    }

    #[test]
    fn a_problem_is_a_state_without_life() {
        let foreign = Problem::Foreign { appid: "wx2".to_owned() };
        for (problem, state) in [
            (Problem::Missing, DocumentState::Missing),
            (Problem::Unreadable(String::new()), DocumentState::Unreadable),
            (Problem::Damaged(String::new()), DocumentState::Unreadable),
            (foreign, DocumentState::Foreign),
        ] {
            let token = status(Rules::Stable, Err(problem)).token;
            assert_eq!((token.state(), token.life()), (state, Duration::ZERO));
        }
    }

    #[test]
    fn each_state_has_the_word_of_the_manual() {
        use DocumentState::{Dead, Due, Expired, Foreign, Live, Missing, Unreadable};
        let states = [Live, Due, Expired, Dead, Missing, Unreadable, Foreign];
        let words = ["live", "due", "expired", "dead", "missing", "unreadable", "foreign"];
        assert_eq!(states.map(DocumentState::word), words);
    }

    #[test]
    fn the_appid_is_the_configured_one_or_the_documents() {
        let document = document(7200);
        for (configured, document, expected) in [
            (Some("wx9"), Ok(&document), Some("wx9")),
            (None, Ok(&document), Some("wx1")),
            (None, Err(Problem::Missing), None),
        ] {
            let account = account(configured, Rules::Stable);
            let look = |kind: &_| DocumentStatus::new(&account, kind, document.clone(), NOW);
            let status = AccountStatus::new(&account, look, None);
            assert_eq!(status.appid.as_deref(), expected);
        }
    }
}
