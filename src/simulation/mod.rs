//! Years of wxtoken on virtual time: the code of production with crashes, lost answers, wrong clocks and other programs,
//! all decided by one seed, and judged by what a model of WeChat knows. See `docs/simulation.md`.

mod crash;
mod host;
mod ledger;
mod mirror;
mod options;
mod redis;
mod serve;
mod tape;
mod tests;
mod wechat;
mod world;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use self::host::{HostClock, Published, Version, location};
use self::ledger::Reader;
use self::options::{Options, Setting};
use self::serve::CLIENTS;
use self::tape::Tape;
use self::wechat::{APPID, SimulatedUpstream, Weather, issue, secret_of};
use self::world::{Event, Fate, START, World, with};
use crate::model::api::Rules;
use crate::model::kind::{DocumentKind, DocumentName, TicketType};
use crate::model::location::Location;
use crate::model::secret::Secret;
use crate::model::status::TokenRequest;
use crate::os::clock::Clock;
use crate::os::file::disk::model;
use crate::refresh::ticket::TicketRefresh;
use crate::refresh::{Outcome, RecordContext, Refresh};
use crate::store::{Found, Stores};
use crate::upstream::{RefreshMode, Upstream};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * 60;
const DAY: u64 = 24 * HOUR;

/// What came of a run.
struct Verdict {
    failure: Option<String>,
    counts: BTreeMap<&'static str, u64>,
    /// Two runs of one tape have one trace.
    trace: u64,
    tape: Vec<u8>,
    /// The true time that has passed.
    span: Duration,
    options: Options,
    story: Vec<String>,
}

/// How long a run is: so often so many days with faults, and so many without.
#[derive(Clone, Copy)]
struct Course {
    times: u64,
    faulty_days: u64,
    calm_days: u64,
}

/// Runs a world by this tape. When days without faults end, all has to be well.
fn run(setting: Setting, mut tape: Tape, course: Course, is_told: bool) -> Verdict {
    let options = Options::draw(setting, &mut tape);
    world::begin(tape, options.clone(), is_told);
    for time in 0..course.times {
        if time > 0 {
            with(|world| world.options.draw_faults(&mut world.tape));
        }
        with(plan);
        // An event loop wakes every fifteen seconds.
        let most = if with(|world| world.options.has_servers) { 3 } else { u64::MAX };
        proceed_for(course.faulty_days.min(most));
        with(make_calm);
        proceed_for(1);
        if course.calm_days > 1 && with(replace_servers) {
            proceed_for(course.calm_days - 1);
        }
        if with(|world| world.failure.is_some()) {
            break;
        }
        observe_all();
        with(check_end);
    }
    let mut world = world::end();
    let mut counts = BTreeMap::new();
    for (situation, times) in &world.counts {
        *counts.entry(*situation).or_default() += times;
    }
    Verdict {
        story: world.story(),
        trace: world.trace(),
        tape: world.tape.read().to_vec(),
        span: world.now - START,
        failure: world.failure,
        counts,
        options,
    }
}

/// Lets happen what happens within so many days.
fn proceed_for(days: u64) {
    let end = with(|world| world.now) + Duration::from_secs(days * DAY);
    while let Some(event) = with(|world| world.next_event(end)) {
        match event {
            Event::Wake(process, waits) => world::wake(process, waits),
            Event::Cron(host) => start_cron(host),
            Event::Read(host) => {
                observe(host);
                with(|world| {
                    let next = 600 + world.random() % 3000;
                    world.after(Duration::from_secs(next), Event::Read(host));
                });
            }
            Event::PowerCut(host) => {
                world::cut_power(host);
                observe(host);
                with(|world| again(world, Event::PowerCut(host), 2 * DAY));
            }
            Event::Kill(host) => {
                world::kill_all_on(host);
                with(|world| {
                    if world.options.fates > 0 {
                        again(world, Event::Kill(host), DAY);
                    }
                });
            }
            Event::FullDisk(host, is_full) => fill_disk(host, is_full),
            Event::Report(host) => report(host),
            Event::Operator => operate(),
            Event::Repeat(place) => world::do_again(place),
            Event::Serve(host) => serve::keep_running(host),
            Event::Client(host, client) => serve::use_token(host, client),
            Event::Timer(number) => serve::ring(number),
            Event::Redis(event) => {
                // Readers that look once a second have seen all that was published before, and know that it was there until now.
                with(|world| world.hosts.iter_mut().for_each(|host| host.seen = None));
                observe_all();
                with(|world| redis::change(world, event));
                observe_all();
            }
            event => with(|world| change(world, event)),
        }
    }
}

