//! Promise 7: a client can report a token that WeChat rejected. If it is still the current one, it is replaced once.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::*;

/// Runs `fetch --rejected -` with the token on stdin.
fn fetch_rejected(sandbox: &Sandbox, token: &str) -> Run {
    let mut command = sandbox.command(&["fetch", "--rejected", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{token}\n").as_bytes()).unwrap();
    Run::from_output(child.wait_with_output().unwrap())
}

#[test]
fn a_dead_token_is_replaced_by_a_live_one() {
    for api in ["stable", "classic", "work"] {
        let wechat = WeChat::start();
        let sandbox = Sandbox::new(&wechat).on(api);
        sandbox.run(&["fetch"]).exits(0);
        let dead = sandbox.token();
        wechat.kill_tokens();
        fetch_rejected(&sandbox, &dead).exits(0).says(&["token "]);
        assert_ne!(sandbox.token(), dead, "{api}");
        assert!(wechat.is_alive(&sandbox.token()), "{api}");

        let (healed, mints) = (sandbox.token(), wechat.mints());
        fetch_rejected(&sandbox, &dead).exits(0).says(&["token "]);
        assert_eq!(
            (sandbox.token(), wechat.mints()),
            (healed, mints),
            "{api}: it was replaced already"
        );
    }
}

/// Another program forced a refresh at WeChat. Its token is used, and not invalidated in turn.
#[test]
fn a_token_that_was_replaced_elsewhere_costs_no_forced_refresh() {
    let wechat = WeChat::with(&["--overlap", "0s"]);
    let ours = Sandbox::new(&wechat);
    let theirs = Sandbox::new(&wechat);
    ours.run(&["fetch"]).exits(0);
    theirs.run(&["fetch", "--force"]).exits(0);
    let before = wechat.mints();
    fetch_rejected(&ours, &ours.token()).exits(0).says(&["token "]);
    assert_eq!(ours.token(), theirs.token());
    assert_eq!(wechat.mints(), before);
}

#[test]
fn a_reported_token_is_replaced_or_kept_and_a_line_says_which_and_why() {
    for api in ["stable", "classic", "work"] {
        let wechat = WeChat::start();
        let sandbox = Sandbox::new(&wechat).on(api);
        sandbox.run(&["fetch"]).exits(0);
        let (token, mints) = (sandbox.token(), wechat.mints());
        let kept = ["WeChat honours token ", "so it stays", "fetch --force", "微信仍承认 token"];
        fetch_rejected(&sandbox, &token).exits(0).says(&kept);
        // As where the -r of `get -r` was forgotten.
        for json in [
            format!("{{\"access_token\":\"{token}\",\"expires_in\":7000}}"),
            format!("\"{token}\""),
        ] {
            let ran =
                fetch_rejected(&sandbox, &json).exits(2).says(&["as wxtoken get -r prints it"]);
            assert!(!ran.stderr.contains(&token), "{}", ran.stderr);
        }
        let other = ["nothing to do: token ", "is not the published one", "无须处理"];
        fetch_rejected(&sandbox, "T_OTHER").exits(0).says(&other);
        assert_eq!((sandbox.token(), wechat.mints()), (token.clone(), mints), "{api}");
        wechat.kill_tokens();
        let replaced = ["replaced token ", ": published token ", "已更换 token"];
        fetch_rejected(&sandbox, &token).exits(0).says(&replaced);
        assert_ne!(sandbox.token(), token, "{api}");
        // Where the published one has expired, another one is published whichever was rejected.
        sandbox.publish("T_OLD", 7200, 8000);
        let published = ["published token ", "was not the published one", "不是此前发布的"];
        let ran = fetch_rejected(&sandbox, "T_OTHER").exits(0).says(&published);
        assert!(!ran.stderr.contains("replaced"), "{}", ran.stderr);
    }
}

#[test]
fn a_token_that_is_handed_out_again_after_a_report_is_marked_as_honoured() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let server = sandbox.serve_refreshing(&["-v"]);
    let token = token_of(&server.get("/token"));
    assert_eq!(server.get("/token").header("wxtoken-reported-token"), None);
    // Probed now, and moments ago.
    for _ in 0..2 {
        let again = server.report_rejected(&token);
        assert_eq!(token_of(&again), token);
        assert_eq!(again.header("wxtoken-reported-token"), Some("honoured"), "{again:?}");
    }
    wechat.kill_tokens();
    assert_eq!(server.report_rejected("T_OTHER").header("wxtoken-reported-token"), None);
    assert!(server.stop().contains("is handed out again: WeChat honours it"));
}

#[test]
fn a_forced_answer_that_is_the_old_token_again_is_reported_as_such() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    sandbox.run(&["fetch", "--force"]).exits(0);
    // Within 30 s of the last forced refresh WeChat does not do another, and does not say so. Whether the token is alive
    // cannot be told.
    wechat.fault("probe/errcode:-1");
    let ran = fetch_rejected(&sandbox, &sandbox.token()).exits(5);
    ran.says(&["the same token again", "30 s", "每天最多 20 次"]);
}

