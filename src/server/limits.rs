//! How much of our memory and time a caller may take. Says how much; enforces nothing.

use std::time::Duration;

/// The largest request line and headers together: an SDK sends a few hundred bytes. hyper reads no less than this.
pub(crate) const MAX_HEAD: usize = 8 * 1024; // bytes

/// The largest body that is taken: WeChat's own requests have a few hundred bytes.
pub(crate) const MAX_BODY: u64 = 16 * 1024; // bytes

/// How long a request may take to arrive, from its first byte; the first one, from the connection's beginning, its TLS
/// handshake included.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long it may take to find out what to answer: longer than anybody waits for WeChat here.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a caller may take to read an answer: as long as it may take to ask.
pub(crate) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a kept-alive connection may be silent: longer than the minute between two runs of a cron job is no use.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a caller has to read the answer after which we close, and to close its own side, before the connection is
/// cut.
pub(crate) const LINGERING_TIMEOUT: Duration = Duration::from_secs(2);

/// How much of what still comes in that time is read and thrown away. A connection that is closed with bytes unread is
/// reset, and the caller may lose the answer; this much covers a megabyte sent by mistake.
pub(crate) const MAX_LINGERING: usize = 2 * 1024 * 1024; // bytes

/// How long answers under way may take to finish after SIGTERM: well under the 90 s after which systemd kills.
pub(crate) const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);
