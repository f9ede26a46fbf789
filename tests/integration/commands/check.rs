//! `wxtoken check`: what is not well between an account and WeChat, and what to do about it. It changes nothing.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::support::home::{Home, appsecret, wechat_of};
use crate::support::tls::TlsFront;
use crate::support::*;
use serde_json::Value;

/// `wxtoken check ARGS…` in this sandbox, which has to end with this status; what it found, by what it is about.
struct Checked {
    ran: Ran,
    findings: Vec<Value>,
}

impl Checked {
    #[track_caller]
    fn of(mut command: Command, code: i32) -> Checked {
        command.args(["--format", "json"]);
        let ran = Ran::of(command).exits(code);
        assert_eq!(ran.stderr, "", "all is on stdout");
        let accounts = ran.json()["accounts"].as_array().unwrap().clone();
        let findings = accounts.iter().flat_map(|it| it["findings"].as_array().unwrap().clone());
        Checked { findings: findings.collect(), ran }
    }

    /// That there is a finding about this with this verdict, and all of these words in it.
    #[track_caller]
    fn has(&self, about: &str, verdict: &str, words: &[&str]) -> &Checked {
        let said = |finding: &Value| {
            let text = |key| finding[key].as_str().unwrap_or_default().to_owned();
            [text("what"), text("remedy"), text("remedy_zh")].join(" ")
        };
        let is_it = |finding: &&Value| {
            finding["about"] == about
                && finding["verdict"] == verdict
                && words.iter().all(|word| said(finding).contains(word))
        };
        assert!(
            self.findings.iter().any(|finding| is_it(&finding)),
            "no {verdict} about {about} with {words:?}:\n{:#?}",
            self.findings
        );
        self
    }

    /// That nothing was found about it.
    #[track_caller]
    fn has_nothing_about(&self, about: &str) -> &Checked {
        assert!(self.findings.iter().all(|it| it["about"] != about), "{:#?}", self.findings);
        self
    }
}

/// The command in a sandbox, which has its account's flags.
fn check(sandbox: &Sandbox) -> Command {
    let mut command = sandbox.command(&["check"]);
    command.arg("--secret-file").arg(sandbox.path("secret"));
    command
}

fn checked(wechat: &WeChat, sandbox: &Sandbox, code: i32) -> Checked {
    let mut command = check(sandbox);
    command.args(["--base-url", &wechat.url()]);
    Checked::of(command, code)
}

#[test]
fn where_all_is_well_each_thing_is_told_and_nothing_is_changed() {
    for api in ["stable", "classic", "work"] {
        let wechat = WeChat::start();
        let sandbox = Sandbox::against(&wechat).on(api);
        sandbox.run(&["fetch"]).exits(0).silent();
        let before = (sandbox.document_bytes(), sandbox.published_names());
        let (of_api, forced) = (calls(&wechat, api), wechat.calls()["forced"].clone());
        let checked = checked(&wechat, &sandbox, 0);
        for about in [
            "config",
            "secret",
            "directory",
            "lock",
            "host",
            "clock",
            "credentials",
            "token",
            "schedule",
        ] {
            checked.has(about, "ok", &[]);
        }
        checked.has("secret", "ok", &["mode 0600"]).has("token", "ok", &["honoured", "1h 59m"]);
        assert_eq!((sandbox.document_bytes(), sandbox.published_names()), before, "{api}");
        assert!(wechat.is_alive(&sandbox.token()), "{api}");
        assert_eq!(wechat.calls()["forced"], forced);
        // Asking for a classic token would have killed this one.
        let asked = calls(&wechat, api) - of_api;
        assert_eq!(asked, if api == "classic" { 0 } else { 1 }, "{api}");
    }
}

/// How often the API was asked that this account is on.
fn calls(wechat: &WeChat, api: &str) -> u64 {
    let route = match api {
        "stable" => "stable_token",
        "classic" => "token",
        _ => "gettoken",
    };
    wechat.calls()[route].as_u64().unwrap()
}