/// Plans what will happen in a world with its options.
fn plan(world: &mut World) {
    world.forget_plans();
    let options = world.options.clone();
    for host in 0..options.hosts {
        start_refreshing(world, host);
        world.after(Duration::from_secs(30), Event::Read(host));
        if options.fates > 0 {
            again(world, Event::PowerCut(host), 2 * DAY);
            again(world, Event::Kill(host), DAY);
            again(world, Event::FullDisk(host, true), 4 * DAY);
        }
        if options.has_clocks {
            // Hosts that share a Redis have clocks that agree.
            if !options.has_redis {
                again(world, Event::Clock(host), DAY);
            }
            again(world, Event::Suspend(host), DAY);
        }
        if options.has_weather && options.source_of(host).is_some() {
            again(world, Event::Cut(host), 12 * HOUR);
        }
    }
    let rare = [
        (options.has_weather, Event::Weather, 8 * HOUR),
        (options.has_strangers, Event::Stranger, 12 * HOUR),
        (options.has_operators && !options.has_revocations, Event::Operator, 12 * HOUR),
        (options.has_revocations, Event::Revocation, HOUR / 4),
    ];
    for (has, event, mean) in rare {
        if has {
            again(world, event, mean);
        }
    }
    if options.has_redis && options.fates > 0 {
        redis::plan(world);
    }
}

/// Lets cron run on a host, or a server with its clients.
fn start_refreshing(world: &mut World, host: usize) {
    if !world.options.is_served(host) {
        return world.after(Duration::from_secs(1), Event::Cron(host));
    }
    world.after(Duration::from_secs(1), Event::Serve(host));
    for client in 0..CLIENTS {
        serve::visit_after(world, Duration::from_secs(10), host, client);
    }
}

/// Lets an event happen after this time on average; on a calm tape after twice that.
fn again(world: &mut World, event: Event, mean: u64) {
    let span = 1 + (256 - world.tape.below(256)) * mean / 128;
    let jitter = Duration::from_millis(world.random() % 1000);
    world.after(Duration::from_secs(span) + jitter, event);
}

/// Ends all faults.
fn make_calm(world: &mut World) {
    world.forget_plans();
    let options = &mut world.options;
    (options.faults, options.fates) = (0, 0);
    world.wechat.weather = Weather::Fair;
    world.wechat.configured = world.wechat.secret;
    if world.options.has_redis {
        world.redis.make_calm();
    }
    for host in 0..world.hosts.len() {
        world.hosts[host].link.cut_until = Duration::ZERO;
        if world.hosts[host].disk_full_since.take().is_some() {
            world.hosts[host].disk_full_until = world.now;
        }
        model::machine(host).borrow_mut().is_full = false;
        start_refreshing(world, host);
        world.after(Duration::from_secs(30), Event::Read(host));
    }
    world.ledger.note_trouble(world.now);
    world.note("calm", 0);
}

/// Lets cron run in place of servers, whose event loops wake so often that they take the time of a run. Returns false if they
/// have to stay, as mirrors ask them.
fn replace_servers(world: &mut World) -> bool {
    if world.options.has_mirrors {
        return false;
    }
    if std::mem::take(&mut world.options.has_servers) {
        world.forget_plans();
        for host in 0..world.hosts.len() {
            world.after(Duration::ZERO, Event::Kill(host));
            world.after(Duration::from_secs(1), Event::Cron(host));
            world.after(Duration::from_secs(30), Event::Read(host));
        }
    }
    true
}

/// Checks that all is well a day after the last fault.
fn check_end(world: &mut World) {
    for host in 0..world.hosts.len() {
        let Some(token) = world.ledger.token_seen_on(host) else {
            return world.fail("no token was ever published".to_owned());
        };
        // WeCom issues the next token when this one has ended, and cron asks for it then.
        let gap = world.options.gap_on(host);
        if world.wechat.rules.death_of(&token).is_none_or(|death| death + gap <= world.now) {
            return world.fail("a day after the last fault the published token is dead".to_owned());
        }
        let names = model::machine(host).borrow().names();
        if names.iter().any(|name| name.starts_with('.')) && !world.is_busy(host) {
            world.fail(format!("files are left behind: {names:?}"));
        }
    }
}

