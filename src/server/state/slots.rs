//! Counts open connections, those of each address too, and chooses the one to evict when a new one finds no free slot. A
//! connection whose request is being answered is never evicted. Reads and writes nothing, and reads no clock.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::server::access::peer::NetworkId;

/// How long a connection is safe from eviction after it was accepted or answered: a request may be on its way. If many connections arrive at
/// once and slots are few, the newest wait in the kernel's queue meanwhile.
const MIN_STAY: Duration = Duration::from_millis(100);

/// An address can hold this fraction of the slots: one in so many.
const SHARES: usize = 4;

/// How many slots an address can hold in any case, if there are so many.
const MIN_SHARE: usize = 8;

/// What a connection is doing, as far as eviction goes, in the order of eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// It has had its last answer. This is final.
    Leaving,
    /// No request is under way.
    Idle,
    /// A part of a TLS handshake or of a request has arrived. A client can stay here until its time is over, and so has to make room.
    Receiving,
    /// A request has arrived, and its answer is not completely written. It is not evicted.
    InFlight,
}

/// The order of eviction: by standing, then by how long the connection has had it.
type EvictionRank = (Standing, u64);

/// All connections of a server. Belongs to one thread.
pub(crate) struct Connections {
    capacity: usize,
    open: Cell<usize>,
    /// How many of the open connections are evicted and not yet closed.
    closing: Cell<usize>,
    /// How many connections were evicted before their last answer.
    evictions: Cell<u64>,
    /// The number in the last rank that was given. Each rank has another number, so that no two are equal.
    last_rank: Cell<u64>,
    /// The connections that can be evicted, and others, by a rank that may be of an earlier time: see [`QueueEntry::queued`].
    queue: RefCell<BTreeMap<EvictionRank, Rc<QueueEntry>>>,
    /// The addresses that have connections and a share.
    holders: RefCell<HashMap<NetworkId, Rc<Holder>>>,
    is_draining: Cell<bool>,
    /// Notified when a connection is closed, or can be evicted again.
    freed: Notify,
}

/// What the queue knows about one connection.
struct QueueEntry {
    rank: Cell<EvictionRank>,
    /// The rank by which the queues have it; `None` if they do not have it. It may be older than `rank`, so that a request touches no queue. The
    /// place of a connection that would be evicted next is corrected first.
    queued: Cell<Option<EvictionRank>>,
    ranked_at: Cell<Instant>,
    /// Whether it has had an answer.
    is_answered: Cell<bool>,
    is_evicted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    /// `None` if its address may hold all slots.
    holder: Option<Rc<Holder>>,
}

/// The connections of one address, but for those that are leaving or evicted.
struct Holder {
    id: NetworkId,
    count: Cell<usize>,
    /// The connections of the address that can be evicted.
    queue: RefCell<BTreeSet<EvictionRank>>,
}