#[test]
fn promise_5_neither_secret_nor_token_is_in_what_is_told() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::against(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    let token = sandbox.token();
    let told = |code| {
        let text = {
            let mut command = check(&sandbox);
            command.args(["--base-url", &wechat.url(), "-vvv"]);
            Ran::of(command).exits(code)
        };
        let all = [text.stdout, text.stderr, checked(&wechat, &sandbox, code).ran.stdout].concat();
        assert!(!all.contains(SECRET) && !all.contains(&token), "{all}");
    };
    told(0);
    wechat.kill_tokens();
    told(3);
    for fault in ["errcode:40164", "errcode:40125", "errcode:-1", "http:502", "html", "reset"] {
        wechat.fault(fault);
        let ran = Ran::of({
            let mut command = check(&sandbox);
            command.args(["--base-url", &wechat.url()]);
            command
        });
        assert!(!ran.stdout.contains(SECRET) && !ran.stdout.contains(&token), "{fault}");
        assert!([4, 5].contains(&ran.status.code().unwrap()), "{fault}: {:?}", ran.status);
    }
}

// Who else is refreshing?

#[test]
fn a_token_that_died_before_its_time_means_that_another_program_asks_too() {
    for (api, words) in [
        ("classic", ["Another program", "api = \"stable\"", "请找出并停用", "fetch --rejected"]),
        ("stable", ["force_refresh", "AppSecret was reset", "请排查", "fetch --rejected"]),
        ("work", ["secret was reset", "WeCom's console", "管理后台", "fetch --rejected"]),
    ] {
        let wechat = WeChat::with(&["--overlap", "0s"]);
        let sandbox = Sandbox::against(&wechat).on(api);
        sandbox.run(&["fetch"]).exits(0);
        let since = sandbox.document()["created_at"].as_str().unwrap().to_owned();
        // On classic somebody else's fetch is all it takes.
        let stranger = Sandbox::against(&wechat).on(api);
        match api {
            "classic" => drop(stranger.run(&["fetch"]).exits(0)),
            _ => wechat.kill_tokens(),
        }
        let checked = checked(&wechat, &sandbox, 3);
        checked.has("token", "problem", &words);
        checked.has("token", "problem", &["is dead", "before its time", &since]);
        // The command is one to paste.
        checked.has("token", "problem", &["wxtoken get -r | wxtoken fetch --rejected -"]);
        checked.has("credentials", "ok", &[]);
    }
}

#[test]
fn a_token_that_was_replaced_by_force_is_told_while_it_still_works() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::against(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    Sandbox::against(&wechat).run(&["fetch", "--force"]).exits(0);
    assert!(wechat.is_alive(&sandbox.token()), "for some minutes");
    // One that was published in the very second in which it was asked for could be the newer one.
    let (token, document) = (sandbox.token(), sandbox.document());
    sandbox.publish(&token, document["expires_in"].as_i64().unwrap(), 60);
    let checked = checked(&wechat, &sandbox, 3);
    checked.has("token", "problem", &["no longer WeChat's current token", "force_refresh"]);
    checked.has("credentials", "ok", &[]);
}

/// As where WeCom does not trust the address: who asks for a token needs not be trusted.
#[test]
fn where_only_who_uses_a_token_is_refused_its_source_tells_whether_it_lives() {
    let wechat = WeChat::start();
    let at_front = |sandbox: &Sandbox, refusal: &str| {
        let mut command = check(sandbox);
        command.args(["--base-url", &refusing_tokens(&wechat, refusal)]);
        Checked::of(command, 0)
    };
    let sandbox = Sandbox::against(&wechat).on("work");
    sandbox.run(&["fetch"]).exits(0);
    let refusal = r#"{"ip_list":[],"errcode":60020,"errmsg":"not allow to access from your ip, hint: [1795000000123456789012345], from ip: 203.0.113.9"}"#;
    let checked = at_front(&sandbox, refusal);
    checked.has("token", "ok", &["given again", "honoured"]).has("credentials", "ok", &[]);
    // But that this host could not use it is no secret.
    checked.has("address", "notice", &["60020", "203.0.113.9", "trusted", "企业可信IP"]);

    // On classic nobody gives it again: nobody can tell.
    let sandbox = Sandbox::against(&wechat).on("classic");
    sandbox.run(&["fetch"]).exits(0);
    let refusal = r#"{"errcode":40164,"errmsg":"invalid ip 203.0.113.9, not in whitelist"}"#;
    let checked = at_front(&sandbox, refusal);
    checked.has("token", "notice", &["unknown", "before the token was looked at"]);
    checked.has("address", "notice", &["40164", "203.0.113.9"]);
}

