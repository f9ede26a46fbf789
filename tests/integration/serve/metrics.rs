//! `GET /metrics`: what Prometheus reads, by its own tool's judgement; what is counted, and that no caller adds a series.
//! And that the alerts and the dashboard in contrib ask for what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::support::home::Home;
use crate::support::*;
use serde_json::Value;

/// A server with a live token.
fn serving(args: &[&str]) -> (Sandbox, Server) {
    let sandbox = Sandbox::asking("http://127.0.0.1:1");
    sandbox.publish("T0KEN_that_no_metric_shows", 7200, 0);
    let server = sandbox.serve(args);
    (sandbox, server)
}

/// The series of an answer and their values.
#[track_caller]
fn series(response: &Response) -> BTreeMap<String, u64> {
    assert_eq!(response.status, 200, "{response:?}");
    let lines = response.body.lines().filter(|line| !line.starts_with('#'));
    let parsed = lines.map(|line| {
        let (series, value) = line.rsplit_once(' ').expect("a value");
        (series.to_owned(), value.parse().expect("a whole number"))
    });
    parsed.collect()
}

/// The same for those of one metric, by their labels' text, without those that are 0.
#[track_caller]
fn counted(server: &Server, metric: &str) -> Vec<(String, u64)> {
    let labelled = |(series, value): (String, u64)| {
        let labels = series.strip_prefix(metric)?.strip_prefix('{')?.strip_suffix('}')?.to_owned();
        (value > 0).then_some((labels, value))
    };
    series(&server.get("/metrics")).into_iter().filter_map(labelled).collect()
}

#[track_caller]
fn value(server: &Server, metric: &str) -> u64 {
    series(&server.get("/metrics"))[metric]
}

/// A server that has something to tell of everything: of asking WeChat, too, in vain and not.
fn talkative() -> (Sandbox, WeChat, Server) {
    let wechat = WeChat::start();
    wechat.fault("errcode:40164");
    let sandbox = Sandbox::against(&wechat);
    let server = sandbox.serve_refreshing(&[]);
    eventually("WeChat has refused", || {
        !counted(&server, "wxtoken_fetch_attempts_total").is_empty()
    });
    wechat.fault("none");
    server.signal("HUP"); // The operator has mended it: now, and not in minutes.
    eventually("WeChat has given a token", || server.get("/readyz").status == 200);
    server.get("/token");
    server.get("/nowhere");
    (sandbox, wechat, server)
}

/// What promtool says of what it is given on stdin, and whether it is content; `None` where it is missing.
fn promtool(args: &[&str], stdin: &str) -> Option<(String, bool)> {
    let promtool = Command::new("promtool")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        skip("promtool is missing");
        return None;
    };
    promtool.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    Some((String::from_utf8_lossy(&said).into_owned(), output.status.success()))
}

#[test]
fn promtool_finds_nothing_to_say_about_the_answer() {
    let (_sandbox, _wechat, server) = talkative();
    let body = server.get("/metrics").body;
    assert!(body.contains("wxtoken_fetch_attempts_total{"), "{body}");
    let said = promtool(&["check", "metrics"], &body);
    assert!(said.is_none_or(|said| said == (String::new(), true)));
}

