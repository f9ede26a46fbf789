//! The blocking work of a scheduler, each piece in a thread of its own: a probe, or a request for a token or ticket with its publication.
//! Reports what happened. [`State`](super::state::State) decides what follows, also between the probe and the request of one job.

use std::cell::{Cell, RefCell};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::mpsc::UnboundedSender;

use super::event::SECRET_STAYS;
use super::quota::ProbeReason;
use super::settings::Settings;
use super::state::messages;
use crate::log::error;
use crate::message::action_first;
use crate::model::api::Rules;
use crate::model::kind::{DocumentKind, DocumentName, TicketType};
use crate::model::secret::Secret;
use crate::model::status::{ClientIdentity, TokenRequest};
use crate::os::clock::Clock;
use crate::os::thread::{self, Pending, lock};
use crate::refresh::ticket::TicketRefresh;
use crate::refresh::{Outcome, RecordContext, Refresh, RefreshError};
use crate::store::Store;
use crate::upstream::connect::{NO_SECRET_HERE, SLOW_FILES};
use crate::upstream::{
    Credential, IssuedToken, Liveness, Probe, RefreshMode, TokenSource, Upstream, UpstreamError,
};

/// The time for one refresh, with the wait for the lock and further attempts.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(30);

/// The time for a probe that a client waits for. The client also waits for the request that follows.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// The time for a probe that no client waits for.
const SCHEDULED_PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// What to do about an account's token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// Publish a token, if the published one is due.
    Refresh,
    /// Replace a token that may be dead, unless WeChat accepts it.
    Resolve(RejectedToken),
}

/// A token that may be dead: a client says that WeChat rejected it, or behaves so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RejectedToken {
    pub(super) token: Secret,
    /// Whether it is probed before it is replaced.
    pub(super) probe: ProbeKind,
    /// Whether it was reported. After a mere suspicion it is replaced only if a probe says that it is dead.
    pub(super) is_reported: bool,
    /// The client whose quota the probe counts against, and for which reason.
    pub(super) client: Option<(ClientIdentity, ProbeReason)>,
}

/// Whether and for whom a token is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbeKind {
    None,
    /// A client waits for the result.
    Awaited,
    Scheduled,
}

/// A request for another token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) request: TokenRequest,
    /// Whether it may be forced.
    pub(super) may_force: bool,
    /// The token to replace, if WeChat has called it dead.
    pub(super) dead: Option<Secret>,
}

/// What a job reports before it ends.
#[derive(Debug)]
pub(super) enum JobNews {
    /// What WeChat says of a token.
    Verdict(Secret, Liveness),
    /// A request has failed, for this reason; another one may follow.
    Failed(String),
}

/// Takes the news of a job. Sending fails only once the worker is gone.
pub(super) type NewsSender = UnboundedSender<JobNews>;

/// The result of a job.
#[derive(Debug, Default)]
pub(super) struct JobReport {
    /// The result of the refresh, if there was one.
    pub(super) outcome: Option<Result<Outcome, RefreshError>>,
    /// Whether the refresh counts against the quota of forced requests.
    pub(super) counts_as_forced: bool,
    /// Whether the last request was a forced one. An error then says nothing about normal requests.
    pub(super) ended_forced: bool,
    /// The requests by result: a word for it, and the errcode, 0 if there is none.
    pub(super) attempts: Vec<(&'static str, i64)>,
}

impl JobReport {
    /// Returns the report of a job that failed because of this machine.
    pub(super) fn failed(error: anyhow::Error) -> JobReport {
        JobReport { outcome: Some(Err(RefreshError::Local(error))), ..JobReport::default() }
    }
}

/// Connects to the upstream: reads the AppSecret, which may have been replaced. Returns `None` if it cannot be read again.
/// Called on other threads than the server's.
pub(crate) type Connect = Arc<dyn Fn() -> Connected + Send + Sync>;

/// The upstream of an account.
pub(crate) struct UpstreamConnection {
    /// The account's name, for messages.
    name: String,
    connect: Mutex<Connect>,
    /// `None` until `connect` succeeds.
    upstream: Mutex<Option<Arc<dyn Upstream>>>,
    /// The first connection, if it takes so long that the job that began it gave up: others need its slot. The next job waits for it again.
    connecting: Mutex<Option<Pending<Connected>>>,
}

/// What [`Connect`] returns.
type Connected = anyhow::Result<Option<Arc<dyn Upstream>>>;

/// How long a job waits for the files of a connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

impl UpstreamConnection {
    pub(super) fn new(
        name: &str,
        connect: Connect,
        upstream: Option<Arc<dyn Upstream>>,
    ) -> UpstreamConnection {
        let (connect, upstream) = (Mutex::new(connect), Mutex::new(upstream));
        UpstreamConnection {
            name: name.to_owned(),
            connect,
            upstream,
            connecting: Mutex::default(),
        }
    }

