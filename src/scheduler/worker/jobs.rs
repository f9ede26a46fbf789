//! How a worker runs its jobs: starts each in a thread, and takes in its result. A part of [`Worker`].

use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::mpsc::unbounded_channel;
use tokio::task::spawn_local;

use super::{Ticket, Worker, run_blocking};
use crate::model::api::Rules;
use crate::model::secret::Secret;
use crate::model::status::{TokenDemand, Witness};
use crate::os::thread;
use crate::refresh::{Outcome, RefreshError};
use crate::scheduler::job::{Job, JobContext, JobNews, JobReport, ProbeKind};
use crate::upstream::Liveness;

impl Worker {
    /// Starts a job. It goes on even if no client waits for it any more.
    pub(super) fn start_job(self: &Rc<Worker>, job: Job) {
        let is_first = self.state.borrow_mut().start(job.clone(), self.now());
        let context = self.job_context(is_first);
        self.spawn(async move |worker| {
            let report = worker.run_job(job, context).await.unwrap_or_else(JobReport::failed);
            let is_renewed = matches!(report.outcome, Some(Ok(Outcome::Renewed(_))));
            let events = worker.state.borrow_mut().finish(report, worker.moment());
            if is_renewed {
                let now = worker.now();
                let tickets = worker.tickets.borrow().clone();
                tickets.iter().for_each(|it| it.schedule.borrow_mut().note_new_token(now));
            }
            worker.changed.notify_waiters();
            worker.log(events, None);
            if is_renewed {
                worker.on_change.run(|| worker.settings(), &worker.environment).await;
            }
        });
    }

    /// Runs a job to its end. What WeChat says of the token meanwhile counts at once: a request for another one may take
    /// long.
    async fn run_job(&self, job: Job, context: JobContext) -> anyhow::Result<JobReport> {
        let _slot = self.environment.job_slots.acquire().await; // Never closed.
        let context = Arc::new(context);
        if let Job::Resolve(rejected) = job
            && rejected.probe != ProbeKind::None
            && context.settings.account.rules != Rules::Mirror
        {
            let (prober, token) = (Arc::clone(&context), rejected.token.clone());
            let probe = move || prober.probe(&rejected.token, rejected.probe);
            let liveness = thread::run_by(&*self.environment.clock, probe).await??;
            self.note_liveness(token, liveness);
        }
        let attempt = self.state.borrow_mut().attempt(self.now());
        let Some(attempt) = attempt else { return Ok(JobReport::default()) };
        let (sender, mut news) = unbounded_channel();
        let clock = Arc::clone(&self.environment.clock);
        let job = move || context.run(&attempt, &sender);
        let running = spawn_local(async move { thread::run_by(&*clock, job).await });
        // Ends with the job, which drops the sender.
        while let Some(news) = news.recv().await {
            match news {
                JobNews::Verdict(token, liveness) => self.note_liveness(token, liveness),
                JobNews::Failed(why) => drop(self.failed_attempt.replace(Some(why))),
            }
        }
        self.failed_attempt.take();
        Ok(running.await??)
    }

    fn note_liveness(&self, token: Secret, liveness: Liveness) {
        let events = self.state.borrow_mut().note_liveness(token, liveness, self.now());
        self.changed.notify_waiters();
        self.log(events, None);
    }

    /// Starts the refresh of a ticket. If WeChat says that the token is dead, the token is replaced, within the quotas, and
    /// the ticket requested once more.
    pub(super) fn start_ticket_job(self: &Rc<Worker>, ticket: Rc<Ticket>) {
        let is_first = ticket.schedule.borrow_mut().retry.start(self.now());
        self.spawn(async move |worker| {
            let token = worker.live_token();
            let mut outcome = worker.request_ticket(&ticket, is_first).await;
            let mut replaceable_in = None;
            if let (Err(RefreshError::Upstream(error)), Some(token)) = (&outcome, token)
                && error.is_dead_token()
            {
                let look = || worker.live_token().map(|token| (Rc::new(token.clone()), token));
                let demand = TokenDemand::OtherThan(token.clone(), Witness::WeChat);
                match worker.obtain(&demand, look).await {
                    Ok(another) if another != token => {
                        outcome = worker.request_ticket(&ticket, is_first).await;
                    }
                    // WeChat accepts the token all the same.
                    Ok(_) => {}
                    Err(unavailable) => replaceable_in = Some(unavailable.retry_after),
                }
            }
            let moment = worker.moment();
            let events = ticket.schedule.borrow_mut().finish(outcome, replaceable_in, moment);
            worker.changed.notify_waiters();
            worker.log(events, Some(&ticket.kind));
        });
    }

    async fn request_ticket(
        &self,
        ticket: &Ticket,
        asks_anyway: bool,
    ) -> Result<Outcome, RefreshError> {
        let (context, kind) = (self.job_context(asks_anyway), ticket.kind.clone());
        let store = Arc::clone(&ticket.store);
        run_blocking(&self.environment, move || context.run_ticket(&kind, &*store)).await?
    }

    fn job_context(&self, asks_anyway: bool) -> JobContext {
        JobContext {
            settings: self.settings(),
            connection: Arc::clone(&self.connection),
            clock: Arc::clone(&self.environment.clock),
            asks_anyway,
        }
    }
}
