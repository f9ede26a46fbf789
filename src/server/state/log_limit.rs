//! Rate limits for the lines on stderr that clients can cause: of each kind at most one in ten seconds, or one for each
//! address, with the number of those that were suppressed. Reads no clock.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::time::Duration;

use tokio::time::Instant;

use crate::log::error;
use crate::os::descriptors::shortage;
use crate::server::access::forwarded::ClientAddress;
use crate::server::access::peer::{NetworkId, Peer};

/// The time between two lines of one kind: short enough for an operator to notice, and too long to fill a disk.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// How many addresses have a line of one kind in that time. A client with more addresses than these can hide one of
/// another client, and must not fill a disk.
const MAX_ADDRESSES: usize = 32;

/// Writes rate-limited lines to stderr.
#[derive(Debug, Default)]
pub(crate) struct ThrottledLog {
    refused: RefCell<ByKind<&'static str, AddressThrottle>>,
    evicted: Throttle,
    evicted_for_itself: RefCell<AddressThrottle>,
    all_in_flight: Throttle,
    failed_handshakes: RefCell<ByKind<&'static str, AddressThrottle>>,
    /// By the number of the error.
    not_accepted: RefCell<ByKind<Option<i32>, Throttle>>,
    /// By account.
    unreachable: RefCell<HashMap<String, Throttle>>,
}

/// A limit for each kind, so that noise of one kind hides nothing of another. There are few kinds, and none is what a client
/// sends.
#[derive(Debug)]
struct ByKind<K, T>(Vec<(K, T)>);

impl<K, T> Default for ByKind<K, T> {
    fn default() -> ByKind<K, T> {
        ByKind(Vec::new())
    }
}

impl<K: PartialEq, T: Default> ByKind<K, T> {
    fn of(&mut self, kind: K) -> &mut T {
        let place = self.0.iter().position(|(known, _)| *known == kind).unwrap_or_else(|| {
            self.0.push((kind, T::default()));
            self.0.len() - 1
        });
        &mut self.0[place].1
    }
}

impl ThrottledLog {
    /// Reports that a client was refused for a reason of this kind, which `why` explains.
    pub(crate) fn refused(
        &self,
        now: Instant,
        kind: &'static str,
        client: ClientAddress,
        peer: Peer,
        why: impl fmt::Display,
    ) {
        let mut refused = self.refused.borrow_mut();
        let Some(suffix) = refused.of(kind).admit(now, client.peer()) else { return };
        match client {
            ClientAddress::Direct(client) => error!("serve: refused {client}: {why}{suffix}"),
            ClientAddress::Forwarded(client) => {
                error!("serve: refused {client} through {peer}: {why}{suffix}");
            }
        }
    }

    /// Reports that the TLS handshake with an allowed peer failed for a reason of this kind, which `why` explains.
    pub(crate) fn failed_handshake(
        &self,
        now: Instant,
        kind: &'static str,
        peer: Peer,
        why: impl fmt::Display,
    ) {
        if let Some(suffix) = self.failed_handshakes.borrow_mut().of(kind).admit(now, peer) {
            error!("serve: no TLS with {peer}: {why}{suffix}");
        }
    }

    /// Reports that a connection was evicted that had not had its last answer.
    pub(crate) fn evicted(&self, now: Instant, capacity: usize) {
        self.evicted.report(
            now,
            format_args!(
                "all {capacity} places for connections are taken, the one that is idle for longest makes room \
                 (--max-connections, ulimit -n)"
            ),
        );
    }

    /// Reports that a connection was evicted for another one of the same address.
    pub(crate) fn evicted_for_itself(&self, now: Instant, peer: Peer, share: usize) {
        if let Some(suffix) = self.evicted_for_itself.borrow_mut().admit(now, peer) {
            error!(
                "serve: {peer} has {share} connections, as many as one address can hold (a quarter of \
                 --max-connections); its idle ones make room{suffix}"
            );
        }
    }

    /// Reports that no connection can be evicted, so that new ones wait.
    pub(crate) fn all_in_flight(&self, now: Instant, capacity: usize) {
        self.all_in_flight.report(
            now,
            format_args!(
                "all {capacity} places for connections are taken by requests that are being answered, new ones wait \
                 (--max-connections, ulimit -n)"
            ),
        );
    }

    /// Reports that the gateway cannot reach WeChat for calls of this account.
    pub(crate) fn unreachable(&self, now: Instant, account: &str, why: &str) {
        let mut throttles = self.unreachable.borrow_mut();
        let throttle = throttles.entry(account.to_owned()).or_default();
        let message = format_args!("{account}: a call cannot be passed on to WeChat: {why}");
        throttle.report(now, message);
    }