/// Changes the weather, clocks and what strangers do.
fn change(world: &mut World, event: Event) {
    match event {
        Event::Weather => {
            const ALL: [Weather; 7] = [
                Weather::Fair,
                Weather::LosesAnswers,
                Weather::Slow,
                Weather::Busy,
                Weather::Unreachable,
                Weather::RefusesAddress,
                Weather::Nonsense,
            ];
            world.wechat.weather = ALL[world.tape.below(ALL.len() as u64) as usize];
            world.note("weather", world.wechat.weather as u64);
            world.ledger.note_trouble(world.now);
            let mean = if world.tape.happens(16) { 2 * DAY } else { 3 * HOUR };
            again(world, event, mean);
        }
        Event::Stranger => {
            world.note("stranger", 0);
            world.count("a stranger mints");
            let secret = secret_of(world.wechat.secret);
            let mode = match world.tape.below(2) {
                0 => RefreshMode::Forced,
                _ => RefreshMode::Normal,
            };
            ledger::excuse_kills(world, |world| {
                if let Ok(issued) = issue(world, &secret, mode) {
                    ledger::note_issued_to_stranger(world, &issued);
                }
            });
            // A client of each host notices, sooner or later.
            for host in 0..world.hosts.len() {
                let later = Duration::from_secs(1 + world.tape.below(1200));
                world.after(later, Event::Report(host));
            }
            again(world, event, 12 * HOUR);
        }
        Event::Revocation => {
            world.note("revocation", 0);
            world.count("tokens taken back");
            ledger::excuse_kills(world, |world| {
                let now = world.now;
                world.wechat.rules.revoke_all(now);
            });
            again(world, event, HOUR / 4);
        }
        Event::Clock(host) => {
            let secs = match world.tape.below(4) {
                0 => 1,
                1 => 70,
                2 => 4000,
                _ => 100_000,
            };
            let step = time::Duration::seconds(secs + (world.random() % 50) as i64);
            let step = if world.tape.below(2) == 0 { step } else { -step };
            // Mostly it is set right again.
            let ahead = world.hosts[host].ahead;
            world.hosts[host].ahead = if ahead.is_zero() { step } else { time::Duration::ZERO };
            (world.hosts[host].is_clock_wrong, world.hosts[host].clock_set_at) = (true, world.now);
            if world.hosts[host].has_started_again() {
                world.ledger.note_wrong_age(host);
            }
            world.note("clock set", host as u64);
            world.count("clock set");
            world.ledger.note_trouble(world.now);
            again(world, event, DAY);
        }
        Event::Cut(host) => {
            mirror::cut(world, host);
            again(world, event, 12 * HOUR);
        }
        Event::Suspend(host) => {
            let span = Duration::from_secs(1 + world.tape.below(256) * 60);
            let now = world.now;
            let it = &mut world.hosts[host];
            // It may be suspended already.
            let begun = it.suspended_until.max(now);
            let end = begun.max(now + span);
            (it.suspended_until, it.suspended_for) = (end, it.suspended_for + (end - begun));
            world.note("suspended", span.as_secs());
            world.count("host suspended");
            world.ledger.note_trouble(end);
            again(world, event, DAY);
        }
        _ => {}
    }
}

fn fill_disk(host: usize, is_full: bool) {
    model::machine(host).borrow_mut().is_full = is_full;
    with(|world| {
        world.note("disk full", is_full.into());
        world.hosts[host].disk_full_since = is_full.then_some(world.now);
        world.hosts[host].disk_full_until = world.now;
        world.ledger.note_trouble(world.now);
        match is_full {
            true => {
                world.count("disk full");
                again(world, Event::FullDisk(host, false), 2 * HOUR);
            }
            false => again(world, Event::FullDisk(host, true), 4 * DAY),
        }
        // Readers can keep their copies of Redis again.
        world.hosts[host].seen = None;
    });
    observe(host);
}

/// A client was refused with the token that it holds, and says so. Clients lie, too.
fn report(host: usize) {
    let token = with(|world| {
        let token = world.ledger.token_seen_on(host)?;
        let is_dead = world.wechat.rules.death_of(&token).is_none_or(|death| death <= world.now);
        world.count(if is_dead { "dead token reported" } else { "live token reported" });
        // Most clients report a dead token only.
        (is_dead || world.tape.happens(64)).then_some(token)
    });
    if let Some(token) = token {
        with(|world| world.note("report", host as u64));
        start_fetch(host, TokenRequest::OtherThan(Secret::new(token)));
    }
}

