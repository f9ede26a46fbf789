//! Rate limits for the lines on stderr that clients can cause: of each kind at most one in ten seconds, or one for each
//! address, with the number of those that were suppressed. Reads no clock.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::time::Duration;

use tokio::time::Instant;

use crate::log::{self, Fields, Level};
use crate::message::action_first;
use crate::model::status::ClientIdentity;
use crate::os::descriptors::shortage;
use crate::server::access::forwarded::ClientAddress;
use crate::server::access::peer::{NetworkId, Peer};
use crate::server::state::log_messages as messages;

// The names of the events that these lines are about.
const REFUSED: &str = "client_refused";
const NO_TLS: &str = "tls_failed";
const EVICTED: &str = "connection_evicted";
const SHARE_REACHED: &str = "share_reached";
const FULL: &str = "connections_full";
const NOT_PASSED_ON: &str = "call_not_passed_on";
const TOO_MANY_CALLS: &str = "too_many_calls";
const NOT_ACCEPTED: &str = "connection_not_accepted";

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
    too_many_calls: Throttle,
    too_many_calls_of_client: Throttle,
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
        let line = match client {
            ClientAddress::Direct(it) => messages::REFUSED.with([&it, &why]),
            ClientAddress::Forwarded(it) => messages::REFUSED_THROUGH.with([&it, &peer, &why]),
        };
        self.refused.borrow_mut().of(kind).report(now, REFUSED, client.peer(), line);
    }

    /// Reports that the TLS handshake with an allowed peer failed for a reason of this kind, which `why` explains.
    pub(crate) fn failed_handshake(
        &self,
        now: Instant,
        kind: &'static str,
        peer: Peer,
        why: impl fmt::Display,
    ) {
        let line = messages::NO_TLS.with([&peer, &why]);
        self.failed_handshakes.borrow_mut().of(kind).report(now, NO_TLS, peer, line);
    }

    /// Reports that a connection was evicted that had not had its last answer.
    pub(crate) fn evicted(&self, now: Instant, capacity: usize) {
        self.evicted.report(now, EVICTED, messages::EVICTED.with([&capacity]));
    }

    /// Reports that a connection was evicted for another one of the same address.
    pub(crate) fn evicted_for_itself(&self, now: Instant, peer: Peer, share: usize) {
        let line = messages::EVICTED_FOR_ITSELF.with([&peer, &share]);
        self.evicted_for_itself.borrow_mut().report(now, SHARE_REACHED, peer, line);
    }

    /// Reports that no connection can be evicted, so that new ones wait.
    pub(crate) fn all_in_flight(&self, now: Instant, capacity: usize) {
        self.all_in_flight.report(now, FULL, messages::ALL_IN_FLIGHT.with([&capacity]));
    }

    /// Reports that a call was refused as too many wait for WeChat.
    pub(crate) fn too_many_calls(&self, now: Instant) {
        self.too_many_calls.report(now, TOO_MANY_CALLS, messages::TOO_MANY_CALLS.text());
    }

    /// Reports that a call was refused as this many of its client wait for WeChat, which is its share.
    pub(crate) fn too_many_calls_of_client(
        &self,
        now: Instant,
        client: &ClientIdentity,
        share: usize,
    ) {
        let line = messages::TOO_MANY_CALLS_OF_CLIENT.with([client, &share]);
        self.too_many_calls_of_client.report(now, TOO_MANY_CALLS, line);
    }

    /// Reports that the gateway cannot reach WeChat for calls of this account, as the message `why` says.
    pub(crate) fn unreachable(&self, now: Instant, account: &str, why: &str) {
        let mut throttles = self.unreachable.borrow_mut();
        let throttle = throttles.entry(account.to_owned()).or_default();
        throttle.report(now, NOT_PASSED_ON, format!("{account}: {}", action_first(why)));
    }

    /// Reports that a connection could not be accepted.
    pub(crate) fn not_accepted(&self, now: Instant, err: &io::Error) {
        let mut limits = self.not_accepted.borrow_mut();
        let limit = limits.of(err.raw_os_error());
        let message = match shortage::is_shortage(err) {
            true => &messages::NO_DESCRIPTORS,
            false => &messages::NOT_ACCEPTED,
        };
        let line = message.quoting([], err);
        limit.report(now, NOT_ACCEPTED, line);
    }

    /// Writes the lines whose time has come although nothing more of their kind happens: how many there were is said in any
    /// case. Called again and again.
    pub(crate) fn tell_rest(&self, now: Instant) {
        for (event, limits) in [(REFUSED, &self.refused), (NO_TLS, &self.failed_handshakes)] {
            let mut limits = limits.borrow_mut();
            limits.0.iter_mut().for_each(|(_, limit)| write(event, &[], limit.rest(now)));
        }
        write(SHARE_REACHED, &[], self.evicted_for_itself.borrow_mut().rest(now));
        write(EVICTED, &[], self.evicted.rest(now));
        write(FULL, &[], self.all_in_flight.rest(now));
        write(TOO_MANY_CALLS, &[], self.too_many_calls.rest(now));
        write(TOO_MANY_CALLS, &[], self.too_many_calls_of_client.rest(now));
        let not_accepted = self.not_accepted.borrow();
        not_accepted.0.iter().for_each(|(_, limit)| write(NOT_ACCEPTED, &[], limit.rest(now)));
        for (account, limit) in &*self.unreachable.borrow() {
            write(NOT_PASSED_ON, &[("account", account)], limit.rest(now));
        }
    }
}