    /// Connects by `connect` from now on. The present upstream stays until it is connected again.
    pub(super) fn set_connect(&self, connect: Connect) {
        *lock(&self.connect) = connect;
    }

    /// Returns the upstream, and connects if there is none yet. Blocks, but not for long.
    fn upstream(&self) -> anyhow::Result<Arc<dyn Upstream>> {
        self.upstream_within(CONNECT_PATIENCE)
    }

    fn upstream_within(&self, patience: Duration) -> anyhow::Result<Arc<dyn Upstream>> {
        let known = lock(&self.upstream).clone();
        if let Some(upstream) = known {
            return Ok(upstream);
        }
        let mut connecting = lock(&self.connecting);
        let begun = match connecting.take() {
            Some(begun) => begun,
            None => {
                let connect = Arc::clone(&*lock(&self.connect));
                thread::start("connect", move || connect()).map_err(thread::explain)?
            }
        };
        let connected = match begun.wait(patience) {
            Ok(connected) => connected?,
            Err(RecvTimeoutError::Timeout) => {
                *connecting = Some(begun);
                bail!(SLOW_FILES.text());
            }
            Err(RecvTimeoutError::Disconnected) => bail!(thread::BROKE_OFF.text()),
        };
        let upstream = connected.context(NO_SECRET_HERE.text())?;
        Ok(Arc::clone(lock(&self.upstream).insert(upstream)))
    }

    /// Whether there is an upstream already.
    pub(super) fn is_connected(&self) -> bool {
        lock(&self.upstream).is_some()
    }

    /// Connects again. If that fails, logs it and keeps the last good upstream. Blocks.
    pub(crate) fn reconnect(&self) {
        match self.connect() {
            Ok(Some(upstream)) => *lock(&self.upstream) = Some(upstream),
            Ok(None) => {}
            // The next job fails with this error.
            Err(_) if lock(&self.upstream).is_none() => {}
            Err(err) => {
                let said = action_first(&SECRET_STAYS.with([&format!("{err:#}")]));
                let name = &self.name;
                error!(event = "reload_failed", account = name; "serve: {name}: {said}");
            }
        }
    }

    fn connect(&self) -> Connected {
        let connect = Arc::clone(&*lock(&self.connect));
        connect()
    }
}

/// All that a job needs in its thread.
pub(super) struct JobContext {
    pub(super) settings: Arc<Settings>,
    pub(super) connection: Arc<UpstreamConnection>,
    pub(super) clock: Arc<dyn Clock>,
    /// Whether WeChat is asked whatever the record says.
    pub(super) asks_anyway: bool,
}

impl JobContext {
    /// Asks WeChat whether this token is alive. Fails only because of this machine.
    pub(super) fn probe(&self, token: &Secret, kind: ProbeKind) -> anyhow::Result<Liveness> {
        let timeout = match kind {
            ProbeKind::Scheduled => SCHEDULED_PROBE_TIMEOUT,
            ProbeKind::Awaited | ProbeKind::None => PROBE_TIMEOUT,
        };
        Ok(self.connection.upstream()?.probe(token, timeout))
    }

    /// Requests another token, and publishes it.
    pub(super) fn run(&self, attempt: &Attempt, news: &NewsSender) -> JobReport {
        match self.connection.upstream() {
            Ok(upstream) => self.refresh(&*upstream, attempt, news),
            Err(err) => JobReport::failed(err),
        }
    }

