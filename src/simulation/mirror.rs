//! Mirrors: hosts whose tokens are those of another host's server, asked for by production's client, over a network that is
//! slow, loses answers, and is cut for hours. What a mirror promises is judged by what its source has stated.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::ledger;
use super::options::Options;
use super::serve::{account, server_on, token_in};
use super::wechat::travel;
use super::world::{self, START, World, sleep, step, with};
use crate::model::address::endpoint::BaseUrl;
use crate::model::secret::Secret;
use crate::model::status::{ClientIdentity, TokenDemand, Witness};
use crate::os::file::disk::model::Operation;
use crate::upstream::client::model::{self, Request};
use crate::upstream::client::{Client, HttpResponse};
use crate::upstream::roots::TrustedRoots;
use crate::upstream::{Upstream, UpstreamError, connect};

/// By so much an answer may differ from the one before and say nothing new.
const SAME_TIME: Duration = Duration::from_secs(3);

/// So many answers later, a mirror knows what the first of them said.
const ANSWERS: usize = 4;

/// So many of the newest tokens are remembered for each mirror.
const TOKENS: usize = 8;

/// How long a mirror may take to publish an answer that it has: its disk may be slow, or it is stopped.
const TO_PUBLISH: Duration = Duration::from_secs(180);

/// How a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Open,
    Refused,
    Hangs,
    LosesAnswer,
}

/// What sources have stated to one mirror about a token.
struct Stated {
    token: String,
    /// The latest end that was stated, and those of the last answers.
    until: Duration,
    last: VecDeque<Duration>,
    at: Duration,
}

/// What is known of a host's link to its source.
#[derive(Default)]
pub(super) struct Link {
    /// Until then nothing gets through.
    pub(super) cut_until: Duration,
    /// Whether connections hang meanwhile, and are not refused.
    pub(super) hangs: bool,
    stated: VecDeque<Stated>,
}

pub(super) fn install() {
    model::install(answer);
}

pub(super) fn uninstall() {
    model::uninstall();
}

/// Returns the upstream of a mirror, which asks the server of `source`.
pub(super) fn upstream(host: usize, source: usize, options: &Options) -> Arc<dyn Upstream> {
    let base = BaseUrl::parse(&format!("http://127.0.0.1:{source}")).expect("a URL");
    let client = Client::new(&[base], None, TrustedRoots::none()).expect("a client");
    connect::upstream(&account(host, options), client, None).expect("a mirror")
}

/// Returns the host in the URL of a token.
fn host_in(url: &str) -> Option<usize> {
    url.strip_prefix("http://127.0.0.1:")?.strip_suffix("/token/shop")?.parse().ok()
}

/// What the server of the host in the URL answers to the process that runs.
fn answer(request: &Request<'_>) -> Result<HttpResponse, UpstreamError> {
    let source = host_in(request.url).expect("the URL of a host's token");
    let rejected = request.body.map(|body| {
        let body: Json = serde_json::from_slice(body).unwrap_or_default();
        body["rejected"].as_str().unwrap_or_default().to_owned()
    });
    step(Operation::Change);
    let (host, begun, way, there, back) = with(|world| {
        let host = world.current_host().unwrap_or_default();
        let way = world.hosts[host].link.way(world.now).unwrap_or_else(|| draw_way(world));
        world.note("asks source", way as u64);
        (host, world.now, way, travel(world), travel(world))
    });
    let lost = |may_have_arrived| {
        with(|world| world.ledger.note_trouble(world.now));
        Err(UpstreamError::unreachable("no answer in time", true, may_have_arrived))
    };
    let timed_out = || {
        sleep(request.timeout.saturating_sub(with(|world| world.now) - begun));
        lost(true)
    };
    if way == Way::Refused {
        sleep(there.min(request.timeout));
        return lost(false);
    }
    if way == Way::Hangs || there >= request.timeout {
        return timed_out();
    }
    sleep(there);
    let Some(server) = server_on(source) else { return lost(false) };
    if server.is_halted() {
        return timed_out();
    }
    let demand = match rejected {
        Some(rejected) => {
            with(|world| {
                world.count("token reported to a source");
                world.note_demand(source);
            });
            let key = ClientIdentity::Key(format!("mirror{host}").into());
            TokenDemand::OtherThan(Secret::new(rejected), Witness::Client(key))
        }
        None => TokenDemand::Live,
    };
    let answered = Rc::new(RefCell::new(None));
    let here = Rc::clone(&answered);
    let left = request.timeout.saturating_sub(with(|world| world.now) - begun);
    let wait = world::begin_to_wait(left);
    server.answer(source, demand, move |answer| {
        with(|world| {
            if let Ok(live) = &answer {
                let token = token_in(live);
                ledger::hand_out_by_server(world, source, &token, live.life);
                note_stated(world, host, token, world.now + live.life);
            }
            world.end_wait(wait);
        });
        *here.borrow_mut() = Some(answer);
    });
    world::wait();
    let Some(answer) = answered.take() else { return lost(true) };
    let spent = with(|world| world.now) - begun;
    if way == Way::LosesAnswer || spent + back > request.timeout {
        return timed_out();
    }
    sleep(back);
    step(Operation::Change);
    let (status, body) = match answer {
        Ok(live) => (200, live.json.to_vec()),
        Err(unavailable) => {
            with(|world| world.ledger.note_trouble(world.now));
            (
                503,
                json!({ "error": "no_token", "message": unavailable.why }).to_string().into_bytes(),
            )
        }
    };
    with(|world| world.count("mirror answered"));
    Ok(HttpResponse { status, date: None, body })
}

