//! What was promised, and to whom, and what WeChat knows of it. Judges by WeChat's truth alone, never by what production
//! believes.

use std::collections::VecDeque;
use std::time::Duration;

use super::host::has_document;
use super::mirror;
use super::wechat::Weather;
use super::world::{START, World};
use crate::model::api::Rules;
use crate::model::document::Document;
use crate::model::status::TokenRequest;
use crate::refresh::{Outcome, RefreshError};
use crate::upstream::IssuedToken;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const QUARTER: Duration = Duration::from_secs(15 * 60);
const OVERLAP: Duration = Duration::from_secs(300);

/// How many answers to requests that mint may be lost in a day: 200 by the ration, and the runs of a day's operators.
const MAX_LOST: usize = 220;

/// How many requests with a refused secret may be sent in an hour: one, and those after a loss of what was remembered.
const MAX_REFUSED: usize = 12;

/// How many tokens and tickets of unknown age are kept at least. Those before them died long ago.
const MAX_DOUBTFUL: usize = 100;

/// How many of the newest tokens and tickets are looked through. Those before them died long ago.
const RECENT: usize = 256;

/// The time within which a dead token that is reported is replaced, if nothing is wrong.
const HEALED_WITHIN: Duration = Duration::from_secs(120);

/// The time after which everything is well without faults.
const RECOVERY: Duration = Duration::from_secs(4 * 60 * 60);

#[derive(Default)]
pub(super) struct Ledger {
    promises: Vec<Promise>,
    /// Every token that was issued, in the order of their mints, with the time of its first issue.
    issued: Vec<(Known, Duration)>,
    /// Tokens and tickets whose age no process can know: of WeCom, and tickets of WeChat, that were issued first in an answer
    /// that was lost, or to another program, as a whole life is stated with every answer; and those of before the clock was
    /// set and the host started again.
    doubtful: Vec<Known>,
    /// What was issued for the first time to the process that has the lock. It knows the age, if it lives to publish it.
    fresh: Vec<String>,
    /// Tickets, likewise.
    tickets: Vec<(Known, Duration)>,
    views: Vec<View>,
    /// When the last token was requested that was published without a fault, or any other reason to ask again, and until when
    /// it is not due.
    settled: Option<(Duration, Duration)>,
    /// When tokens were minted for us whose answers did not arrive, in the last day.
    lost: VecDeque<Duration>,
    /// Whether the last of them is the last request.
    has_minted: bool,
    /// When requests with a wrong secret were sent, in the last hour.
    refused: VecDeque<Duration>,
    failover_at: Duration,
    /// Until then hosts may know of different tokens.
    split_until: Duration,
    /// Whether Redis may have lost what was published since `settled`.
    has_lost_place: bool,
    /// Whether it has lost everything since then.
    pub(super) has_lost_all: bool,
    /// When something went wrong the last time.
    trouble_at: Duration,
    /// When a token was made to end sooner than was promised the last time.
    pub(super) taken_back_at: Duration,
}

/// A token or a ticket that was issued, and its end as a number, by which others are told from it at a glance: such texts are
/// looked for often.
#[derive(Clone)]
struct Known {
    text: String,
    end: u64,
}

impl Known {
    fn new(text: &str) -> Known {
        Known { text: text.to_owned(), end: Known::end_of(text) }
    }

    /// Whether this is the text that ends so.
    fn is(&self, text: &str, end: u64) -> bool {
        self.end == end && self.text == text
    }

    fn end_of(text: &str) -> u64 {
        text.as_bytes().last_chunk().map_or(0, |end| u64::from_ne_bytes(*end))
    }
}

/// A token that was handed out.
struct Promise {
    token: String,
    until: Duration,
    /// Whether another program killed it, or an operator.
    is_excused: bool,
}

/// A reader of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// One that is started each time.
    Get,
    /// One that looks again and again. In Redis it may not have yet what the other has from the copy of the host.
    Watch,
}

impl Reader {
    const ALL: [Reader; 2] = [Reader::Get, Reader::Watch];
}

