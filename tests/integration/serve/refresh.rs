//! `wxtoken serve --refresh`: fetches tokens on schedule and on demand, by one call for any number of clients, and never more
//! often than necessary.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use crate::support::proxy::HoldingProxy;
use crate::support::*;
use serde_json::Value;

/// How long a request waits for WeChat's answer at least.
const REQUEST_WAIT: Duration = Duration::from_millis(2400);

/// What a request is told that has waited for WeChat's answer for as long as one waits.
const NOT_YET: &str = "has not answered yet";

const GET_TOKEN: &[u8] = b"GET /token HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Returns the token of a successful answer.
#[track_caller]
fn token_of(response: &Response) -> String {
    assert_eq!(response.status, 200, "{response:?}");
    response.json()["access_token"].as_str().expect("a token").to_owned()
}

/// Requests the token until the server has one: on a busy machine WeChat's answer can take longer than a request waits.
#[track_caller]
fn served_token(server: &Server) -> String {
    let mut response = server.get("/token");
    eventually("WeChat has answered", || {
        let is_late = response.status == 503 && response.body.contains(NOT_YET);
        if is_late {
            response = server.get("/token");
        }
        !is_late
    });
    token_of(&response)
}

/// Asserts that the answer to a request of `sent_at` has this token, or that it came after so long that the server had given up
/// waiting for WeChat.
#[track_caller]
fn assert_has(token: &str, answer: &Response, sent_at: Instant) {
    let is_late = sent_at.elapsed() >= REQUEST_WAIT && answer.body.contains(NOT_YET);
    assert!(is_late || token_of(answer) == token, "{answer:?}");
}

/// Asserts that the answer is a 503. Returns its message and the seconds of Retry-After.
#[track_caller]
fn assert_no_token(response: &Response) -> (String, u64) {
    assert_eq!(response.status, 503, "{response:?}");
    let body = response.json();
    assert_eq!(body["error"], "no_token");
    let seconds = response.header("retry-after").expect("Retry-After").parse().unwrap();
    (body["message"].as_str().unwrap().to_owned(), seconds)
}

/// Requests the token until the server answers 503. Returns that answer.
#[track_caller]
fn refused_token(server: &Server) -> Response {
    let mut response = server.get("/token");
    eventually("the server answers 503", || {
        response = server.get("/token");
        response.status == 503
    });
    response
}

/// Sends all requests before it reads the answers.
fn send_all(server: &Server, requests: impl IntoIterator<Item = String>) -> Vec<Response> {
    let mut streams: Vec<TcpStream> = requests
        .into_iter()
        .map(|request| {
            let mut stream = connect(server.address());
            stream.write_all(request.as_bytes()).unwrap();
            stream
        })
        .collect();
    streams
        .iter_mut()
        .map(|stream| {
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).expect("an answer");
            Response::parse(&answer)
        })
        .collect()
}

/// Runs `test` for each item in a thread of its own, since most of the time is spent waiting.
fn concurrently(items: &[&'static str], test: impl Fn(&'static str) + Sync) {
    thread::scope(|scope| items.iter().for_each(|item| drop(scope.spawn(|| test(item)))));
}

fn get_token() -> String {
    String::from_utf8(GET_TOKEN.to_vec()).unwrap()
}

// On schedule.

#[test]
fn a_token_is_fetched_at_the_start_and_again_whenever_it_is_due() {
    concurrently(&["stable", "classic", "work"], |api| {
        let wechat = WeChat::with(&["--life", "3s", "--overlap", "1s"]);
        let sandbox = Sandbox::new(&wechat).on(api);
        let server = sandbox.serve_refreshing(&["--refresh-before", "1s"]);
        let mut tokens = Vec::new();
        // No client requests it.
        eventually("three tokens were published", || {
            if sandbox.document_path().exists() && tokens.last() != Some(&sandbox.token()) {
                let token = sandbox.token();
                let is_alive = wechat.is_alive(&token);
                // A busy machine may be late: a token ends no earlier than its document says.
                let is_over = sandbox.token() != token || sandbox.left() <= 0.0;
                assert!(is_alive || is_over, "{api}");
                tokens.push(token);
            }
            tokens.len() >= 3
        });
        assert!(wechat.asked() <= 3 * wechat.mints() + 3, "{api}: {}", wechat.calls());
        assert_eq!(server.stop(), "", "{api}: without a failure nothing is logged");
    });
}

