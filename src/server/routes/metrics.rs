//! `GET /metrics`: the accounts' tokens and tickets, the refreshes, the requests and the connections, for Prometheus.
//! Counts nothing itself. No label holds text that a caller chose.

use time::UtcDateTime;

use crate::model::exposition::{self, Exposition, Metric, NO_LABELS};
use crate::model::status::{AccountStatus, DocumentStatus, RefreshStatus};
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

const TROUBLE_HOOK_FAILURE: Metric = Metric::gauge(
    "wxtoken_trouble_hook_last_failure_timestamp_seconds",
    "When the account's on_trouble last failed, if it has not run well since; 0 if all is well.",
);

const REQUESTS: Metric = Metric::counter(
    "wxtoken_http_requests_total",
    "Requests that were answered, by route and HTTP status; what is no route is other.",
);
const REFUSALS: Metric = Metric::counter(
    "wxtoken_http_refused_total",
    "Callers that did not get what they asked for, by reason; forbidden ones may not have asked yet.",
);

const CALLS: Metric = Metric::counter(
    "wxtoken_gateway_calls_total",
    "Calls that were passed on to WeChat, by what came of them; healed ones were repeated with another token.",
);

const CONNECTIONS: Metric =
    Metric::gauge("wxtoken_connections", "Connections that are open, this one included.");
const CONNECTIONS_LIMIT: Metric = Metric::gauge(
    "wxtoken_connections_limit",
    "How many connections may be open; with one more, the one that has been idle for longest makes room.",
);
const ACCEPTED: Metric = Metric::counter(
    "wxtoken_connections_accepted_total",
    "Connections that have come in, those of addresses that are not allowed included.",
);
const EVICTED: Metric = Metric::counter(
    "wxtoken_connections_evicted_total",
    "Connections that were closed to make room for others.",
);

const RELOADED: Metric = Metric::gauge(
    "wxtoken_reload_last_successful",
    "Whether these files are followed, and what was in them last is used: 1, or 0 if what was good before is used.",
);

const CERTIFICATE_END: Metric = Metric::gauge(
    "wxtoken_tls_certificate_expiry_timestamp_seconds",
    "When the server's certificate ends.",
);

/// The body of `/metrics`, about these accounts.
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

    let calls = accounts.iter().flat_map(|it| {
        state.counters.calls(&it.name).into_iter().map(|(result, errcode, count)| {
            let (account, result) = (it.name.clone(), result.to_owned());
            ([("account", account), ("result", result), ("errcode", errcode)], count)
        })
    });
    exposition.write(&CALLS, calls);

    let connections = &state.connections;
    exposition.write(&CONNECTIONS, [(NO_LABELS, connections.open())]);
    exposition.write(&CONNECTIONS_LIMIT, [(NO_LABELS, connections.capacity())]);
    exposition.write(&ACCEPTED, [(NO_LABELS, state.counters.connections())]);
    exposition.write(&EVICTED, [(NO_LABELS, connections.evictions())]);
    let reloads = state.reloads.borrow();
    let reloads = reloads.iter().map(|(files, good)| ([("files", *files)], u8::from(*good)));
    exposition.write(&RELOADED, reloads);
    let end = state.certificate_end.get().map(|end| (NO_LABELS, end.unix_timestamp()));
    exposition.write(&CERTIFICATE_END, end);
    exposition.into_text()
}

