//! Who is connected, and who makes room when a newcomer finds the house full: never the newcomer, and never somebody
//! who was just served. Reads and writes nothing.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;

/// How soon a connection goes when room is needed: first who was already told goodbye, then who has been waiting for
/// longest, be it in silence or in the middle of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Leaving(u64),
    Waiting(u64),
}

/// All connections. One thread only.
pub(super) struct Crowd {
    capacity: usize,
    present: Cell<usize>,
    /// How many of those present have been sent out and have not gone yet.
    sent_out: Cell<usize>,
    turns: Cell<u64>,
    queue: RefCell<BTreeMap<Rank, Rc<Seat>>>,
    closing: Cell<bool>,
    /// Rung whenever somebody has gone.
    gone: Notify,
}

/// What the crowd knows about one connection.
struct Seat {
    /// Its place in the queue; `None` once it was sent out.
    rank: Cell<Option<Rank>>,
    waker: RefCell<Option<Waker>>,
}

/// A connection's presence: it counts until this is dropped.
pub(super) struct Presence {
    crowd: Rc<Crowd>,
    seat: Rc<Seat>,
}

impl Crowd {
    pub(super) fn new(capacity: usize) -> Rc<Crowd> {
        Rc::new(Crowd {
            capacity,
            present: Cell::new(0),
            sent_out: Cell::new(0),
            turns: Cell::new(0),
            queue: RefCell::default(),
            closing: Cell::new(false),
            gone: Notify::new(),
        })
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Whether a newcomer needs somebody else's place. Who was sent out counts as gone.
    pub(super) fn is_full(&self) -> bool {
        self.present.get() - self.sent_out.get() >= self.capacity
    }

    pub(super) fn enter(self: &Rc<Crowd>) -> Presence {
        let seat = Rc::new(Seat { rank: Cell::new(None), waker: RefCell::new(None) });
        let presence = Presence { crowd: Rc::clone(self), seat };
        self.present.set(self.present.get() + 1);
        presence.queue_as(Some(Rank::Waiting(self.turn())));
        presence
    }

    /// Sends out the connection that is next to go. `false` if there is none.
    pub(super) fn send_one_out(&self) -> bool {
        let next = self.queue.borrow_mut().pop_first();
        next.map(|(_, seat)| self.send_out(&seat)).is_some()
    }

    /// Sends out a connection that was already told goodbye. `false` if there is none.
    pub(super) fn send_a_leaver_out(&self) -> bool {
        let leaver = self
            .queue
            .borrow()
            .first_key_value()
            .is_some_and(|(rank, _)| matches!(rank, Rank::Leaving(_)));
        leaver && self.send_one_out()
    }

    fn send_out(&self, seat: &Seat) {
        seat.rank.set(None);
        self.sent_out.set(self.sent_out.get() + 1);
        seat.wake();
    }

    /// From now on a connection ends when it has nothing under way; all are woken so that they notice.
    pub(super) fn close(&self) {
        self.closing.set(true);
        self.queue.borrow().values().for_each(|seat| seat.wake());
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// Waits until no more than `count` are here, those who are on their way out included.
    pub(super) async fn at_most(&self, count: usize) {
        while self.present.get() > count {
            self.gone.notified().await;
        }
    }

    fn turn(&self) -> u64 {
        self.turns.set(self.turns.get() + 1);
        self.turns.get()
    }
}

impl Seat {
    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}

impl Presence {
    /// The caller was served just now: it is the last to go.
    pub(super) fn served(&self) {
        if self.seat.rank.get().is_some() {
            self.queue_as(Some(Rank::Waiting(self.crowd.turn())));
        }
    }

    /// The caller was told goodbye: it is among the first to go.
    pub(super) fn leaves(&self) {
        if self.seat.rank.get().is_some() {
            self.queue_as(Some(Rank::Leaving(self.crowd.turn())));
        }
    }

    /// Ready when this connection was sent out; until then `cx` is woken for that, and when the house closes.
    fn poll_sent_out(&self, cx: &Context<'_>) -> Poll<()> {
        if self.seat.rank.get().is_none() {
            return Poll::Ready(());
        }
        let mut waker = self.seat.waker.borrow_mut();
        match waker.as_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Runs `life` to its end; `None` if this connection is sent out before.
    pub(super) async fn until_sent_out<T>(
        &self,
        mut life: Pin<&mut impl Future<Output = T>>,
    ) -> Option<T> {
        poll_fn(|cx| match self.poll_sent_out(cx) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => life.as_mut().poll(cx).map(Some),
        })
        .await
    }

    fn queue_as(&self, rank: Option<Rank>) {
        let mut queue = self.crowd.queue.borrow_mut();
        if let Some(before) = self.seat.rank.replace(rank) {
            queue.remove(&before);
        }
        if let Some(rank) = rank {
            queue.insert(rank, Rc::clone(&self.seat));
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let crowd = &self.crowd;
        if self.seat.rank.get().is_none() {
            crowd.sent_out.set(crowd.sent_out.get() - 1);
        }
        self.queue_as(None);
        crowd.present.set(crowd.present.get() - 1);
        crowd.gone.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_out(presence: &Presence) -> bool {
        presence.poll_sent_out(&Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn who_has_waited_longest_makes_room() {
        let crowd = Crowd::new(3);
        let (first, second, third) = (crowd.enter(), crowd.enter(), crowd.enter());
        assert!(crowd.is_full());
        first.served();
        assert!(crowd.send_one_out());
        assert_eq!([&first, &second, &third].map(is_out), [false, true, false]);
        assert!(!crowd.is_full());
        drop(second);
        assert!(crowd.send_one_out());
        assert_eq!([&first, &third].map(is_out), [false, true]);
    }

    #[test]
    fn who_was_told_goodbye_goes_before_all_others() {
        let crowd = Crowd::new(3);
        let (first, second) = (crowd.enter(), crowd.enter());
        assert!(!crowd.send_a_leaver_out());
        second.leaves();
        assert!(crowd.send_a_leaver_out());
        assert_eq!([&first, &second].map(is_out), [false, true]);
        // Too late to come back, and nobody goes twice.
        second.served();
        assert!(!crowd.send_a_leaver_out());
        assert!(crowd.send_one_out());
        assert!(!crowd.send_one_out());
    }

    #[test]
    fn nobody_is_counted_after_leaving() {
        let crowd = Crowd::new(2);
        for round in 0..10 {
            let (one, two) = (crowd.enter(), crowd.enter());
            assert!(crowd.is_full());
            if round % 2 == 0 {
                crowd.send_one_out();
            }
            two.leaves();
            drop((one, two));
            assert_eq!(
                (crowd.present.get(), crowd.sent_out.get(), crowd.queue.borrow().len()),
                (0, 0, 0)
            );
        }
    }
}