/// What readers of a host saw.
#[derive(Clone, Default)]
struct View {
    /// The order of the token seen last, and until when it was promised.
    order: usize,
    until: Duration,
    /// The same as of the last publication that was completed.
    lasting: (usize, Duration),
    /// Since when there has been no token.
    nothing_since: Option<Duration>,
}

/// A request for a token, of one of our processes.
pub(super) struct OurRequest {
    pub(super) host: usize,
    pub(super) is_forced: bool,
    /// Whether another token is wanted than the published one, which may live.
    pub(super) is_demanded: bool,
    pub(super) is_of_server: bool,
    /// The token that a client reported.
    pub(super) rejected: Option<String>,
}

impl Ledger {
    /// Notes a fault: much is excused for a while.
    pub(super) fn note_trouble(&mut self, now: Duration) {
        (self.settled, self.trouble_at) = (None, self.trouble_at.max(now));
    }

    /// Notes that a process was killed: what it has learnt is lost.
    pub(super) fn note_kill(&mut self, now: Duration) {
        self.note_trouble(now);
        self.fresh.clear();
    }

    fn note_doubtful(&mut self, token: &str) {
        if self.doubtful.len() >= 2 * MAX_DOUBTFUL {
            self.doubtful.drain(..MAX_DOUBTFUL);
        }
        self.doubtful.push(Known::new(token));
    }

    fn is_doubtful(&self, token: &str) -> bool {
        let end = Known::end_of(token);
        self.doubtful.iter().any(|it| it.is(token, end))
    }

    /// Notes that this was issued for the first time. Hosts of a Redis know there when it was asked for, also if the process is
    /// killed or stopped before it publishes it.
    fn note_first_issue(&mut self, token: &str, has_redis: bool) {
        if !has_redis {
            self.note_doubtful(token);
            self.fresh.push(token.to_owned());
        }
    }

    /// Notes that a process has published this, or failed to.
    pub(super) fn note_published(&mut self, token: Option<&str>) {
        let fresh = std::mem::take(&mut self.fresh);
        if let Some(token) = token.filter(|token| fresh.iter().any(|it| it == token)) {
            let end = Known::end_of(token);
            self.doubtful.retain(|it| !it.is(token, end));
        }
    }

    /// Notes that a host whose clock was set starts, or the other way round. It knows no age of what it has.
    pub(super) fn note_wrong_age(&mut self, host: usize) {
        let seen = self.token_seen_on(host);
        self.doubtful.extend(seen.as_deref().map(Known::new));
        self.doubt_newest();
        Reader::ALL.into_iter().for_each(|it| self.view(host, it).until = Duration::ZERO);
    }

    fn doubt_newest(&mut self) {
        let newest = self.issued.iter().rev().take(3).chain(self.tickets.iter().rev().take(2));
        self.doubtful.extend(newest.map(|(token, _)| token.clone()));
    }

    /// Notes that Redis may have lost what was published: WeChat may be asked once more for it. If it has lost what no replica
    /// had in time, or two halves of it take writes for this long, hosts may know of different tokens until they run again.
    pub(super) fn note_failover(&mut self, now: Duration, isolated: Duration, is_split: bool) {
        (self.trouble_at, self.failover_at) = (self.trouble_at.max(now + isolated), now);
        self.has_lost_place = true;
        self.doubt_newest();
        if is_split {
            self.note_split(now + isolated);
        }
    }

    /// Notes that hosts may know of different tokens, until some runs after this.
    pub(super) fn note_split(&mut self, until: Duration) {
        self.settled = None;
        self.split_until = self.split_until.max(until + QUARTER);
        self.promises.iter_mut().for_each(|promise| promise.is_excused = true);
    }

    /// Whether readers may have been told of a longer life than a token has: what Redis lost may be that a token ends early, and
    /// the answer with the next one was lost, too.
    fn may_promise_too_much(&self, now: Duration) -> bool {
        now < self.split_until || self.lost.iter().any(|at| at.abs_diff(self.failover_at) < QUARTER)
    }

    /// Notes that the answer to the last request arrived.
    pub(super) fn note_answer(&mut self) {
        if std::mem::take(&mut self.has_minted) {
            self.lost.pop_back();
        }
    }

    /// Whether something went wrong within this time.
    pub(super) fn had_trouble_within(&self, span: Duration, now: Duration) -> bool {
        now < self.trouble_at + span
    }