/// Nobody's fault: the next one was published between the look at the document and the probe.
#[test]
fn a_token_that_is_dead_because_a_fetch_replaced_it_meanwhile_is_no_problem() {
    let wechat = WeChat::with(&["--overlap", "0s"]);
    let sandbox = Sandbox::against(&wechat).on("classic");
    sandbox.run(&["fetch"]).exits(0);
    let fetch = Mutex::new(sandbox.command(&["fetch", "--force"]));
    let probes = Arc::new(AtomicUsize::new(0));
    let count = probes.clone();
    let mut command = check(&sandbox);
    let front = in_front_of(&wechat, move |request| {
        if request.contains("?access_token=") && count.fetch_add(1, Ordering::Relaxed) == 0 {
            let mut fetch = fetch.lock().unwrap();
            assert!(fetch.status().unwrap().success());
        }
        None
    });
    command.args(["--base-url", &front]);
    Checked::of(command, 0).has("token", "ok", &["honoured"]);
    assert_eq!(probes.load(Ordering::Relaxed), 2, "each of the two was probed");
}

/// Passes calls on to the stand-in, but answers so to those that use a token.
fn refusing_tokens(wechat: &WeChat, refusal: &str) -> String {
    let refusal = refusal.to_owned();
    in_front_of(wechat, move |request| request.contains("?access_token=").then(|| refusal.clone()))
}

/// Passes calls on to the stand-in, but for those that have an answer of their own.
fn in_front_of(
    wechat: &WeChat,
    answer: impl Fn(&str) -> Option<String> + Send + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let backend = wechat.address();
    thread::spawn(move || {
        for mut caller in listener.incoming().flatten() {
            let request = read_request(&mut caller);
            let (head, body) = match answer(&request) {
                Some(body) => ("HTTP/1.1 200 OK".to_owned(), body),
                None => {
                    let request = request.replacen("\r\n", "\r\nConnection: close\r\n", 1);
                    let answer = exchange(backend, request.as_bytes());
                    let head = answer.head.to_lowercase();
                    let date = head.lines().find(|line| line.starts_with("date: "));
                    (format!("HTTP/1.1 200 OK\r\n{}", date.unwrap_or_default()), answer.body)
                }
            };
            let length = body.len();
            let _ = write!(caller, "{head}\r\nContent-Length: {length}\r\n\r\n{body}");
        }
    });
    format!("http://{at}")
}

/// The allowlist is looked at before the token is.
#[test]
fn a_refused_address_says_nothing_of_the_token() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::against(&wechat).on("classic");
    sandbox.run(&["fetch"]).exits(0);
    wechat.fault("errcode:40164");
    let checked = checked(&wechat, &sandbox, 4);
    checked.has("token", "notice", &["unknown", "before the token was looked at"]);
    checked.has("credentials", "problem", &["allowlist", "白名单"]);
    checked.has("address", "notice", &["40164", "203.0.113.9", "白名单"]);
}

#[test]
fn a_probe_that_is_refused_for_another_reason_says_nothing_of_the_address() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::against(&wechat).on("classic");
    sandbox.run(&["fetch"]).exits(0);
    let mut command = check(&sandbox);
    let refusal = r#"{"errcode":45009,"errmsg":"reach max api daily quota limit"}"#;
    command.args(["--base-url", &refusing_tokens(&wechat, refusal)]);
    let checked = Checked::of(command, 0);
    checked.has("token", "notice", &["unknown", "no verdict", "45009"]);
    checked.has_nothing_about("address");
}