/// Draws how a request goes where no link is cut.
fn draw_way(world: &mut World) -> Way {
    if !world.tape.happens(world.options.faults / 4) {
        return Way::Open;
    }
    [Way::LosesAnswer, Way::Refused, Way::Hangs][world.tape.below(3) as usize]
}

impl Link {
    /// Returns how a request goes while the link is cut.
    fn way(&self, now: Duration) -> Option<Way> {
        let way = if self.hangs { Way::Hangs } else { Way::Refused };
        (now < self.cut_until).then_some(way)
    }
}

/// Notes what a source has stated to a mirror.
fn note_stated(world: &mut World, host: usize, token: String, until: Duration) {
    let at = world.now;
    let stated = &mut world.hosts[host].link.stated;
    let known = stated.iter().position(|it| it.token == token);
    let mut it = match known.and_then(|known| stated.remove(known)) {
        Some(known) => known,
        None => Stated { token, until, last: VecDeque::new(), at },
    };
    (it.until, it.at) = (it.until.max(until), at);
    it.last.push_back(until);
    if it.last.len() > ANSWERS {
        it.last.pop_front();
    }
    stated.push_back(it);
    if stated.len() > TOKENS {
        stated.pop_front();
    }
}

/// Judges what a mirror promises by what its source has stated to it. Returns whether the source may have learnt since that
/// the token ends sooner.
pub(super) fn judge(world: &mut World, host: usize, token: &str, until: Duration) -> bool {
    let tolerance = world.options.tolerance();
    let link = &world.hosts[host].link;
    let Some(stated) = link.stated.iter().find(|it| it.token == token) else {
        world.fail("a mirror hands out a token that its source has not".to_owned());
        return true;
    };
    let last = stated.last.iter().max().filter(|_| stated.last.len() == ANSWERS);
    let last = last.map_or(stated.until, |last| *last + SAME_TIME);
    let at = stated.at;
    let most = stated.until.min(last);
    if until > most + tolerance {
        let [until, most] = [until, most].map(|at| (at - START).as_secs_f64());
        world.fail(format!("a mirror promises until {until}, and its source until {most}"));
    }
    may_be_old(world, host, at)
}

/// Whether a host is a mirror that may not know yet, from what was stated at `at`, that a token was made to end sooner.
pub(super) fn may_be_old(world: &World, host: usize, at: Duration) -> bool {
    world.options.source_of(host).is_some() && world.ledger.taken_back_at + TO_PUBLISH > at
}

/// Cuts the link of a host to its source.
pub(super) fn cut(world: &mut World, host: usize) {
    let span = Duration::from_secs(1 + world.tape.below(256) * 60);
    let hangs = world.tape.below(2) == 1;
    let link = &mut world.hosts[host].link;
    (link.cut_until, link.hangs) = (world.now + span, hangs);
    world.note("link cut", span.as_secs());
    world.count("link to the source cut");
    world.ledger.note_trouble(world.now + span);
}