#[test]
fn ten_concurrent_fetches_beside_the_server_make_no_further_mint() {
    for api in ["stable", "classic"] {
        let wechat = WeChat::with(&["--fault", "slow:1"]);
        let sandbox = Sandbox::new(&wechat).on(api);
        let server = sandbox.serve_refreshing(&[]);
        let fetches: Vec<_> =
            (0..10).map(|_| sandbox.command(&["fetch"]).spawn().unwrap()).collect();
        for mut fetch in fetches {
            assert_eq!(fetch.wait().unwrap().code(), Some(0), "{api}");
        }
        assert_eq!(token_of(&server.get("/token")), sandbox.token());
        assert_eq!((wechat.asked(), wechat.mints()), (1, 1), "{api}");
        // What another process publishes is served, without another call.
        sandbox.run(&["fetch", "--force"]).exits(0);
        assert_eq!(token_of(&server.get("/token")), sandbox.token());
        assert_eq!(wechat.mints(), 2, "{api}");
    }
}

#[test]
fn a_damaged_or_removed_document_is_published_again_with_at_most_one_call_a_second() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let server = sandbox.serve_refreshing(&[]);
    let token = served_token(&server);
    let begun = Instant::now();
    for _ in 0..5 {
        fs::remove_file(sandbox.document_path()).unwrap();
        let _ = fs::remove_file(sandbox.path("state/default.lock"));
        // The stable API returns the same token.
        assert_eq!(served_token(&server), token);
        assert_eq!(sandbox.token(), token);
    }
    // At most one call a second.
    let most = 2 + begun.elapsed().as_secs();
    assert!(wechat.asked() <= most, "{} of {most}", wechat.calls());
    fs::write(sandbox.document_path(), "{").unwrap();
    assert_eq!(token_of(&server.get("/token")), token, "the last good token, while it lives");
    eventually("the document is published again", || {
        fs::read_to_string(sandbox.document_path()).is_ok_and(|text| text.contains(&token))
    });
    assert_eq!(wechat.mints(), 1);
}

#[test]
fn without_a_writable_document_no_call_is_made_and_clients_are_pointed_to_the_server() {
    let wechat = WeChat::start();
    let foreign = r#"{"appid":"wx1","access_token":"T1","expires_in":7200,"created_at":"2026-11-22T05:34:46Z"}"#;
    for (existing, logged) in [(None, "state"), (Some(foreign), "belongs to wx1")] {
        let sandbox = Sandbox::new(&wechat);
        match existing {
            None => fs::write(sandbox.path("state"), "a file where a directory is to be").unwrap(),
            Some(document) => {
                fs::create_dir(sandbox.path("state")).unwrap();
                fs::write(sandbox.document_path(), document).unwrap();
            }
        }
        let server = sandbox.serve_refreshing(&[]);
        let (message, seconds) = assert_no_token(&refused_token(&server));
        assert!(message.contains("it has a local fault") && message.contains("日志"), "{message}");
        assert!(!message.contains("state") && !message.contains("wx1"), "{message}");
        assert!(seconds <= 3, "{seconds}");
        let stderr = server.stop();
        assert!(stderr.contains(logged) && stderr.contains("trying again in"), "{stderr}");
        assert!(stderr.lines().count() <= 3, "the same failure is logged once:\n{stderr}");
    }
    assert_eq!(wechat.asked(), 0);
}