    /// Notes that a host has lost what it had not synced. Its mirrors may be given a token of before.
    pub(super) fn note_power_cut(
        &mut self,
        host: usize,
        mirrors: impl Iterator<Item = usize>,
        now: Duration,
    ) {
        self.note_trouble(now);
        for reader in Reader::ALL {
            let view = self.view(host, reader);
            view.order = view.lasting.0;
            view.until = view.until.min(view.lasting.1);
        }
        let order = self.view(host, Reader::Get).order;
        for mirror in mirrors {
            for reader in Reader::ALL {
                let view = self.view(mirror, reader);
                view.order = view.order.min(order);
            }
        }
    }

    fn view(&mut self, host: usize, reader: Reader) -> &mut View {
        let place = Reader::ALL.len() * host + reader as usize;
        if self.views.len() <= place {
            self.views.resize(place + 1, View::default());
        }
        &mut self.views[place]
    }

    /// Returns the token that readers of this host saw last.
    pub(super) fn token_seen_on(&self, host: usize) -> Option<String> {
        let views = self.views.get(Reader::ALL.len() * host..)?.iter().take(Reader::ALL.len());
        let order = views.map(|view| view.order).max()?;
        order.checked_sub(1).map(|index| self.issued[index].0.text.clone())
    }

    /// Returns the ticket that was issued last.
    pub(super) fn last_ticket(&self) -> Option<&str> {
        self.tickets.last().map(|(ticket, _)| &*ticket.text)
    }

    /// An operator changes the margin: a token may be replaced at once, which leaves it the overlap.
    pub(super) fn note_new_margin(&mut self, now: Duration) {
        for promise in &mut self.promises {
            promise.until = promise.until.min(now + OVERLAP);
        }
        self.note_trouble(now);
    }

    fn order_of(&self, token: &str) -> Option<usize> {
        let end = Known::end_of(token);
        let mut newest = self.issued.iter().enumerate().rev().take(RECENT);
        newest.find(|(_, (issued, _))| issued.is(token, end)).map(|(index, _)| index + 1)
    }

    /// An operator takes back all promises beyond the overlap.
    pub(super) fn take_back(&mut self, now: Duration) {
        let newest = self.issued.last().map(|(token, _)| &token.text);
        for promise in &mut self.promises {
            promise.until = promise.until.min(now + OVERLAP);
            promise.is_excused |= Some(&promise.token) != newest;
        }
        // Of hosts at which no reader looks meanwhile, too.
        self.views.iter_mut().for_each(|view| view.until = view.until.min(now + OVERLAP));
        (self.settled, self.taken_back_at) = (None, now);
    }
}

/// Notes a ticket that was issued.
pub(super) fn note_ticket(world: &mut World, issued: &IssuedToken) {
    let ticket = issued.token.expose();
    if world.ledger.last_ticket() != Some(ticket) {
        world.ledger.tickets.push((Known::new(ticket), world.now));
        world.ledger.note_first_issue(ticket, world.options.has_redis);
    }
}

/// Notes a token that WeChat has issued, to this program or another.
pub(super) fn note_issued(world: &mut World, issued: &IssuedToken) {
    let token = issued.token.expose();
    if world.ledger.order_of(token).is_none() {
        world.ledger.issued.push((Known::new(token), world.now));
    }
}

/// Notes a token that another program was issued. On WeCom, no program here knows its age.
pub(super) fn note_issued_to_stranger(world: &mut World, issued: &IssuedToken) {
    let token = issued.token.expose();
    let is_new = world.ledger.order_of(token).is_none();
    note_issued(world, issued);
    if is_new && world.options.rules() == Rules::Work {
        world.ledger.note_doubtful(token);
    }
}

