//! A call that asks for nothing: whether a server is there at the end of the way, by which clock it goes, and from where
//! it sees us. It takes no secret and no token, and changes nothing.

use std::time::{Duration, Instant};

use time::format_description::well_known::Rfc2822;
use time::{OffsetDateTime, UtcDateTime};

use super::UpstreamError;
use super::client::{Answer, Client};
use super::mirror::of_central;
use super::wechat::{errcode, object};
use crate::model::errcode::{CallKind, Platform, Refusal};

/// What there is to hear.
#[derive(Debug)]
pub(crate) struct PingReply {
    pub(crate) took: Duration,
    /// How much this host's clock is ahead of the server's; `None` if that does not tell. To the second or so.
    pub(crate) ahead: Option<time::Duration>,
    /// The address that WeChat sees, where it tells.
    pub(crate) seen_from: Option<String>,
}

/// Greets WeChat, or WeCom: without a token that refuses (41001), and tells what there is to hear.
pub(crate) fn wechat(
    client: &Client,
    platform: Platform,
    timeout: Duration,
) -> Result<PingReply, UpstreamError> {
    exchange(client, "/cgi-bin/get_api_domain_ip", timeout, |answer| {
        let body = object(answer)?;
        let Some(code) = errcode(&body)? else {
            return Err(UpstreamError::Malformed("an answer without an errcode".to_owned()));
        };
        let text = body["errmsg"].as_str().unwrap_or_default();
        let refusal = Refusal::new(code, text, CallKind::UsesToken, platform);
        Ok((refusal.ip().map(str::to_owned), refusal.answered_at()))
    })
}

/// Greets another wxtoken.
pub(crate) fn wxtoken(client: &Client, timeout: Duration) -> Result<PingReply, UpstreamError> {
    exchange(client, "/healthz", timeout, |answer| match answer.status {
        300..=399 => {
            let what = format!("a redirect (HTTP {})", answer.status);
            Err(of_central(UpstreamError::Malformed(what)))
        }
        // One who does not let us in is there.
        _ => Ok((None, None)),
    })
}

fn exchange(
    client: &Client,
    path: &str,
    timeout: Duration,
    read: impl FnOnce(&Answer) -> Result<(Option<String>, Option<i64>), UpstreamError>,
) -> Result<PingReply, UpstreamError> {
    let (asked_at, begun) = (UtcDateTime::now(), Instant::now());
    let answer = client.get(path, &[], timeout)?;
    let took = begun.elapsed();
    let (seen_from, answered_at) = read(&answer)?;
    let date = answer.date.as_deref().and_then(|date| OffsetDateTime::parse(date, &Rfc2822).ok());
    let theirs = date
        .map(OffsetDateTime::unix_timestamp)
        .or(answered_at)
        .and_then(|secs| UtcDateTime::from_unix_timestamp(secs).ok());
    // They looked at theirs some time on the way, and told whole seconds of it.
    let ahead = theirs.map(|theirs| {
        let (earliest, latest) =
            (asked_at, asked_at.saturating_add(time::Duration::try_from(took).unwrap_or_default()));
        match theirs {
            _ if theirs > latest => latest - theirs,
            _ if theirs < earliest - time::Duration::SECOND => {
                earliest - time::Duration::SECOND - theirs
            }
            _ => time::Duration::ZERO,
        }
    });
    Ok(PingReply { took, ahead, seen_from })
}
