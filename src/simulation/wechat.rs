//! WeChat, as the processes of a simulation reach it: the mock's rules, behind a network that is slow, refuses, and loses
//! answers. What is true of a token is known here alone.

use std::cell::RefCell;
use std::time::Duration;

use super::ledger::{self, OurRequest};
use super::options::Options;
use super::world::{START, World, sleep, step, with};
use crate::mock::{CallerCredentials, MockWeChat, TokenLifetime};
use crate::model::api::Rules;
use crate::model::document::CLASSIC_OVERLAP;
use crate::model::errcode::{CallKind, Class, Refusal};
use crate::model::kind::TicketType;
use crate::model::secret::{Salt, Secret};
use crate::model::status::TokenRequest;
use crate::os::file::disk::model::Operation;
use crate::upstream::{
    Credential, CredentialHashes, IssuedToken, Liveness, Probe, RefreshMode, SENT_WITHIN,
    TicketSource, TokenSource, UpstreamError,
};

pub(super) const APPID: &str = "wx1";

/// What WeChat and the network are like for some hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weather {
    Fair,
    /// Answers are lost on their way back.
    LosesAnswers,
    Unreachable,
    Busy,
    /// It refuses the address of this host.
    RefusesAddress,
    /// Answers come late, or not at all.
    Slow,
    /// A proxy answers with something else.
    Nonsense,
}

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fortune {
    Answered,
    NotSent,
    RequestLost,
    AnswerLost,
    Busy,
    RefusedAddress,
    Late,
    Nonsense,
    Status,
}

pub(super) struct WeChat {
    pub(super) rules: MockWeChat,
    pub(super) weather: Weather,
    /// The secret that WeChat knows, and the one that hosts are configured with, by number.
    pub(super) secret: u64,
    pub(super) configured: u64,
}

pub(super) fn secret_of(number: u64) -> String {
    format!("secret{number}")
}

impl WeChat {
    pub(super) fn new(options: &Options) -> WeChat {
        let accounts = vec![(APPID.to_owned(), Secret::new(secret_of(0)))];
        let lifetime = TokenLifetime { life: options.life, overlap: CLASSIC_OVERLAP };
        let rules = MockWeChat::new(accounts, lifetime, START, 1);
        WeChat { rules, weather: Weather::Fair, secret: 0, configured: 0 }
    }
}

/// Asks for a token as the caller with this secret does.
pub(super) fn issue(
    world: &mut World,
    secret: &str,
    mode: RefreshMode,
) -> Result<IssuedToken, i64> {
    let caller = CallerCredentials { appid: APPID, grant_type: "client_credential", secret };
    let (rules, now) = (&mut world.wechat.rules, world.now);
    let issued = match (world.options.rules(), mode) {
        (Rules::Classic, _) => rules.classic_token(caller, now),
        (Rules::Stable, mode) => rules.stable_token(caller, mode == RefreshMode::Forced, now),
        (Rules::Work | Rules::Mirror, _) => rules.wecom_token(caller, now),
    };
    let issued = issued.map_err(|refusal| refusal.errcode)?;
    let expires_in = Duration::from_secs(issued.expires_in_secs);
    Ok(IssuedToken { token: issued.token, expires_in })
}

/// The upstream of a process.
pub(super) struct SimulatedUpstream {
    /// The secret that was read when the process started; a server reads it again and again.
    secret: Option<u64>,
    /// The host of whose server it is.
    server: Option<usize>,
    /// Whether another token is wanted than the published one.
    is_demanded: bool,
    rejected: Option<String>,
}

impl SimulatedUpstream {
    /// Returns the upstream of a process that reads the configured secret now.
    pub(super) fn connect(request: &TokenRequest) -> SimulatedUpstream {
        let secret = Some(with(|world| world.wechat.configured));
        let rejected = match request {
            TokenRequest::OtherThan(token) => Some(token.expose().to_owned()),
            TokenRequest::Live | TokenRequest::New => None,
        };
        let is_demanded = *request != TokenRequest::Live;
        SimulatedUpstream { secret, server: None, is_demanded, rejected }
    }

    /// Returns the upstream of a host's server.
    pub(super) fn of_server(host: usize) -> SimulatedUpstream {
        SimulatedUpstream { secret: None, server: Some(host), is_demanded: false, rejected: None }
    }

