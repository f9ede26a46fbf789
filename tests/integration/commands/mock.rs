//! `wxtoken mock`: the real binary, over a bare socket, since an HTTP library would hide what some faults do.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::PATIENCE;

const APPID: &str = "wx0123456789abcdef";
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// How long to read if the fault keeps the connection open. The shortest `slow` fault takes a second.
const OPEN_TIMEOUT: Duration = Duration::from_millis(700);

/// A running stand-in. Killed when dropped.
struct StandIn {
    child: Child,
    addr: SocketAddr,
}

/// The bytes received on a connection, and how it ended.
#[derive(Debug)]
struct Answer {
    bytes: Vec<u8>,
    end: End,
}

#[derive(Debug, PartialEq)]
enum End {
    Closed,
    Reset,
    /// Still open after the timeout.
    Open,
    /// More bytes than the test reads.
    Endless,
}

fn mock(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wxtoken"));
    command
        .arg("mock")
        .args(args)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs with invalid arguments and returns stderr.
fn usage_error(args: &[&str]) -> String {
    let Output { status, stdout, stderr } = mock(args).output().expect("the binary runs");
    let stderr = String::from_utf8(stderr).expect("text");
    assert_eq!((status.code(), stdout.as_slice()), (Some(2), &b""[..]), "{args:?}: {stderr}");
    assert!(!stderr.contains("hush"), "{args:?}: {stderr}");
    stderr
}

impl StandIn {
    #[track_caller]
    fn start(args: &[&str]) -> StandIn {
        let mut child = mock(args).spawn().expect("the binary runs");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line).expect("a line");
        let addr =
            line.trim().strip_prefix("listening on http://").unwrap_or_else(|| panic!("{line:?}"));
        StandIn { addr: addr.parse().expect("an address"), child }
    }

    fn send(&self, request: &[u8]) -> Answer {
        self.send_with_timeout(request, PATIENCE)
    }

    fn send_with_timeout(&self, request: &[u8], timeout: Duration) -> Answer {
        let mut stream = TcpStream::connect(self.addr).expect("connects");
        stream.set_read_timeout(Some(timeout)).expect("a timeout");
        // A refusal can come before everything is written.
        let _ = stream.write_all(request);
        let mut answer = Answer { bytes: Vec::new(), end: End::Endless };
        let mut chunk = [0; 16 * 1024];
        let started = Instant::now();
        while answer.bytes.len() < 1024 * 1024 {
            answer.end = match stream.read(&mut chunk) {
                Ok(0) => End::Closed,
                Ok(n) => {
                    answer.bytes.extend_from_slice(&chunk[..n]);
                    if started.elapsed() < timeout {
                        answer.end = End::Endless;
                        continue;
                    }
                    End::Open
                }
                // SIGSTOP and SIGCONT interrupt a read with a timeout.
                Err(err) if err.kind() == ErrorKind::Interrupted => continue,
                Err(err) if err.kind() == ErrorKind::ConnectionReset => End::Reset,
                Err(err) if err.kind() == ErrorKind::WouldBlock => End::Open,
                Err(err) => panic!("{err:?}"),
            };
            break;
        }
        answer
    }

    fn get(&self, target: &str) -> Answer {
        self.send(
            format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes(),
        )
    }

    fn post(&self, target: &str, body: &str) -> Answer {
        self.post_with_timeout(target, body, PATIENCE)
    }

    fn post_with_timeout(&self, target: &str, body: &str, timeout: Duration) -> Answer {
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.send_with_timeout((head + body).as_bytes(), timeout)
    }

    fn token(&self) -> Value {
        self.get(&format!(
            "/cgi-bin/token?grant_type=client_credential&appid={APPID}&secret={SECRET}"
        ))
        .json()
    }

    fn stable(&self, force: bool) -> Answer {
        self.stable_with_timeout(force, PATIENCE)
    }

    fn stable_with_timeout(&self, force: bool, timeout: Duration) -> Answer {
        let body = json!({ "grant_type": "client_credential", "appid": APPID, "secret": SECRET, "force_refresh": force });
        self.post_with_timeout("/cgi-bin/stable_token", &body.to_string(), timeout)
    }

    /// Returns the errcode of a call with the token, or 0.
    fn use_token(&self, answer: &Value) -> i64 {
        let token = answer["access_token"].as_str().expect("a token");
        let answer = self.get(&format!("/cgi-bin/get_api_domain_ip?access_token={token}")).json();
        if answer["ip_list"][0].is_string() {
            0
        } else {
            answer["errcode"].as_i64().expect("an errcode")
        }
    }

    fn calls(&self) -> Value {
        self.get("/mock/calls").json()
    }

    fn fault(&self, fault: &str) {
        let answer = self.post("/mock/fault", fault);
        assert_eq!((answer.status(), answer.body()), (200, format!("{fault}\n").as_bytes()));
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("a signal");
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Answer {
    /// Returns the HTTP status; 0 if there is none.
    fn status(&self) -> u16 {
        let line = self.bytes.strip_prefix(b"HTTP/1.1 ").and_then(|line| line.get(..3));
        line.and_then(|status| std::str::from_utf8(status).ok()?.parse().ok()).unwrap_or(0)
    }

    fn body(&self) -> &[u8] {
        let blank = self.bytes.windows(4).position(|window| window == b"\r\n\r\n");
        blank.map_or(&[], |at| &self.bytes[at + 4..])
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_slice(self.body()).unwrap_or_else(|err| panic!("{err}: {self:?}"))
    }

    /// Returns whether this is exactly WeChat's answer with a token.
    fn is_correct(&self) -> bool {
        let Ok(Value::Object(body)) = serde_json::from_slice(self.body()) else { return false };
        let length = format!("content-length: {}\r\n", self.body().len());
        self.end == End::Closed
            && self.status() == 200
            && String::from_utf8_lossy(&self.bytes).to_lowercase().contains(&length)
            && body.keys().eq(["access_token", "expires_in"])
            && body["access_token"].as_str().is_some_and(|token| token.len() == 136)
            && body["expires_in"].as_u64().is_some_and(|left| (1..=7200).contains(&left))
    }
}

#[test]
fn sigterm_and_sigint_end_it_with_status_0() {
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let mut stand_in = StandIn::start(&[]);
        stand_in.signal(signal);
        assert_eq!(stand_in.child.wait().expect("it ends").code(), Some(0));
    }
}

#[test]
fn the_classic_api_mints_at_every_call_and_the_stable_one_does_not() {
    let wechat = StandIn::start(&[]);
    let (first, second) = (wechat.token(), wechat.token());
    assert_ne!(first["access_token"], second["access_token"]);
    let stable = wechat.stable(false);
    assert!(stable.is_correct(), "{stable:?}");
    assert_eq!(stable.json()["access_token"], wechat.stable(false).json()["access_token"]);
    for token in [&first, &second, &stable.json()] {
        assert_eq!(wechat.use_token(token), 0);
    }
    assert_eq!(
        wechat.calls(),
        json!({ "token": 2, "stable_token": 2, "forced": 0, "gettoken": 0, "get_api_domain_ip": 3, "getcallbackip": 0, "tickets": 0, "api": 0, "other": 0, "mints": 3 })
    );
}

#[test]
fn without_an_overlap_a_replaced_token_dies_at_once() {
    let wechat = StandIn::start(&["--overlap", "0"]);
    let first = wechat.token();
    assert_eq!(wechat.use_token(&first), 0);
    wechat.token();
    assert_eq!(wechat.use_token(&first), 40001);
}

#[test]
fn a_token_past_its_life_gets_42001() {
    let wechat = StandIn::start(&["--life", "1s", "--overlap", "0"]);
    let token = wechat.stable(false).json();
    assert_eq!(token["expires_in"], 1);
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(wechat.use_token(&token), 42001);
}

#[test]
fn a_second_forced_call_soon_after_returns_the_current_token() {
    let wechat = StandIn::start(&[]);
    let before = wechat.stable(false).json();
    let forced = wechat.stable(true).json();
    assert_ne!(before["access_token"], forced["access_token"]);
    assert_eq!(forced["access_token"], wechat.stable(true).json()["access_token"]);
    assert_eq!(wechat.use_token(&before), 0, "one forced call leaves the overlap");
    let calls = wechat.calls();
    assert_eq!(
        (&calls["stable_token"], &calls["forced"], &calls["mints"]),
        (&json!(3), &json!(2), &json!(2))
    );
}

#[test]
fn mock_kill_revokes_every_token() {
    let wechat = StandIn::start(&[]);
    let (classic, stable) = (wechat.token(), wechat.stable(false).json());
    assert_eq!(wechat.post("/mock/kill", "").json(), json!({ "killed": 2 }));
    assert_eq!((wechat.use_token(&classic), wechat.use_token(&stable)), (40001, 40001));
    assert_ne!(wechat.stable(false).json()["access_token"], stable["access_token"]);
}

#[test]
fn only_the_accounts_given_by_flags_exist() {
    let wechat = StandIn::start(&["--account", "wx1:one", "--account", "wx2:two"]);
    let code = |appid, secret| {
        let query = format!("grant_type=client_credential&appid={appid}&secret={secret}");
        wechat.get(&format!("/cgi-bin/token?{query}")).json()["errcode"].as_i64()
    };
    assert_eq!((code("wx1", "one"), code("wx2", "two")), (None, None));
    assert_eq!((code("wx1", "two"), code(APPID, SECRET)), (Some(40125), Some(40013)));
}

#[test]
fn wecoms_token_stays_the_same_while_it_lives_and_answers_have_wecoms_format() {
    let wechat = StandIn::start(&["--account", "ww1:one", "--account", "ww1:two"]);
    let gettoken =
        |secret| wechat.get(&format!("/cgi-bin/gettoken?corpid=ww1&corpsecret={secret}")).json();
    let (one, two) = (gettoken("one"), gettoken("two"));
    assert_eq!(one, gettoken("one"));
    assert_ne!(one["access_token"], two["access_token"]);
    assert_eq!(
        (&one["errcode"], &one["errmsg"], &one["expires_in"]),
        (&json!(0), &json!("ok"), &json!(7200))
    );
    let token = one["access_token"].as_str().expect("a token");
    for call in ["get_api_domain_ip", "getcallbackip"] {
        let used = wechat.get(&format!("/cgi-bin/{call}?access_token={token}")).json();
        assert!(used["ip_list"][0].is_string() && used["errcode"] == 0, "{used}");
    }
    assert_eq!(wechat.post("/mock/kill", "").json(), json!({ "killed": 2 }));
    for call in ["get_api_domain_ip", "getcallbackip"] {
        let used = wechat.get(&format!("/cgi-bin/{call}?access_token={token}")).json();
        assert_eq!((&used["ip_list"], &used["errcode"]), (&json!([]), &json!(40014)));
        let text = used["errmsg"].as_str().expect("a text");
        assert!(text.starts_with("invalid access_token, hint: ["), "{text}");
    }
    for (secret, code, text) in
        [("one", "0", "ok"), ("three", "40001", "invalid credential, hint: [")]
    {
        let answer = wechat.get(&format!("/cgi-bin/gettoken?corpid=ww1&corpsecret={secret}"));
        let answer = String::from_utf8_lossy(&answer.bytes).into_owned();
        let headers = [format!("\r\nerror-code: {code}\r\n"), format!("\r\nerror-msg: {text}")];
        assert!(headers.iter().all(|it| answer.contains(it)), "{answer}");
    }
    let wrong = gettoken("three");
    assert_eq!((&wrong["errcode"], wrong.get("ip_list")), (&json!(40001), None));
    let calls = wechat.calls();
    let counted = ["gettoken", "get_api_domain_ip", "getcallbackip", "mints", "token"]
        .map(|name| calls[name].as_u64().expect("a count"));
    assert_eq!(counted, [6, 2, 2, 3, 0]);
}

#[test]
fn tickets_need_a_token_of_their_api_and_a_valid_type() {
    let mock = StandIn::start(&[]);
    let official = mock.stable(false).json()["access_token"].as_str().unwrap().to_owned();
    let path = format!("/cgi-bin/gettoken?corpid={APPID}&corpsecret={SECRET}");
    let work = mock.get(&path).json()["access_token"].as_str().unwrap().to_owned();
    let errcode = |route: &str, token: &str, kind: &str| {
        mock.get(&format!("/cgi-bin/{route}?access_token={token}&type={kind}")).json()["errcode"]
            .clone()
    };
    for (route, token, kind, code) in [
        ("ticket/getticket", &official, "jsapi", 0),
        ("ticket/getticket", &official, "wx_card", 0),
        ("ticket/getticket", &official, "agent_config", 40097),
        ("ticket/getticket", &work, "jsapi", 40001),
        ("get_jsapi_ticket", &work, "", 0),
        ("ticket/get", &work, "agent_config", 0),
        ("ticket/get", &work, "", 40058),
        ("ticket/get", &official, "agent_config", 40014),
        // The token is checked first.
        ("ticket/getticket", &"T_NONE".to_owned(), "none", 40001),
    ] {
        assert_eq!(errcode(route, token, kind), code, "{route} {kind}");
    }
}

#[test]
fn the_callback_addresses_need_a_token() {
    let wechat = StandIn::start(&[]);
    let token = wechat.token()["access_token"].as_str().expect("a token").to_owned();
    let callback =
        |token: &str| wechat.get(&format!("/cgi-bin/getcallbackip?access_token={token}")).json();
    let answer = callback(&token);
    assert!(answer["ip_list"][0].is_string() && answer.get("errcode").is_none(), "{answer}");
    assert_eq!(
        (&callback("fake")["errcode"], &callback("")["errcode"]),
        (&json!(40001), &json!(41001))
    );
    assert_eq!(wechat.calls()["getcallbackip"], 3);
}

#[test]
fn invalid_calls_are_refused_as_by_wechat() {
    let wechat = StandIn::start(&[]);
    let chunked = b"POST /cgi-bin/stable_token HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                    Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
    let answer = wechat.send(chunked);
    assert_eq!((answer.status(), answer.body()), (412, &b""[..]));
    assert_eq!(wechat.get("/cgi-bin/stable_token").json()["errcode"], 43002);
    assert_eq!(wechat.post("/cgi-bin/stable_token", "").json()["errcode"], 44002);
    assert_eq!(wechat.post("/cgi-bin/stable_token", "{").json()["errcode"], 47001);
    assert_eq!(wechat.get("/cgi-bin/get_api_domain_ip").json()["errcode"], 41001);
    assert_eq!(wechat.get("/cgi-bin/nowhere").status(), 404);
    let head = String::from_utf8(wechat.get("/cgi-bin/token").bytes).expect("text");
    assert!(head.contains("content-type: application/json; encoding=utf-8\r\n"), "{head}");
}

#[test]
fn messages_uploads_and_downloads_need_a_live_token() {
    let wechat = StandIn::start(&[]);
    let token = wechat.token()["access_token"].as_str().expect("a token").to_owned();
    let with = |path: &str| format!("{path}?access_token={token}");
    let message = with("/cgi-bin/message/custom/send");
    assert_eq!(wechat.post(&message, "{}").json(), json!({"errcode": 0, "errmsg": "ok"}));
    assert_eq!(wechat.get(&message).json()["errcode"], 43002);
    assert_eq!(wechat.post("/cgi-bin/message/custom/send", "{}").json()["errcode"], 41001);
    let upload = wechat.post(&with("/cgi-bin/media/upload"), &"x".repeat(1024 * 1024));
    assert!(upload.json()["media_id"].is_string());
    let download = wechat.get(&with("/cgi-bin/media/get"));
    assert_eq!((download.status(), download.body().len()), (200, 512));
    wechat.post("/mock/fault", "api/errcode:40014@1");
    assert_eq!(wechat.get(&with("/cgi-bin/get_api_domain_ip")).json()["errcode"], Value::Null);
    assert_eq!(wechat.post(&message, "{}").json()["errcode"], 40014);
    assert_eq!(wechat.post(&message, "{}").json()["errcode"], 0);
    assert_eq!(wechat.get("/mock/calls").json()["api"], 7);
}

#[test]
fn a_head_or_body_beyond_its_limit_is_refused() {
    let wechat = StandIn::start(&[]);
    let body = |len| wechat.post("/cgi-bin/stable_token", &"x".repeat(len)).status();
    assert_eq!((body(64 * 1024), body(64 * 1024 + 1)), (200, 413));
    let query = |len| wechat.get(&format!("/cgi-bin/token?{}", "x".repeat(len))).status();
    assert_eq!(query(60 * 1024), 200);
    assert!(matches!(query(70 * 1024), 414 | 431));
    assert!(wechat.stable(false).is_correct(), "the server continues");
}

/// How long to read with this fault.
fn timeout_with_fault(fault: &str) -> Duration {
    match fault.split(':').next() {
        Some("hang" | "drip" | "slow") => OPEN_TIMEOUT,
        _ => PATIENCE,
    }
}

#[test]
fn every_listed_fault_has_an_effect_for_as_many_calls_as_given() {
    let wechat = StandIn::start(&[]);
    let Value::Array(faults) = wechat.get("/mock/faults").json() else { panic!("a list") };
    assert!(faults.len() > 30, "{faults:?}");
    for fault in faults {
        let example = fault["example"].as_str().expect("an example");
        wechat.fault(&format!("{example}@1"));
        let answer = wechat.stable_with_timeout(false, timeout_with_fault(example));
        assert!(!answer.is_correct(), "{example}: {answer:?}");
        let after = wechat.stable(false);
        assert!(after.is_correct(), "after {example}: {after:?}");
    }
}

#[test]
fn a_fault_lasts_until_it_is_switched_off() {
    let wechat = StandIn::start(&["--fault", "errcode:40164"]);
    for _ in 0..3 {
        let answer = wechat.stable(false).json();
        assert_eq!(answer["errcode"], 40164);
        let text = answer["errmsg"].as_str().expect("a text");
        assert!(
            text.starts_with(
                "invalid ip 203.0.113.9 ipv6 ::ffff:203.0.113.9, not in whitelist rid: "
            ),
            "{text}"
        );
    }
    assert_eq!(wechat.calls()["stable_token"], 3, "calls with a fault are counted");
    wechat.fault("none");
    assert!(wechat.stable(false).is_correct());
    let wrong = wechat.post("/mock/fault", "no such thing");
    assert_eq!(wrong.status(), 400);
    assert!(wrong.body().starts_with(b"no such fault; there are errcode:N"), "{wrong:?}");
    assert!(wechat.stable(false).is_correct(), "an invalid fault changes nothing");
}

#[test]
fn each_fault_of_the_connection_has_its_effect() {
    let wechat = StandIn::start(&[]);
    let answer_with_fault = |fault: &str| {
        wechat.fault(&format!("{fault}@1"));
        wechat.stable_with_timeout(false, timeout_with_fault(fault))
    };
    for (fault, end) in [("hang", End::Open), ("close", End::Closed), ("reset", End::Reset)] {
        let answer = answer_with_fault(fault);
        assert_eq!((&answer.end, answer.bytes.len()), (&end, 0), "{fault}");
    }
    assert_eq!(wechat.calls()["mints"], 0, "these faults mint nothing");
    let lost = answer_with_fault("lost");
    assert_eq!((lost.end, lost.bytes.len()), (End::Reset, 0));
    assert_eq!(wechat.calls()["mints"], 1);
    assert_eq!(answer_with_fault("huge").end, End::Endless);
    assert_eq!(answer_with_fault("drip").end, End::Open);
    assert_eq!(answer_with_fault("nothttp").status(), 0);
    assert_eq!(answer_with_fault("redirect").status(), 302);
    let echo = answer_with_fault("echo").json();
    assert!(echo["errmsg"].as_str().is_some_and(|text| text.contains(SECRET)), "{echo}");
}

#[test]
fn v_logs_neither_secrets_nor_tokens() {
    let mut wechat = StandIn::start(&["-v"]);
    let (classic, stable) = (wechat.token(), wechat.stable(false).json());
    wechat.use_token(&stable);
    wechat.fault("echo@1");
    wechat.stable(false);
    wechat.signal(rustix::process::Signal::TERM);
    let mut stderr = String::new();
    wechat.child.stderr.take().expect("piped").read_to_string(&mut stderr).expect("text");
    assert_eq!(stderr.lines().count(), 4, "{stderr}");
    assert!(stderr.starts_with("wxtoken: mock: GET /cgi-bin/token: 200 token "), "{stderr}");
    for hidden in [
        SECRET,
        classic["access_token"].as_str().unwrap(),
        stable["access_token"].as_str().unwrap(),
        "?",
    ] {
        assert!(!stderr.contains(hidden), "{stderr}");
    }
}

#[test]
fn fifty_concurrent_clients_are_all_answered() {
    let wechat = StandIn::start(&[]);
    let tokens: Vec<String> = std::thread::scope(|scope| {
        let ask =
            || (0..10).map(|_| wechat.token()["access_token"].to_string()).collect::<Vec<_>>();
        let clients: Vec<_> = (0..50).map(|_| scope.spawn(ask)).collect();
        clients.into_iter().flat_map(|client| client.join().expect("an answer")).collect()
    });
    let distinct: std::collections::BTreeSet<&String> = tokens.iter().collect();
    assert_eq!((tokens.len(), distinct.len()), (500, 500));
    assert_eq!(wechat.calls()["mints"], 500);
}

#[test]
fn invalid_arguments_are_usage_errors_that_show_no_secret() {
    assert!(usage_error(&["--listen", "0.0.0.0:0"]).contains("is not an address of loopback"));
    assert!(usage_error(&["--listen", "somewhere"]).contains("Write ADDRESS:PORT"));
    for account in ["hush", ":hush", "hush:"] {
        assert!(usage_error(&["--account", account]).contains("--account number 1: no "));
    }
    assert!(usage_error(&["--fault", "hangs"]).contains("no such fault; there are errcode:N"));
    assert!(usage_error(&["--life", "500ms"]).contains("--life"));
}
