//! Why a refresh brought no new token, and what follows: the message, the exit status, and for how long another attempt is
//! pointless.

use std::fmt;
use std::time::Duration;

use time::UtcDateTime;

use super::{FOREIGN, LOCKED};
use crate::error::{Exit, in_order};
use crate::language::in_both;
use crate::os::local_time::local;
use crate::upstream::UpstreamError;

/// Why there is no new token. The published document stays; after a lost answer it expires earlier.
#[derive(Debug)]
pub(crate) enum RefreshError {
    /// No token was issued, and the published one is as good as before.
    Upstream(UpstreamError),
    /// A token may have been minted and was not received. The published token may be invalid after the overlap; its document
    /// expires then.
    AnswerLost { error: UpstreamError, ends_at: UtcDateTime },
    /// Another process held the lock until the deadline.
    Locked,
    /// A fault of this machine.
    Local(anyhow::Error),
    /// The place holds another account's document.
    Foreign { place: String, appid: String },
}

impl RefreshError {
    /// Returns for how long another attempt is pointless; `None` if that is unknown and the caller's own backoff applies.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            RefreshError::Upstream(error) | RefreshError::AnswerLost { error, .. } => {
                error.retry_after()
            }
            RefreshError::Locked | RefreshError::Local(_) | RefreshError::Foreign { .. } => None,
        }
    }

    /// Returns the exit status for this error.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            RefreshError::Upstream(error) | RefreshError::AnswerLost { error, .. } => error.exit(),
            RefreshError::Locked => Exit::Locked,
            RefreshError::Local(err) => Exit::from_error(err),
            RefreshError::Foreign { .. } => Exit::Usage,
        }
    }
}

/// Returns sentences for people about what a lost answer costs.
pub(crate) fn answer_lost(ends_at: UtcDateTime) -> String {
    let ends = local(ends_at);
    in_both(
        format!(
            "The answer may be lost, and the published token with it: it ends at {ends} now; the next refresh brings another."
        ),
        format!(
            "应答可能已丢失，已发布的 token 可能随之失效，其有效期已改为至 {ends}，再次刷新即可。"
        ),
    )
}

impl fmt::Display for RefreshError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RefreshError::Upstream(error) => error.fmt(f),
            RefreshError::AnswerLost { error, ends_at } => {
                write!(f, "{error} {}", answer_lost(*ends_at))
            }
            RefreshError::Locked => f.write_str(&LOCKED.first([])),
            RefreshError::Local(err) => f.write_str(&in_order(err)),
            RefreshError::Foreign { place, appid } => f.write_str(&FOREIGN.first([place, appid])),
        }
    }
}

impl From<anyhow::Error> for RefreshError {
    fn from(err: anyhow::Error) -> RefreshError {
        RefreshError::Local(err)
    }
}