#[needs(mount)]
#[test]
fn a_full_disk_costs_no_mint_and_a_token_is_fetched_once_there_is_room() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat).on("classic");
    let serve = {
        let mut command = sandbox.command(&["serve", "--refresh", "--listen", "127.0.0.1:0"]);
        command
            .arg("--secret-file")
            .arg(sandbox.path("secret"))
            .args(["--base-url", &wechat.url()]);
        command
    };
    // A full file system of 64 KiB, in a mount namespace of the server, and a process inside that makes room there: only root
    // could from outside, for the server's namespace is not shown in /proc.
    fs::create_dir(sandbox.path("state")).unwrap();
    let state = sandbox.path("state");
    let script = format!(
        r#"mount -t tmpfs -o size=64k none '{0}' && head -c 65536 /dev/zero >'{0}/ballast'
        {{ while kill -0 $$ && [ ! -e '{0}.go' ]; do sleep 0.05; done; rm '{0}/ballast'; }} >/dev/null 2>&1 &
        exec "$0" "$@""#,
        state.display()
    );
    let mount = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", &script];
    let server = Server::start(wrapped(&mount, &serve), 1);
    assert_no_token(&refused_token(&server));
    assert_eq!(wechat.asked(), 0);
    fs::write(sandbox.path("state.go"), "").unwrap();
    eventually("a token is served", || server.get("/token").status == 200);
    assert_eq!(wechat.mints(), 1);
}

#[test]
fn a_temporary_refusal_is_retried_with_growing_pauses() {
    let wechat = WeChat::with(&["--fault", "errcode:45011@2"]);
    let sandbox = Sandbox::new(&wechat);
    let server = sandbox.serve_refreshing(&[]);
    let (message, seconds) = assert_no_token(&refused_token(&server));
    assert!(message.contains("45011") && message.contains("分钟级"), "{message}");
    assert!((10..=66).contains(&seconds), "a minute's quota: {seconds}");
    for _ in 0..50 {
        assert_no_token(&server.get("/token"));
    }
    assert_eq!(wechat.asked(), 1, "requests of clients cause no call");

    let wechat = WeChat::with(&["--fault", "errcode:-1@5"]);
    let sandbox = Sandbox::new(&wechat);
    let server = sandbox.serve_refreshing(&[]);
    eventually("WeChat answers with a token", || server.get("/token").status == 200);
    assert_eq!(wechat.asked(), 6);
    let stderr = server.stop();
    assert!(stderr.contains("系统繁忙") && stderr.contains("all is well again"), "{stderr}");
    assert_eq!(stderr.lines().count(), 2, "{stderr}");
}

// SIGHUP.

#[test]
fn a_wrong_secret_is_used_once_until_sighup() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    write_with_mode(&sandbox.path("secret"), "00000000000000000000000000000000", 0o600);
    let server = sandbox.serve_refreshing(&[]);
    let (message, seconds) = assert_no_token(&refused_token(&server));
    assert!(message.contains("40125") && message.contains("AppSecret 错误"), "{message}");
    assert!(seconds > 3000, "{seconds}");
    for _ in 0..50 {
        assert_no_token(&server.get("/token"));
    }
    assert_eq!(wechat.asked(), 1);
    // At SIGHUP the secret, still wrong, is used again.
    server.signal("HUP");
    eventually("a second call is made", || wechat.asked() == 2);
    write_with_mode(&sandbox.path("secret"), SECRET, 0o600);
    server.signal("HUP");
    eventually("a token is served", || server.get("/token").status == 200);
    let stderr = server.stop();
    assert_eq!(stderr.matches("WeChat refused (40125)").count(), 2, "{stderr}");
    assert!(stderr.contains("all is well again"), "{stderr}");
}

