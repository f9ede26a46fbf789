//! What Prometheus reads: the tokens' instants, what came of asking WeChat, and what callers got. Counters nothing itself,
//! and has no label that a caller can choose.

use time::UtcDateTime;

use crate::model::exposition::{
    Exposition, Metric, NO_LABELS, TICKET_EXPIRY, TOKEN_CREATED, TOKEN_EXPIRY,
};
use crate::model::status::{AccountStatus, RefreshStatus, TicketStatus, TokenStatus};
use crate::server::state::ServerState;

const BUILD: Metric = Metric::gauge("wxtoken_build_info", "Which wxtoken this is; always 1.");

const TOKEN_LIVE: Metric = Metric::gauge(
    "wxtoken_token_live",
    "Whether there is a token to hand out: 1, or 0 where it has expired, WeChat says it is dead, or there is none.",
);

const TICKET_LIVE: Metric = Metric::gauge(
    "wxtoken_ticket_live",
    "Whether there is a ticket of this type to hand out: 1, or 0 where it has expired or there is none.",
);
const TICKET_FAILURE: Metric = Metric::gauge(
    "wxtoken_ticket_last_failure_timestamp_seconds",
    "When WeChat last gave no ticket of this type, if it has given none since; 0 if all is well.",
);

const FETCH_SUCCESS: Metric = Metric::gauge(
    "wxtoken_fetch_last_success_timestamp_seconds",
    "When WeChat last gave a token; 0 if it has not since the process began.",
);
const FETCH_FAILURE: Metric = Metric::gauge(
    "wxtoken_fetch_last_failure_timestamp_seconds",
    "When WeChat last gave no token, if it has given none since; 0 if all is well.",
);
const FETCH_NEXT: Metric = Metric::gauge(
    "wxtoken_fetch_next_timestamp_seconds",
    "When WeChat is to be asked again at the latest; 0 if that is not settled.",
);
const FETCH_ATTEMPTS: Metric = Metric::counter(
    "wxtoken_fetch_attempts_total",
    "How often WeChat was asked, by what came of it; errcode is 0 where WeChat named none.",
);

const HOOK_FAILURE: Metric = Metric::gauge(
    "wxtoken_hook_last_failure_timestamp_seconds",
    "When the account's on_change last failed, if it has not run well since; 0 if all is well.",
);

const REQUESTS: Metric = Metric::counter(
    "wxtoken_http_requests_total",
    "Requests that were answered, by route and HTTP status; what is no route is other.",
);
const REFUSALS: Metric = Metric::counter(
    "wxtoken_http_refused_total",
    "Callers who did not get what they asked for, by reason; forbidden ones may not have asked yet.",
);

const CONNECTIONS: Metric =
    Metric::gauge("wxtoken_connections", "Connections that are open, this one included.");
const CONNECTIONS_LIMIT: Metric = Metric::gauge(
    "wxtoken_connections_limit",
    "How many connections may be open; with one more, whoever is idle for longest makes room.",
);
const ACCEPTED: Metric = Metric::counter(
    "wxtoken_connections_accepted_total",
    "Connections that have come in, strangers' included.",
);
const EVICTED: Metric = Metric::counter(
    "wxtoken_connections_evicted_total",
    "Connections that were closed to make room for others.",
);

/// The answer of /metrics, about these accounts.
pub(crate) fn text(accounts: &[AccountStatus], state: &ServerState) -> String {
    let mut exposition = Exposition::default();
    exposition.write(&BUILD, [([("version", env!("CARGO_PKG_VERSION"))], 1)]);
    write_accounts(&mut exposition, accounts);

    let answers = state.counters.answers();
    let labelled = answers.into_iter().map(|((route, status), count)| {
        ([("route", route.to_owned()), ("status", status.to_string())], count)
    });
    exposition.write(&REQUESTS, labelled);
    let refusals = state.counters.refusals();
    let labelled = refusals.into_iter().map(|(reason, count)| ([("reason", reason)], count));
    exposition.write(&REFUSALS, labelled);

    let connections = &state.connections;
    exposition.write(&CONNECTIONS, [(NO_LABELS, connections.open())]);
    exposition.write(&CONNECTIONS_LIMIT, [(NO_LABELS, connections.capacity())]);
    exposition.write(&ACCEPTED, [(NO_LABELS, state.counters.connections())]);
    exposition.write(&EVICTED, [(NO_LABELS, connections.evictions())]);
    exposition.into_text()
}