fn operate() {
    let host = 0;
    match with(|world| world.tape.below(6)) {
        0 | 1 => {
            with(|world| {
                world.note("force", 0);
                world.count("forced by an operator");
            });
            start_fetch(host, TokenRequest::New);
        }
        2 => report(host),
        // Mirrors promise what a server has stated by its old margin.
        3 if !with(|world| world.options.has_mirrors) => with(|world| {
            let margins = [300, 150, 3600];
            let margin = margins[world.tape.below(3) as usize];
            let is_longer = world.options.rules() != Rules::Classic && margin > 300;
            let margin = Duration::from_secs(if is_longer { 290 } else { margin });
            if margin >= 2 * world.options.interval + Duration::from_secs(20) {
                world.options.refresh_before = margin;
            }
            world.note("margin", margin.as_secs());
            world.ledger.note_new_margin(world.now);
        }),
        // In WeChat's console, and some time later here; or the other way round.
        _ => with(|world| {
            world.note("secret", world.wechat.secret);
            world.count("secret changed");
            if world.wechat.configured == world.wechat.secret {
                world.wechat.secret += 1;
                let secret = secret_of(world.wechat.secret);
                world.wechat.rules.set_secret(&secret);
            } else {
                world.wechat.configured = world.wechat.secret;
            }
            world.ledger.note_trouble(world.now);
            let soon = world.wechat.configured != world.wechat.secret;
            again(world, Event::Operator, if soon { HOUR } else { 12 * HOUR });
        }),
    }
    with(|world| {
        if world.wechat.configured == world.wechat.secret {
            again(world, Event::Operator, 12 * HOUR);
        }
    });
}

/// Cron starts `fetch`, or several at once.
fn start_cron(host: usize) {
    let together = with(|world| {
        let change = until_change(world, host);
        let next = until_next_cron(world, host, change);
        world.after(next, Event::Cron(host));
        let is_left_out = change.is_some() && !world.tape.happens(RUNS_ANYWAY);
        if is_left_out || world.now < world.hosts[host].suspended_until {
            return 0;
        }
        1 + if world.tape.happens(8) { world.options.together - 1 } else { 0 }
    });
    for _ in 0..together {
        start_fetch(host, TokenRequest::Live);
    }
}

/// Of the runs of calm days that change nothing, as nothing is due or WeCom issues the same token again, so many in 256 are
/// made. The others are left out.
const RUNS_ANYWAY: u8 = 32;

/// Whether nothing has gone wrong for a while.
fn is_quiet(world: &World) -> bool {
    !world.ledger.had_trouble_within(Duration::from_secs(20 * MINUTE), world.now)
        && world.wechat.weather == Weather::Fair
}

/// Returns the time until a run changes anything on this host; `None` if that is soon, or not to be known.
fn until_change(world: &World, host: usize) -> Option<Duration> {
    let is_calm = world.options.fates == 0 && world.options.faults == 0 && is_quiet(world);
    // Each run of a mirror asks.
    if !is_calm || world.options.source_of(host).is_some() {
        return None;
    }
    let left = until_death(world, &world.ledger.token_seen_on(host)?);
    // WeCom says the same until the token ends.
    let (margin, least) = match world.options.rules() {
        Rules::Work => (Duration::ZERO, world.options.interval),
        _ => (world.options.refresh_before, 4 * world.options.interval),
    };
    let change = left.saturating_sub(margin);
    let ticket = world.ledger.last_ticket().map(|ticket| until_death(world, ticket));
    let change = change.min(ticket.unwrap_or(change));
    (change > least).then_some(change)
}

fn until_death(world: &World, token: &str) -> Duration {
    world.wechat.rules.death_of(token).unwrap_or_default().saturating_sub(world.now)
}

