//! Which connections are open, and which one is evicted when a newcomer finds all places taken: never the newcomer, and
//! never somebody who has just come or was just answered. Reads and writes nothing.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Who has come this recently, or was answered, is not evicted: his request may be on its way. With few places and many
/// who come at once, the newest wait in the kernel's queue instead.
const LEAST_STAY: Duration = Duration::from_millis(100);

/// The order of eviction: first whoever has had the last answer, then whoever has been waiting for longest, be it in
/// silence or in the middle of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Leaving(u64),
    Waiting(u64),
}

/// All connections. One thread only.
pub(crate) struct Connections {
    capacity: usize,
    open: Cell<usize>,
    /// How many of the open ones have been evicted and are not closed yet.
    evicted: Cell<usize>,
    /// How many have been evicted that might still have been of use.
    evictions: Cell<u64>,
    /// How many ranks have been given, so that each is another one.
    ranks: Cell<u64>,
    queue: RefCell<BTreeMap<Rank, Rc<Entry>>>,
    draining: Cell<bool>,
    /// Notified whenever one is closed.
    closed: Notify,
}

/// What is known here of one connection.
struct Entry {
    /// Its place in the queue; `None` once it was evicted.
    rank: Cell<Option<Rank>>,
    ranked_at: Cell<Instant>,
    waker: RefCell<Option<Waker>>,
}

/// A connection's place: it is taken until this is dropped, which has to be after the stream is.
pub(crate) struct Slot {
    connections: Rc<Connections>,
    entry: Rc<Entry>,
}