fn write_accounts(exposition: &mut Exposition, accounts: &[AccountStatus]) {
    let tokens = |instant: fn(&TokenStatus) -> UtcDateTime| {
        let known = accounts.iter().map(move |seen| (seen, seen.token.as_ref().map(instant)));
        known.map(|(seen, at)| ([("account", &seen.name)], secs(at)))
    };
    exposition.write(&TOKEN_CREATED, tokens(|token| token.created_at));
    exposition.write(&TOKEN_EXPIRY, tokens(|token| token.expires_at));
    let live = accounts.iter().map(|seen| {
        let is_live = seen.token.as_ref().is_some_and(TokenStatus::is_live);
        ([("account", &seen.name)], u8::from(is_live))
    });
    exposition.write(&TOKEN_LIVE, live);

    let tickets = || accounts.iter().flat_map(|seen| seen.tickets.iter().map(move |it| (seen, it)));
    let labels = |(seen, ticket): (&AccountStatus, &TicketStatus)| {
        [("account", seen.name.clone()), ("type", ticket.kind.clone())]
    };
    let expiry = |ticket: &TicketStatus| secs(ticket.ticket.as_ref().map(|it| it.expires_at));
    exposition.write(&TICKET_EXPIRY, tickets().map(|it| (labels(it), expiry(it.1))));
    let live = tickets().map(|it| (labels(it), u8::from(it.1.is_live())));
    exposition.write(&TICKET_LIVE, live);
    let asking = tickets().filter(|(seen, _)| seen.asking.is_some());
    let failure = |ticket: &TicketStatus| secs(ticket.failure.as_ref().map(|(at, _)| *at));
    exposition.write(&TICKET_FAILURE, asking.map(|it| (labels(it), failure(it.1))));

    let asking = accounts.iter().filter_map(|seen| Some((seen, seen.asking.as_ref()?)));
    let fetches = |instant: fn(&RefreshStatus) -> Option<UtcDateTime>| {
        let known = asking.clone().map(move |(seen, asking)| (seen, instant(asking)));
        known.map(|(seen, at)| ([("account", &seen.name)], secs(at)))
    };
    exposition.write(&FETCH_SUCCESS, fetches(|asking| asking.succeeded_at));
    exposition.write(&FETCH_FAILURE, fetches(|asking| asking.failure.as_ref().map(|(at, _)| *at)));
    exposition.write(&FETCH_NEXT, fetches(|asking| asking.next_at));
    let hooks = asking.clone().filter_map(|(seen, asking)| {
        let hook = asking.hook.as_ref()?;
        Some(([("account", &seen.name)], secs(hook.failed_at)))
    });
    exposition.write(&HOOK_FAILURE, hooks);
    let attempts = asking.flat_map(|(seen, asking)| {
        asking.attempts.iter().map(|(result, errcode, count)| {
            let (account, result) = (seen.name.clone(), (*result).to_owned());
            let labels =
                [("account", account), ("result", result), ("errcode", errcode.to_string())];
            (labels, *count)
        })
    });
    exposition.write(&FETCH_ATTEMPTS, attempts);
}