    /// Reports that a connection could not be accepted.
    pub(crate) fn not_accepted(&self, now: Instant, err: &io::Error) {
        let mut limits = self.not_accepted.borrow_mut();
        let limit = limits.of(err.raw_os_error());
        let why = shortage::explained(err);
        limit.report(now, format_args!("cannot accept a connection: {why}"));
    }
}

/// The rate limit of one kind of line.
#[derive(Debug, Default)]
struct Throttle {
    written_at: Cell<Option<Instant>>,
    suppressed: Cell<u64>,
}

impl Throttle {
    fn report(&self, now: Instant, message: fmt::Arguments<'_>) {
        if let Some(suffix) = self.admit(now) {
            error!("serve: {message}{suffix}");
        }
    }

    /// Returns the end of a line that may be written now, with the number of those that were suppressed since the last
    /// one. Returns `None` if this line is suppressed.
    fn admit(&self, now: Instant) -> Option<String> {
        if self.written_at.get().is_some_and(|at| now.duration_since(at) < LINE_INTERVAL) {
            self.suppressed.set(self.suppressed.get() + 1);
            return None;
        }
        self.written_at.set(Some(now));
        Some(suffix(self.suppressed.take()))
    }
}

fn suffix(suppressed: u64) -> String {
    match suppressed {
        0 => String::new(),
        suppressed => format!(" ({suppressed} more since the last line)"),
    }
}

/// The rate limit of one kind of line that names an address. Each address has a line of its own, so that one that is
/// refused all the time does not hide another.
#[derive(Debug, Default)]
struct AddressThrottle {
    /// When the current interval began.
    began_at: Option<Instant>,
    /// The addresses that have a line in this interval.
    written: Vec<NetworkId>,
    suppressed: u64,
}

impl AddressThrottle {
    /// Does the same as [`Throttle::admit`] for a line about `peer`.
    fn admit(&mut self, now: Instant, peer: Peer) -> Option<String> {
        if self.began_at.is_none_or(|at| now.duration_since(at) >= LINE_INTERVAL) {
            self.began_at = Some(now);
            self.written.clear();
        }
        let id = peer.network_id();
        if self.written.len() >= MAX_ADDRESSES || self.written.contains(&id) {
            self.suppressed += 1;
            return None;
        }
        self.written.push(id);
        Some(suffix(std::mem::take(&mut self.suppressed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_in_ten_seconds_is_written_with_the_number_of_suppressed_ones() {
        let throttle = Throttle::default();
        let start = Instant::now();
        let at = |secs: f64| throttle.admit(start + Duration::from_secs_f64(secs));
        assert_eq!(at(0.0), Some(String::new()));
        assert_eq!(at(0.1), None);
        assert_eq!(at(9.9), None);
        assert_eq!(at(10.0), Some(" (2 more since the last line)".to_owned()));
        assert_eq!(at(19.0), None);
        assert_eq!(at(30.0), Some(" (1 more since the last line)".to_owned()));
        assert_eq!(at(41.0), Some(String::new()));
    }

    #[test]
    fn each_address_has_a_line_in_ten_seconds_up_to_a_bound() {
        let mut throttle = AddressThrottle::default();
        let start = Instant::now();
        let mut at = |secs: f64, ip: &str| {
            let peer = Peer::Ip(ip.parse().expect("an address"));
            throttle.admit(start + Duration::from_secs_f64(secs), peer)
        };
        assert_eq!(at(0.0, "10.0.0.1"), Some(String::new()));
        for _ in 0..100 {
            assert_eq!(at(0.1, "10.0.0.1"), None);
        }
        assert_eq!(at(0.2, "10.0.0.2"), Some(" (100 more since the last line)".to_owned()));
        // A host with IPv6 has a whole /64 of addresses.
        assert_eq!(at(0.3, "2001:db8::1"), Some(String::new()));
        assert_eq!(at(0.4, "2001:db8::2"), None);
        assert_eq!(at(0.5, "2001:db8:0:1::2"), Some(" (1 more since the last line)".to_owned()));
        let lines = (0..200).filter(|n| at(1.0, &format!("10.1.0.{n}")).is_some()).count();
        assert_eq!(lines + 4, MAX_ADDRESSES);
        assert_eq!(at(9.9, "10.0.0.1"), None);
        assert_eq!(at(10.0, "10.0.0.1"), Some(" (173 more since the last line)".to_owned()));
        assert_eq!(at(10.1, "10.1.0.199"), Some(String::new()));
    }
}