/// Called when a request of ours arrives at WeChat.
pub(super) fn before_request(world: &mut World, request: &OurRequest) {
    let now = world.now;
    let options = &world.options;
    let mints = request.is_forced || options.rules() == Rules::Classic;
    if request.is_demanded && mints {
        world.ledger.take_back(now);
    }
    let full_since = match world.options.has_redis {
        true => world.redis.full_since,
        false => world.hosts[request.host].disk_full_since,
    };
    if full_since.is_some_and(|at| at + Duration::from_secs(60) < now) {
        world.fail("promise 2: a token is requested that cannot be published".to_owned());
    }
    if let Some(rejected) = request.rejected.as_ref().filter(|_| request.is_forced)
        && world.ledger.issued.last().is_some_and(|(newest, _)| newest.text != *rejected)
    {
        world.fail(
            "promise 7: the token that WeChat has is killed, and another was rejected".to_owned(),
        );
    }
    if request.is_of_server && request.is_forced {
        check_forced_by_server(world);
    }
    if world.hosts[request.host].is_clock_wrong {
        world.ledger.take_back(now);
    }
    if world.ledger.has_lost_all && !has_document(request.host) {
        world.count("Redis forgets, and a host without a copy asks");
        world.ledger.promises.iter_mut().for_each(|promise| promise.is_excused = true);
    }
    if let Some((at, due)) = world.ledger.settled.filter(|_| mints || !request.is_demanded)
        && now < due
        && !std::mem::take(&mut world.ledger.has_lost_place)
    {
        world.fail(format!("promise 3: a request {:?} after the last", now - at));
    }
    world.ledger.settled = None;
}

/// Fails if a server kills a token that lives although it can ask WeChat about it.
fn check_forced_by_server(world: &mut World) {
    world.count("forced by a server");
    let newest = world.ledger.issued.last();
    let death = newest.and_then(|(token, _)| world.wechat.rules.death_of(&token.text));
    let is_calm = world.wechat.weather == Weather::Fair
        && world.options.faults == 0
        && !world.ledger.had_trouble_within(Duration::from_secs(900), world.now);
    if is_calm && death.is_some_and(|death| death > world.now) {
        world.fail(
            "promise 7: a server kills a token that lives, on the word of clients".to_owned(),
        );
    }
}

/// Called when WeChat has done what a request of ours asked for.
pub(super) fn after_request(world: &mut World, issued: &Result<IssuedToken, i64>, is_minted: bool) {
    match issued {
        Ok(issued) => note_issued(world, issued),
        Err(45009 | 45011) => world.fail("a quota of WeChat is used up".to_owned()),
        Err(_) => {}
    }
    let now = world.now;
    let lost = &mut world.ledger.lost;
    lost.retain(|at| now - *at < DAY);
    world.ledger.has_minted = is_minted;
    if let (Rules::Work, true, Ok(issued)) = (world.options.rules(), is_minted, issued) {
        world.ledger.note_first_issue(issued.token.expose(), world.options.has_redis);
    }
    let lost = &mut world.ledger.lost;
    if is_minted {
        lost.push_back(now);
    }
    if lost.len() > MAX_LOST {
        world.fail(format!("{MAX_LOST} lost answers cost a token each within a day"));
    }
    check_deaths(world, "our request");
}

/// Called when a secret was refused, and the process knows it.
pub(super) fn note_refused_secret(world: &mut World) {
    let now = world.now;
    world.count("secret refused");
    world.ledger.note_trouble(now);
    let refused = &mut world.ledger.refused;
    refused.push_back(now);
    refused.retain(|at| now - *at < HOUR);
    // Each host remembers it by itself, if it could make a record before its disk was full.
    let is_forgotten = world
        .hosts
        .iter()
        .any(|it| it.disk_full_since.is_some() || now < it.disk_full_until + HOUR);
    if !is_forgotten
        && refused.len() > MAX_REFUSED * world.hosts.len()
        && world.wechat.weather == Weather::Fair
    {
        world.fail("a refused secret is sent again and again".to_owned());
    }
}

/// Fails if a token died that was promised to live.
pub(super) fn check_deaths(world: &mut World, cause: &str) {
    let (now, rules, tolerance) = (world.now, &world.wechat.rules, world.options.tolerance());
    let promises = &mut world.ledger.promises;
    promises.retain(|promise| promise.until > now);
    let broken = promises.iter().filter(|it| !it.is_excused).find_map(|promise| {
        let death = rules.death_of(&promise.token).unwrap_or_default();
        (death + tolerance < promise.until).then_some((promise.until, death))
    });
    if let Some((until, death)) = broken {
        let [until, death] = [until, death].map(|at| (at.saturating_sub(START)).as_secs_f64());
        world.fail(format!("promise 4: promised until {until}, dead at {death} by {cause}"));
    }
}