#[test]
fn what_wechat_refuses_is_told_with_its_remedy_and_status_4() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::against(&wechat);
    write_with_mode(&sandbox.path("secret"), "0123456789abcdef0123456789abcdef", 0o600);
    let checked = checked(&wechat, &sandbox, 4);
    checked.has("credentials", "problem", &["40125", "AppSecret"]);
    checked.has(
        "token",
        "problem",
        &["nothing is published", "wxtoken fetch", "请以负责刷新的用户"],
    );
}

// This host

#[test]
fn a_secret_that_others_can_read_is_a_problem_and_one_that_is_elsewhere_is_none() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::against(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    write_with_mode(&sandbox.path("secret"), SECRET, 0o644);
    let open = checked(&wechat, &sandbox, 2);
    open.has("secret", "problem", &["open to others: mode 0644", "chmod 0600", "权限 0600"]);
    open.has_nothing_about("credentials").has("token", "ok", &["honoured"]);

    // Who reads what another host publishes has none, and can see all the same whether the token lives.
    let mut command = sandbox.command(&["check", "--base-url", &wechat.url()]);
    command.env_remove("WXTOKEN_SECRET");
    let reader = Checked::of(command, 0);
    reader.has("secret", "notice", &["no AppSecret", "LoadCredential", "secret_file"]);
    reader.has_nothing_about("credentials").has("token", "ok", &["honoured"]);
}

#[test]
fn where_a_secret_comes_from_is_told() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::against(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    let plain = || sandbox.command(&["check", "--base-url", &wechat.url()]);
    let mut command = plain();
    command.env("WXTOKEN_SECRET", SECRET);
    Checked::of(command, 0).has("secret", "ok", &["from WXTOKEN_SECRET"]);
    fs::create_dir(sandbox.path("creds")).unwrap();
    write_with_mode(&sandbox.path("creds/default.secret"), SECRET, 0o400);
    let mut command = plain();
    command.env("CREDENTIALS_DIRECTORY", sandbox.path("creds"));
    let said = ["systemd credential", "creds/default.secret, mode 0400"];
    Checked::of(command, 0).has("secret", "ok", &said).has("credentials", "ok", &[]);
}

#[test]
fn a_directory_in_which_nothing_can_be_published_is_a_problem_and_a_missing_one_is_not() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::against(&wechat);
    let missing = checked(&wechat, &sandbox, 3);
    missing.has("directory", "ok", &["not there yet"]).has("lock", "ok", &["free"]);
    assert!(!sandbox.path("state").exists(), "and it still is not");
    fs::write(sandbox.path("state"), "").unwrap();
    checked(&wechat, &sandbox, 3).has("directory", "problem", &["is not a directory"]);

    // Not even root can write there.
    let at = |file: &str| {
        let mut command = check(&sandbox);
        command.args(["--base-url", &wechat.url(), "--file", file]);
        Checked::of(command, 3)
    };
    at("/proc/self/wx.json").has("directory", "problem", &["cannot create /proc/self/", "--dir"]);
    let nowhere = sandbox.path("secret/none/wx.json");
    at(nowhere.to_str().unwrap()).has("directory", "problem", &["cannot enter"]);
}

#[test]
fn a_document_that_fetch_could_not_replace_is_found_without_a_fetch() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::against(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    fs::rename(sandbox.document_path(), sandbox.path("elsewhere.json")).unwrap();
    std::os::unix::fs::symlink(sandbox.path("elsewhere.json"), sandbox.document_path()).unwrap();
    sandbox.run(&["fetch", "--force"]).exits(1).says(&["is a symbolic link"]);
    let checked = checked(&wechat, &sandbox, 1);
    checked.has("directory", "problem", &["is a symbolic link"]).has("token", "ok", &["honoured"]);
    assert_eq!(sandbox.published_names(), ["default.json", "default.lock"], "nothing is left");
}

