//! A call without secret, token or effect: finds out whether a server answers, how its clock differs from this host's,
//! and which address it sees this host under.

use std::time::Duration;

use time::UtcDateTime;

use super::UpstreamError;
use super::client::{Client, HttpResponse};
use super::mirror::into_central;
use super::wechat::{errcode, parse_object};
use crate::model::errcode::{CallKind, Platform, Refusal};
use crate::os::clock::Clock;

/// What a server's answer reveals.
#[derive(Debug)]
pub(crate) struct PingReply {
    pub(crate) took: Duration,
    /// How far this host's clock is ahead of the server's, precise to about a second; `None` if the answer has no time.
    pub(crate) ahead: Option<time::Duration>,
    /// This host's address as WeChat sees it, if the answer names it.
    pub(crate) seen_from: Option<String>,
}

/// Pings WeChat or WeCom with a call that lacks its token, which is refused with 41001.
pub(crate) fn wechat(
    client: &Client,
    platform: Platform,
    clock: &dyn Clock,
    timeout: Duration,
) -> Result<PingReply, UpstreamError> {
    ping(client, "/cgi-bin/get_api_domain_ip", clock, timeout, |response| {
        let body = parse_object(response)?;
        let Some(code) = errcode(&body)? else {
            return Err(UpstreamError::Malformed("an answer without an errcode".to_owned()));
        };
        let text = body["errmsg"].as_str().unwrap_or_default();
        let refusal = Refusal::new(code, text, CallKind::UsesToken, platform);
        Ok((refusal.ip().map(str::to_owned), refusal.answered_at()))
    })
}

/// Pings another wxtoken. Any status but a redirect will do: a server that denies access is there.
pub(crate) fn wxtoken(
    client: &Client,
    clock: &dyn Clock,
    timeout: Duration,
) -> Result<PingReply, UpstreamError> {
    ping(client, "/healthz", clock, timeout, |response| match response.status {
        300..=399 => {
            let what = format!("a redirect (HTTP {})", response.status);
            Err(into_central(UpstreamError::Malformed(what)))
        }
        _ => Ok((None, None)),
    })
}

/// `read` returns the address and the Unix time named in the response, if any.
fn ping(
    client: &Client,
    path: &str,
    clock: &dyn Clock,
    timeout: Duration,
    read: impl FnOnce(&HttpResponse) -> Result<(Option<String>, Option<i64>), UpstreamError>,
) -> Result<PingReply, UpstreamError> {
    let (sent_at, started) = (clock.now().wall, clock.instant());
    let response = client.get(path, &[], timeout)?;
    let took = clock.instant().saturating_duration_since(started);
    let (seen_from, answered_at) = read(&response)?;
    let date = response.date.as_deref().and_then(|date| httpdate::parse_http_date(date).ok());
    let answered_at = answered_at.and_then(|secs| UtcDateTime::from_unix_timestamp(secs).ok());
    let server_time = date.map(UtcDateTime::from).or(answered_at);
    Ok(PingReply { took, ahead: server_time.map(|it| clock_lead(sent_at, took, it)), seen_from })
}

/// Returns how far the local clock is ahead of `server_time`, which was read at some instant of the call and rounded down
/// to seconds. Zero if that alone explains the difference.
fn clock_lead(sent_at: UtcDateTime, took: Duration, server_time: UtcDateTime) -> time::Duration {
    let earliest = sent_at - time::Duration::SECOND;
    let latest = sent_at.saturating_add(time::Duration::try_from(took).unwrap_or_default());
    match server_time {
        _ if server_time > latest => latest - server_time,
        _ if server_time < earliest => earliest - server_time,
        _ => time::Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_within_the_call_and_the_rounding_is_none() {
        let sent_at = UtcDateTime::from_unix_timestamp(1_000).unwrap();
        for (server_secs, expected) in
            [(990, 9), (998, 1), (999, 0), (1_000, 0), (1_002, 0), (1_003, -1), (1_100, -98)]
        {
            let server_time = UtcDateTime::from_unix_timestamp(server_secs).unwrap();
            let lead = clock_lead(sent_at, Duration::from_secs(2), server_time);
            assert_eq!(lead.whole_seconds(), expected, "{server_secs}");
        }
    }
}