/// Tokens of WeCom can begin with any of their characters.
#[test]
fn a_reported_token_can_begin_with_a_dash_and_a_flag_is_not_taken_for_a_token() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    for token in ["-I_0", "-", "--force"] {
        sandbox.publish(token, 7200, 0);
        fetch_rejected(&sandbox, token).exits(0).says(&["token "]);
        assert_ne!(sandbox.token(), token);
    }
    sandbox.publish("-I_0", 7200, 0);
    sandbox.run(&["fetch", "--rejected", "-I_0"]).exits(0).says(&["token "]);
    assert_ne!(sandbox.token(), "-I_0");
    let ran = sandbox.run(&["fetch", "--rejected", "--force"]).exits(2);
    ran.says(&["followed by a flag", "--rejected -"]);
}

#[test]
fn an_invalid_token_is_refused_and_not_quoted() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    for wrong in ["", "two words", &"x".repeat(3000)] {
        let ran = fetch_rejected(&sandbox, wrong).exits(2);
        assert!(wrong.is_empty() || !ran.stderr.contains(wrong));
    }
    sandbox.run(&["fetch", "--rejected", "T", "--force"]).exits(2);
    let both = ["fetch", "--rejected", "-", "--secret-file", "-", "--appid", APPID];
    let mut command = wxtoken();
    command.args(both);
    Run::new(command).exits(2).says(&["stdin"]);
    assert_eq!(wechat.asked(), 0);
}

/// Returns the token of a successful response.
#[track_caller]
fn token_of(response: &Response) -> String {
    assert_eq!(response.status, 200, "{response:?}");
    response.json()["access_token"].as_str().expect("a token").to_owned()
}

/// Reports rejected tokens from `clients` connections at once. Returns the responses.
fn report_at_once(
    server: &Server,
    clients: usize,
    token: impl Fn(usize) -> String,
) -> Vec<Response> {
    let mut streams: Vec<TcpStream> = (0..clients).map(|_| connect(server.address())).collect();
    for (nth, stream) in streams.iter_mut().enumerate() {
        stream.write_all(post_request("/token", &rejected(&token(nth))).as_bytes()).unwrap();
    }
    let answer = |mut stream: TcpStream| {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        Response::parse(&answer)
    };
    streams.into_iter().map(answer).collect()
}

#[test]
fn two_hundred_reports_of_one_dead_token_cost_one_probe_and_one_mint() {
    for api in ["stable", "classic", "work"] {
        let wechat = WeChat::start();
        let sandbox = Sandbox::new(&wechat).on(api);
        let server = sandbox.serve_refreshing(&[]);
        let dead = token_of(&server.get("/token"));
        wechat.kill_tokens();
        let (mints, probes) = (wechat.mints(), wechat.probes());
        let mut tokens: Vec<String> =
            report_at_once(&server, 200, |_| dead.clone()).iter().map(token_of).collect();
        tokens.dedup();
        assert_eq!(tokens, [sandbox.token()], "{api}");
        assert_ne!(tokens[0], dead);
        assert_eq!((wechat.mints(), wechat.probes()), (mints + 1, probes + 1), "{api}");
        assert!(wechat.is_alive(&tokens[0]));

        // A late report of the old token gets the new one without a call.
        let (asked, probes) = (wechat.asked(), wechat.probes());
        assert_eq!(token_of(&server.report_rejected(&dead)), tokens[0]);
        assert_eq!((wechat.asked(), wechat.probes()), (asked, probes), "{api}");
        assert!(server.stop().contains("another program refreshed the token"));
    }
}

