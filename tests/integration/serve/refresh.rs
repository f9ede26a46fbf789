//! `wxtoken serve --refresh`: the one place that asks WeChat. On schedule and on demand, for a thousand as for one, and
//! never more often than there is reason for.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use crate::support::*;
use serde_json::Value;

const GET_TOKEN: &[u8] = b"GET /token HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// The token of a good answer.
#[track_caller]
fn token_of(response: &Response) -> String {
    assert_eq!(response.status, 200, "{response:?}");
    response.json()["access_token"].as_str().expect("a token").to_owned()
}

/// Asserts that there is no token; says why, and when to ask again.
#[track_caller]
fn assert_no_token(response: &Response) -> (String, u64) {
    assert_eq!(response.status, 503, "{response:?}");
    let body = response.json();
    assert_eq!(body["error"], "no_token");
    let seconds = response.header("retry-after").expect("when to ask again").parse().unwrap();
    (body["message"].as_str().unwrap().to_owned(), seconds)
}

/// Asks for the token until WeChat's refusals are known; the answer then.
#[track_caller]
fn refused_token(server: &Server) -> Response {
    let mut response = server.get("/token");
    eventually("it is known that there is no token", || {
        response = server.get("/token");
        response.status == 503
    });
    response
}

/// All of these at once; the answers.
fn at_once(server: &Server, requests: impl IntoIterator<Item = String>) -> Vec<Response> {
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

/// Does this for each of them at the same time: most of it is waiting.
fn side_by_side(each: &[&'static str], what: impl Fn(&'static str) + Sync) {
    thread::scope(|scope| each.iter().for_each(|one| drop(scope.spawn(|| what(one)))));
}

fn get_token() -> String {
    String::from_utf8(GET_TOKEN.to_vec()).unwrap()
}

// On schedule.

#[test]
fn a_token_is_published_at_once_and_replaced_whenever_it_is_due() {
    side_by_side(&["stable", "classic", "work"], |api| {
        let wechat = WeChat::with(&["--life", "3s", "--overlap", "1s"]);
        let sandbox = Sandbox::against(&wechat).on(api);
        let server = sandbox.serve_refreshing(&["--refresh-before", "1s"]);
        let mut seen = Vec::new();
        // Nobody has to ask for it.
        eventually("three tokens were published", || {
            if sandbox.document_path().exists() && seen.last() != Some(&sandbox.token()) {
                seen.push(sandbox.token());
                assert!(wechat.is_alive(&sandbox.token()), "{api}");
            }
            seen.len() == 3
        });
        assert!(wechat.asked() <= 3 * 3, "{api}: {}", wechat.calls());
        assert_eq!(server.stop(), "", "{api}: it says nothing when all is well");
    });
}

#[test]
fn ten_fetches_beside_it_are_harmless() {
    for api in ["stable", "classic"] {
        let wechat = WeChat::with(&["--fault", "slow:1"]);
        let sandbox = Sandbox::against(&wechat).on(api);
        let server = sandbox.serve_refreshing(&[]);
        let fetches: Vec<_> =
            (0..10).map(|_| sandbox.command(&["fetch"]).spawn().unwrap()).collect();
        for mut fetch in fetches {
            assert_eq!(fetch.wait().unwrap().code(), Some(0), "{api}");
        }
        assert_eq!(token_of(&server.get("/token")), sandbox.token());
        assert_eq!((wechat.asked(), wechat.mints()), (1, 1), "{api}");
        // And what they publish is taken up, and asked for no more.
        sandbox.run(&["fetch", "--force"]).exits(0);
        assert_eq!(token_of(&server.get("/token")), sandbox.token());
        assert_eq!(wechat.mints(), 2, "{api}");
    }
}

#[test]
fn a_document_that_is_damaged_or_removed_is_made_anew_without_a_loop() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::against(&wechat);
    let server = sandbox.serve_refreshing(&[]);
    let token = token_of(&server.get("/token"));
    let begun = Instant::now();
    for _ in 0..5 {
        fs::remove_file(sandbox.document_path()).unwrap();
        let _ = fs::remove_file(sandbox.path("state/default.lock"));
        // On stable it is the same one.
        assert_eq!(token_of(&server.get("/token")), token);
        assert_eq!(sandbox.token(), token);
    }
    // Once a second at most.
    let most = 2 + begun.elapsed().as_secs();
    assert!(wechat.asked() <= most, "{} of {most}", wechat.calls());
    fs::write(sandbox.document_path(), "{").unwrap();
    assert_eq!(token_of(&server.get("/token")), token, "the last good one, as long as it lives");
    eventually("it is published again", || {
        fs::read_to_string(sandbox.document_path()).is_ok_and(|text| text.contains(&token))
    });
    assert_eq!(wechat.mints(), 1);
}