    fn secret(&self) -> u64 {
        self.secret.unwrap_or_else(|| with(|world| world.wechat.configured))
    }

    /// Whether a client of the server wants another token, or did of late.
    fn is_demanded_from_server(&self) -> bool {
        self.server.is_some_and(|host| with(|world| world.now < world.hosts[host].demanded_until))
    }

    /// Makes one call: `act` is what WeChat does when it arrives.
    fn call<T>(
        &self,
        kind: CallKind,
        timeout: Duration,
        act: impl FnOnce(&mut World) -> Result<T, i64>,
    ) -> Result<T, UpstreamError> {
        let (fortune, there, back) =
            with(|world| (draw_fortune(world), travel(world), travel(world)));
        let lost = |may_have_arrived| {
            Err(UpstreamError::unreachable("no answer in time", true, may_have_arrived))
        };
        let begun = with(|world| world.now);
        step(Operation::Change);
        // As the client's gate does, which nothing passes that comes late.
        let is_late = || with(|world| world.now) - begun > timeout.min(SENT_WITHIN);
        let timed_out = || {
            let rest = timeout.saturating_sub(with(|world| world.now) - begun);
            sleep(rest);
            lost(true)
        };
        match fortune {
            _ if is_late() => return lost(false),
            Fortune::NotSent => {
                sleep(timeout.min(there));
                return lost(false);
            }
            Fortune::RequestLost => return timed_out(),
            _ if there >= timeout => return timed_out(),
            _ => {}
        }
        sleep(there);
        step(Operation::Change);
        if is_late() {
            return lost(false);
        }
        let answer = match fortune {
            Fortune::Busy => Err(-1),
            Fortune::RefusedAddress => Err(40164),
            Fortune::Status => {
                sleep(back.min(timeout));
                return Err(UpstreamError::Status(502));
            }
            _ => with(act),
        };
        super::observe_all();
        if matches!(fortune, Fortune::AnswerLost | Fortune::Late) {
            return timed_out();
        }
        if there + back > timeout {
            return timed_out();
        }
        sleep(back);
        step(Operation::Change);
        if fortune == Fortune::Nonsense {
            return Err(UpstreamError::Malformed("it is a page".to_owned()));
        }
        let platform = with(|world| world.options.api.platform());
        answer.map_err(|code| UpstreamError::Refused(Refusal::new(code, "", kind, platform)))
    }
}

pub(super) fn travel(world: &mut World) -> Duration {
    let is_slow = world.wechat.weather == Weather::Slow;
    match world.tape.draw() {
        0..=200 if !is_slow => Duration::from_millis(20 + world.random() % 60),
        drawn => Duration::from_millis(u64::from(drawn) * 30),
    }
}

fn draw_fortune(world: &mut World) -> Fortune {
    let weather = world.wechat.weather;
    let is_usual =
        !world.tape.happens(if weather == Weather::Fair { world.options.faults } else { 240 });
    let fortune = match weather {
        _ if is_usual => Fortune::Answered,
        Weather::LosesAnswers => Fortune::AnswerLost,
        Weather::Unreachable => {
            [Fortune::NotSent, Fortune::RequestLost][world.tape.below(2) as usize]
        }
        Weather::Busy => [Fortune::Busy, Fortune::Status][world.tape.below(2) as usize],
        Weather::RefusesAddress => Fortune::RefusedAddress,
        Weather::Slow => Fortune::Late,
        Weather::Nonsense => Fortune::Nonsense,
        Weather::Fair => {
            const ALL: [Fortune; 8] = [
                Fortune::NotSent,
                Fortune::AnswerLost,
                Fortune::RequestLost,
                Fortune::Busy,
                Fortune::Late,
                Fortune::Status,
                Fortune::Nonsense,
                Fortune::RefusedAddress,
            ];
            ALL[world.tape.below(ALL.len() as u64) as usize]
        }
    };
    world.count(match fortune {
        Fortune::Answered => "request answered",
        Fortune::NotSent => "request not sent",
        Fortune::RequestLost => "request lost",
        Fortune::AnswerLost => "answer lost",
        Fortune::Busy => "WeChat busy",
        Fortune::RefusedAddress => "address refused",
        Fortune::Late => "answer late",
        Fortune::Nonsense => "answer is nonsense",
        Fortune::Status => "answer of a proxy",
    });
    fortune
}