#[test]
fn an_invalid_secret_file_at_sighup_is_reported_and_the_last_good_secret_kept() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat).on("classic");
    let (secret, log) = (sandbox.path("secret"), sandbox.path("log"));
    let mut command = sandbox.command(&["serve", "--refresh", "--listen", "127.0.0.1:0"]);
    command.arg("--secret-file").arg(&secret).args(["--base-url", &wechat.url()]);
    let server = Server::start_with_log(&command, &log);
    served_token(&server);
    write_with_mode(&secret, "S3CR3T S3CR3T", 0o644);
    server.signal("HUP");
    eventually("it is reported", || {
        fs::read_to_string(&log).unwrap().contains("the last good AppSecret stays")
    });
    fs::remove_file(sandbox.document_path()).unwrap();
    served_token(&server);
    assert_eq!(wechat.mints(), 2);
    server.stop();
    let stderr = fs::read_to_string(&log).unwrap();
    assert!(stderr.contains("mode 0644") && !stderr.contains("S3CR3T"), "{stderr}");
}

#[test]
fn a_secret_from_stdin_is_kept_at_sighup() {
    let wechat = WeChat::with(&["--fault", "errcode:40164@1"]);
    let sandbox = Sandbox::new(&wechat);
    let mut command = sandbox.command(&["serve", "--refresh", "--listen", "127.0.0.1:0"]);
    command.args(["--secret-file", "-", "--base-url", &wechat.url()]);
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(SECRET.as_bytes()).unwrap();
    drop(writer);
    command.stdin(reader);
    let server = Server::start(command, 1);
    assert_no_token(&refused_token(&server));
    server.signal("HUP");
    eventually("WeChat answers with a token", || server.get("/token").status == 200);
    let stderr = server.stop();
    assert_eq!(stderr.lines().count(), 2, "the refusal and its end:\n{stderr}");
}

#[test]
fn many_sighups_during_a_refresh_cost_no_call() {
    let wechat = WeChat::with(&["--fault", "slow:1"]);
    let sandbox = Sandbox::new(&wechat);
    let server = sandbox.serve_refreshing(&[]);
    eventually("a call has begun", || wechat.asked() == 1);
    while !sandbox.document_path().exists() {
        server.signal("HUP");
        assert_eq!(server.get("/healthz").status, 200);
    }
    for _ in 0..50 {
        server.signal("HUP");
    }
    served_token(&server);
    assert_eq!(wechat.asked(), 1);
}

// On demand.

#[test]
fn a_thousand_requests_without_a_token_cost_one_call_and_all_get_its_token() {
    let wechat = WeChat::start();
    let proxy = HoldingProxy::new(wechat.address());
    proxy.hold();
    let sandbox = Sandbox::with_base_url(&proxy.url());
    let server = sandbox.serve_refreshing(&[]);
    let sent_at = Instant::now();
    let send = |_| {
        let mut stream = connect(server.address());
        stream.write_all(GET_TOKEN).unwrap();
        stream
    };
    let streams: Vec<TcpStream> = (0..1000).map(send).collect();
    // The server has one thread: when it has answered this, it has read the others.
    assert_eq!(server.get("/healthz").status, 200);
    let memory = server.memory() >> 20;
    assert!(memory < 64, "{memory} MiB");
    proxy.release();
    let token = served_token(&server);
    for mut stream in streams {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        assert_has(&token, &Response::parse(&answer), sent_at);
    }
    assert_eq!(token, sandbox.token());
    assert_eq!((wechat.asked(), wechat.mints()), (1, 1));
}

#[test]
fn an_expired_token_is_replaced_by_one_call_for_all_requests() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    // Not due for an hour, as the scheduler sees it at the start.
    sandbox.publish("T1", 7200, 3600);
    let server = sandbox.serve_refreshing(&[]);
    assert_eq!(token_of(&server.get("/token")), "T1");
    assert_eq!(wechat.asked(), 0);
    sandbox.publish("T1", 7200, 7200);
    let sent_at = Instant::now();
    let answers = send_all(&server, (0..20).map(|_| get_token()));
    let token = served_token(&server);
    answers.iter().for_each(|answer| assert_has(&token, answer, sent_at));
    assert_eq!(token, sandbox.token());
    assert_eq!(wechat.asked(), 1);
}