#[test]
fn where_nothing_can_be_published_wechat_is_not_asked_and_clients_hear_whose_fault_it_is() {
    let wechat = WeChat::start();
    let foreign = r#"{"appid":"wx1","access_token":"T1","expires_in":7200,"created_at":"2026-11-22T05:34:46Z"}"#;
    for (taken, said) in [(None, "state"), (Some(foreign), "belongs to wx1")] {
        let sandbox = Sandbox::against(&wechat);
        match taken {
            None => fs::write(sandbox.path("state"), "a file where a directory is to be").unwrap(),
            Some(document) => {
                fs::create_dir(sandbox.path("state")).unwrap();
                fs::write(sandbox.document_path(), document).unwrap();
            }
        }
        let server = sandbox.serve_refreshing(&[]);
        let (message, seconds) = assert_no_token(&refused_token(&server));
        assert!(message.contains("on the server") && message.contains("日志"), "{message}");
        assert!(!message.contains("state") && !message.contains("wx1"), "{message}");
        assert!(seconds <= 3, "{seconds}");
        let stderr = server.stop();
        assert!(stderr.contains(said) && stderr.contains("trying again in"), "{stderr}");
        assert!(stderr.lines().count() <= 3, "the same trouble is told once:\n{stderr}");
    }
    assert_eq!(wechat.asked(), 0);
}

#[test]
fn a_full_disk_costs_no_mint_and_is_got_over() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::against(&wechat).on("classic");
    let serve = {
        let mut command = sandbox.command(&["serve", "--refresh", "--listen", "127.0.0.1:0"]);
        command
            .arg("--secret-file")
            .arg(sandbox.path("secret"))
            .args(["--base-url", &wechat.url()]);
        command
    };
    // A disk of our own, of 64 KiB, that is full.
    fs::create_dir(sandbox.path("state")).unwrap();
    let state = sandbox.path("state");
    let script = format!(
        r#"mount -t tmpfs -o size=64k none '{0}' && head -c 65536 /dev/zero >'{0}/ballast'; exec "$0" "$@""#,
        state.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
    command.arg(serve.get_program()).args(serve.get_args());
    let can_unshare =
        Command::new("unshare").args(["--mount", "true"]).stderr(Stdio::null()).status();
    if !can_unshare.is_ok_and(|status| status.success()) {
        return skip("unshare is missing, or may not make a mount namespace here");
    }
    let server = Server::start(command, 1);
    assert_no_token(&refused_token(&server));
    assert_eq!(wechat.asked(), 0);
    let inside = format!("/proc/{}/root{}/ballast", server.pid(), state.display());
    fs::remove_file(inside).expect("the way into its namespace");
    eventually("there is room, and a token", || server.get("/token").status == 200);
    assert_eq!(wechat.mints(), 1);
}

#[test]
fn a_refusal_that_passes_is_got_over_with_pauses_that_grow() {
    let wechat = WeChat::with(&["--fault", "errcode:45011@2"]);
    let sandbox = Sandbox::against(&wechat);
    let server = sandbox.serve_refreshing(&[]);
    let (message, seconds) = assert_no_token(&refused_token(&server));
    assert!(message.contains("45011") && message.contains("分钟级"), "{message}");
    assert!((50..=66).contains(&seconds), "a minute's quota: {seconds}");
    for _ in 0..50 {
        assert_no_token(&server.get("/token"));
    }
    assert_eq!(wechat.asked(), 1, "no request of a client is one of WeChat");

    let wechat = WeChat::with(&["--fault", "errcode:-1@5"]);
    let sandbox = Sandbox::against(&wechat);
    let server = sandbox.serve_refreshing(&[]);
    eventually("WeChat is not busy any more", || server.get("/token").status == 200);
    assert_eq!(wechat.asked(), 6);
    let stderr = server.stop();
    assert!(stderr.contains("系统繁忙") && stderr.contains("all is well again"), "{stderr}");
    assert_eq!(stderr.lines().count(), 2, "{stderr}");
}

// SIGHUP.