#[needs(mount)]
#[test]
fn a_full_disk_is_found_and_nothing_is_left_on_it() {
    let small = tempfile::tempdir().unwrap();
    let script = r#"mount -t tmpfs -o size=8k none "$0" && head -c 4096 /dev/zero > "$0/full" && "$@"; code=$?
        ls -A "$0" >&2; exit $code"#;
    let wechat = WeChat::start();
    let sandbox = Sandbox::against(&wechat);
    let inner = check(&sandbox);
    let dir = small.path().to_str().unwrap();
    let mount = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, dir];
    let mut command = wrapped(&mount, &inner);
    command.args(["--base-url", &wechat.url(), "--file"]).arg(small.path().join("wx.json"));
    let ran = command.output().unwrap();
    assert_eq!(ran.status.code(), Some(3), "{ran:?}");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(said.contains("✗ default  directory") && said.contains("No space left"), "{said}");
    assert_eq!(String::from_utf8_lossy(&ran.stderr), "full\n");
}

#[test]
fn who_holds_the_lock_is_told() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::against(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    let lock = File::open(sandbox.path("state/default.lock")).unwrap();
    lock.lock().unwrap();
    let us = format!("process {}", std::process::id());
    checked(&wechat, &sandbox, 0).has("lock", "notice", &["held by", &us, "一分钟"]);
    lock.unlock().unwrap();
    checked(&wechat, &sandbox, 0).has("lock", "ok", &["free"]);
}

// The way

#[test]
fn what_fails_on_the_way_is_told_by_its_stage() {
    let wechat = WeChat::start();
    let front = TlsFront::before(wechat.address(), "localhost");
    let secure = format!("https://localhost:{}", front.address.port());
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let sandbox = Sandbox::against(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    let at = |base: &str, proxy: Option<&str>| {
        let mut command = check(&sandbox);
        command.args(["--base-url", base]);
        if let Some(proxy) = proxy {
            command.env("HTTPS_PROXY", proxy);
        }
        let checked = Checked::of(command, 5);
        checked.has("token", "notice", &["was not tried"]).has_nothing_about("credentials");
        checked.has_nothing_about("clock");
        checked
    };
    at("https://nobody.invalid", None).has(
        "host",
        "problem",
        &["(DNS", "nobody.invalid", "resolv.conf", "无法解析"],
    );
    let untrusted = at(&secure, None);
    untrusted.has("host", "problem", &["TLS", "localhost", "UnknownIssuer", "--ca-file", "根证书"]);
    let refused = at(&format!("http://{free}"), None);
    refused.has("host", "problem", &["refused", &free.to_string(), "firewall", "防火墙"]);
    let proxy = format!("http://user:password@{free}");
    let proxied = at("https://api.example", Some(&proxy));
    proxied.has("host", "problem", &[&format!("api.example through the proxy {free}")]);
    assert!(!proxied.ran.stdout.contains("password@"));
    let forbidding = forbidding_proxy();
    let forbidden = at("https://api.example", Some(&forbidding));
    forbidden.has(
        "host",
        "problem",
        &["the proxy refused", "403", "lets this host through", "代理"],
    );

    // A certificate that is somebody else's.
    let others = TlsFront::before(wechat.address(), "others.test");
    write_with_mode(&sandbox.path("ca.pem"), &others.ca_pem, 0o644);
    let mut command = check(&sandbox);
    command.args(["--base-url", &format!("https://localhost:{}", others.address.port())]);
    command.arg("--ca-file").arg(sandbox.path("ca.pem"));
    Checked::of(command, 5).has("host", "problem", &["TLS", "not valid for name", "--base-url"]);

    // And where the certificate is trusted all is well.
    write_with_mode(&sandbox.path("ca.pem"), &front.ca_pem, 0o644);
    let mut command = check(&sandbox);
    command.args(["--base-url", &secure, "--ca-file"]).arg(sandbox.path("ca.pem"));
    Checked::of(command, 0).has("host", "ok", &["localhost"]).has("token", "ok", &["honoured"]);
}

/// A proxy that lets nobody through.
fn forbidding_proxy() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut caller in listener.incoming().flatten() {
            read_request(&mut caller);
            let _ = caller.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
        }
    });
    format!("http://{at}")
}