impl Connections {
    pub(crate) fn new(capacity: usize) -> Rc<Connections> {
        Rc::new(Connections {
            capacity,
            open: Cell::new(0),
            evicted: Cell::new(0),
            evictions: Cell::new(0),
            ranks: Cell::new(0),
            queue: RefCell::default(),
            draining: Cell::new(false),
            closed: Notify::new(),
        })
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn open(&self) -> usize {
        self.open.get()
    }

    /// How many have been evicted so far, without those that had had their last answer.
    pub(crate) fn evictions(&self) -> u64 {
        self.evictions.get()
    }

    /// Whether a newcomer needs somebody else's place. Who was evicted has given up his.
    pub(crate) fn is_full(&self) -> bool {
        self.open.get() - self.evicted.get() >= self.capacity
    }

    /// A newcomer's place. It may be one too many: evict somebody before, and wait for [`Self::at_most`] afterwards.
    pub(crate) fn claim(self: &Rc<Connections>, now: Instant) -> Slot {
        let rank = Rank::Waiting(self.next_rank());
        let entry = Entry {
            rank: Cell::new(Some(rank)),
            ranked_at: Cell::new(now),
            waker: RefCell::new(None),
        };
        let entry = Rc::new(entry);
        self.queue.borrow_mut().insert(rank, Rc::clone(&entry));
        self.open.set(self.open.get() + 1);
        Slot { connections: Rc::clone(self), entry }
    }

    /// How long the connection that is next to go must be let stay yet; `None` if it may be evicted now.
    pub(crate) fn next_stays_for(&self, now: Instant) -> Option<Duration> {
        let queue = self.queue.borrow();
        let (_, entry) = queue.first_key_value()?;
        let rest = LEAST_STAY.checked_sub(now.duration_since(entry.ranked_at.get()))?;
        (!rest.is_zero()).then_some(rest)
    }

    /// Evicts the connection that is next to go. `false` if there is none.
    pub(crate) fn evict(&self) -> bool {
        let next = self.queue.borrow_mut().pop_first();
        let Some((rank, entry)) = next else { return false };
        if let Rank::Waiting(_) = rank {
            self.evictions.set(self.evictions.get() + 1);
        }
        entry.rank.set(None);
        self.evicted.set(self.evicted.get() + 1);
        entry.wake();
        true
    }

    /// Evicts a connection that has had its last answer. `false` if there is none.
    pub(crate) fn evict_leaving(&self) -> bool {
        let next = self.queue.borrow().first_key_value().map(|(rank, _)| *rank);
        matches!(next, Some(Rank::Leaving(_))) && self.evict()
    }

    /// From now on a connection ends when it has no request under way; all are woken so that they notice.
    pub(crate) fn drain(&self) {
        self.draining.set(true);
        self.queue.borrow().values().for_each(|entry| entry.wake());
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Waits until no more than `count` are open, those being evicted included.
    pub(crate) async fn at_most(&self, count: usize) {
        while self.open.get() > count {
            self.closed.notified().await;
        }
    }

    fn next_rank(&self) -> u64 {
        self.ranks.set(self.ranks.get() + 1);
        self.ranks.get()
    }
}

impl Entry {
    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}

impl Slot {
    /// The caller was answered just now: it is the last to go.
    pub(crate) fn answered(&self, now: Instant) {
        self.entry.ranked_at.set(now);
        self.queue_again(Rank::Waiting);
    }

    /// The caller has had its last answer: it is among the first to go.
    pub(crate) fn leaving(&self) {
        self.queue_again(Rank::Leaving);
    }

    /// Ready when this connection was evicted; until then `cx` is woken for that, and when all are drained.
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

    /// Runs `life` to its end; `None` if this connection is evicted before.
    pub(crate) async fn until_evicted<T>(
        &self,
        mut life: Pin<&mut impl Future<Output = T>>,
    ) -> Option<T> {
        poll_fn(|cx| match self.poll_evicted(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => life.as_mut().poll(cx).map(Some),
        })
        .await
    }

    fn queue_again(&self, rank: fn(u64) -> Rank) {
        let Some(before) = self.entry.rank.get() else { return }; // Once evicted, it goes.
        let rank = rank(self.connections.next_rank());
        let mut queue = self.connections.queue.borrow_mut();
        queue.remove(&before);
        queue.insert(rank, Rc::clone(&self.entry));
        self.entry.rank.set(Some(rank));
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let connections = &self.connections;
        match self.entry.rank.get() {
            Some(rank) => {
                connections.queue.borrow_mut().remove(&rank);
            }
            None => connections.evicted.set(connections.evicted.get() - 1),
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

    fn is_evicted(slot: &Slot) -> bool {
        slot.poll_evicted(&Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn whoever_has_waited_for_longest_makes_room() {
        let connections = Connections::new(3);
        let (first, second, third) =
            (connections.claim(now()), connections.claim(now()), connections.claim(now()));
        assert!(connections.is_full());
        first.answered(now());
        assert!(connections.evict());
        assert_eq!([&first, &second, &third].map(is_evicted), [false, true, false]);
        assert!(!connections.is_full());
        drop(second);
        assert!(connections.evict());
        assert_eq!([&first, &third].map(is_evicted), [false, true]);
    }

    #[test]
    fn whoever_has_had_the_last_answer_goes_before_all_others() {
        let connections = Connections::new(3);
        let (first, second) = (connections.claim(now()), connections.claim(now()));
        assert!(!connections.evict_leaving());
        second.leaving();
        assert!(connections.evict_leaving());
        assert_eq!([&first, &second].map(is_evicted), [false, true]);
        // Too late to come back, and nobody goes twice.
        second.answered(now());
        assert!(!connections.evict_leaving());
        assert!(connections.evict());
        assert!(!connections.evict());
        assert_eq!(connections.evictions(), 1, "who had had the last answer was going anyway");
    }

    #[test]
    fn who_has_just_come_or_was_just_answered_is_let_stay_for_a_moment() {
        let connections = Connections::new(2);
        assert_eq!(connections.next_stays_for(now()), None);
        let come = now();
        let (first, _second) = (connections.claim(come), connections.claim(come));
        assert_eq!(connections.next_stays_for(come), Some(LEAST_STAY));
        assert_eq!(connections.next_stays_for(come + LEAST_STAY / 2), Some(LEAST_STAY / 2));
        assert_eq!(connections.next_stays_for(come + LEAST_STAY), None);
        first.answered(come + LEAST_STAY);
        assert_eq!(connections.next_stays_for(come + LEAST_STAY), None, "the second is next");
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
            two.leaving();
            drop((one, two));
            assert_eq!(
                (
                    connections.open.get(),
                    connections.evicted.get(),
                    connections.queue.borrow().len()
                ),
                (0, 0, 0)
            );
        }
    }
}
