//! `GET /metrics`: its format, checked by promtool, its values, and that requests cannot add series. Also that the alerts and
//! the dashboard in contrib use metrics that exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::support::home::Home;
use crate::support::tls::{Authority, Identity, TlsClient};
use crate::support::*;
use serde_json::Value;

/// Starts a server with a live token.
fn serving(args: &[&str]) -> (Sandbox, Server) {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish("T0KEN_that_no_metric_shows", 7200, 0);
    let server = sandbox.serve(args);
    (sandbox, server)
}

/// Returns the series of an answer and their values.
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

/// Returns the series of one metric by their labels, without those that are 0.
#[track_caller]
fn nonzero_series(server: &Server, metric: &str) -> Vec<(String, u64)> {
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

/// Starts a server with a failed and a successful call to WeChat, so that it has all metrics.
fn server_with_all_metrics() -> (Sandbox, WeChat, Server) {
    let wechat = WeChat::start();
    wechat.fault("errcode:40164");
    let sandbox = Sandbox::new(&wechat);
    let server = sandbox.serve_refreshing(&[]);
    eventually("the refusal is counted", || {
        !nonzero_series(&server, "wxtoken_fetch_attempts_total").is_empty()
    });
    wechat.fault("none");
    server.signal("HUP"); // Ends the pause after the refusal.
    eventually("a token is served", || server.get("/readyz").status == 200);
    server.get("/token");
    server.get("/nowhere");
    (sandbox, wechat, server)
}

/// Runs promtool. Returns its output and whether it succeeded.
fn promtool(args: &[&str], stdin: &str) -> (String, bool) {
    let mut promtool = Command::new("promtool")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&text).into_owned(), output.status.success())
}

#[needs(promtool)]
#[test]
fn promtool_accepts_the_metrics_without_a_complaint() {
    let (_sandbox, _wechat, server) = server_with_all_metrics();
    let body = server.get("/metrics").body;
    assert!(body.contains("wxtoken_fetch_attempts_total{"), "{body}");
    assert_eq!(promtool(&["check", "metrics"], &body), (String::new(), true));
}