/// All of a request: who closes with something unread resets the connection.
fn read_request(caller: &mut TcpStream) -> String {
    let (mut request, mut read) = (String::new(), [0; 4096]);
    while !is_whole(&request) {
        match caller.read(&mut read) {
            Ok(length @ 1..) => request.push_str(&String::from_utf8_lossy(&read[..length])),
            _ => break,
        }
    }
    request
}

fn is_whole(request: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else { return false };
    let head = head.to_lowercase();
    let mut lengths = head.lines().filter_map(|line| line.strip_prefix("content-length:"));
    let length = lengths.find_map(|length| length.trim().parse().ok());
    body.len() >= length.unwrap_or(0)
}

#[test]
fn a_portal_in_the_way_is_not_taken_for_wechat() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::against(&wechat);
    for (fault, words) in
        [("html", "HTML"), ("http:302", "does not redirect"), ("http:502", "gateway")]
    {
        wechat.fault(fault);
        checked(&wechat, &sandbox, 5).has("host", "problem", &[words]);
    }
}

#[test]
fn each_of_several_access_points_is_tried() {
    let wechat = wechat_of(1, &[]);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let home = Home::with(&format!(
        "[account.a0]\nappid = \"wx0\"\nsecret_file = \"a0.secret\"\nbase_url = [\"http://{free}\", \"{}\"]\n",
        wechat.url()
    ));
    home.put_secret("a0", &appsecret(0));
    home.run(&["fetch"]).exits(0);
    let checked = Checked::of(home.command(&["check"]), 0);
    checked.has("host", "notice", &[&free.to_string()]).has("host", "ok", &["answers"]);
    checked.has("credentials", "ok", &[]).has("token", "ok", &["honoured"]);
    checked.has("config", "ok", &["wxtoken.toml:1: account.a0"]);
}

/// One who answers each request so.
fn answering(head: &'static str, body: &'static str) -> String {
    answering_with("200 OK", head, body)
}

fn answering_with(status: &'static str, head: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut caller in listener.incoming().flatten() {
            read_request(&mut caller);
            let length = body.len();
            let _ = write!(
                caller,
                "HTTP/1.1 {status}\r\n{head}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
        }
    });
    format!("http://{at}")
}