    /// Publishes a ticket in `store`, if the published one is due. A dead token is an error, and is not replaced here: quotas apply.
    pub(super) fn run_ticket(
        &self,
        kind: &TicketType,
        store: &dyn Store,
    ) -> Result<Outcome, RefreshError> {
        let upstream = self.connection.upstream()?;
        let location = &self.settings.account.location;
        let token_place = location.name_of(&DocumentKind::Token);
        let ticket = TicketRefresh {
            kind,
            place: &location.name_of(&DocumentKind::Ticket(kind.clone())),
            token: self.token_refresh(
                &*upstream,
                &token_place,
                self.record_context(&*upstream, &*upstream),
                None,
            )?,
            upstream: &*upstream,
            store,
            replaces_dead_token: false,
            has_renewed_token: Cell::default(),
        };
        ticket.run(self.clock.instant() + REFRESH_TIMEOUT)
    }

    fn token_refresh<'a>(
        &'a self,
        source: &'a dyn TokenSource,
        place: &'a str,
        context: RecordContext<'a>,
        dead: Option<&'a Secret>,
    ) -> anyhow::Result<Refresh<'a>> {
        let Settings { account, token_store, .. } = &*self.settings;
        Ok(Refresh {
            name: DocumentName::of_token(&account.name),
            place,
            appid: account.needed_appid()?,
            rules: account.rules,
            refresh_before: account.refresh_before,
            clock: &*self.clock,
            source,
            store: &**token_store,
            dead,
            ending: None,
            record: Some(context),
        })
    }

    fn record_context<'a>(
        &self,
        credential: &'a dyn Credential,
        probe: &'a dyn Probe,
    ) -> RecordContext<'a> {
        let asks_anyway = self.asks_anyway;
        // A report was probed before this job.
        RecordContext { credential, probe, asks_anyway, is_of_token: true, keeps_honoured: false }
    }

    fn refresh(&self, upstream: &dyn Upstream, attempt: &Attempt, news: &NewsSender) -> JobReport {
        let account = &self.settings.account;
        let source = RecordingSource {
            source: upstream,
            rules: account.rules,
            may_force: attempt.may_force,
            counts_as_forced: Cell::new(false),
            ended_forced: Cell::new(false),
            attempts: RefCell::default(),
            news,
        };
        let place = account.location.name_of(&DocumentKind::Token);
        let probe = ReportingProbe { probe: upstream, news };
        let context = self.record_context(upstream, &probe);
        let outcome = match self.token_refresh(&source, &place, context, attempt.dead.as_ref()) {
            Ok(refresh) => refresh.run(&attempt.request, self.clock.instant() + REFRESH_TIMEOUT),
            Err(err) => Err(RefreshError::Local(err)),
        };
        JobReport {
            outcome: Some(outcome),
            counts_as_forced: source.counts_as_forced.get(),
            ended_forced: source.ended_forced.get(),
            attempts: source.attempts.into_inner(),
        }
    }
}

/// A probe from within a refresh, whose verdict is reported at once: a token that another secret got may be dead.
struct ReportingProbe<'a> {
    probe: &'a dyn Probe,
    news: &'a NewsSender,
}

impl Probe for ReportingProbe<'_> {
    fn probe(&self, token: &Secret, timeout: Duration) -> Liveness {
        let liveness = self.probe.probe(token, timeout);
        let said = match &liveness {
            Liveness::Alive => Some(Liveness::Alive),
            Liveness::Dead => Some(Liveness::Dead),
            Liveness::Unknown(_) => None,
        };
        if let Some(said) = said {
            let _ = self.news.send(JobNews::Verdict(token.clone(), said));
        }
        liveness
    }
}

/// A source that records the requests to another one, reports failures, and withholds forced requests if they are not allowed.
struct RecordingSource<'a> {
    source: &'a dyn TokenSource,
    rules: Rules,
    may_force: bool,
    counts_as_forced: Cell<bool>,
    ended_forced: Cell<bool>,
    attempts: RefCell<Vec<(&'static str, i64)>>,
    news: &'a NewsSender,
}

