//! Counts open connections, and chooses the one to evict when a new one finds no free slot. A connection that has just
//! been accepted or answered is not evicted. Reads and writes nothing, and reads no clock.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// For how long a connection is safe from eviction after it was accepted or answered, because a request may be on its
/// way. If many connections arrive at once and there are few slots, the newest wait in the kernel's queue meanwhile.
const MIN_STAY: Duration = Duration::from_millis(100);

/// The order of eviction: first the connections that have had their last answer, then those that have waited for longest,
/// whether a request of theirs is under way or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum EvictionRank {
    Leaving(u64),
    Waiting(u64),
}

/// All connections of a server. Belongs to one thread.
pub(crate) struct Connections {
    capacity: usize,
    open: Cell<usize>,
    /// How many of the open connections are evicted and not yet closed.
    closing: Cell<usize>,
    /// How many evictions there were of connections that had not had their last answer.
    evictions: Cell<u64>,
    /// The number in the last rank, so that no two ranks are equal.
    last_rank: Cell<u64>,
    queue: RefCell<BTreeMap<EvictionRank, Rc<QueueEntry>>>,
    is_draining: Cell<bool>,
    /// Notified when a connection is closed.
    closed: Notify,
}

/// What the queue knows about one connection.
struct QueueEntry {
    /// `None` once the connection is evicted.
    rank: Cell<Option<EvictionRank>>,
    ranked_at: Cell<Instant>,
    waker: RefCell<Option<Waker>>,
}

/// The slot of one connection, which is taken until this is dropped. Drop the stream first: its descriptor counts.
pub(crate) struct ConnectionSlot {
    connections: Rc<Connections>,
    entry: Rc<QueueEntry>,
}

impl Connections {
    pub(crate) fn new(capacity: usize) -> Rc<Connections> {
        Rc::new(Connections {
            capacity,
            open: Cell::new(0),
            closing: Cell::new(0),
            evictions: Cell::new(0),
            last_rank: Cell::new(0),
            queue: RefCell::default(),
            is_draining: Cell::new(false),
            closed: Notify::new(),
        })
    }

    /// Returns how many connections may be open.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Returns how many connections are open.
    pub(crate) fn open(&self) -> usize {
        self.open.get()
    }

    /// Returns how many connections were evicted so far, except for those that had had their last answer.
    pub(crate) fn evictions(&self) -> u64 {
        self.evictions.get()
    }

    /// Whether a new connection needs the slot of another. An evicted connection has given up its slot.
    pub(crate) fn is_full(&self) -> bool {
        self.open.get() - self.closing.get() >= self.capacity
    }

    /// Takes a slot for a new connection, also beyond the capacity. If [`Self::is_full`], evict another connection
    /// before, and wait for [`Self::wait_until_at_most`] afterwards.
    pub(crate) fn claim(self: &Rc<Connections>, now: Instant) -> ConnectionSlot {
        let rank = EvictionRank::Waiting(self.next_rank());
        let entry = Rc::new(QueueEntry {
            rank: Cell::new(Some(rank)),
            ranked_at: Cell::new(now),
            waker: RefCell::new(None),
        });
        self.queue.borrow_mut().insert(rank, Rc::clone(&entry));
        self.open.set(self.open.get() + 1);
        ConnectionSlot { connections: Rc::clone(self), entry }
    }

    /// Returns how long the next connection to be evicted must still be kept. `None` if it may be evicted now.
    pub(crate) fn next_stays_for(&self, now: Instant) -> Option<Duration> {
        let queue = self.queue.borrow();
        let (_, entry) = queue.first_key_value()?;
        let rest = MIN_STAY.checked_sub(now.duration_since(entry.ranked_at.get()))?;
        (!rest.is_zero()).then_some(rest)
    }

    /// Evicts the next connection. Returns whether there is one.
    pub(crate) fn evict(&self) -> bool {
        let next = self.queue.borrow_mut().pop_first();
        let Some((rank, entry)) = next else { return false };
        if let EvictionRank::Waiting(_) = rank {
            self.evictions.set(self.evictions.get() + 1);
        }
        entry.rank.set(None);
        self.closing.set(self.closing.get() + 1);
        entry.wake();
        true
    }

    /// Evicts a connection that has had its last answer. Returns whether there is one.
    pub(crate) fn evict_leaving(&self) -> bool {
        let next = self.queue.borrow().first_key_value().map(|(rank, _)| *rank);
        matches!(next, Some(EvictionRank::Leaving(_))) && self.evict()
    }

    /// Makes each connection end as soon as it has no request under way. Wakes all of them.
    pub(crate) fn drain(&self) {
        self.is_draining.set(true);
        self.queue.borrow().values().for_each(|entry| entry.wake());
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.get()
    }