/// Lets another program act at WeChat. What dies of it is no fault of ours.
pub(super) fn excuse_kills(world: &mut World, act: impl FnOnce(&mut World)) {
    let newest = world.ledger.issued.iter().rev().take(4).map(|(token, _)| token.text.clone());
    let mut deaths =
        newest.map(|token| (world.wechat.rules.death_of(&token), token)).collect::<Vec<_>>();
    act(world);
    deaths.retain(|(death, token)| world.wechat.rules.death_of(token) < *death);
    for (_, token) in deaths {
        for promise in world.ledger.promises.iter_mut().filter(|it| it.token == token) {
            promise.is_excused = true;
        }
        world.ledger.note_doubtful(&token);
    }
    world.ledger.note_trouble(world.now);
}

/// A reader of this host takes the document, or finds none that lives.
pub(super) fn hand_out(
    world: &mut World,
    host: usize,
    reader: Reader,
    document: Option<&Document>,
) {
    let (now, options) = (world.now, &world.options);
    let promised = document.map(|document| {
        let at = world.hosts[host].timestamp(now);
        (document, document.promise(at, options.rules_of(host), options.refresh_before))
    });
    let Some((document, life)) = promised.filter(|(_, life)| !life.is_zero()) else {
        return find_nothing(world, host, reader);
    };
    let token = document.token.expose();
    let Some(order) = world.ledger.order_of(token) else {
        return world.fail("a token is handed out that was never issued".to_owned());
    };
    // Redis may have lost that another one was minted.
    if document.is_put_back && options.rules() != Rules::Work && life > OVERLAP {
        world.fail(
            "promise 4: a copy that was put back is promised for longer than the overlap"
                .to_owned(),
        );
    }
    let until = now + life;
    let truth = world.wechat.rules.death_of(token).unwrap_or_default();
    let tolerance = world.options.tolerance();
    let knows_age = !world.hosts[host].may_err_about(document);
    let is_mirror = world.options.source_of(host).is_some();
    let may_be_old = is_mirror && knows_age && mirror::judge(world, host, token, until);
    let is_judged = knows_age && !world.ledger.is_doubtful(token);
    // The next token comes within a minute, or its process was stopped.
    let waits_for_next = |(_, at): &(Known, Duration)| now - *at > Duration::from_secs(60);
    let may_promise_too_much = world.ledger.may_promise_too_much(now)
        || document.is_put_back && world.ledger.issued.get(order).is_some_and(waits_for_next);
    let promises = &mut world.ledger.promises;
    let known = promises.iter().position(|promise| promise.token == token);
    let known = known.unwrap_or_else(|| {
        let token = token.to_owned();
        promises.push(Promise { token, until: Duration::ZERO, is_excused: false });
        promises.len() - 1
    });
    let promise = &mut promises[known];
    promise.is_excused |= may_promise_too_much;
    // A host that does not reach Redis cannot know whether another one has replaced the token, and promises it for a second.
    let is_cut_off = world.options.has_redis && !world.redis.is_reached_by(host, now);
    let is_judged = is_judged && !(is_cut_off && life <= Duration::from_secs(1));
    // What a mirror promises is its source's promise.
    if is_judged && !is_mirror {
        promise.until = promise.until.max(until);
    }
    if is_judged && !may_be_old && truth + tolerance < until && !promise.is_excused {
        let [until, truth] = [until, truth].map(|at| at.saturating_sub(START).as_secs_f64());
        world.fail(format!("promise 4: handed out until {until}, dies at {truth}"));
    }
    let is_split = now < world.ledger.split_until;
    let view = world.ledger.view(host, reader);
    if order < view.order && !is_split {
        world.fail("promise 2: a reader saw an older token after a newer one".to_owned());
    }
    let before = world.ledger.view(host, reader).clone();
    if before.order != order || before.until.abs_diff(until) > Duration::from_secs(2) {
        world.tell(|| {
            let (what, until) = (document.token.fingerprint(), (until - START).as_secs_f64());
            let how = if document.is_put_back { ", put back" } else { "" };
            format!("host {host} hands out {what} until {until:.3}{how}")
        });
    }
    // A mirror that has not heard yet of a token that was taken back tells its old end, whatever is taken back later.
    let until = match mirror::may_be_old(world, host, now) {
        true => until.min(world.ledger.taken_back_at + OVERLAP),
        false => until,
    };
    let view = world.ledger.view(host, reader);
    (view.order, view.until, view.nothing_since) = (order, until, None);
}