impl TokenSource for RecordingSource<'_> {
    fn prepare(&self) -> anyhow::Result<()> {
        self.source.prepare()
    }

    fn request_token(
        &self,
        mode: RefreshMode,
        timeout: Duration,
    ) -> Result<IssuedToken, UpstreamError> {
        if mode == RefreshMode::Forced && !self.may_force {
            return Err(UpstreamError::Withheld);
        }
        self.ended_forced.set(mode == RefreshMode::Forced);
        let result = self.source.request_token(mode, timeout);
        let counts_as_forced = match self.rules {
            Rules::Stable => mode == RefreshMode::Forced,
            // Without a forced mode, each request is all that can be done about a token.
            Rules::Classic | Rules::Work => true,
            Rules::Mirror => false,
        };
        if counts_as_forced && result.as_ref().err().is_none_or(UpstreamError::may_have_minted) {
            self.counts_as_forced.set(true);
        }
        self.attempts.borrow_mut().push(match &result {
            Ok(_) => ("ok", 0),
            Err(UpstreamError::Refused(refusal)) => ("refused", refusal.code),
            Err(UpstreamError::Status(_)) => ("http_status", 0),
            Err(UpstreamError::Unreachable(_)) => ("unreachable", 0),
            Err(UpstreamError::Central { is_lasting: true, was_reached: true, .. }) => {
                ("refused", 0)
            }
            Err(UpstreamError::Central { .. }) => ("unreachable", 0),
            Err(UpstreamError::Malformed(_)) => ("nonsense", 0),
            Err(
                UpstreamError::Expired
                | UpstreamError::StillRefused { .. }
                | UpstreamError::Rationed { .. }
                | UpstreamError::Withheld
                | UpstreamError::NoToken,
            ) => return result,
        });
        if let Err(error) = &result {
            let _ = self.news.send(JobNews::Failed(messages::of_upstream(error)));
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc;

    use std::collections::VecDeque;

    use super::*;
    use crate::error::Exit;
    use crate::model::errcode::{CallKind, Platform, Refusal};

    /// A source with scripted answers, which cannot be prepared if there are none.
    #[derive(Default)]
    struct Scripted(RefCell<VecDeque<Result<(), UpstreamError>>>);

    impl TokenSource for Scripted {
        fn prepare(&self) -> anyhow::Result<()> {
            match self.0.borrow().is_empty() {
                true => bail!("no proxy"),
                false => Ok(()),
            }
        }

        fn request_token(&self, _: RefreshMode, _: Duration) -> Result<IssuedToken, UpstreamError> {
            let answer = self.0.borrow_mut().pop_front().expect("no further request");
            answer.map(|()| IssuedToken {
                token: Secret::new("T1".to_owned()),
                expires_in: Duration::from_secs(7200),
            })
        }
    }

    fn refused(code: i64) -> UpstreamError {
        let kind = CallKind::RequestsStableToken;
        UpstreamError::Refused(Refusal::new(code, "no", kind, Platform::Official))
    }

    /// What is recorded of requests in these modes, each with its answer.
    struct Recorded {
        counts_as_forced: bool,
        ended_forced: bool,
        attempts: Vec<(&'static str, i64)>,
        told: usize,
    }

    fn record(
        rules: Rules,
        requests: impl IntoIterator<Item = (RefreshMode, Result<(), UpstreamError>)>,
    ) -> Recorded {
        let (news, mut told) = tokio::sync::mpsc::unbounded_channel();
        let scripted = Scripted::default();
        let source = RecordingSource {
            source: &scripted,
            rules,
            may_force: true,
            counts_as_forced: Cell::new(false),
            ended_forced: Cell::new(false),
            attempts: RefCell::default(),
            news: &news,
        };
        for (mode, answer) in requests {
            scripted.0.borrow_mut().push_back(answer);
            let _ = source.request_token(mode, Duration::from_secs(1));
        }
        Recorded {
            counts_as_forced: source.counts_as_forced.get(),
            ended_forced: source.ended_forced.get(),
            attempts: source.attempts.take(),
            told: std::iter::from_fn(|| told.try_recv().ok()).count(),
        }
    }

    #[test]
    fn a_request_counts_against_the_quota_of_forced_ones_if_it_may_have_minted_as_these_do() {
        use RefreshMode::{Forced, Normal};
        let lost = || UpstreamError::unreachable("no answer in time", true, true);
        for (rules, mode, expected) in [
            (Rules::Stable, Normal, false),
            (Rules::Stable, Forced, true),
            (Rules::Classic, Normal, true),
            (Rules::Work, Normal, true),
            (Rules::Mirror, Normal, false),
            (Rules::Mirror, Forced, false),
        ] {
            for (answer, may_have_minted) in
                [(Ok(()), true), (Err(lost()), true), (Err(refused(45009)), false)]
            {
                let what = format!("{rules:?} {mode:?} {answer:?}");
                let recorded = record(rules, [(mode, answer)]);
                assert_eq!(recorded.counts_as_forced, expected && may_have_minted, "{what}");
                assert_eq!(recorded.ended_forced, mode == Forced, "{what}");
            }
        }
        let recorded =
            record(Rules::Stable, [(Forced, Err(lost())), (Normal, Err(refused(45009)))]);
        assert!(recorded.counts_as_forced && !recorded.ended_forced, "the last was a normal one");
    }

    #[test]
    fn each_request_is_recorded_by_its_result_and_told_of_if_it_failed() {
        let unreachable = UpstreamError::unreachable("no route", true, false);
        let malformed = UpstreamError::Malformed("an empty body".to_owned());
        let answers = [Err(refused(-1)), Err(UpstreamError::Status(502)), Err(unreachable)];
        let more = [Err(malformed), Err(UpstreamError::Expired), Ok(())];
        let requests = answers.into_iter().chain(more).map(|it| (RefreshMode::Normal, it));
        let recorded = record(Rules::Stable, requests);
        let expected =
            [("refused", -1), ("http_status", 0), ("unreachable", 0), ("nonsense", 0), ("ok", 0)];
        assert_eq!(recorded.attempts, expected);
        assert_eq!(recorded.told, 4);
    }

    #[test]
    fn a_forced_request_that_is_not_allowed_is_withheld_and_not_recorded() {
        let (news, mut told) = tokio::sync::mpsc::unbounded_channel();
        let scripted = Scripted::default();
        let source = RecordingSource {
            source: &scripted,
            rules: Rules::Stable,
            may_force: false,
            counts_as_forced: Cell::new(false),
            ended_forced: Cell::new(false),
            attempts: RefCell::default(),
            news: &news,
        };
        assert!(source.prepare().is_err(), "what is wrong must cost no request");
        let result = source.request_token(RefreshMode::Forced, Duration::from_secs(1));
        assert!(matches!(result, Err(UpstreamError::Withheld)), "{result:?}");
        assert!(source.attempts.take().is_empty() && told.try_recv().is_err());
    }

    #[test]
    fn a_job_that_fails_for_a_reason_of_this_machine_says_so() {
        let report = JobReport::failed(Exit::Failure.error("no thread"));
        let Some(Err(RefreshError::Local(why))) = report.outcome else { panic!("{report:?}") };
        assert_eq!(why.to_string(), "no thread");
        assert!(!report.counts_as_forced && !report.ended_forced && report.attempts.is_empty());
    }

    #[test]
    fn a_connection_that_has_not_been_made_is_none() {
        let connection = UpstreamConnection::new("shop", Arc::new(|| Ok(None)), None);
        assert!(!connection.is_connected());
        connection.reconnect();
        assert!(!connection.is_connected());
    }

    #[test]
    fn a_job_waits_for_files_that_hang_no_further_and_they_are_read_once() {
        let (let_go, hangs) = mpsc::channel::<()>();
        let (hangs, begun) = (Mutex::new(hangs), Arc::new(AtomicU32::new(0)));
        let count = Arc::clone(&begun);
        let connect = move || {
            count.fetch_add(1, Ordering::Relaxed);
            let _ = lock(&hangs).recv();
            Err(Exit::Usage.error("no AppSecret"))
        };
        let connection = UpstreamConnection::new("shop", Arc::new(connect), None);
        let fails =
            |patience| connection.upstream_within(patience).err().expect("no upstream").to_string();
        assert_eq!(fails(Duration::from_millis(1)), SLOW_FILES.text());
        assert_eq!(fails(Duration::from_millis(1)), SLOW_FILES.text());
        let_go.send(()).unwrap();
        assert_eq!(fails(Duration::MAX), "no AppSecret");
        assert_eq!(begun.load(Ordering::Relaxed), 1);
        drop(let_go);
        assert_eq!(fails(Duration::MAX), "no AppSecret");
        assert_eq!(begun.load(Ordering::Relaxed), 2, "what has failed is tried again");
    }
}