fn write_accounts(exposition: &mut Exposition, accounts: &[AccountStatus]) {
    exposition.write_token_instants(accounts);
    let live = accounts.iter().map(|it| ([("account", &it.name)], u8::from(it.token.is_live())));
    exposition.write(&TOKEN_LIVE, live);

    exposition.write_ticket_instants(accounts);
    let live = exposition::tickets(accounts).map(|(labels, it)| (labels, u8::from(it.is_live())));
    exposition.write(&TICKET_LIVE, live);
    let failed_at = |it: &DocumentStatus| secs(it.failure.as_ref().map(|failure| failure.at));
    let refreshed = accounts.iter().filter(|it| it.refresh.is_some());
    let failures = exposition::tickets(refreshed).map(|(labels, it)| (labels, failed_at(it)));
    exposition.write(&TICKET_FAILURE, failures);

    let refreshed = accounts.iter().filter_map(|it| Some((it, it.refresh.as_ref()?)));
    let instants = |instant: fn(&RefreshStatus) -> Option<UtcDateTime>| {
        let samples = refreshed.clone();
        samples.map(move |(it, refresh)| ([("account", &it.name)], secs(instant(refresh))))
    };
    exposition.write(&FETCH_SUCCESS, instants(|refresh| refresh.succeeded_at));
    let failures = refreshed.clone();
    let failures = failures.map(|(it, _)| ([("account", &it.name)], failed_at(&it.token)));
    exposition.write(&FETCH_FAILURE, failures);
    exposition.write(&FETCH_NEXT, instants(|refresh| refresh.next_at));
    let hooks = refreshed.clone().filter_map(|(it, refresh)| {
        Some(([("account", &it.name)], secs(refresh.hook.as_ref()?.failed_at)))
    });
    exposition.write(&HOOK_FAILURE, hooks);
    let hooks = refreshed.clone().filter_map(|(it, refresh)| {
        Some(([("account", &it.name)], secs(refresh.trouble_hook.as_ref()?.failed_at)))
    });
    exposition.write(&TROUBLE_HOOK_FAILURE, hooks);
    let attempts = refreshed.flat_map(|(it, refresh)| {
        refresh.attempts.iter().map(|(result, errcode, count)| {
            let (account, result) = (it.name.clone(), (*result).to_owned());
            let labels =
                [("account", account), ("result", result), ("errcode", errcode.to_string())];
            (labels, *count)
        })
    });
    exposition.write(&FETCH_ATTEMPTS, attempts);
}

/// An instant in Unix seconds; 0 stands for never.
fn secs(at: Option<UtcDateTime>) -> i64 {
    at.map_or(0, UtcDateTime::unix_timestamp)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::kind::TicketType;
    use crate::model::status::{HookStatus, Problem, Published, RefreshFailure};

    fn at(secs: i64) -> UtcDateTime {
        UtcDateTime::from_unix_timestamp(secs).unwrap()
    }

    fn samples(accounts: &[AccountStatus]) -> Vec<String> {
        let mut exposition = Exposition::default();
        write_accounts(&mut exposition, accounts);
        let text = exposition.into_text();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    /// A document that is there, or is missing, and the second at which it last could not be refreshed.
    fn document(is_there: bool, failed_at: Option<i64>) -> DocumentStatus {
        let published = Published {
            appid: "wx1".to_owned(),
            created_at: at(1_000),
            expires_at: at(8_200),
            expires_in: Duration::from_secs(7200),
            life: Duration::from_secs(100),
            is_due: true,
            fingerprint: "ba7816bf".to_owned(),
        };
        let message = "WeChat refused".to_owned();
        DocumentStatus {
            place: "/d/shop.json".to_owned(),
            published: if is_there { Ok(published) } else { Err(Problem::Missing) },
            is_dead: false,
            failure: failed_at.map(|secs| RefreshFailure { at: at(secs), message }),
            trouble_since: None,
            refusal: None,
        }
    }

    fn account(name: &str, token: DocumentStatus, refresh: Option<RefreshStatus>) -> AccountStatus {
        let ticket = |kind, document| (TicketType::parse(kind).unwrap(), document);
        AccountStatus {
            name: name.to_owned(),
            appid: None,
            token,
            tickets: vec![
                ticket("jsapi", document(true, None)),
                ticket("wx_card", document(false, Some(7))),
            ],
            refresh,
        }
    }

    #[test]
    fn an_accounts_metrics_are_instants_and_0_stands_for_never() {
        let refresh = RefreshStatus {
            succeeded_at: Some(at(1_001)),
            next_at: None,
            attempts: vec![("ok", 0, 3), ("refused", 40164, 2)],
            hook: Some(HookStatus { failed_at: Some(at(900)) }),
            trouble_hook: Some(HookStatus { failed_at: Some(at(950)) }),
        };
        let dead = DocumentStatus { is_dead: true, ..document(true, Some(8_000)) };
        let shop = account("shop", dead, Some(refresh));
        let branch = account("branch", document(false, None), None);
        assert_eq!(
            samples(&[branch, shop]),
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
                r#"wxtoken_trouble_hook_last_failure_timestamp_seconds{account="shop"} 950"#,
                r#"wxtoken_fetch_attempts_total{account="shop",result="ok",errcode="0"} 3"#,
                r#"wxtoken_fetch_attempts_total{account="shop",result="refused",errcode="40164"} 2"#,
            ]
        );
    }
}