fn find_nothing(world: &mut World, host: usize, reader: Reader) {
    let now = world.now;
    // A mirror counts from before its request, and the source from its answer: of each answer, a little less is left.
    let slack = match world.options.source_of(host) {
        Some(_) => Duration::from_secs(20),
        // Of a life that is shortened a second is rounded away in the document, and another one where it is promised. Of hosts whose
        // clocks go at other rates, one may count a second less than another has told.
        None => Duration::from_secs(2 + u64::from(world.options.drifts.iter().any(|it| *it != 0))),
    };
    let until = world.ledger.view(host, reader).until;
    if world.ledger.view(host, reader).nothing_since.is_none() {
        world.tell(|| format!("host {host} has nothing to hand out"));
    }
    let is_clock_wrong = world.hosts[host].is_clock_wrong;
    // Its copy of what Redis had could not be written, and no run has been since that writes one.
    let was_full = now < world.hosts[host].disk_full_until + HOUR && !has_document(host);
    let is_full = world.hosts[host].disk_full_since.is_some();
    let has_no_copy = world.options.has_redis && (is_full || was_full);
    let seen = world.ledger.token_seen_on(host);
    let death = seen.and_then(|token| world.wechat.rules.death_of(&token));
    let is_dead = death.is_some_and(|death| death <= now);
    if now + slack < until && !is_clock_wrong && !is_dead && !has_no_copy {
        let until = (until - START).as_secs_f64();
        world.fail(format!("promise 2: the token is gone that was promised until {until}"));
    }
    // WeCom returns it until its end, and its life was counted from the first answer that was lost.
    if world.options.rules() == Rules::Work && death.is_some_and(|death| death > now) {
        world.ledger.view(host, reader).nothing_since = Some(now);
    }
    let patience = world.options.gap_on(host);
    let since = *world.ledger.view(host, reader).nothing_since.get_or_insert(now);
    let is_calm = world.wechat.weather == Weather::Fair
        && !world.ledger.had_trouble_within(RECOVERY, since)
        && since > START + HOUR;
    if is_calm && now - since >= patience {
        world.fail("there is no token, and nothing is wrong".to_owned());
    }
}

/// The server of a host hands out this token, with this life.
pub(super) fn hand_out_by_server(world: &mut World, host: usize, token: &str, life: Duration) {
    let now = world.now;
    if world.hosts[host].known_dead.as_deref() == Some(token) {
        world
            .fail("a server hands out a token of which WeChat has said that it is dead".to_owned());
    }
    if world.ledger.order_of(token).is_none() {
        return world.fail("a server hands out a token that was never issued".to_owned());
    }
    // Clocks that are wrong, and ages that no process can know: what it hands out is in the document that others read.
    let knows_age = !world.hosts.iter().any(|it| it.is_clock_wrong);
    let is_mirror = world.options.source_of(host).is_some();
    let may_be_old = is_mirror && knows_age && mirror::judge(world, host, token, now + life);
    let is_judged = knows_age && !may_be_old && !world.ledger.is_doubtful(token);
    let promise = world.ledger.promises.iter().find(|promise| promise.token == token);
    let is_excused =
        promise.is_some_and(|promise| promise.is_excused) || world.ledger.may_promise_too_much(now);
    let truth = world.wechat.rules.death_of(token).unwrap_or_default();
    if is_judged && !is_excused && truth + world.options.tolerance() < now + life {
        let [until, truth] = [now + life, truth].map(|at| at.saturating_sub(START).as_secs_f64());
        world.fail(format!("promise 4: a server hands out until {until}, dies at {truth}"));
    }
}