/// Through the gateway a client needs not even report it.
#[test]
fn clients_of_the_gateway_never_see_a_dead_token_on_any_api() {
    for api in ["stable", "classic", "work"] {
        let wechat = WeChat::start();
        let sandbox = Sandbox::new(&wechat).on(api);
        let server = sandbox.serve_refreshing(&["--gateway"]);
        let token = token_of(&server.get("/token"));
        let calls = [
            "/cgi-bin/getcallbackip".to_owned(),
            format!("/cgi-bin/getcallbackip?access_token={token}"),
            format!("/gateway/default/cgi-bin/get_api_domain_ip?access_token={token}"),
        ];
        wechat.kill_tokens();
        let mints = wechat.mints();
        let mut streams: Vec<TcpStream> = (0..30).map(|_| connect(server.address())).collect();
        for (nth, stream) in streams.iter_mut().enumerate() {
            let path = &calls[nth % calls.len()];
            let head = "Host: localhost\r\nConnection: close";
            stream.write_all(format!("GET {path} HTTP/1.1\r\n{head}\r\n\r\n").as_bytes()).unwrap();
        }
        for mut stream in streams {
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).expect("an answer");
            let answer = Response::parse(&answer);
            assert!(answer.json()["ip_list"][0].is_string(), "{api}: {answer:?}");
        }
        assert_eq!(wechat.mints(), mints + 1, "{api}");
        let log = server.stop();
        assert!(
            log.contains("another program refreshed the token") && !log.contains(&token),
            "{log}"
        );
    }
}

#[test]
fn reports_of_other_tokens_than_the_current_one_cause_no_call() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let server = sandbox.serve_refreshing(&[]);
    let token = token_of(&server.get("/token"));
    for response in report_at_once(&server, 200, |nth| format!("T{nth}")) {
        assert_eq!(token_of(&response), token);
    }
    assert_eq!((wechat.asked(), wechat.probes()), (1, 0));
}

/// A hundred reports a second, with as many reports of other tokens in between.
#[test]
fn false_reports_of_a_live_token_cost_a_few_probes_and_no_mint() {
    for api in ["stable", "classic"] {
        let wechat = WeChat::start();
        let sandbox = Sandbox::new(&wechat).on(api);
        let server = sandbox.serve_refreshing(&[]);
        let token = token_of(&server.get("/token"));
        let begun = Instant::now();
        for nth in 0..250 {
            assert_eq!(token_of(&server.report_rejected(&token)), token);
            assert_eq!(token_of(&server.report_rejected(&format!("T{nth}"))), token);
            std::thread::sleep((begun + Duration::from_millis(10 * nth)) - Instant::now());
        }
        // A client's burst, and one more each 30 seconds. One that a busy machine answers too late is followed by one of
        // the server's own.
        let most = 2 * (5 + begun.elapsed().as_secs() / 30);
        assert_eq!(wechat.mints(), 1, "{api}");
        let probes = wechat.probes();
        assert!((2..=most).contains(&probes), "{api}: {probes} of {most} in {:?}", begun.elapsed());
        assert!(wechat.is_alive(&token));
    }
}

/// Asserts that all routes say that there is no token, and that no request for another one has ended yet.
#[track_caller]
fn assert_not_served(server: &Server, api: &str) {
    let sample = |name: &str, expected: &str| {
        let line = format!("{name}{{account=\"default\"}} {expected}\n");
        let metrics = server.get("/metrics").body;
        assert!(metrics.contains(&line), "{api}: {line} is not in:\n{metrics}");
    };
    sample("wxtoken_fetch_last_failure_timestamp_seconds", "0");
    sample("wxtoken_token_live", "0");
    assert!(server.get("/").body.contains("已失效"), "{api}: the page");
    let sdk = match api {
        "work" => format!("/cgi-bin/gettoken?corpid={APPID}&corpsecret=x"),
        _ => format!("/cgi-bin/token?grant_type=client_credential&appid={APPID}&secret=x"),
    };
    // These wait some seconds for another token.
    std::thread::scope(|scope| {
        for path in ["/token", "/readyz"] {
            scope.spawn(move || {
                let response = server.get(path);
                assert_eq!(response.status, 503, "{api}: {path}: {response:?}");
                let seconds: u64 = response.header("retry-after").unwrap().parse().unwrap();
                assert!((1..=30).contains(&seconds), "{api}: {seconds}");
            });
        }
        scope.spawn(|| assert_eq!(server.get(&sdk).json()["errcode"], -1, "{api}"));
    });
}