/// Returns the time until cron starts `fetch` again, where a run changes nothing before `change`.
fn until_next_cron(world: &mut World, host: usize, change: Option<Duration>) -> Duration {
    let interval = world.options.interval;
    let jitter = Duration::from_millis(world.random() % 2000);
    // Each run asks.
    if world.options.source_of(host).is_some() {
        return interval + jitter;
    }
    let random = |world: &mut World, span: Duration| {
        let random = (world.random() % 100) as f64 / 100.0;
        span.mul_f64(random)
    };
    if let Some(change) = change {
        return match (world.tape.happens(RUNS_ANYWAY), world.options.rules()) {
            // When WeCom issues the same token again.
            (true, Rules::Work) => {
                change.saturating_sub(random(world, world.options.refresh_before)).max(interval)
            }
            (true, _) => random(world, change).max(interval) + jitter,
            (false, _) => change + random(world, interval),
        };
    }
    let is_quiet = is_quiet(world);
    let token = world.ledger.token_seen_on(host);
    let left = token.map(|token| until_death(world, &token));
    match left.map(|left| left.saturating_sub(world.options.refresh_before)) {
        Some(due) if is_quiet && due > 4 * interval => match world.tape.happens(64) {
            true => random(world, due).max(interval) + jitter,
            false => due + random(world, interval),
        },
        // WeCom says the same until the token ends.
        Some(Duration::ZERO) if is_quiet && world.options.rules() == Rules::Work => {
            let left = left.unwrap_or_default();
            match world.tape.happens(64) {
                false if left > interval => left + random(world, interval),
                _ => interval + jitter,
            }
        }
        // Hours in which all fail alike show little.
        _ if world.wechat.weather != Weather::Fair => {
            interval * (1 + world.tape.below(8)) as u32 + jitter
        }
        // What happens to runs in which nothing is due shows little, too.
        Some(due) if due > 8 * interval => interval * (1 + world.tape.below(8)) as u32 + jitter,
        // Now and then a run is missed.
        _ if world.options.fates > 0 && world.tape.happens(4) => 2 * interval + jitter,
        _ => interval + jitter,
    }
}

/// Starts a process that runs `fetch`.
fn start_fetch(host: usize, request: TokenRequest) {
    let fuse = with(|world| {
        if world.now < world.hosts[host].suspended_until {
            return None;
        }
        let fates = world.options.fates;
        Some(world.tape.happens(fates).then(|| {
            let fate = match world.tape.below(4) {
                0 => Fate::Stopped(
                    1 + world.tape.below(if world.options.has_redis { 90 } else { 40 }),
                ),
                1 | 2 => Fate::Killed,
                _ => Fate::PowerCut,
            };
            (world.tape.below(120) as u32, fate)
        }))
    });
    if let Some(fuse) = fuse {
        // A mirror only passes a report on.
        if request != TokenRequest::Live && with(|world| world.options.source_of(host).is_none()) {
            with(|world| world.ledger.take_back(world.now));
        }
        world::start(host, fuse, move || fetch(host, &request));
        observe(host);
    }
}

/// Does what `wxtoken fetch` does for one account.
fn fetch(host: usize, request: &TokenRequest) {
    let (stores, options, begun_at) = with(|world| {
        world.count("fetch");
        (Stores::new(Arc::new(HostClock(host))), world.options.clone(), world.now)
    });
    let (clock, location) = (HostClock(host), location(host, options.has_redis));
    let source = options.source_of(host);
    let upstream: Arc<dyn Upstream> = match source {
        Some(source) => mirror::upstream(host, source, &options),
        None => Arc::new(SimulatedUpstream::connect(request)),
    };
    let deadline = clock.instant() + options.timeout;
    let store = stores.open(&location, &DocumentKind::Token, 0o600);
    let context = RecordContext {
        credential: &*upstream,
        probe: &*upstream,
        asks_anyway: *request == TokenRequest::New,
        is_of_token: true,
        keeps_honoured: true,
    };
    let refresh = || Refresh {
        name: DocumentName::of_token("shop"),
        place: "shop.json",
        appid: APPID,
        rules: options.rules_of(host),
        refresh_before: options.refresh_before,
        clock: &clock,
        source: &*upstream,
        store: &*store,
        dead: None,
        ending: None,
        record: Some(context),
    };
    let outcome = refresh().run(request, deadline);
    observe(host);
    with(|world| ledger::note_outcome(world, host, request, &outcome, begun_at));
    if options.has_tickets && outcome.is_ok() {
        let Some(kind) = TicketType::parse("jsapi") else { return };
        let document = DocumentKind::Ticket(kind.clone());
        let store = stores.open(&location, &document, 0o600);
        let ticket = TicketRefresh {
            kind: &kind,
            place: "shop.jsapi.json",
            token: refresh(),
            upstream: &*upstream,
            store: &*store,
            replaces_dead_token: true,
            has_renewed_token: Cell::default(),
        };
        let outcome = ticket.run(deadline);
        with(|world| match outcome {
            Ok(Outcome::Renewed(document)) => {
                world.ledger.note_published(Some(document.token.expose()));
                world.count("ticket fetched");
            }
            Ok(_) => {
                world.ledger.note_published(None);
                world.count("ticket kept");
            }
            Err(_) => {
                world.ledger.note_published(None);
                world.count("ticket not fetched");
            }
        });
    }
}