#[test]
fn while_wechat_is_down_a_live_token_is_served_and_after_it_the_reason_at_once() {
    concurrently(&["reset", "http:502", "errcode:40164"], |fault| {
        let wechat = WeChat::with(&["--fault", fault]);
        let sandbox = Sandbox::new(&wechat);
        sandbox.publish("T1", 7200, 7100); // Due; its refresh fails.
        let server = sandbox.serve_refreshing(&[]);
        for _ in 0..20 {
            assert_eq!(token_of(&server.get("/token")), "T1");
        }
        eventually("a call to WeChat has failed", || server.report_rejected("T1").status == 503);
        sandbox.publish("T1", 7200, 7200);
        let asked = wechat.asked();
        let mut message = String::new();
        eventually("the reason is told", || {
            let asked_at = Instant::now();
            (message, _) = assert_no_token(&server.get("/token"));
            // On a busy machine a call that has begun can take longer than a request waits.
            let is_told = !message.contains(NOT_YET);
            assert!(is_told || asked_at.elapsed() >= REQUEST_WAIT, "{fault}: {message}");
            is_told
        });
        assert!(
            message.contains("default") && message.chars().any(|c| c > '\u{2fff}'),
            "{message}"
        );
        assert!(wechat.asked() <= asked + 1);

        wechat.fault("none");
        server.signal("HUP");
        eventually("WeChat answers with a token", || server.get("/token").status == 200);
    });
}

#[test]
fn other_requests_are_answered_while_a_call_to_wechat_hangs() {
    concurrently(&["hang", "drip", "slow:3600"], |fault| {
        let wechat = WeChat::with(&["--fault", fault]);
        let sandbox = Sandbox::new(&wechat);
        let server = sandbox.serve_refreshing(&[]);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let begun = Instant::now();
                (assert_no_token(&server.get("/token")), begun.elapsed())
            });
            eventually("a call has begun", || wechat.asked() > 0);
            for _ in 0..100 {
                assert_eq!(server.get("/healthz").status, 200);
                assert_eq!(server.get("/readyz").status, 503);
            }
            let ((message, seconds), waited) = waiting.join().unwrap();
            assert!(message.contains(NOT_YET), "{fault}: {message}");
            assert!((1..=10).contains(&seconds), "{fault}: {seconds}");
            assert!(waited >= REQUEST_WAIT, "{fault}: {waited:?}");
        });
    });
}

#[test]
fn a_document_published_by_another_process_is_served_at_once() {
    let wechat = WeChat::with(&["--fault", "hang"]);
    let sandbox = Sandbox::new(&wechat);
    let server = sandbox.serve_refreshing(&[]);
    eventually("a call has begun", || wechat.asked() > 0);
    sandbox.publish("T9", 7200, 0);
    assert_eq!(token_of(&server.get("/token")), "T9");
    assert_eq!(token_of(&server.report_rejected("T1")), "T9");
}

// Without --refresh.