#[test]
fn a_wrong_secret_is_tried_once_until_somebody_says_that_it_was_replaced() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::against(&wechat);
    write_with_mode(&sandbox.path("secret"), "00000000000000000000000000000000", 0o600);
    let server = sandbox.serve_refreshing(&[]);
    let (message, seconds) = assert_no_token(&refused_token(&server));
    assert!(message.contains("40125") && message.contains("AppSecret 错误"), "{message}");
    assert!(seconds > 3000, "{seconds}");
    for _ in 0..50 {
        assert_no_token(&server.get("/token"));
    }
    assert_eq!(wechat.asked(), 1);
    // It is still wrong, and that is said again.
    server.signal("HUP");
    eventually("it is tried again", || wechat.asked() == 2);
    write_with_mode(&sandbox.path("secret"), SECRET, 0o600);
    server.signal("HUP");
    eventually("the token is handed out", || server.get("/token").status == 200);
    let stderr = server.stop();
    assert_eq!(stderr.matches("40125").count(), 2, "{stderr}");
    assert!(stderr.contains("all is well again"), "{stderr}");
}

#[test]
fn a_broken_secret_file_keeps_the_last_good_secret_and_says_so() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::against(&wechat).on("classic");
    let server = sandbox.serve_refreshing(&[]);
    token_of(&server.get("/token"));
    write_with_mode(&sandbox.path("secret"), "S3CR3T S3CR3T", 0o644);
    server.signal("HUP");
    fs::remove_file(sandbox.document_path()).unwrap();
    token_of(&server.get("/token"));
    assert_eq!(wechat.mints(), 2);
    let stderr = server.stop();
    assert!(stderr.contains("mode 0644") && stderr.contains("the last good AppSecret stays"));
    assert!(!stderr.contains("S3CR3T"), "{stderr}");
}

#[test]
fn a_secret_that_was_piped_in_is_kept_at_a_hangup() {
    let wechat = WeChat::with(&["--fault", "errcode:40164@1"]);
    let sandbox = Sandbox::against(&wechat);
    let mut command = sandbox.command(&["serve", "--refresh", "--listen", "127.0.0.1:0"]);
    command.args(["--secret-file", "-", "--base-url", &wechat.url()]);
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(SECRET.as_bytes()).unwrap();
    drop(writer);
    command.stdin(reader);
    let server = Server::start(command, 1);
    assert_no_token(&refused_token(&server));
    server.signal("HUP");
    eventually("the address is allowed now", || server.get("/token").status == 200);
    let stderr = server.stop();
    assert_eq!(stderr.lines().count(), 2, "the refusal and its end:\n{stderr}");
}

#[test]
fn a_storm_of_hangups_in_the_middle_of_a_refresh_costs_no_calls() {
    let wechat = WeChat::with(&["--fault", "slow:1"]);
    let sandbox = Sandbox::against(&wechat);
    let server = sandbox.serve_refreshing(&[]);
    eventually("WeChat is asked", || wechat.asked() == 1);
    while !sandbox.document_path().exists() {
        server.signal("HUP");
        assert_eq!(server.get("/healthz").status, 200);
    }
    for _ in 0..50 {
        server.signal("HUP");
    }
    token_of(&server.get("/token"));
    assert_eq!(wechat.asked(), 1);
}

// On demand.

#[test]
fn a_thousand_who_find_no_token_cost_one_call_and_all_get_the_answer() {
    let wechat = WeChat::with(&["--fault", "slow:3"]);
    let sandbox = Sandbox::against(&wechat);
    let server = sandbox.serve_refreshing(&[]);
    let mut streams: Vec<TcpStream> = (0..1000).map(|_| connect(server.address())).collect();
    for stream in &mut streams {
        stream.write_all(GET_TOKEN).unwrap();
    }
    assert!(!sandbox.document_path().exists(), "they are all waiting");
    let memory = server.memory() >> 20;
    assert!(memory < 64, "{memory} MiB");
    let mut tokens: Vec<String> = streams
        .iter_mut()
        .map(|stream| {
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).expect("an answer");
            token_of(&Response::parse(&answer))
        })
        .collect();
    tokens.dedup();
    assert_eq!(tokens, [sandbox.token()]);
    assert_eq!((wechat.asked(), wechat.mints()), (1, 1));
}

#[test]
fn a_token_that_ended_is_replaced_for_whoever_asks() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::against(&wechat);
    // Not due, as far as the schedule knows, for an hour.
    sandbox.publish("T1", 7200, 3600);
    let server = sandbox.serve_refreshing(&[]);
    assert_eq!(token_of(&server.get("/token")), "T1");
    assert_eq!(wechat.asked(), 0);
    sandbox.publish("T1", 7200, 7200);
    let tokens = at_once(&server, (0..20).map(|_| get_token()));
    assert!(tokens.iter().all(|response| token_of(response) == sandbox.token()));
    assert_eq!(wechat.asked(), 1);
}