#[test]
fn the_answer_is_prometheus_text_and_every_metric_says_what_it_is() {
    let (_sandbox, server) = serving(&[]);
    let response = server.get("/metrics");
    for (name, value) in [
        ("content-type", "text/plain; version=0.0.4; charset=utf-8"),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("content-length", &response.body.len().to_string()),
    ] {
        assert_eq!(response.header(name), Some(value), "{response:?}");
    }
    let version = format!("wxtoken_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(series(&response)[&version], 1);
    for series in series(&response).keys() {
        let metric = series.split('{').next().unwrap();
        let kind = if metric.ends_with("_total") { "counter" } else { "gauge" };
        for line in [format!("\n# HELP {metric} "), format!("\n# TYPE {metric} {kind}\n")] {
            assert_eq!(format!("\n{}", response.body).matches(&line).count(), 1, "{line:?}");
        }
    }
    let mut caller = server.caller();
    caller.say("HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(caller.answer_to_head().status, 200);
    assert_eq!(caller.get("/healthz").status, 200, "nothing comes after the head");
}

#[test]
fn a_token_is_told_by_its_instants_as_status_tells_them_and_never_itself() {
    let (sandbox, server) = serving(&[]);
    for when in ["live", "expired", "missing"] {
        match when {
            "live" => {}
            "expired" => sandbox.publish("T0KEN_that_no_metric_shows", 7200, 9000),
            _ => fs::remove_file(sandbox.document_path()).unwrap(),
        }
        let told = sandbox.run(&["status", "--format", "prometheus"]).stdout;
        let body = server.get("/metrics").body;
        assert!(told.lines().count() == 6 && body.contains(&told), "{when}: {told}\n{body}");
        assert!(!body.contains("T0KEN"), "{body}");
    }
    // It only hands out, so there is nothing to tell of asking WeChat.
    assert!(!server.get("/metrics").body.contains("wxtoken_fetch_"));
}

#[test]
fn requests_are_counted_by_route_and_status() {
    let (sandbox, server) = serving(&[]);
    for path in ["/token", "/token/default", "/token/shop", "/readyz", "/nowhere", "/elsewhere"] {
        server.get(path);
    }
    server.get(&format!("/cgi-bin/token?grant_type=client_credential&appid={APPID}&secret=x"));
    server.get("/cgi-bin/token?grant_type=client_credential&appid=wx1&secret=x");
    server.send("DELETE /token HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    server.send("HEAD /token HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    server.send("nonsense\r\n\r\n");
    fs::remove_file(sandbox.document_path()).unwrap();
    server.get("/token");
    let expected = [
        // WeChat's own routes say 200 to everybody; why somebody was refused is told below.
        (r#"route="/cgi-bin/token",status="200""#, 2),
        (r#"route="/readyz",status="200""#, 1),
        (r#"route="/token",status="200""#, 3),
        (r#"route="/token",status="404""#, 1),
        (r#"route="/token",status="405""#, 1),
        (r#"route="/token",status="503""#, 1),
        (r#"route="other",status="400""#, 1),
        (r#"route="other",status="404""#, 2),
    ];
    let counted = |metric| counted(&server, metric);
    assert_eq!(
        counted("wxtoken_http_requests_total"),
        expected.map(|(labels, count)| (labels.to_owned(), count))
    );
    let expected = [
        (r#"reason="bad_request""#, 1),
        (r#"reason="method_not_allowed""#, 1),
        (r#"reason="no_such_account""#, 2),
        (r#"reason="no_token""#, 1),
        (r#"reason="not_found""#, 2),
    ];
    assert_eq!(
        counted("wxtoken_http_refused_total"),
        expected.map(|(labels, count)| (labels.to_owned(), count))
    );
    assert_eq!(value(&server, r#"wxtoken_http_requests_total{route="/metrics",status="200"}"#), 2);
}

/// Asks as somebody who is not allowed, and hears that he is not.
#[track_caller]
fn knock(server: &Server) {
    let at = SocketAddr::from(([127, 0, 0, 1], server.address().port()));
    let request = b"GET /token HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(exchange_over(connect_from("127.0.0.2", at), request).status, 403);
}

#[test]
fn strangers_are_counted_from_nought_before_they_have_asked_for_anything() {
    let (_sandbox, server) = serving(&["--allow", "127.0.0.1"]);
    let before = series(&server.get("/metrics"));
    for reason in ["forbidden", "forwarded", "misdirected", "unauthorized"] {
        let series = format!("wxtoken_http_refused_total{{reason=\"{reason}\"}}");
        assert_eq!(before[&series], 0, "a rise from nothing is none to Prometheus");
    }
    knock(&server);
    knock(&server);
    let forwarded = "X-Forwarded-For: 192.0.2.1\r\nHost: localhost";
    for header in [forwarded, "Host: evil.example", "Host: evil.example"] {
        server.send(&format!("GET /token HTTP/1.1\r\n{header}\r\nConnection: close\r\n\r\n"));
    }
    let expected = [
        (r#"reason="forbidden""#, 2),
        (r#"reason="forwarded""#, 1),
        (r#"reason="misdirected""#, 2),
    ];
    assert_eq!(
        counted(&server, "wxtoken_http_refused_total"),
        expected.map(|(labels, count)| (labels.to_owned(), count))
    );
    // A stranger has not asked: he was refused for where he came from.
    let requests = counted(&server, "wxtoken_http_requests_total");
    let asked: Vec<_> = requests.iter().filter(|(labels, _)| labels.contains("/token")).collect();
    let expected = [(r#"route="/token",status="403""#, 1), (r#"route="/token",status="421""#, 2)];
    assert!(
        asked.iter().map(|(labels, count)| (labels.as_str(), *count)).eq(expected),
        "{requests:?}"
    );
}

#[test]
fn connections_are_counted_while_they_are_open_when_they_come_and_when_they_make_room() {
    let (_sandbox, server) = serving(&["--max-connections", "3"]);
    let mut watcher = server.caller();
    let mut look = || {
        let series = series(&watcher.get("/metrics"));
        ["", "_limit", "_accepted_total", "_evicted_total"]
            .map(|what| series[&format!("wxtoken_connections{what}")])
    };
    assert_eq!(look(), [1, 3, 1, 0]);
    let (mut first, mut second) = (server.caller(), server.caller());
    for caller in [&mut first, &mut second] {
        assert_eq!(caller.get("/token").status, 200);
    }
    assert_eq!(look(), [3, 3, 3, 0]);
    let mut third = server.caller();
    assert_eq!(third.get("/token").status, 200);
    assert!(first.is_closed(), "it was idle for longest");
    assert_eq!(look(), [3, 3, 4, 1]);
    drop((second, third));
    eventually("who has hung up is not counted", || look() == [1, 3, 4, 1]);
}

/// What a caller who wants to fill Prometheus's disk might send.
fn hostile(n: usize) -> Vec<String> {
    let hosts = ["localhost".to_owned(), format!("evil-{n}.example")];
    let mut requests = Vec::new();
    for host in &hosts {
        for path in [
            format!("/{n}"),
            format!("/token/{n}"),
            format!("/token/default\"}}%20{n}"),
            format!("/ticket/{n}/{n}"),
            format!("/ticket/jsapi-{n}"),
            format!("/token?{n}={n}"),
            format!("/metrics?{n}"),
            format!("/metrics/{n}"),
            format!("/cgi-bin/token?grant_type=client_credential&appid=wx{n}&secret=k{n}"),
            format!("/cgi-bin/{n}"),
            format!("http://evil-{n}.example/token"),
        ] {
            for method in ["GET".to_owned(), format!("M{n}"), "POST".to_owned()] {
                requests.push(format!(
                    "{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer key-{n}\r\nUser-Agent: u{n}\r\n\
                     X-{n}: {n}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
                ));
            }
        }
        requests.push(format!("GET /token HTTP/1.1\r\nHost: {host}\r\nForwarded: for={n}\r\n\r\n"));
    }
    requests.push(format!("{n}\r\n\r\n"));
    requests.push(format!("GET /{n} HTTP/9.9\r\n\r\n"));
    requests
}

#[test]
fn whatever_callers_send_the_series_are_no_more_than_before() {
    let (_sandbox, server) = serving(&["--allow", "127.0.0.1"]);
    let mut known = None;
    for n in 0..5 {
        for request in hostile(n) {
            server.send(&request);
        }
        knock(&server);
        let series = series(&server.get("/metrics"));
        let names: Vec<String> = series.into_keys().collect();
        // The very first answer does not count itself yet.
        if n > 0 && known.is_none() {
            known = Some(names);
        } else if let Some(known) = &known {
            assert_eq!(&names, known, "round {n}");
        }
    }
    let known = known.unwrap();
    assert!(known.len() < 60, "{known:#?}");
    assert!(
        known.iter().all(|name| !name.contains("evil") && !name.contains("key-")),
        "{known:#?}"
    );
}

#[test]
fn what_came_of_asking_wechat_is_told_by_result_and_errcode() {
    let wechat = WeChat::start();
    wechat.fault("errcode:40164");
    let sandbox = Sandbox::against(&wechat);
    let server = sandbox.serve_refreshing(&[]);
    let refused =
        r#"wxtoken_fetch_attempts_total{account="default",result="refused",errcode="40164"}"#;
    let look = || series(&server.get("/metrics"));
    eventually("WeChat has refused", || look().contains_key(refused));
    let (before, now) = (look(), time::UtcDateTime::now().unix_timestamp() as u64);
    let instant = |series: &BTreeMap<String, u64>, what: &str| {
        series[&format!("wxtoken_fetch_{what}timestamp_seconds{{account=\"default\"}}")]
    };
    assert!((now - 30..=now).contains(&instant(&before, "last_failure_")), "{before:#?}");
    assert_eq!(instant(&before, "last_success_"), 0);
    assert!(instant(&before, "next_") > now, "not at once: {before:#?}");
    assert_eq!(before[r#"wxtoken_token_live{account="default"}"#], 0);

    wechat.fault("none");
    server.signal("HUP");
    // The token can be seen a moment before whoever asked for it is back.
    eventually("all is well", || instant(&look(), "last_failure_") == 0);
    let after = look();
    assert_eq!(after[r#"wxtoken_token_live{account="default"}"#], 1);
    let created = after[r#"wxtoken_token_created_timestamp_seconds{account="default"}"#];
    assert!((created..created + 30).contains(&instant(&after, "last_success_")), "{after:#?}");
    assert_eq!(after[refused], before[refused]);
    let ok = r#"wxtoken_fetch_attempts_total{account="default",result="ok",errcode="0"}"#;
    assert_eq!(after[ok], 1, "{after:#?}");
}

// The alerts and the dashboard in contrib.

fn contrib(path: &str) -> String {
    let path = format!("{}/contrib/{path}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|err| panic!("{path}: {err}"))
}

/// The metrics that a text names.
fn named(text: &str) -> BTreeSet<String> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_of_name(c)).filter(|word| word.starts_with("wxtoken_"));
    words.map(str::to_owned).collect()
}

#[test]
fn every_metric_that_contrib_names_is_told() {
    let (_sandbox, wechat, server) = talkative();
    // What only an account of a config can have.
    let home = Home::of_accounts(1, &wechat.url(), "on_change = \"true\"\ntickets = [\"jsapi\"]\n");
    let hooked = home.serve(&["--refresh"]);
    let told: BTreeSet<String> = [&server, &hooked]
        .into_iter()
        .flat_map(|server| series(&server.get("/metrics")).into_keys())
        .map(|series| series.split('{').next().unwrap().to_owned())
        .collect();
    for (path, at_least) in [
        ("prometheus/wxtoken.rules.yml", 6),
        ("prometheus/wxtoken.rules.test.yml", 6),
        ("grafana/wxtoken.json", 9),
    ] {
        let named = named(&contrib(path));
        assert!(named.len() >= at_least, "{path}: {named:?}");
        let unknown: Vec<_> = named.difference(&told).collect();
        assert_eq!(unknown, Vec::<&String>::new(), "{path}");
    }
}

/// All values under this key, however deep.
fn values<'a>(json: &'a Value, key: &str) -> Vec<&'a Value> {
    let nested: Vec<&Value> = match json {
        Value::Object(map) => map.values().collect(),
        Value::Array(items) => items.iter().collect(),
        _ => Vec::new(),
    };
    let own = json.get(key).into_iter();
    own.chain(nested.into_iter().flat_map(|value| values(value, key))).collect()
}

#[test]
fn the_dashboard_asks_whatever_source_its_reader_picks_and_in_valid_promql() {
    let dashboard: Value = serde_json::from_str(&contrib("grafana/wxtoken.json")).unwrap();
    let variables: Vec<_> = values(&dashboard["templating"], "name");
    assert_eq!(variables, ["datasource", "job", "instance"]);
    for source in values(&dashboard, "datasource") {
        assert_eq!(source["uid"], "${datasource}");
    }
    let ids: BTreeSet<i64> =
        values(&dashboard["panels"], "id").iter().filter_map(|id| id.as_i64()).collect();
    let panels = dashboard["panels"].as_array().unwrap();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");

    let mut rules = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    for expr in values(&dashboard, "expr") {
        let expr = expr.as_str().unwrap().replace("$__rate_interval", "1m");
        assert!(expr.contains(r#"{job=~"$job",instance=~"$instance"}"#), "{expr}");
        rules += &format!("      - {{ record: 'dashboard:expr', expr: '{expr}' }}\n");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, &rules).unwrap();
    let Some((said, content)) = promtool(&["check", "rules", file.path().to_str().unwrap()], "")
    else {
        return;
    };
    assert!(content, "{said}\n{rules}");
}