/// A dead token was handed out for as long as the request for another one went on.
#[test]
fn a_verdict_counts_while_the_request_for_another_token_hangs() {
    std::thread::scope(|scope| {
        for api in ["stable", "classic", "work"] {
            scope.spawn(move || {
                let wechat = WeChat::start();
                let sandbox = Sandbox::new(&wechat).on(api);
                let server = sandbox.serve_refreshing(&[]);
                let dead = token_of(&server.get("/token"));
                wechat.kill_tokens();
                wechat.fault("token/hang");
                let asked = wechat.asked();
                std::thread::scope(|scope| {
                    let report = scope.spawn(|| server.report_rejected(&dead));
                    eventually("the verdict is known", || server.get("/readyz").status == 503);
                    eventually("the request is sent", || wechat.asked() > asked);
                    assert_eq!(wechat.asked(), asked + 1, "{api}: the first request goes on");
                    assert_not_served(&server, api);
                    // Those who read the document know, too. WeCom issues the same token again while it lives.
                    if api != "work" {
                        sandbox.run(&["get"]).exits(3).says(&["expired"]);
                        assert_eq!(sandbox.serve(&[]).get("/token").status, 503, "{api}");
                    }
                    assert_eq!(report.join().unwrap().status, 503, "{api}");
                });
                assert_eq!(sandbox.token(), dead, "{api}: another one cannot be had");
                wechat.fault("none");
                eventually("there is another token", || server.get("/token").status == 200);
                assert!(wechat.is_alive(&token_of(&server.get("/token"))), "{api}");
            });
        }
    });
}

/// A child that a failed test does not leave behind, not even stopped.
struct KilledAtEnd(Child);

impl Drop for KilledAtEnd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_verdict_counts_while_a_stopped_fetch_holds_the_lock() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let server = sandbox.serve_refreshing(&[]);
    let dead = token_of(&server.get("/token"));
    wechat.fault("token/hang@1");
    let asked = wechat.asked();
    let fetch =
        sandbox.command(&["fetch", "--force"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let fetch = KilledAtEnd(fetch.unwrap());
    eventually("fetch holds the lock and asks", || wechat.asked() == asked + 1);
    let signal = |name: &str| {
        let pid = fetch.0.id().to_string();
        let killed = Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(killed.success());
    };
    signal("-STOP");
    wechat.kill_tokens();
    std::thread::scope(|scope| {
        let report = scope.spawn(|| server.report_rejected(&dead));
        eventually("the verdict is known", || server.get("/readyz").status == 503);
        assert_not_served(&server, "stable");
        assert_eq!(report.join().unwrap().status, 503);
    });
    assert_eq!(wechat.asked(), asked + 1, "the lock is held");
    drop(fetch);
    eventually("there is another token", || server.get("/token").status == 200);
    assert!(wechat.is_alive(&token_of(&server.get("/token"))));
}

/// The AppSecret was reset and replaced, which kills the token that the old one got.
#[test]
fn a_verdict_of_a_refresh_counts_while_its_request_for_another_token_hangs() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat).on("classic");
    sandbox.run(&["fetch"]).exits(0);
    wechat.kill_tokens();
    write_with_mode(&sandbox.path("secret"), "00000000000000000000000000000000", 0o600);
    wechat.fault("token/hang");
    let asked = wechat.asked();
    let server = sandbox.serve_refreshing(&[]);
    eventually("the request is sent", || wechat.asked() > asked);
    eventually("the verdict is known", || server.get("/readyz").status == 503);
    assert_eq!(wechat.asked(), asked + 1, "the first request goes on");
    assert_not_served(&server, "classic");
}