/// The slot of one connection. It is taken until this is dropped. Drop the stream first: its descriptor counts.
pub(crate) struct ConnectionSlot {
    connections: Rc<Connections>,
    entry: Rc<QueueEntry>,
    /// Whether it was answered since it was ranked.
    is_answered_anew: Cell<bool>,
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
            holders: RefCell::default(),
            is_draining: Cell::new(false),
            freed: Notify::new(),
        })
    }

    /// Returns how many connections may be open.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Returns how many connections one address may have open.
    pub(crate) fn share(&self) -> usize {
        (self.capacity / SHARES).max(MIN_SHARE.min(self.capacity))
    }

    /// Returns how many connections are open.
    pub(crate) fn open(&self) -> usize {
        self.open.get()
    }

    /// Returns how many connections were evicted so far before their last answer.
    pub(crate) fn evictions(&self) -> u64 {
        self.evictions.get()
    }

    /// Whether a new connection needs the slot of another. An evicted connection has given up its slot.
    pub(crate) fn is_full(&self) -> bool {
        self.open.get() - self.closing.get() >= self.capacity
    }

    /// Whether this address holds its share.
    pub(crate) fn is_at_share(&self, address: NetworkId) -> bool {
        self.holders.borrow().get(&address).is_some_and(|it| it.count.get() >= self.share())
    }

    /// Takes a slot for a new connection of `address`, even beyond the capacity. If [`Self::is_full`], evict another connection before, and wait
    /// for [`Self::wait_until_at_most`] afterwards. `None` is an address that may hold all slots.
    pub(crate) fn claim(
        self: &Rc<Connections>,
        address: Option<NetworkId>,
        now: Instant,
    ) -> ConnectionSlot {
        let holder = address.map(|id| {
            let mut holders = self.holders.borrow_mut();
            let holder = holders.entry(id).or_insert_with(|| Rc::new(Holder::new(id)));
            holder.count.set(holder.count.get() + 1);
            Rc::clone(holder)
        });
        let entry = Rc::new(QueueEntry {
            rank: Cell::new((Standing::Idle, self.next_rank())),
            queued: Cell::new(None),
            ranked_at: Cell::new(now),
            is_answered: Cell::new(false),
            is_evicted: Cell::new(false),
            waker: RefCell::new(None),
            holder,
        });
        self.enqueue(&entry);
        self.open.set(self.open.get() + 1);
        let connections = Rc::clone(self);
        ConnectionSlot { connections, entry, is_answered_anew: Cell::new(false) }
    }

    /// Returns how long the connection that is evicted next must still be kept; `None` if there is none.
    pub(crate) fn next_stays_for(&self, now: Instant) -> Option<Duration> {
        self.first().map(|entry| entry.stays_for(now))
    }

    /// Evicts the next connection. Returns whether there is one.
    pub(crate) fn evict(&self) -> bool {
        self.first().map(|entry| self.evict_entry(&entry)).is_some()
    }

    /// Evicts a connection that has had its last answer. Returns whether there is one.
    pub(crate) fn evict_leaving(&self) -> bool {
        self.first().is_some_and(|next| next.standing() == Standing::Leaving) && self.evict()
    }

    /// Evicts a connection of this address. Returns false if none may go at once: it must have been answered, or have stayed long enough.
    pub(crate) fn evict_of(&self, address: NetworkId, now: Instant) -> bool {
        let Some(holder) = self.holders.borrow().get(&address).cloned() else { return false };
        let may_go = |entry: &QueueEntry| entry.is_answered.get() || entry.stays_for(now).is_zero();
        let stale: Vec<_> = {
            let (ranks, queue) = (holder.queue.borrow(), self.queue.borrow());
            let entries = ranks.iter().filter_map(|rank| queue.get(rank));
            entries.filter(|it| it.queued.get() != Some(it.rank.get())).cloned().collect()
        };
        stale.iter().for_each(|entry| self.put_right(entry));
        let next = {
            let (ranks, queue) = (holder.queue.borrow(), self.queue.borrow());
            ranks.iter().find_map(|rank| queue.get(rank).filter(|it| may_go(it)).cloned())
        };
        next.map(|entry| self.evict_entry(&entry)).is_some()
    }

    fn evict_entry(&self, entry: &QueueEntry) {
        if entry.standing() != Standing::Leaving {
            self.evictions.set(self.evictions.get() + 1);
            entry.uncount();
        }
        self.dequeue(entry);
        entry.is_evicted.set(true);
        self.closing.set(self.closing.get() + 1);
        entry.wake();
    }

    /// Makes each connection end as soon as it has no request under way. Wakes the tasks of all connections.
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
            self.freed().await;
        }
    }

    /// Waits until a connection is closed, or one can be evicted that could not before.
    pub(crate) async fn freed(&self) {
        self.freed.notified().await;
    }

    fn next_rank(&self) -> u64 {
        self.last_rank.set(self.last_rank.get() + 1);
        self.last_rank.get()
    }

    /// Returns the connection to be evicted next.
    fn first(&self) -> Option<Rc<QueueEntry>> {
        loop {
            let (queued, entry) = {
                let queue = self.queue.borrow();
                queue.first_key_value().map(|(queued, entry)| (*queued, Rc::clone(entry)))?
            };
            if queued == entry.rank.get() {
                return Some(entry);
            }
            self.put_right(&entry);
        }
    }

    fn put_right(&self, entry: &Rc<QueueEntry>) {
        self.dequeue(entry);
        self.enqueue(entry);
    }

    fn enqueue(&self, entry: &Rc<QueueEntry>) {
        let rank = entry.rank.get();
        if rank.0 == Standing::InFlight {
            return;
        }
        entry.queued.set(Some(rank));
        self.queue.borrow_mut().insert(rank, Rc::clone(entry));
        if let (Some(holder), true) = (&entry.holder, rank.0 != Standing::Leaving) {
            holder.queue.borrow_mut().insert(rank);
        }
    }

    fn dequeue(&self, entry: &QueueEntry) {
        let Some(rank) = entry.queued.take() else { return };
        self.queue.borrow_mut().remove(&rank);
        if let Some(holder) = &entry.holder {
            holder.queue.borrow_mut().remove(&rank);
        }
    }

    /// Forgets an address without connections.
    fn forget(&self, holder: &Rc<Holder>) {
        // The map has one reference, and the caller another.
        if Rc::strong_count(holder) == 2 {
            self.holders.borrow_mut().remove(&holder.id);
        }
    }
}