/// Readers of all hosts take what is published.
fn observe_all() {
    (0..with(|world| world.hosts.len())).for_each(observe);
}

/// A process that was started just now reads what is published on this host, and one that has been running for long.
fn observe(host: usize) {
    let looked = with(|world| {
        let is_awake = world.now >= world.hosts[host].suspended_until;
        is_awake.then(|| (Version::of(world, host), world.hosts[host].seen.clone()))
    });
    let Some((version, seen)) = looked else { return };
    let published = match seen {
        Some((then, published)) if then == version => Ok(published),
        seen => world::observe(host, || read(host, version, seen)),
    };
    with(|world| match published {
        Ok(published) => {
            judge(world, host, &published);
            // Readers may have kept a copy of what Redis has.
            world.hosts[host].seen = Some((Version::of(world, host), published));
        }
        Err(failure) => world.fail(failure),
    });
    serve::look(host);
}

/// Judges what readers of a host take.
fn judge(world: &mut World, host: usize, published: &Published) {
    let Published { token, watched, ticket } = published;
    ledger::hand_out(world, host, Reader::Get, token.as_deref());
    if world.options.has_redis {
        ledger::hand_out(world, host, Reader::Watch, watched.as_deref());
    } else if watched.as_ref().map(Rc::as_ptr) != token.as_ref().map(Rc::as_ptr) {
        ledger::hand_out(world, host, Reader::Get, watched.as_deref());
    }
    if let Some(ticket) = ticket {
        ledger::hand_out_ticket(world, host, ticket);
    }
}

/// Reads what is published on this host at this version. What was read `before` is read again only if it may have changed. Fails
/// if it is damaged.
fn read(
    host: usize,
    version: Version,
    before: Option<(Version, Published)>,
) -> Result<Published, String> {
    let (stores, has_redis, has_tickets) = with(|world| {
        let stores = world.hosts[host].stores.clone();
        (stores, world.options.has_redis, world.options.has_tickets)
    });
    let location = location(host, has_redis);
    let mut published = match &before {
        Some((then, seen)) if version.has_token_of(then) => seen.clone(),
        _ => read_token(host, &stores, &location, has_redis)?,
    };
    let jsapi = TicketType::parse("jsapi").filter(|_| has_tickets);
    published.ticket = match before {
        Some((then, seen)) if version.has_ticket_of(&then) => seen.ticket,
        _ => jsapi.and_then(|kind| match stores.read(&location, &DocumentKind::Ticket(kind)) {
            Ok(Found::Document(ticket)) => Some(Rc::new(ticket)),
            _ => None,
        }),
    };
    Ok(published)
}

fn read_token(
    host: usize,
    stores: &Stores,
    location: &Location,
    has_redis: bool,
) -> Result<Published, String> {
    let kind = DocumentKind::Token;
    // Of a Redis the other reader may know no more than what this one has kept a copy of.
    let found = has_redis.then(|| stores.read(location, &kind));
    let watch = with(|world| world.hosts[host].watch.take());
    let mut watch = watch.unwrap_or_else(|| stores.watch(location, &kind));
    if has_redis {
        stores.look();
    }
    let has_read = watch.look();
    let watched = watch.document().cloned().map(Rc::new);
    with(|world| world.hosts[host].watch = Some(watch));
    let found = match found {
        // It has read the file just now, by the same function as a process that starts.
        None if has_read => {
            return Ok(Published { token: watched.clone(), watched, ticket: None });
        }
        None => stores.read(location, &kind),
        Some(found) => found,
    };
    let token = match found {
        Ok(Found::Document(document)) => Some(Rc::new(document)),
        Ok(Found::Nothing) => None,
        Ok(Found::Damaged(what)) => return Err(format!("promise 1: {what}")),
        Err(_) if has_redis => None,
        Err(error) => return Err(format!("a reader fails: {error:#}")),
    };
    Ok(Published { token, watched, ticket: None })
}