/// `serve --refresh` for the account with jsapi tickets.
fn serve_with_tickets(sandbox: &Sandbox, wechat: &WeChat) -> Server {
    let (secret, state) = (sandbox.path("secret"), sandbox.path("state"));
    let config = format!(
        "dir = {state:?}\n[account.default]\nappid = {APPID:?}\nsecret_file = {secret:?}\nbase_url = {:?}\n\
         tickets = [\"jsapi\"]\n",
        wechat.url()
    );
    let path = sandbox.path("wxtoken.toml");
    write_with_mode(&path, &config, 0o600);
    let mut command = wxtoken();
    command.args(["serve", "--refresh", "--listen", "127.0.0.1:0", "-c"]).arg(path);
    Server::start(command, 1)
}

#[test]
fn a_token_that_a_ticket_call_shows_to_be_dead_belongs_to_no_account_and_opens_no_ticket() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    let dead = sandbox.token();
    sandbox.publish_ticket("jsapi", "OLD", 7200, 7000);
    wechat.kill_tokens();
    wechat.fault("token/hang");
    let server = serve_with_tickets(&sandbox, &wechat);
    eventually("the verdict is known", || server.get("/readyz").status == 503);
    assert_not_served(&server, "stable");
    let path = format!("/cgi-bin/ticket/getticket?access_token={dead}&type=jsapi");
    assert_eq!(server.get(&path).json()["errcode"], -1, "a dead token authorizes nothing");
    // A ticket has a life of its own.
    assert_eq!(server.get("/ticket/jsapi").json()["ticket"], "OLD");
    wechat.fault("none");
    eventually("there is another token", || server.get("/token").status == 200);
    assert_eq!(server.get(&path).json()["errcode"], -1, "nor after it was replaced");
    let path = path.replace(&dead, &sandbox.token());
    eventually("there is another ticket", || server.get("/ticket/jsapi").json()["ticket"] != "OLD");
    assert_eq!(server.get(&path).json()["errcode"], 0);
}

/// The server with a keys file, and the keys: one for each name.
fn serve_with_keys(sandbox: &Sandbox, names: &[&str]) -> (Server, Vec<String>) {
    let (mut keys, mut lines) = (Vec::new(), String::new());
    for name in names {
        let mut command = wxtoken();
        command.args(["key", name]);
        let stdout = Run::new(command).exits(0).stdout;
        let field = |label: &str| {
            let line = stdout.lines().find_map(|line| line.strip_prefix(label));
            line.expect("a key and its line").trim().to_owned()
        };
        keys.push(field("key:"));
        lines += &format!("{}\n", field("line:"));
    }
    let path = sandbox.path("keys");
    write_with_mode(&path, &lines, 0o600);
    (sandbox.serve_refreshing(&["--keys", path.to_str().unwrap()]), keys)
}

/// A client with this key reports this token as rejected.
#[track_caller]
fn report_by(server: &Server, key: &str, token: &str) -> Response {
    let request = post_request("/token", &rejected(token));
    server.send(&request.replacen("\r\n", &format!("\r\nAuthorization: Bearer {key}\r\n"), 1))
}

/// A client with this key asks for the token as an SDK does.
#[track_caller]
fn ask_by(server: &Server, key: &str) -> Response {
    server.get(&format!("/cgi-bin/token?grant_type=client_credential&appid={APPID}&secret={key}"))
}