impl TokenSource for SimulatedUpstream {
    fn request_token(
        &self,
        mode: RefreshMode,
        timeout: Duration,
    ) -> Result<IssuedToken, UpstreamError> {
        let number = self.secret();
        let secret = secret_of(number);
        let is_forced = mode == RefreshMode::Forced;
        let host = with(|world| {
            world.note(if is_forced { "forced request" } else { "request" }, number);
            world.current_host()
        });
        let is_demanded = self.is_demanded || self.is_demanded_from_server();
        // Production has shortened the document's life by now, also if the request does not arrive.
        with(|world| {
            let mints = is_forced || world.options.rules() == Rules::Classic;
            if is_demanded && mints {
                world.ledger.take_back(world.now);
            }
        });
        let request = OurRequest {
            host: host.unwrap_or_default(),
            is_forced,
            is_demanded,
            is_of_server: self.server.is_some(),
            rejected: self.rejected.clone(),
        };
        let result = self.call(CallKind::RequestsToken, timeout, |world| {
            ledger::before_request(world, &request);
            let mints = world.wechat.rules.mints();
            let issued = issue(world, &secret, mode);
            let is_minted = world.wechat.rules.mints() > mints;
            ledger::after_request(world, &issued, is_minted);
            issued
        });
        with(|world| {
            world.tell(|| match &result {
                Ok(issued) => format!("issued {}", issued.token.fingerprint()),
                Err(error) => format!("not issued: {error}"),
            });
            match &result {
                Ok(_) => world.ledger.note_answer(),
                Err(error) if error.may_have_minted() => world.ledger.note_trouble(world.now),
                Err(UpstreamError::Refused(refusal)) if refusal.class() == Class::Credentials => {
                    ledger::note_refused_secret(world);
                }
                Err(_) => {}
            }
        });
        result
    }
}

impl TicketSource for SimulatedUpstream {
    fn request_ticket(
        &self,
        _: &TicketType,
        token: &Secret,
        timeout: Duration,
    ) -> Result<IssuedToken, UpstreamError> {
        self.call(CallKind::UsesToken, timeout, |world| {
            let now = world.now;
            let issued = world.wechat.rules.ticket(token.expose(), "jsapi", now);
            let issued = issued.map_err(|refusal| refusal.errcode)?;
            let expires_in = Duration::from_secs(issued.expires_in_secs);
            let issued = IssuedToken { token: issued.token, expires_in };
            ledger::note_ticket(world, &issued);
            Ok(issued)
        })
    }
}

impl Probe for SimulatedUpstream {
    fn probe(&self, token: &Secret, timeout: Duration) -> Liveness {
        let said = self.call(CallKind::UsesToken, timeout, |world| {
            let now = world.now;
            world.count("token probed");
            world.wechat.rules.check_token(token.expose(), now).map_err(|refusal| refusal.errcode)
        });
        match said {
            Ok(()) => Liveness::Alive,
            Err(error) if error.is_dead_token() => {
                if let Some(host) = self.server {
                    with(|world| world.hosts[host].known_dead = Some(token.expose().to_owned()));
                }
                Liveness::Dead
            }
            Err(error) => {
                with(|world| world.ledger.note_trouble(world.now));
                Liveness::Unknown(error)
            }
        }
    }
}

impl Credential for SimulatedUpstream {
    fn hashes(&self, salt: &Salt) -> Option<CredentialHashes> {
        thread_local!(static LAST: RefCell<Option<(Salt, u64, String)>> = const { RefCell::new(None) });
        let number = self.secret();
        let hash = || salt.hash(&[APPID, &secret_of(number)]);
        // Each run asks for it several times, and the record keeps its salt for months.
        let secret = LAST.with_borrow_mut(|last| {
            last.take_if(|(of, it, _)| of != salt || *it != number);
            let (.., hash) = last.get_or_insert_with(|| (salt.clone(), number, hash()));
            hash.clone()
        });
        let request = secret.clone();
        Some(CredentialHashes { secret, request })
    }
}