#[test]
fn a_wrong_clock_is_found_by_their_date_or_the_rid_of_a_refusal() {
    let sandbox = Sandbox::asking("http://127.0.0.1:1");
    let at = |base: String, code| {
        let mut command = check(&sandbox);
        command.args(["--base-url", &base]);
        Checked::of(command, code)
    };
    let refusal =
        r#"{"errcode":41001,"errmsg":"access_token missing rid: 6aac005a-01bfdbee-79769285"}"#;
    // September 2026: this host, in whatever year, is days ahead.
    let by_rid = at(answering("", refusal), 4);
    by_rid.has("clock", "problem", &["days", "ahead of the other side's", "NTP", "校准"]);
    let by_date = at(answering("Date: Fri, 01 Jan 2100 00:00:00 GMT\r\n", refusal), 4);
    by_date.has("clock", "problem", &["years", "behind the other side's"]);
    let untold = at(answering("Date: noon\r\n", r#"{"errcode":41001,"errmsg":""}"#), 4);
    untold.has("clock", "notice", &["does not tell"]);
}

// Whether anybody keeps it fresh

#[test]
fn whether_cron_or_a_timer_runs_is_seen_by_the_document() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::against(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    let token = sandbox.token();
    // With five minutes left it is due; half a minute later it may still come.
    for (age, verdict, words, code) in [
        (3600, "ok", "last asked for 1h ago", 0),
        (6930, "ok", "last asked for 1h 55m 3", 0),
        (7150, "notice", "nobody has asked since", 0),
        (9000, "notice", "nobody has asked since", 3),
    ] {
        sandbox.publish(&token, 7200, age);
        checked(&wechat, &sandbox, code).has("schedule", verdict, &[words]);
    }
    let expired = checked(&wechat, &sandbox, 3);
    expired.has("schedule", "notice", &["cron", "systemctl list-timers", "定时器"]);
    expired.has("token", "problem", &["expired at", "see why nobody did", "排查"]);
}

#[test]
fn what_stands_there_for_somebody_else_or_in_pieces_is_a_problem() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::against(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    let document = fs::read_to_string(sandbox.document_path()).unwrap();
    write_with_mode(
        &sandbox.document_path(),
        &document.replace(APPID, "wxffffffffffffffff"),
        0o600,
    );
    checked(&wechat, &sandbox, 3).has("token", "problem", &["belongs to wxffffffffffffffff"]);
    write_with_mode(&sandbox.document_path(), &document[..20], 0o600);
    checked(&wechat, &sandbox, 3).has("token", "problem", &["is no document"]);
}

// Several accounts

#[test]
fn tickets_and_many_accounts_are_told_in_order() {
    let wechat = wechat_of(12, &[]);
    let home = Home::of_accounts(12, &wechat.url(), "tickets = [\"jsapi\", \"wx_card\"]\n");
    home.run(&["fetch"]).exits(0).silent();
    let ran = home.run(&["check"]).exits(0);
    let accounts =
        ran.stdout.lines().map(|line| line.split_whitespace().nth(1).unwrap().to_owned());
    let mut in_order: Vec<_> = accounts.collect();
    in_order.dedup();
    let mut expected: Vec<_> = (0..12).map(|n| format!("a{n}")).collect();
    expected.sort();
    assert_eq!(in_order, expected);

    let last = Checked::of(home.command(&["check", "a11"]), 0);
    last.has("ticket", "ok", &["jsapi: "]).has("ticket", "ok", &["wx_card: "]);
    fs::remove_file(home.path("state/a11.wx_card.json")).unwrap();
    let without = Checked::of(home.command(&["check", "a11", "a0"]), 3);
    without.has("ticket", "problem", &["a11.wx_card.json does not exist"]).has(
        "ticket",
        "ok",
        &["jsapi: "],
    );
    assert_eq!(without.ran.json()["accounts"][0]["verdict"], "ok");
    assert_eq!(without.ran.json()["accounts"][1]["verdict"], "problem");

    home.run(&["check", "a99"]).exits(2).says(&["there is no account a99"]);
    home.write("[account.a0]\nappid = 7\nnonsense = 1\n");
    let broken = home.run(&["check"]).exits(2);
    assert_eq!((&*broken.stdout, broken.stderr.lines().count()), ("", 2));
}

#[test]
fn the_status_is_that_of_the_worst_account() {
    let wechat = wechat_of(2, &[]);
    let home = Home::of_accounts(2, &wechat.url(), "");
    home.run(&["fetch"]).exits(0).silent();
    home.put_secret("a1", &appsecret(9));
    home.run(&["check", "a0"]).exits(0);
    home.run(&["check"]).exits(4);
}

#[test]
fn a_mirror_is_checked_as_far_as_its_source() {
    let wechat = wechat_of(1, &[]);
    let first = Home::of_accounts(1, &wechat.url(), "");
    let server = first.serve(&["--refresh"]);
    let address = server.address();
    let mirror = Home::with(&format!("[account.a0]\nfrom = \"http://{address}\"\n"));
    mirror.run(&["fetch"]).exits(0).silent();
    let mints = wechat.mints();
    let well = Checked::of(mirror.command(&["check"]), 0);
    well.has("host", "ok", &[&address.to_string()]).has("key", "ok", &["by its address"]);
    well.has("credentials", "ok", &["the other wxtoken gives"]).has("token", "ok", &["honoured"]);
    well.has("schedule", "ok", &[]);
    assert_eq!(wechat.mints(), mints);
    // Long ago, and another one than there is now.
    mirror.publish("a0", "", "T_OLD", 900);
    let late = Checked::of(mirror.command(&["check"]), 0);
    late.has("token", "notice", &["another one by now"]);
    late.has("schedule", "notice", &["last asked for 15m ago"]);
    server.stop();
    // Such as a portal that wants people to log in, or http where https is meant.
    let elsewhere = answering_with("302 Found", "Location: https://portal.test/\r\n", "");
    let portal = Home::with(&format!("[account.a0]\nfrom = \"{elsewhere}\"\n"));
    let away = Checked::of(portal.command(&["check"]), 5);
    away.has("host", "problem", &["not wxtoken's: a redirect (HTTP 302)", "check `from`"]);
    let down = Checked::of(mirror.command(&["check"]), 5);
    down.has("host", "problem", &[&address.to_string()]).has("token", "notice", &["was not tried"]);
}

// How long, and how it looks

#[test]
fn a_server_that_never_answers_is_given_up_in_time() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::against(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    wechat.fault("hang");
    let mut command = check(&sandbox);
    command.args(["--base-url", &wechat.url(), "--timeout", "1s"]);
    let started = std::time::Instant::now();
    let checked = Checked::of(command, 5);
    checked.has("host", "problem", &["no answer in time", "已连接但没有应答"]);
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
    // Where the time is over, the rest is not taken for well.
    let wechat = wechat_of(66, &[]);
    let home = Home::of_accounts(66, &wechat.url(), "");
    wechat.fault("hang");
    let ran = home.run(&["check", "--timeout", "1s", "--format", "json"]).exits(5).json();
    let accounts = ran["accounts"].as_array().unwrap();
    assert_eq!(accounts.len(), 66);
    assert!(accounts.iter().all(|it| it.to_string().contains("no answer in time")));
}

#[test]
fn quietly_only_what_is_not_well_is_told() {
    let wechat = wechat_of(2, &[]);
    let home = Home::of_accounts(2, &wechat.url(), "");
    home.run(&["fetch"]).exits(0).silent();
    home.run(&["check", "-q"]).exits(0).silent();
    fs::remove_file(home.document_path("a1")).unwrap();
    let told = home.run(&["check", "-q"]).exits(3).stdout;
    assert!(
        told.starts_with("✗ a1  token        nothing is published") && told.lines().count() == 1,
        "{told}"
    );
}

#[needs(script)]
#[test]
fn a_line_for_each_finding_and_colours_only_on_a_terminal_for_who_wants_them() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::against(&wechat);
    let mut command = check(&sandbox);
    command.args(["--base-url", &wechat.url()]);
    let plain = Ran::of(command).exits(3).stdout;
    assert!(!plain.contains('\x1b'));
    let marks: Vec<_> = plain.lines().map(|line| line.chars().next().unwrap()).collect();
    assert!(marks.iter().all(|mark| "✓!✗".contains(*mark)), "{plain}");
    assert_eq!(marks.iter().filter(|mark| **mark == '✗').count(), 1, "{plain}");
    // In columns: mark, account, what it is about, what was found.
    let column = plain.lines().map(|line| line.chars().take(24).collect::<String>());
    assert!(
        column.into_iter().all(|it| it.starts_with(|c| "✓!✗".contains(c)) && it.ends_with("  "))
    );

    let with_no_color = |value: &str| {
        let mut command = check(&sandbox);
        command.args(["--base-url", &wechat.url()]).env("NO_COLOR", value);
        Ran::of(on_terminal(&command)).exits(3).stdout
    };
    let seen = with_no_color("");
    assert!(
        seen.contains("\x1b[32m✓\x1b[0m default") && seen.contains("\x1b[31m✗\x1b[0m"),
        "{seen:?}"
    );
    let plain = with_no_color("1");
    assert!(plain.contains("✗ default") && !plain.contains("\x1b[3"), "{plain:?}");
}