/// It used to mint as often as a day allows, at which a classic token dies each time.
#[test]
fn one_client_has_no_token_replaced_where_wechat_cannot_be_asked_and_two_have() {
    for (api, fault) in
        [("stable", "errcode:45009"), ("classic", "errcode:48001"), ("classic", "slow:4")]
    {
        let wechat = WeChat::start();
        let sandbox = Sandbox::new(&wechat).on(api);
        let (server, keys) = serve_with_keys(&sandbox, &["liar", "other"]);
        sandbox.run(&["fetch"]).exits(0);
        let token = sandbox.token();
        let mints = wechat.mints();
        wechat.fault(&format!("probe/{fault}"));
        for _ in 0..20 {
            let response = report_by(&server, &keys[0], &token);
            assert_eq!(response.status, 503, "{api} {fault}: {response:?}");
            let message = response.json()["message"].as_str().unwrap().to_owned();
            if message.contains("moments ago") || message.contains("has not answered yet") {
                continue;
            }
            for part in ["one client", "fetch --rejected", "仅凭一个调用方"] {
                assert!(message.contains(part), "{api} {fault}: {message}");
            }
            let seconds: u64 = response.header("retry-after").unwrap().parse().unwrap();
            assert!((5..=300).contains(&seconds), "{seconds}");
        }
        assert_eq!(wechat.mints(), mints, "{api} {fault}");
        assert_eq!(wechat.calls()["forced"], 0, "{api} {fault}");
        assert_eq!(sandbox.token(), token);
        assert_eq!(ask_by(&server, &keys[1]).json()["access_token"], token.as_str());

        // A second client says so, too. On a busy machine it may have to say so again.
        let mut response = report_by(&server, &keys[1], &token);
        eventually("it is replaced", || {
            if response.status == 503 {
                response = report_by(&server, &keys[1], &token);
            }
            response.status != 503
        });
        let another = token_of(&response);
        assert_ne!(another, token, "{api} {fault}");
        assert_eq!(wechat.mints(), mints + 1, "{api} {fault}");
        wechat.fault("none");
        assert!(wechat.is_alive(&another));
        let stderr = server.stop();
        assert_eq!(stderr.matches("until another client says so").count(), 1, "{stderr}");
    }
}

/// On stable a request that forces nothing brings the token of the program that has replaced ours; on work it replaces
/// nothing that lives.
#[test]
fn where_wechat_cannot_be_asked_one_client_is_enough_if_a_request_costs_nothing() {
    for api in ["stable", "work"] {
        let wechat = WeChat::start();
        let sandbox = Sandbox::new(&wechat).on(api);
        let server = sandbox.serve_refreshing(&[]);
        let dead = token_of(&server.get("/token"));
        wechat.kill_tokens();
        wechat.fault("probe/errcode:48001");
        let another = token_of(&server.report_rejected(&dead));
        assert_ne!(another, dead, "{api}");
        wechat.fault("none");
        assert!(wechat.is_alive(&another), "{api}");
    }
}

#[test]
fn a_report_that_a_slow_wechat_leaves_open_is_settled_by_the_server_itself() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat).on("classic");
    let server = sandbox.serve_refreshing(&[]);
    let dead = token_of(&server.get("/token"));
    wechat.kill_tokens();
    wechat.fault("probe/slow:4");
    assert_eq!(server.report_rejected(&dead).status, 503);
    eventually("it is replaced without being asked for again", || sandbox.token() != dead);
    assert_eq!(wechat.mints(), 2);
}

/// As the operator does who knows better than the server.
#[test]
fn where_wechat_cannot_be_asked_the_operators_word_is_enough() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat).on("classic");
    let server = sandbox.serve_refreshing(&[]);
    let dead = token_of(&server.get("/token"));
    wechat.fault("probe/errcode:48001");
    assert_eq!(server.report_rejected(&dead).status, 503);
    fetch_rejected(&sandbox, &dead).exits(0).says(&["token "]);
    assert_eq!(token_of(&server.report_rejected(&dead)), sandbox.token());
    assert_ne!(sandbox.token(), dead);
}

/// One key's probes used to be everybody's, and a dead token healed when the next one was due, up to 30 s later.
#[test]
fn a_dead_token_heals_at_once_though_another_client_has_used_up_its_probes() {
    for is_explicit in [true, false] {
        let wechat = WeChat::start();
        let sandbox = Sandbox::new(&wechat).on("classic");
        let (server, keys) = serve_with_keys(&sandbox, &["liar", "honest"]);
        eventually("there is a token", || ask_by(&server, &keys[1]).json()["errcode"].is_null());
        let token = sandbox.token();
        // For longer than one probe a second lasts.
        let begun = Instant::now();
        let mut reports = 0;
        while begun.elapsed() < Duration::from_secs(8) {
            let response = match is_explicit {
                true => report_by(&server, &keys[0], &token),
                false => ask_by(&server, &keys[0]),
            };
            assert_eq!(token_of(&response), token);
            reports += 1;
            std::thread::sleep(Duration::from_millis(50));
        }
        let probes = wechat.probes();
        assert!(reports > 6 && (1..=6).contains(&probes), "{reports}: {probes}");
        wechat.kill_tokens();
        let healed = token_of(&report_by(&server, &keys[1], &token));
        assert_ne!(healed, token);
        assert_eq!(wechat.probes(), probes + 1, "the first report is probed");
        assert!(wechat.is_alive(&healed));
        assert_eq!(wechat.mints(), 2);
    }
}