impl Holder {
    fn new(id: NetworkId) -> Holder {
        Holder { id, count: Cell::new(0), queue: RefCell::default() }
    }
}

impl QueueEntry {
    fn standing(&self) -> Standing {
        self.rank.get().0
    }

    fn stays_for(&self, now: Instant) -> Duration {
        match self.standing() {
            Standing::Leaving => Duration::ZERO,
            _ => MIN_STAY.saturating_sub(now.duration_since(self.ranked_at.get())),
        }
    }

    /// No longer counts this connection as one of its address.
    fn uncount(&self) {
        if let Some(holder) = &self.holder {
            holder.count.set(holder.count.get() - 1);
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}

impl ConnectionSlot {
    /// Notes that a request of this connection was answered just now. [`Self::settle`] ranks it by that.
    pub(crate) fn mark_answered(&self, now: Instant) {
        self.entry.is_answered.set(true);
        self.entry.ranked_at.set(now);
        self.is_answered_anew.set(true);
    }

    /// Makes this connection one of the first to be evicted: it has had its last answer.
    pub(crate) fn mark_leaving(&self) {
        let entry = &self.entry;
        if !entry.is_evicted.get() && entry.standing() != Standing::Leaving {
            entry.uncount();
            self.requeue(Standing::Leaving);
        }
    }

    /// Ranks this connection by what it is doing, once its task has nothing more to do for now. Calls `now` only if the rank changes.
    pub(crate) fn settle(&self, standing: Standing, now: impl FnOnce() -> Instant) {
        let before = self.entry.standing();
        let is_answered_anew = self.is_answered_anew.take();
        if self.entry.is_evicted.get() || before == Standing::Leaving {
            return;
        }
        if standing != before {
            self.entry.ranked_at.set(now());
            self.requeue(standing);
        } else if is_answered_anew && standing != Standing::InFlight {
            self.requeue(standing);
        }
    }

    /// Polls until this connection is evicted. The task is also woken by [`Connections::drain`].
    fn poll_evicted(&self, cx: &Context<'_>) -> Poll<()> {
        if self.entry.is_evicted.get() {
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

    fn requeue(&self, standing: Standing) {
        let (connections, entry) = (&self.connections, &self.entry);
        let before = entry.standing();
        let rank = (standing, connections.next_rank());
        entry.rank.set(rank);
        if entry.queued.get().is_none_or(|queued| queued > rank) {
            connections.put_right(entry);
        }
        if before == Standing::InFlight {
            connections.freed.notify_waiters();
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let (connections, entry) = (&self.connections, &self.entry);
        if entry.is_evicted.get() {
            connections.closing.set(connections.closing.get() - 1);
        } else {
            if entry.standing() != Standing::Leaving {
                entry.uncount();
            }
            connections.dequeue(entry);
        }
        connections.open.set(connections.open.get() - 1);
        if let Some(holder) = &entry.holder {
            connections.forget(holder);
        }
        connections.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::access::peer::Peer;

    fn now() -> Instant {
        Instant::now()
    }

    fn is_evicted(slot: &ConnectionSlot) -> bool {
        slot.poll_evicted(&Context::from_waker(Waker::noop())).is_ready()
    }

    /// Ends a request of this connection, which arrived at once.
    fn answer(slot: &ConnectionSlot) {
        slot.mark_answered(now());
        slot.settle(Standing::Idle, now);
    }

    fn address(ip: &str) -> NetworkId {
        Peer::Ip(ip.parse().expect("an address")).network_id()
    }

    #[test]
    fn the_connection_that_has_waited_for_longest_is_evicted() {
        let connections = Connections::new(3);
        let (first, second, third) = (
            connections.claim(None, now()),
            connections.claim(None, now()),
            connections.claim(None, now()),
        );
        assert!(connections.is_full());
        answer(&first);
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
        let (first, second) = (connections.claim(None, now()), connections.claim(None, now()));
        assert!(!connections.evict_leaving());
        second.mark_leaving();
        assert!(connections.evict_leaving());
        assert_eq!([&first, &second].map(is_evicted), [false, true]);
        // An eviction is final, and counts once.
        answer(&second);
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
        let (first, _second) =
            (connections.claim(None, accepted), connections.claim(None, accepted));
        assert_eq!(connections.next_stays_for(accepted), Some(MIN_STAY));
        assert_eq!(connections.next_stays_for(accepted + MIN_STAY / 2), Some(MIN_STAY / 2));
        assert_eq!(connections.next_stays_for(accepted + MIN_STAY), Some(Duration::ZERO));
        first.mark_answered(accepted + MIN_STAY);
        first.settle(Standing::Idle, now);
        let next = connections.next_stays_for(accepted + MIN_STAY);
        assert_eq!(next, Some(Duration::ZERO), "the second is next");
    }

    #[test]
    fn a_connection_in_flight_is_not_evicted_wherever_it_stood_before() {
        let connections = Connections::new(3);
        let (first, second) = (connections.claim(None, now()), connections.claim(None, now()));
        first.settle(Standing::InFlight, now);
        second.settle(Standing::Receiving, now);
        assert!(connections.evict());
        assert_eq!([&first, &second].map(is_evicted), [false, true]);
        assert!(!connections.evict() && !is_evicted(&first));
        let third = connections.claim(None, now());
        third.settle(Standing::InFlight, now);
        // Answered after it was out of the queue, and before it would have been next.
        answer(&third);
        answer(&first);
        assert!(connections.evict());
        assert_eq!([&first, &third].map(is_evicted), [false, true]);
        assert!(connections.evict() && is_evicted(&first));
    }

    #[test]
    fn a_closed_connection_is_not_counted() {
        let connections = Connections::new(2);
        for round in 0..10 {
            let (one, two) = (connections.claim(None, now()), connections.claim(None, now()));
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

    #[test]
    fn a_request_that_is_being_answered_is_never_evicted_and_one_that_arrives_only_after_idle_ones()
    {
        let connections = Connections::new(4);
        let slots: Vec<_> = (0..4).map(|_| connections.claim(None, now())).collect();
        slots[0].settle(Standing::InFlight, now);
        slots[1].settle(Standing::Receiving, now);
        slots[2].settle(Standing::InFlight, now);
        slots[2].mark_answered(now());
        slots[2].settle(Standing::Idle, now);
        // The rest of a request that arrives bit by bit does not put its eviction off.
        slots[1].settle(Standing::Receiving, now);
        let evicted = || slots.iter().map(is_evicted).collect::<Vec<_>>();
        assert!(connections.evict());
        assert_eq!(evicted(), [false, false, false, true], "the one that is idle for longest");
        assert!(connections.evict());
        assert_eq!(evicted(), [false, false, true, true], "another idle one");
        assert!(connections.evict());
        assert_eq!(evicted(), [false, true, true, true], "the one whose request arrives");
        assert!(!connections.evict());
        assert_eq!(connections.next_stays_for(now()), None);
        slots[0].settle(Standing::Idle, now);
        assert!(connections.evict());
    }

    #[test]
    fn an_address_holds_at_most_a_quarter_of_the_slots_and_its_own_connections_make_room() {
        let connections = Connections::new(40);
        assert_eq!(connections.share(), 10);
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        let mut slots: Vec<_> = (0..10).map(|_| connections.claim(Some(one), now())).collect();
        let bystander = connections.claim(Some(other), now());
        assert!(connections.is_at_share(one) && !connections.is_at_share(other));
        assert!(!connections.evict_of(one, now()), "their requests may be on their way");
        assert!(!connections.evict_of(other, now()));
        answer(&slots[3]);
        slots[4].settle(Standing::InFlight, now);
        assert!(connections.evict_of(one, now()), "one that was answered");
        assert!(is_evicted(&slots[3]) && !connections.is_at_share(one));
        slots.push(connections.claim(Some(one), now()));
        assert!(connections.is_at_share(one));
        for _ in 0..9 {
            assert!(connections.evict_of(one, now() + MIN_STAY));
        }
        let later = now() + 2 * MIN_STAY;
        assert!(!connections.evict_of(one, later), "what is left is being answered");
        assert!(!is_evicted(&slots[4]) && !is_evicted(&bystander));
        // One that is leaving does not count.
        slots.clear();
        let leaving = connections.claim(Some(one), now());
        leaving.mark_leaving();
        leaving.mark_leaving();
        assert_eq!(connections.holders.borrow()[&one].count.get(), 0);
        drop((leaving, bystander));
        assert!(connections.holders.borrow().is_empty());
        assert_eq!((connections.open(), connections.queue.borrow().len()), (0, 0));
    }

    #[test]
    fn a_share_is_a_quarter_but_eight_at_least_where_there_are_as_many() {
        let share = |capacity| Connections::new(capacity).share();
        assert_eq!([1, 3, 8, 20, 32, 36, 1024].map(share), [1, 3, 8, 8, 8, 9, 256]);
    }
}