#[needs(strace)]
#[test]
fn without_refresh_no_request_causes_a_call_and_the_secret_is_not_read() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    sandbox.publish("T1", 7200, 0);
    let secret = sandbox.path("secret");
    let trace = sandbox.path("trace");
    let mut serve = sandbox.command(&["serve", "--listen", "127.0.0.1:0"]);
    serve.arg("--secret-file").arg(&secret).args(["--base-url", &wechat.url()]);
    let calls = "trace=open,openat,openat2,connect";
    let strace = ["strace", "-f", "-qq", "-e", calls, "-o", trace.to_str().unwrap()];
    let server = Server::start(wrapped(&strace, &serve), 1);
    let stable = |force| {
        format!(
            r#"{{"grant_type":"client_credential","appid":"{APPID}","secret":"x","force_refresh":{force}}}"#
        )
    };
    let send_every_request = || {
        for path in [
            "/token",
            "/token/default",
            "/readyz",
            "/metrics",
            "/",
            "/ticket/jsapi",
            &format!("/cgi-bin/token?grant_type=client_credential&appid={APPID}&secret=x"),
            &format!("/cgi-bin/gettoken?corpid={APPID}&corpsecret=x"),
            "/cgi-bin/ticket/getticket?access_token=T1&type=jsapi",
        ] {
            for _ in 0..3 {
                server.get(path);
            }
        }
        for force in [true, false] {
            for _ in 0..3 {
                server.post("/cgi-bin/stable_token", &stable(force));
            }
        }
        let response = server.report_rejected("T1");
        assert_eq!((response.status, response.header("allow")), (405, Some("GET, HEAD")));
    };
    send_every_request();
    server.signal("HUP");
    sandbox.publish("T1", 7200, 7200);
    send_every_request();
    fs::remove_file(sandbox.document_path()).unwrap();
    send_every_request();
    assert_eq!((wechat.asked(), wechat.probes()), (0, 0));
    // strace does not forward signals, so its child gets this one.
    let children = format!("/proc/{0}/task/{0}/children", server.pid());
    let child = fs::read_to_string(children).unwrap();
    assert!(Command::new("kill").args(["-TERM", child.trim()]).status().unwrap().success());
    server.end();
    let trace = fs::read_to_string(trace).unwrap();
    assert!(trace.contains("default.json"), "the trace has the document:\n{trace}");
    assert!(!trace.contains(secret.to_str().unwrap()), "{trace}");
    assert!(!trace.contains("AF_INET"), "{trace}");
}

// Shutdown.

/// How long a server that is told to end waits for an answer.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(5);

/// Ends a server that waits for an answer which `proxy` holds until then. Returns how long it took to end.
#[track_caller]
fn answer_during_shutdown(server: Server, proxy: &HoldingProxy) -> Duration {
    let told_at = Instant::now();
    server.signal("TERM");
    eventually("it stops listening", || TcpStream::connect(server.address()).is_err());
    proxy.release();
    let (status, stderr) = server.end();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    told_at.elapsed()
}

/// Runs `test` until the machine was not so busy that the server gave up waiting for an answer: then it returns false.
#[track_caller]
fn in_time(test: impl FnMut() -> bool) {
    eventually("the machine is fast enough", test);
}

#[test]
fn shutdown_during_a_refresh_waits_for_the_answer_and_publishes_it() {
    in_time(|| {
        let wechat = WeChat::start();
        let proxy = HoldingProxy::new(wechat.address());
        proxy.hold();
        let sandbox = Sandbox::with_base_url(&proxy.url()).on("classic");
        let server = sandbox.serve_refreshing(&[]);
        eventually("a call has begun", || wechat.asked() == 1);
        let mut waiting = connect(server.address());
        let sent_at = Instant::now();
        waiting.write_all(GET_TOKEN).unwrap();
        // When the server has answered this, it has read the waiting request, too.
        let mut idle = server.caller();
        assert_eq!(idle.get("/healthz").status, 200);
        let took = answer_during_shutdown(server, &proxy);
        if took >= SHUTDOWN_WAIT && !sandbox.document_path().exists() {
            return false;
        }
        let mut answer = Vec::new();
        waiting.read_to_end(&mut answer).unwrap();
        assert_has(&sandbox.token(), &Response::parse(&answer), sent_at);
        assert!(wechat.is_alive(&sandbox.token()));
        assert_eq!(wechat.asked(), 1);
        true
    });
}

#[test]
fn shutdown_waits_for_the_answer_without_a_waiting_client() {
    in_time(|| {
        let wechat = WeChat::start();
        let proxy = HoldingProxy::new(wechat.address());
        proxy.hold();
        let sandbox = Sandbox::with_base_url(&proxy.url()).on("classic");
        let server = sandbox.serve_refreshing(&[]);
        eventually("a call has begun", || wechat.asked() == 1);
        let took = answer_during_shutdown(server, &proxy);
        if took >= SHUTDOWN_WAIT && !sandbox.document_path().exists() {
            return false;
        }
        assert!(wechat.is_alive(&sandbox.token()));
        true
    });
}