/// A client that has been reporting a dead token since then has got no other one.
pub(super) fn check_healing(world: &mut World, since: Option<Duration>) {
    let now = world.now;
    let Some(since) = since.filter(|since| now - *since > HEALED_WITHIN) else { return };
    let is_calm = world.wechat.weather == Weather::Fair
        && world.options.faults == 0
        && world.options.fates == 0
        && !world.ledger.had_trouble_within(now - since + HEALED_WITHIN, now);
    if is_calm {
        world.fail(format!("promise 7: a dead token is not replaced after {:?}", now - since));
    }
}

/// A reader of this host takes a ticket.
pub(super) fn hand_out_ticket(world: &mut World, host: usize, document: &Document) {
    let now = world.now;
    let life = Duration::from_secs(document.left(world.hosts[host].timestamp(now)).as_secs());
    let (ticket, tickets) = (document.token.expose(), &world.ledger.tickets);
    let end = Known::end_of(ticket);
    if !tickets.iter().rev().take(RECENT).any(|(it, _)| it.is(ticket, end)) {
        return world.fail("a ticket is handed out that was never issued".to_owned());
    }
    let is_judged = !world.hosts[host].may_err_about(document) && !world.ledger.is_doubtful(ticket);
    let truth = world.wechat.rules.death_of(ticket).unwrap_or_default();
    if is_judged && !life.is_zero() && truth + world.options.tolerance() < now + life {
        world.fail("promise 4: a ticket is handed out with more life than it has".to_owned());
    }
    world.count("ticket handed out");
}

/// Called when a process has ended its refresh of the token.
pub(super) fn note_outcome(
    world: &mut World,
    host: usize,
    request: &TokenRequest,
    outcome: &Result<Outcome, RefreshError>,
    begun_at: Duration,
) {
    let now = world.now;
    let renewed = match outcome {
        Ok(Outcome::Renewed(document)) => Some(document.token.expose()),
        _ => None,
    };
    let is_mirror = world.options.source_of(host).is_some();
    if !is_mirror {
        world.ledger.note_published(renewed);
    }
    match (outcome, request) {
        (
            Ok(Outcome::Renewed(document) | Outcome::Kept(document)),
            TokenRequest::OtherThan(rejected),
        ) => {
            let death = world.wechat.rules.death_of(rejected.expose()).unwrap_or_default();
            match document.token == *rejected {
                true if death <= begun_at => {
                    world.fail("promise 7: the rejected token is kept".to_owned());
                }
                true => world.count("honoured token kept"),
                false => world.count("rejected token replaced"),
            }
        }
        (Err(RefreshError::Local(error)), _)
            if world.hosts[host].disk_full_since.is_none() && !world.options.has_redis =>
        {
            world.fail(format!("a fault of this machine that it does not have: {error:#}"));
        }
        (Err(error), _) => {
            world.count("fetch failed");
            world.tell(|| format!("fetch failed: {error}"));
            world.ledger.note_trouble(now);
        }
        _ => {}
    }
    match outcome {
        Ok(Outcome::Renewed(_)) => world.count("token renewed"),
        Ok(Outcome::Confirmed(_)) => world.count("token confirmed"),
        Ok(Outcome::Kept(_)) => world.count("token kept"),
        Err(_) => {}
    }
    if let Ok(Outcome::Renewed(document) | Outcome::Confirmed(document)) = outcome {
        for reader in Reader::ALL {
            let view = world.ledger.view(host, reader);
            view.lasting = (view.order, view.until);
        }
        // By now no document is left that was made before.
        let it = &mut world.hosts[host];
        it.is_clock_wrong &= now < it.clock_set_at + RECOVERY;
        let is_doubtful = world.ledger.is_doubtful(document.token.expose());
        if !is_mirror && !is_doubtful && !world.ledger.had_trouble_within(now - begun_at, now) {
            let left = document.left(world.hosts[host].timestamp(now));
            let margin = world.options.refresh_before + Duration::from_secs(3);
            (world.ledger.has_lost_place, world.ledger.has_lost_all) = (false, false);
            world.ledger.settled = Some((begun_at, now + left.saturating_sub(margin)));
        }
    }
}