#[test]
fn while_wechat_is_down_a_token_that_lives_is_handed_out_and_then_the_reason_at_once() {
    side_by_side(&["reset", "http:502", "errcode:40164"], |fault| {
        let wechat = WeChat::with(&["--fault", fault]);
        let sandbox = Sandbox::against(&wechat);
        sandbox.publish("T1", 7200, 7100); // Due, and refused.
        let server = sandbox.serve_refreshing(&[]);
        for _ in 0..20 {
            assert_eq!(token_of(&server.get("/token")), "T1");
        }
        eventually("it is known that WeChat is down", || server.tell_rejected("T1").status == 503);
        sandbox.publish("T1", 7200, 7200);
        let begun = Instant::now();
        let asked = wechat.asked();
        let (message, _) = assert_no_token(&server.get("/token"));
        assert!(begun.elapsed() < Duration::from_secs(1), "{fault}: at once");
        assert!(
            message.contains("default") && message.chars().any(|c| c > '\u{2fff}'),
            "{message}"
        );
        assert!(wechat.asked() <= asked + 1);

        wechat.fault("none");
        server.signal("HUP");
        eventually("WeChat is back", || server.get("/token").status == 200);
    });
}

#[test]
fn others_are_answered_while_wechat_keeps_us_waiting() {
    side_by_side(&["hang", "drip", "slow:60"], |fault| {
        let wechat = WeChat::with(&["--fault", fault]);
        let sandbox = Sandbox::against(&wechat);
        let server = sandbox.serve_refreshing(&[]);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let begun = Instant::now();
                (assert_no_token(&server.get("/token")), begun.elapsed())
            });
            eventually("WeChat is asked", || wechat.asked() > 0);
            let begun = Instant::now();
            for _ in 0..100 {
                assert_eq!(server.get("/healthz").status, 200);
                assert_eq!(server.get("/readyz").status, 503);
            }
            assert!(begun.elapsed() < Duration::from_secs(5), "{fault}: {:?}", begun.elapsed());
            let ((message, seconds), waited) = waiting.join().unwrap();
            assert!(message.contains("has not answered yet"), "{fault}: {message}");
            assert!((1..=10).contains(&seconds), "{fault}: {seconds}");
            let waited = waited.as_secs();
            assert!((9..=13).contains(&waited), "{fault}: no longer than an SDK waits: {waited}");
        });
    });
}

#[test]
fn what_is_published_by_hand_counts_at_once() {
    let wechat = WeChat::with(&["--fault", "hang"]);
    let sandbox = Sandbox::against(&wechat);
    let server = sandbox.serve_refreshing(&[]);
    eventually("WeChat is asked", || wechat.asked() > 0);
    sandbox.publish("T9", 7200, 0);
    assert_eq!(token_of(&server.get("/token")), "T9");
    assert_eq!(token_of(&server.tell_rejected("T1")), "T9");
}

// Without --refresh.

#[test]
fn without_refresh_no_stranger_can_cause_a_call_and_the_secret_is_not_read() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::against(&wechat);
    sandbox.publish("T1", 7200, 0);
    let secret = sandbox.path("secret");
    let trace = sandbox.path("trace");
    let mut serve = sandbox.command(&["serve", "--listen", "127.0.0.1:0"]);
    serve.arg("--secret-file").arg(&secret).args(["--base-url", &wechat.url()]);
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-e", "trace=open,openat,openat2,connect", "-o"]).arg(&trace);
    command.arg(serve.get_program()).args(serve.get_args());
    if Command::new("strace").arg("true").stderr(Stdio::null()).status().is_err() {
        return skip("strace is missing");
    }
    let server = Server::start(command, 1);
    let stable = |force| {
        format!(
            r#"{{"grant_type":"client_credential","appid":"{APPID}","secret":"x","force_refresh":{force}}}"#
        )
    };
    let everything = || {
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
        let response = server.tell_rejected("T1");
        assert_eq!((response.status, response.header("allow")), (405, Some("GET, HEAD")));
    };
    everything();
    server.signal("HUP");
    sandbox.publish("T1", 7200, 7200);
    everything();
    fs::remove_file(sandbox.document_path()).unwrap();
    everything();
    assert_eq!((wechat.asked(), wechat.probes()), (0, 0));
    // strace passes the signal on to nobody: it is sent to the one that it traces.
    let children = format!("/proc/{0}/task/{0}/children", server.pid());
    let child = fs::read_to_string(children).unwrap();
    assert!(Command::new("kill").args(["-TERM", child.trim()]).status().unwrap().success());
    server.end();
    let trace = fs::read_to_string(trace).unwrap();
    assert!(trace.contains("default.json"), "it was traced:\n{trace}");
    assert!(!trace.contains(secret.to_str().unwrap()), "{trace}");
    assert!(!trace.contains("AF_INET"), "{trace}");
}