fn secs(at: Option<UtcDateTime>) -> i64 {
    at.map_or(0, UtcDateTime::unix_timestamp)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::status::HookStatus;

    fn at(secs: i64) -> UtcDateTime {
        UtcDateTime::from_unix_timestamp(secs).unwrap()
    }

    fn told(accounts: &[AccountStatus]) -> Vec<String> {
        let mut exposition = Exposition::default();
        write_accounts(&mut exposition, accounts);
        let text = exposition.into_text();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn an_account_is_told_by_instants_and_0_is_never() {
        let token = TokenStatus {
            created_at: at(1_000),
            expires_at: at(8_200),
            life: Duration::from_secs(100),
            is_dead: true,
            expires_in: Duration::from_secs(7200),
            fingerprint: "ba7816bf".to_owned(),
        };
        let attempts = vec![("ok", 0, 3), ("refused", 40164, 2)];
        let asking = RefreshStatus {
            succeeded_at: Some(at(1_001)),
            failure: Some((at(8_000), "WeChat refused".to_owned())),
            next_at: None,
            attempts,
            hook: Some(HookStatus { failed_at: Some(at(900)) }),
        };
        let shop = AccountStatus {
            name: "shop".to_owned(),
            token: Some(token),
            asking: Some(asking),
            ..AccountStatus::default()
        };
        let branch = AccountStatus { name: "branch".to_owned(), ..AccountStatus::default() };
        let ticket = |kind: &str, ticket, failure: Option<i64>| TicketStatus {
            kind: kind.to_owned(),
            ticket,
            failure: failure.map(|secs| (at(secs), "WeChat refused".to_owned())),
        };
        let live = TokenStatus { is_dead: false, ..shop.token.clone().unwrap() };
        let tickets =
            || vec![ticket("jsapi", Some(live.clone()), None), ticket("wx_card", None, Some(7))];
        let shop = AccountStatus { tickets: tickets(), ..shop };
        let branch = AccountStatus { tickets: tickets(), ..branch };
        assert_eq!(
            told(&[branch, shop]),
            [
                r#"wxtoken_token_created_timestamp_seconds{account="branch"} 0"#,
                r#"wxtoken_token_created_timestamp_seconds{account="shop"} 1000"#,
                r#"wxtoken_token_expiry_timestamp_seconds{account="branch"} 0"#,
                r#"wxtoken_token_expiry_timestamp_seconds{account="shop"} 8200"#,
                r#"wxtoken_token_live{account="branch"} 0"#,
                r#"wxtoken_token_live{account="shop"} 0"#,
                r#"wxtoken_ticket_expiry_timestamp_seconds{account="branch",type="jsapi"} 8200"#,
                r#"wxtoken_ticket_expiry_timestamp_seconds{account="branch",type="wx_card"} 0"#,
                r#"wxtoken_ticket_expiry_timestamp_seconds{account="shop",type="jsapi"} 8200"#,
                r#"wxtoken_ticket_expiry_timestamp_seconds{account="shop",type="wx_card"} 0"#,
                r#"wxtoken_ticket_live{account="branch",type="jsapi"} 1"#,
                r#"wxtoken_ticket_live{account="branch",type="wx_card"} 0"#,
                r#"wxtoken_ticket_live{account="shop",type="jsapi"} 1"#,
                r#"wxtoken_ticket_live{account="shop",type="wx_card"} 0"#,
                r#"wxtoken_ticket_last_failure_timestamp_seconds{account="shop",type="jsapi"} 0"#,
                r#"wxtoken_ticket_last_failure_timestamp_seconds{account="shop",type="wx_card"} 7"#,
                r#"wxtoken_fetch_last_success_timestamp_seconds{account="shop"} 1001"#,
                r#"wxtoken_fetch_last_failure_timestamp_seconds{account="shop"} 8000"#,
                r#"wxtoken_fetch_next_timestamp_seconds{account="shop"} 0"#,
                r#"wxtoken_hook_last_failure_timestamp_seconds{account="shop"} 900"#,
                r#"wxtoken_fetch_attempts_total{account="shop",result="ok",errcode="0"} 3"#,
                r#"wxtoken_fetch_attempts_total{account="shop",result="refused",errcode="40164"} 2"#,
            ]
        );
    }
}