#[test]
fn every_metric_has_one_help_and_one_type_line() {
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
    caller.send("HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(caller.answer_to_head().status, 200);
    assert_eq!(caller.get("/healthz").status, 200, "no body follows the head");
}

#[test]
fn the_metrics_of_a_token_equal_those_of_status_and_never_contain_it() {
    let (sandbox, server) = serving(&[]);
    for when in ["live", "expired", "missing"] {
        match when {
            "live" => {}
            "expired" => sandbox.publish("T0KEN_that_no_metric_shows", 7200, 9000),
            _ => fs::remove_file(sandbox.document_path()).unwrap(),
        }
        let expected = sandbox.run(&["status", "--format", "prometheus"]).stdout;
        let body = server.get("/metrics").body;
        assert!(
            expected.lines().count() == 6 && body.contains(&expected),
            "{when}: {expected}\n{body}"
        );
        assert!(!body.contains("T0KEN"), "{body}");
    }
    // Without --refresh there are no metrics of calls to WeChat.
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
        // WeChat's routes answer refusals with 200; wxtoken_http_refused_total has them.
        (r#"route="/cgi-bin/token",status="200""#, 2),
        (r#"route="/readyz",status="200""#, 1),
        (r#"route="/token",status="200""#, 3),
        (r#"route="/token",status="404""#, 1),
        (r#"route="/token",status="405""#, 1),
        (r#"route="/token",status="503""#, 1),
        (r#"route="other",status="400""#, 1),
        (r#"route="other",status="404""#, 2),
    ];
    let nonzero_series = |metric| nonzero_series(&server, metric);
    assert_eq!(
        nonzero_series("wxtoken_http_requests_total"),
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
        nonzero_series("wxtoken_http_refused_total"),
        expected.map(|(labels, count)| (labels.to_owned(), count))
    );
    assert_eq!(value(&server, r#"wxtoken_http_requests_total{route="/metrics",status="200"}"#), 2);
}

/// Sends a request from an address that is not allowed.
#[track_caller]
fn request_from_refused_client(server: &Server) {
    let at = SocketAddr::from(([127, 0, 0, 1], server.address().port()));
    let request = b"GET /token HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(exchange_over(connect_from("127.0.0.2", at), request).status, 403);
}

#[test]
fn counters_of_refusals_start_at_0() {
    let (_sandbox, server) = serving(&["--allow", "127.0.0.1"]);
    let before = series(&server.get("/metrics"));
    for reason in ["forbidden", "forwarded", "misdirected", "unauthorized"] {
        let series = format!("wxtoken_http_refused_total{{reason=\"{reason}\"}}");
        assert_eq!(before[&series], 0, "without a 0 first, Prometheus sees no increase");
    }
    request_from_refused_client(&server);
    request_from_refused_client(&server);
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
        nonzero_series(&server, "wxtoken_http_refused_total"),
        expected.map(|(labels, count)| (labels.to_owned(), count))
    );
    // Clients refused by their address are not counted as requests.
    let requests = nonzero_series(&server, "wxtoken_http_requests_total");
    let asked: Vec<_> = requests.iter().filter(|(labels, _)| labels.contains("/token")).collect();
    let expected = [(r#"route="/token",status="403""#, 1), (r#"route="/token",status="421""#, 2)];
    assert!(
        asked.iter().map(|(labels, count)| (labels.as_str(), *count)).eq(expected),
        "{requests:?}"
    );
}

#[test]
fn open_accepted_and_evicted_connections_have_metrics() {
    let (_sandbox, server) = serving(&["--max-connections", "3"]);
    let mut observer = server.caller();
    let mut look = || {
        let series = series(&observer.get("/metrics"));
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
    assert!(first.is_closed(), "the longest idle one");
    assert_eq!(look(), [3, 3, 4, 1]);
    drop((second, third));
    eventually("closed connections are not counted", || look() == [1, 3, 4, 1]);
}

/// Returns requests by which a client could try to add series.
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
fn requests_never_add_series() {
    let (_sandbox, server) = serving(&["--allow", "127.0.0.1"]);
    let mut first = None;
    for n in 0..5 {
        for request in hostile(n) {
            server.send(&request);
        }
        request_from_refused_client(&server);
        let series = series(&server.get("/metrics"));
        let names: Vec<String> = series.into_keys().collect();
        // The first answer does not count itself.
        if n > 0 && first.is_none() {
            first = Some(names);
        } else if let Some(first) = &first {
            assert_eq!(&names, first, "round {n}");
        }
    }
    let names = first.unwrap();
    assert!(names.len() < 60, "{names:#?}");
    assert!(
        names.iter().all(|name| !name.contains("evil") && !name.contains("key-")),
        "{names:#?}"
    );
}

#[test]
fn calls_to_wechat_are_counted_by_result_and_errcode() {
    let wechat = WeChat::start();
    wechat.fault("errcode:40164");
    let sandbox = Sandbox::new(&wechat);
    let server = sandbox.serve_refreshing(&[]);
    let refused =
        r#"wxtoken_fetch_attempts_total{account="default",result="refused",errcode="40164"}"#;
    let look = || series(&server.get("/metrics"));
    eventually("the refusal is counted", || look().contains_key(refused));
    let (before, now) = (look(), time::UtcDateTime::now().unix_timestamp() as u64);
    let instant = |series: &BTreeMap<String, u64>, what: &str| {
        series[&format!("wxtoken_fetch_{what}timestamp_seconds{{account=\"default\"}}")]
    };
    assert!((now - 120..=now).contains(&instant(&before, "last_failure_")), "{before:#?}");
    assert_eq!(instant(&before, "last_success_"), 0);
    assert!(instant(&before, "next_") > now, "not at once: {before:#?}");
    assert_eq!(before[r#"wxtoken_token_live{account="default"}"#], 0);

    wechat.fault("none");
    server.signal("HUP");
    // The token can be published a moment before the attempt is recorded.
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

/// Returns the names of metrics in a text.
fn metric_names(text: &str) -> BTreeSet<String> {
    let is_name_char = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let names = text.split(|c| !is_name_char(c)).filter(|name| name.starts_with("wxtoken_"));
    names.map(str::to_owned).collect()
}

#[test]
fn every_metric_that_contrib_uses_exists() {
    let (_sandbox, wechat, server) = server_with_all_metrics();
    // An account of a config has metrics for hooks and tickets.
    let home = Home::with_accounts(
        1,
        &wechat.url(),
        "on_change = \"true\"\non_trouble = \"true\"\ntickets = [\"jsapi\"]\n",
    );
    let hooked = home.serve(&["--refresh", "--gateway"]);
    // Calls are counted by their result, from the first one on.
    assert_eq!(hooked.get("/cgi-bin/get_api_domain_ip").status, 200);
    // One with a certificate has a metric for that.
    let (authority, sandbox) = (Authority::new(), Sandbox::with_base_url("http://127.0.0.1:1"));
    authority.sign().write_to(&sandbox);
    let flags = Identity::flags(&sandbox);
    let secure = sandbox.serve(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    let over_tls = TlsClient::trusting(&authority).caller(secure.address()).get("/metrics");
    let existing: BTreeSet<String> = [server.get("/metrics"), hooked.get("/metrics"), over_tls]
        .iter()
        .flat_map(|answer| series(answer).into_keys())
        .map(|series| series.split('{').next().unwrap().to_owned())
        .collect();
    for (path, at_least) in [
        ("prometheus/wxtoken.rules.yml", 6),
        ("prometheus/wxtoken.rules.test.yml", 6),
        ("grafana/wxtoken.json", 9),
    ] {
        let metric_names = metric_names(&contrib(path));
        assert!(metric_names.len() >= at_least, "{path}: {metric_names:?}");
        let unknown: Vec<_> = metric_names.difference(&existing).collect();
        assert_eq!(unknown, Vec::<&String>::new(), "{path}");
    }
}

/// Returns all values under this key at any depth.
fn values<'a>(json: &'a Value, key: &str) -> Vec<&'a Value> {
    let nested: Vec<&Value> = match json {
        Value::Object(map) => map.values().collect(),
        Value::Array(items) => items.iter().collect(),
        _ => Vec::new(),
    };
    let own = json.get(key).into_iter();
    own.chain(nested.into_iter().flat_map(|value| values(value, key))).collect()
}

#[needs(promtool)]
#[test]
fn the_dashboard_uses_the_selected_data_source_and_valid_promql() {
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
    let (output, is_valid) = promtool(&["check", "rules", file.path().to_str().unwrap()], "");
    assert!(is_valid, "{output}\n{rules}");
}