// Its end.

#[test]
fn an_end_in_the_middle_of_a_refresh_waits_for_the_answer_and_publishes_it() {
    let wechat = WeChat::with(&["--fault", "slow:2"]);
    let sandbox = Sandbox::against(&wechat).on("classic");
    let server = sandbox.serve_refreshing(&[]);
    let mut waiting = connect(server.address());
    waiting.write_all(GET_TOKEN).unwrap();
    eventually("WeChat is asked", || wechat.asked() == 1);
    // Whose request was here before is answered, too.
    let mut idle = server.caller();
    assert_eq!(idle.get("/healthz").status, 200);
    assert_eq!(server.stop(), "");
    let mut answer = Vec::new();
    waiting.read_to_end(&mut answer).unwrap();
    assert_eq!(token_of(&Response::parse(&answer)), sandbox.token());
    assert!(wechat.is_alive(&sandbox.token()));
    assert_eq!(wechat.asked(), 1);
}

#[test]
fn an_end_waits_for_the_answer_though_no_client_does() {
    let wechat = WeChat::with(&["--fault", "slow:2"]);
    let sandbox = Sandbox::against(&wechat).on("classic");
    let server = sandbox.serve_refreshing(&[]);
    eventually("WeChat is asked", || wechat.asked() == 1);
    assert_eq!(server.stop(), "");
    assert!(wechat.is_alive(&sandbox.token()));
}

#[test]
fn an_end_does_not_wait_for_ever_and_a_second_signal_is_the_end_at_once() {
    let wechat = WeChat::with(&["--fault", "hang"]);
    let sandbox = Sandbox::against(&wechat);
    for (signals, expected) in [(1, 4..=8), (2, 0..=2)] {
        let server = sandbox.serve_refreshing(&[]);
        let asked = wechat.asked();
        eventually("WeChat is asked", || wechat.asked() > asked || asked > 0);
        let begun = Instant::now();
        server.signal("TERM");
        if signals == 2 {
            // Not before the first one was taken, or the two would be one.
            eventually("it listens no more", || TcpStream::connect(server.address()).is_err());
            server.signal("INT");
        }
        let (status, stderr) = server.end();
        assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
        let took = begun.elapsed().as_secs();
        assert!(expected.contains(&took), "{signals}: {took}");
    }
}

// Bodies.

#[test]
fn a_body_that_tells_of_no_token_is_a_400_that_quotes_nothing() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::against(&wechat);
    let server = sandbox.serve_refreshing(&["-vv"]);
    let token = token_of(&server.get("/token"));
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
    for path in ["/token/other", "/token/"] {
        assert_eq!(server.post(path, &rejected(&token)).status, 404);
    }
    for method in ["PUT", "DELETE", "PATCH"] {
        let response = server.send(&posting("/token", "{}").replacen("POST", method, 1));
        assert_eq!((response.status, response.header("allow")), (405, Some("GET, HEAD, POST")));
    }
    assert_eq!(token_of(&server.post("/token/default", &rejected("T0"))), token, "by name, too");
    assert_eq!((wechat.asked(), wechat.probes()), (1, 0));
    let stderr = server.stop();
    assert!(!stderr.contains("S3CR3T") && !stderr.contains(&token), "{stderr}");
}

#[test]
fn half_a_body_is_not_waited_for_for_ever_and_its_token_not_taken() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::against(&wechat);
    let server = sandbox.serve_refreshing(&[]);
    let token = token_of(&server.get("/token"));
    wechat.kill_tokens();
    let whole = posting("/token", &rejected(&token));
    let mut stream = connect(server.address());
    stream.write_all(&whole.as_bytes()[..whole.len() - 1]).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(Response::parse(&answer).status, 400);
    sleep(Duration::from_millis(100));
    assert_eq!((wechat.asked(), wechat.probes()), (1, 0));
}