/// Lines that were suppressed since the last one: how many, and the last of them.
#[derive(Debug, Default)]
struct Suppressed {
    count: u64,
    last: String,
}

impl Suppressed {
    fn add(&mut self, line: String) {
        self.count += 1;
        self.last = line;
    }

    /// Returns the text of a line that is written now, with the number of those that were suppressed.
    fn take_with(&mut self, line: String) -> String {
        match std::mem::take(self).count {
            0 => line,
            count => messages::MORE.with([&line, &count]),
        }
    }

    /// Returns the text of the last one, with the number of the others, if `may_be_written`. `None` if none was suppressed.
    fn take_last_if(&mut self, may_be_written: bool) -> Option<String> {
        if !may_be_written || self.count == 0 {
            return None;
        }
        let Suppressed { count, last } = std::mem::take(self);
        self.count = count - 1;
        Some(self.take_with(last))
    }
}

/// The rate limit of one kind of line.
#[derive(Debug, Default)]
struct Throttle {
    written_at: Cell<Option<Instant>>,
    suppressed: RefCell<Suppressed>,
}

impl Throttle {
    fn report(&self, now: Instant, event: &str, line: String) {
        write(event, &[], self.admit(now, line));
    }

    /// Returns the text of this line if it may be written now. Returns `None` if it is suppressed.
    fn admit(&self, now: Instant, line: String) -> Option<String> {
        let mut suppressed = self.suppressed.borrow_mut();
        if !is_over(self.written_at.get(), now) {
            suppressed.add(line);
            return None;
        }
        self.written_at.set(Some(now));
        Some(suppressed.take_with(line))
    }

    /// Returns the text of the last suppressed line, if it may be written now.
    fn rest(&self, now: Instant) -> Option<String> {
        let is_over = is_over(self.written_at.get(), now);
        let last = self.suppressed.borrow_mut().take_last_if(is_over)?;
        self.written_at.set(Some(now));
        Some(last)
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
    suppressed: Suppressed,
    /// The address of the last suppressed line.
    last: Option<NetworkId>,
}

impl AddressThrottle {
    fn report(&mut self, now: Instant, event: &str, peer: Peer, line: String) {
        write(event, &[("address", &peer)], self.admit(now, peer, line));
    }

    /// Does the same as [`Throttle::admit`] for a line about `peer`.
    fn admit(&mut self, now: Instant, peer: Peer, line: String) -> Option<String> {
        if is_over(self.began_at, now) {
            self.began_at = Some(now);
            self.written.clear();
        }
        let id = peer.network_id();
        if self.written.len() >= MAX_ADDRESSES || self.written.contains(&id) {
            self.suppressed.add(line);
            self.last = Some(id);
            return None;
        }
        self.written.push(id);
        Some(self.suppressed.take_with(line))
    }