/// On stable a normal call returns the current token without forcing another.
#[test]
fn on_stable_tokens_invalidated_in_a_row_are_replaced_at_once_without_forcing() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let server = sandbox.serve_refreshing(&[]);
    let mut token = token_of(&server.get("/token"));
    for _ in 0..3 {
        wechat.kill_tokens();
        let healed = token_of(&server.report_rejected(&token));
        assert_ne!(healed, token);
        token = healed;
    }
    assert_eq!((wechat.mints(), &wechat.calls()["forced"]), (4, &0.into()));
}

/// The token is invalidated twice in a row. A mint is forced once in 30 s at most, and until then there is no token.
#[test]
fn a_token_known_to_be_dead_is_not_served_and_replaced_as_soon_as_the_quota_allows() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat).on("classic");
    let server = sandbox.serve_refreshing(&["-v"]);
    let first = token_of(&server.get("/token"));
    wechat.kill_tokens();
    let replaced_at = Instant::now();
    let second = token_of(&server.report_rejected(&first));
    wechat.kill_tokens();
    let asked = wechat.asked();
    let response = server.report_rejected(&second);
    assert_eq!(response.status, 503, "{response:?}");
    assert!(response.json()["message"].as_str().unwrap().contains("30 seconds"));
    for _ in 0..50 {
        if replaced_at.elapsed() > Duration::from_secs(20) {
            break;
        }
        for path in ["/token", "/readyz"] {
            let response = server.get(path);
            assert_eq!(response.status, 503, "{path}: {response:?}");
            let seconds: u64 = response.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=30).contains(&seconds), "{seconds}");
        }
        let query = format!("grant_type=client_credential&appid={APPID}&secret=x");
        let errcode = server.get(&format!("/cgi-bin/token?{query}")).json()["errcode"].clone();
        assert!([-1, 45011].contains(&errcode.as_i64().unwrap()), "{errcode}");
        assert_eq!(server.report_rejected(&second).status, 503);
    }
    assert!(wechat.asked() <= asked + 1, "it costs WeChat nothing");
    assert_eq!(sandbox.token(), second, "the document is as it was: it is not ours to say");

    // Without a request of a client.
    std::thread::sleep((replaced_at + Duration::from_secs(20)) - Instant::now());
    eventually("it is replaced", || sandbox.token() != second);
    assert!(replaced_at.elapsed() >= Duration::from_secs(29), "{:?}", replaced_at.elapsed());
    assert!(wechat.is_alive(&token_of(&server.get("/token"))));
    assert_eq!(wechat.mints(), 3);
    let stderr = server.stop();
    for token in [first, second, sandbox.token()] {
        assert!(!stderr.contains(&token), "a token is in no log");
    }
}

#[test]
fn a_rejection_while_wechat_is_down_is_answered_with_the_reason() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let server = sandbox.serve_refreshing(&[]);
    let dead = token_of(&server.get("/token"));
    wechat.kill_tokens();
    wechat.fault("errcode:45009");
    let response = server.report_rejected(&dead);
    assert_eq!(response.status, 503);
    assert!(response.body.contains("45009") && response.body.contains("调用次数"), "{response:?}");
    assert_eq!(token_of(&server.get("/token")), dead, "one report that could not be checked");
    wechat.fault("none");
    server.signal("HUP");
    // A signal may come later than what is said after it.
    eventually("it is asked for again", || {
        let response = server.report_rejected(&dead);
        response.status == 200 && token_of(&response) != dead
    });
}