#[test]
fn shutdown_waits_a_few_seconds_at_most_and_a_second_signal_ends_it_at_once() {
    let wechat = WeChat::with(&["--fault", "hang"]);
    let sandbox = Sandbox::new(&wechat);
    let ended_by = |signals| {
        let server = sandbox.serve_refreshing(&[]);
        let asked = wechat.asked();
        eventually("a call has begun", || wechat.asked() > asked || asked > 0);
        let begun = Instant::now();
        server.signal("TERM");
        if signals == 2 {
            // Once the first signal is handled: two pending signals could count as one.
            eventually("it stops listening", || TcpStream::connect(server.address()).is_err());
            server.signal("INT");
        }
        let (status, stderr) = server.end();
        assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
        begun.elapsed()
    };
    let patience = ended_by(1);
    assert!(patience > Duration::from_secs(4), "{patience:?}");
    // Once will do: a busy machine may be as slow to see that it stops listening.
    eventually("a second signal ends it sooner", || ended_by(2) < patience);
}

// Bodies.

#[test]
fn a_body_without_a_valid_rejected_token_is_a_400_that_quotes_nothing() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let server = sandbox.serve_refreshing(&["-vv"]);
    let token = served_token(&server);
    let too_long = format!(r#"{{"rejected":"S3CR3T{}"}}"#, "x".repeat(2048));
    for body in [
        "",
        "S3CR3T",
        "{}",
        "null",
        r#"["S3CR3T"]"#,
        r#"{"rejected":null}"#,
        r#"{"rejected":["S3CR3T"]}"#,
        r#"{"rejected":{"S3CR3T":1}}"#,
        r#"{"rejected":""}"#,
        r#"{"rejected":"S3CR3T S3CR3T"}"#,
        r#"{"rejected":"S3CR3T\u0000"}"#,
        r#"{"rejected":"{\"access_token\":\"S3CR3T\"}"}"#,
        r#"{"rejected":"\"S3CR3T\""}"#,
        r#"{"rejected":"S3CR3T","rejected":"S3CR3T"}"#,
        r#"{"rejected":"S3CR3T"#,
        "rejected=S3CR3T",
        "{\"rejected\":\"S3CR3T\u{e9}\"}",
        &too_long,
    ] {
        let response = server.post("/token", body);
        assert_eq!(
            (response.status, &response.json()["error"]),
            (400, &Value::from("bad_request"))
        );
        assert!(!response.body.contains("S3CR3T"), "{response:?}");
    }
    let response = server.post("/token", &"x".repeat(20_000));
    assert_eq!(response.status, 413);
    assert_eq!(server.post("/token/other", &rejected(&token)).status, 404);
    for method in ["PUT", "DELETE", "PATCH"] {
        let response = server.send(&post_request("/token", "{}").replacen("POST", method, 1));
        assert_eq!((response.status, response.header("allow")), (405, Some("GET, HEAD, POST")));
    }
    assert_eq!(
        token_of(&server.post("/token/default", &rejected("T0"))),
        token,
        "also with the account's name"
    );
    assert_eq!((wechat.asked(), wechat.probes()), (1, 0));
    let stderr = server.stop();
    assert!(!stderr.contains("S3CR3T") && !stderr.contains(&token), "{stderr}");
}

#[test]
fn an_incomplete_body_is_a_400_and_its_token_is_ignored() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let server = sandbox.serve_refreshing(&[]);
    let token = served_token(&server);
    wechat.kill_tokens();
    let whole = post_request("/token", &rejected(&token));
    let mut stream = connect(server.address());
    stream.write_all(&whole.as_bytes()[..whole.len() - 1]).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(Response::parse(&answer).status, 400);
    sleep(Duration::from_millis(100));
    assert_eq!((wechat.asked(), wechat.probes()), (1, 0));
}