    /// Does the same as [`Throttle::rest`].
    fn rest(&mut self, now: Instant) -> Option<String> {
        let last = self.suppressed.take_last_if(is_over(self.began_at, now))?;
        self.began_at = Some(now);
        self.written.clear();
        self.written.extend(self.last.take());
        Some(last)
    }
}

/// Whether an interval is over that began at this instant.
fn is_over(began_at: Option<Instant>, now: Instant) -> bool {
    began_at.is_none_or(|at| now.duration_since(at) >= LINE_INTERVAL)
}

fn write(event: &str, fields: &Fields<'_>, line: Option<String>) {
    if let Some(line) = line {
        log::write_event(Level::Error, event, fields, format_args!("serve: {line}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::Language;

    fn resolved(line: Option<String>) -> Option<String> {
        line.map(|line| Language::English.resolve(&line).into_owned())
    }

    #[test]
    fn one_line_in_ten_seconds_is_written_with_the_number_of_suppressed_ones() {
        let throttle = Throttle::default();
        let start = Instant::now();
        let instant = |secs: f64| start + Duration::from_secs_f64(secs);
        let at = |secs: f64| resolved(throttle.admit(instant(secs), format!("line at {secs}")));
        let rest = |secs: f64| resolved(throttle.rest(instant(secs)));
        assert_eq!(rest(0.0), None);
        assert_eq!(at(0.0), Some("line at 0".to_owned()));
        assert_eq!((at(0.1), at(9.9)), (None, None));
        assert_eq!(at(10.0), Some("line at 10 (2 more since the last line)".to_owned()));
        assert_eq!(at(19.0), None);
        assert_eq!(at(30.0), Some("line at 30 (1 more since the last line)".to_owned()));
        assert_eq!(at(41.0), Some("line at 41".to_owned()));
        // The last ones are told when their time has come.
        assert_eq!((at(42.0), at(43.0), at(44.0), rest(50.9)), (None, None, None, None));
        assert_eq!(rest(51.0), Some("line at 44 (2 more since the last line)".to_owned()));
        assert_eq!((rest(70.0), at(60.9)), (None, None));
        assert_eq!(rest(61.0), Some("line at 60.9".to_owned()));
    }

    #[test]
    fn each_address_has_a_line_in_ten_seconds_up_to_a_bound() {
        let mut throttle = AddressThrottle::default();
        let start = Instant::now();
        let mut at = |secs: f64, ip: &str| {
            let peer = Peer::Ip(ip.parse().expect("an address"));
            let now = start + Duration::from_secs_f64(secs);
            resolved(throttle.admit(now, peer, "line".to_owned()))
        };
        assert_eq!(at(0.0, "10.0.0.1"), Some("line".to_owned()));
        for _ in 0..100 {
            assert_eq!(at(0.1, "10.0.0.1"), None);
        }
        assert_eq!(at(0.2, "10.0.0.2"), Some("line (100 more since the last line)".to_owned()));
        // A host with IPv6 has a whole /64 of addresses.
        assert_eq!(at(0.3, "2001:db8::1"), Some("line".to_owned()));
        assert_eq!(at(0.4, "2001:db8::2"), None);
        assert_eq!(
            at(0.5, "2001:db8:0:1::2"),
            Some("line (1 more since the last line)".to_owned())
        );
        let lines = (0..200).filter(|n| at(1.0, &format!("10.1.0.{n}")).is_some()).count();
        assert_eq!(lines + 4, MAX_ADDRESSES);
        assert_eq!(at(9.9, "10.0.0.1"), None);
        assert_eq!(at(10.0, "10.0.0.1"), Some("line (173 more since the last line)".to_owned()));
        assert_eq!(at(10.1, "10.1.0.199"), Some("line".to_owned()));
        assert_eq!((at(10.2, "10.0.0.1"), at(10.3, "10.1.0.199")), (None, None));
        // The last ones are told when their time has come, and the address has had its line.
        let rest = resolved(throttle.rest(start + Duration::from_secs(20)));
        assert_eq!(rest, Some("line (1 more since the last line)".to_owned()));
        let mut at = |ip: &str| {
            let peer = Peer::Ip(ip.parse().expect("an address"));
            resolved(throttle.admit(start + Duration::from_secs(21), peer, "line".to_owned()))
        };
        assert_eq!(
            (at("10.1.0.199"), at("10.0.0.1")),
            (None, Some("line (1 more since the last line)".to_owned()))
        );
    }
}