    /// Waits until at most `count` connections are open, counting evicted ones that are not yet closed.
    pub(crate) async fn wait_until_at_most(&self, count: usize) {
        while self.open.get() > count {
            self.closed.notified().await;
        }
    }

    fn next_rank(&self) -> u64 {
        self.last_rank.set(self.last_rank.get() + 1);
        self.last_rank.get()
    }
}

impl QueueEntry {
    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}

impl ConnectionSlot {
    /// Makes this connection the last to be evicted: it was answered just now.
    pub(crate) fn mark_answered(&self, now: Instant) {
        self.entry.ranked_at.set(now);
        self.requeue(EvictionRank::Waiting);
    }

    /// Makes this connection one of the first to be evicted: it has had its last answer.
    pub(crate) fn mark_leaving(&self) {
        self.requeue(EvictionRank::Leaving);
    }

    /// Polls until this connection is evicted. The task is also woken by [`Connections::drain`].
    fn poll_evicted(&self, cx: &Context<'_>) -> Poll<()> {
        if self.entry.rank.get().is_none() {
            return Poll::Ready(());
        }
        let mut waker = self.entry.waker.borrow_mut();
        match waker.as_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Runs `life` to its end. Returns `None` if this connection is evicted before.
    pub(crate) async fn run_until_evicted<T>(
        &self,
        mut life: Pin<&mut impl Future<Output = T>>,
    ) -> Option<T> {
        poll_fn(|cx| match self.poll_evicted(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => life.as_mut().poll(cx).map(Some),
        })
        .await
    }

    fn requeue(&self, rank: fn(u64) -> EvictionRank) {
        let Some(before) = self.entry.rank.get() else { return }; // It is evicted, which is final.
        let rank = rank(self.connections.next_rank());
        let mut queue = self.connections.queue.borrow_mut();
        queue.remove(&before);
        queue.insert(rank, Rc::clone(&self.entry));
        self.entry.rank.set(Some(rank));
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let connections = &self.connections;
        match self.entry.rank.get() {
            Some(rank) => {
                connections.queue.borrow_mut().remove(&rank);
            }
            None => connections.closing.set(connections.closing.get() - 1),
        }
        connections.open.set(connections.open.get() - 1);
        connections.closed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Instant {
        Instant::now()
    }

    fn is_evicted(slot: &ConnectionSlot) -> bool {
        slot.poll_evicted(&Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn the_connection_that_has_waited_for_longest_is_evicted() {
        let connections = Connections::new(3);
        let (first, second, third) =
            (connections.claim(now()), connections.claim(now()), connections.claim(now()));
        assert!(connections.is_full());
        first.mark_answered(now());
        assert!(connections.evict());
        assert_eq!([&first, &second, &third].map(is_evicted), [false, true, false]);
        assert!(!connections.is_full());
        drop(second);
        assert!(connections.evict());
        assert_eq!([&first, &third].map(is_evicted), [false, true]);
    }

    #[test]
    fn a_connection_that_has_had_its_last_answer_is_evicted_first() {
        let connections = Connections::new(3);
        let (first, second) = (connections.claim(now()), connections.claim(now()));
        assert!(!connections.evict_leaving());
        second.mark_leaving();
        assert!(connections.evict_leaving());
        assert_eq!([&first, &second].map(is_evicted), [false, true]);
        // An eviction is final, and counts once.
        second.mark_answered(now());
        assert!(!connections.evict_leaving());
        assert!(connections.evict());
        assert!(!connections.evict());
        assert_eq!(
            connections.evictions(),
            1,
            "the one that had had its last answer does not count"
        );
    }

    #[test]
    fn a_connection_stays_for_100_ms_after_it_was_accepted_or_answered() {
        let connections = Connections::new(2);
        assert_eq!(connections.next_stays_for(now()), None);
        let accepted = now();
        let (first, _second) = (connections.claim(accepted), connections.claim(accepted));
        assert_eq!(connections.next_stays_for(accepted), Some(MIN_STAY));
        assert_eq!(connections.next_stays_for(accepted + MIN_STAY / 2), Some(MIN_STAY / 2));
        assert_eq!(connections.next_stays_for(accepted + MIN_STAY), None);
        first.mark_answered(accepted + MIN_STAY);
        assert_eq!(connections.next_stays_for(accepted + MIN_STAY), None, "the second is next");
    }

    #[test]
    fn a_closed_connection_is_not_counted() {
        let connections = Connections::new(2);
        for round in 0..10 {
            let (one, two) = (connections.claim(now()), connections.claim(now()));
            assert!(connections.is_full());
            if round % 2 == 0 {
                connections.evict();
            }
            two.mark_leaving();
            drop((one, two));
            assert_eq!(
                (
                    connections.open.get(),
                    connections.closing.get(),
                    connections.queue.borrow().len()
                ),
                (0, 0, 0)
            );
        }
    }
}
