//! `wxtoken check`: finds problems between an account and WeChat, names remedies, and changes nothing.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::support::home::{Home, appsecret, wechat_with_accounts};
use crate::support::tls::TlsFront;
use crate::support::*;
use serde_json::Value;

/// A run of `wxtoken check` and its findings.
struct Checked {
    ran: Run,
    findings: Vec<Value>,
}

impl Checked {
    /// Runs the command, which has to exit with `code`.
    #[track_caller]
    fn run(mut command: Command, code: i32) -> Checked {
        command.args(["--format", "json"]);
        let ran = Run::new(command).exits(code);
        assert_eq!(ran.stderr, "", "the output is on stdout");
        let accounts = ran.json()["accounts"].as_array().unwrap().clone();
        let findings = accounts.iter().flat_map(|it| it["findings"].as_array().unwrap().clone());
        let findings: Vec<_> = findings.collect();
        findings.iter().for_each(assert_bilingual);
        Checked { findings, ran }
    }

    /// Asserts that there is a finding about this with this verdict that contains all of these texts.
    #[track_caller]
    fn has(&self, about: &str, verdict: &str, texts: &[&str]) -> &Checked {
        let text_of = |finding: &Value| {
            let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
            ["what", "what_zh", "remedy", "remedy_zh"].map(text).join(" ")
        };
        let matches = |finding: &&Value| {
            finding["about"] == about
                && finding["verdict"] == verdict
                && texts.iter().all(|text| text_of(finding).contains(text))
        };
        assert!(
            self.findings.iter().any(|finding| matches(&finding)),
            "no {verdict} about {about} with {texts:?}:\n{:#?}",
            self.findings
        );
        self
    }

    /// Asserts that there is no finding about this.
    #[track_caller]
    fn has_nothing_about(&self, about: &str) -> &Checked {
        assert!(self.findings.iter().all(|it| it["about"] != about), "{:#?}", self.findings);
        self
    }
}

/// Asserts that a finding is in both languages, unless it is a path or another name alone, or an error of a file.
#[track_caller]
fn assert_bilingual(finding: &Value) {
    let is_chinese = |key: &str| {
        finding[key]
            .as_str()
            .unwrap_or_default()
            .contains(|c| ('\u{4e00}'..='\u{9fff}').contains(&c))
    };
    let has_words = !["config", "secret"].contains(&finding["about"].as_str().unwrap());
    let is_good = finding["verdict"] == "ok";
    assert!(!(has_words && is_good) || is_chinese("what_zh"), "{finding:#}");
    assert_eq!(finding["remedy"].is_string(), is_chinese("remedy_zh"), "{finding:#}");
}

/// Returns the command for the sandbox's account.
fn check(sandbox: &Sandbox) -> Command {
    let mut command = sandbox.command(&["check"]);
    command.arg("--secret-file").arg(sandbox.path("secret"));
    command
}

fn checked(wechat: &WeChat, sandbox: &Sandbox, code: i32) -> Checked {
    let mut command = check(sandbox);
    command.args(["--base-url", &wechat.url()]);
    Checked::run(command, code)
}

#[test]
fn check_of_a_healthy_account_reports_each_subject_as_ok_and_changes_nothing() {
    for api in ["stable", "classic", "work"] {
        let wechat = WeChat::start();
        let sandbox = Sandbox::new(&wechat).on(api);
        sandbox.run(&["fetch"]).exits(0).silent();
        let before = (sandbox.document_bytes(), sandbox.published_names());
        let (calls_before, forced) = (calls(&wechat, api), wechat.calls()["forced"].clone());
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
        checked.has("secret", "ok", &["(0600)"]).has("token", "ok", &["honoured", "1h 59m"]);
        assert_eq!((sandbox.document_bytes(), sandbox.published_names()), before, "{api}");
        assert!(wechat.is_alive(&sandbox.token()), "{api}");
        assert_eq!(wechat.calls()["forced"], forced);
        // A call of the classic API would have revoked the token.
        let new_calls = calls(&wechat, api) - calls_before;
        assert_eq!(new_calls, if api == "classic" { 0 } else { 1 }, "{api}");
    }
}

/// Returns the number of token calls of this API.
fn calls(wechat: &WeChat, api: &str) -> u64 {
    let route = match api {
        "stable" => "stable_token",
        "classic" => "token",
        _ => "gettoken",
    };
    wechat.calls()[route].as_u64().unwrap()
}

#[test]
fn promise_5_check_prints_neither_secret_nor_token() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    let token = sandbox.token();
    let check_output = |code| {
        let text = {
            let mut command = check(&sandbox);
            command.args(["--base-url", &wechat.url(), "-vvv"]);
            Run::new(command).exits(code)
        };
        let all = [text.stdout, text.stderr, checked(&wechat, &sandbox, code).ran.stdout].concat();
        assert!(!all.contains(SECRET) && !all.contains(&token), "{all}");
    };
    check_output(0);
    wechat.kill_tokens();
    check_output(3);
    for fault in ["errcode:40164", "errcode:40125", "errcode:-1", "http:502", "html", "reset"] {
        wechat.fault(fault);
        let ran = Run::new({
            let mut command = check(&sandbox);
            command.args(["--base-url", &wechat.url()]);
            command
        });
        assert!(!ran.stdout.contains(SECRET) && !ran.stdout.contains(&token), "{fault}");
        assert!([4, 5].contains(&ran.status.code().unwrap()), "{fault}: {:?}", ran.status);
    }
}

// Another program that refreshes

#[test]
fn a_token_revoked_before_its_expiry_is_a_problem_with_the_probable_cause() {
    for (api, texts) in [
        ("classic", ["another program", "api = \"stable\"", "请先改 api", "fetch --rejected"]),
        ("stable", ["force_refresh", "got by classic", "更换一次即可", "fetch --rejected"]),
        ("work", ["secret was reset", "WeCom's console", "管理后台", "fetch --rejected"]),
    ] {
        let wechat = WeChat::with(&["--overlap", "0s"]);
        let sandbox = Sandbox::new(&wechat).on(api);
        sandbox.run(&["fetch"]).exits(0);
        let since = sandbox.document()["created_at"].as_str().unwrap().to_owned();
        // On classic a fetch elsewhere revokes the token.
        let other = Sandbox::new(&wechat).on(api);
        match api {
            "classic" => drop(other.run(&["fetch"]).exits(0)),
            _ => wechat.kill_tokens(),
        }
        let checked = checked(&wechat, &sandbox, 3);
        checked.has("token", "problem", &texts);
        checked.has("token", "problem", &["is dead", "before its time", &since]);
        // The command can be pasted.
        checked.has("token", "problem", &["wxtoken get -r ", " | ", "wxtoken fetch --rejected - "]);
        checked.has("credentials", "ok", &[]);
    }
}

#[test]
fn a_replaced_token_is_a_problem_while_it_still_works() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    Sandbox::new(&wechat).run(&["fetch", "--force"]).exits(0);
    assert!(wechat.is_alive(&sandbox.token()), "it still works for some minutes");
    // A document published in the same second could be the newer one.
    let (token, document) = (sandbox.token(), sandbox.document());
    sandbox.publish(&token, document["expires_in"].as_i64().unwrap(), 60);
    let checked = checked(&wechat, &sandbox, 3);
    checked.has("token", "problem", &["no longer WeChat's current token", "force_refresh"]);
    checked.has("credentials", "ok", &[]);
}

/// WeCom refuses calls with a token from untrusted addresses, but not those for a token.
#[test]
fn if_calls_with_a_token_are_refused_by_address_the_token_api_decides_whether_it_lives() {
    let wechat = WeChat::start();
    let at_front = |sandbox: &Sandbox, refusal: &str| {
        let mut command = check(sandbox);
        command.args(["--base-url", &front_refusing_tokens(&wechat, refusal)]);
        Checked::run(command, 0)
    };
    let sandbox = Sandbox::new(&wechat).on("work");
    sandbox.run(&["fetch"]).exits(0);
    let refusal = r#"{"ip_list":[],"errcode":60020,"errmsg":"not allow to access from your ip, hint: [1795000000123456789012345], from ip: 203.0.113.9"}"#;
    let checked = at_front(&sandbox, refusal);
    checked.has("token", "ok", &["given again", "honoured"]).has("credentials", "ok", &[]);
    // That this host cannot use the token is a notice.
    checked.has("address", "notice", &["60020", "203.0.113.9", "trusted", "企业可信IP"]);

    // On classic the token API cannot return the same token, so the state is unknown.
    let sandbox = Sandbox::new(&wechat).on("classic");
    sandbox.run(&["fetch"]).exits(0);
    let refusal = r#"{"errcode":40164,"errmsg":"invalid ip 203.0.113.9, not in whitelist"}"#;
    let checked = at_front(&sandbox, refusal);
    checked.has("token", "notice", &["unknown", "before the token was looked at"]);
    checked.has("address", "notice", &["40164", "203.0.113.9"]);
}

/// The new token is published between reading the document and the probe.
#[test]
fn a_token_replaced_by_a_fetch_during_the_check_is_no_problem() {
    let wechat = WeChat::with(&["--overlap", "0s"]);
    let sandbox = Sandbox::new(&wechat).on("classic");
    sandbox.run(&["fetch"]).exits(0);
    let fetch = Mutex::new(sandbox.command(&["fetch", "--force"]));
    let probes = Arc::new(AtomicUsize::new(0));
    let count = probes.clone();
    let mut command = check(&sandbox);
    let front = front_of(&wechat, move |request| {
        if request.contains("?access_token=") && count.fetch_add(1, Ordering::Relaxed) == 0 {
            let mut fetch = fetch.lock().unwrap();
            assert!(fetch.status().unwrap().success());
        }
        None
    });
    command.args(["--base-url", &front]);
    Checked::run(command, 0).has("token", "ok", &["honoured"]);
    assert_eq!(probes.load(Ordering::Relaxed), 2, "both tokens are probed");
}

/// Starts a proxy to the stand-in that answers calls with a token with this refusal.
fn front_refusing_tokens(wechat: &WeChat, refusal: &str) -> String {
    let refusal = refusal.to_owned();
    front_of(wechat, move |request| request.contains("?access_token=").then(|| refusal.clone()))
}

/// Starts a proxy to the stand-in that answers some calls itself.
fn front_of(wechat: &WeChat, answer: impl Fn(&str) -> Option<String> + Send + 'static) -> String {
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

/// WeChat checks the allowlist before the token.
#[test]
fn with_a_refused_address_the_state_of_the_token_is_unknown() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat).on("classic");
    sandbox.run(&["fetch"]).exits(0);
    wechat.fault("errcode:40164");
    let checked = checked(&wechat, &sandbox, 4);
    checked.has("token", "notice", &["unknown", "before the token was looked at"]);
    checked.has("credentials", "problem", &["allowlist", "白名单"]);
    checked.has("address", "notice", &["40164", "203.0.113.9", "白名单"]);
}

#[test]
fn a_probe_refused_for_another_reason_reports_no_problem_with_the_address() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat).on("classic");
    sandbox.run(&["fetch"]).exits(0);
    let mut command = check(&sandbox);
    let refusal = r#"{"errcode":45009,"errmsg":"reach max api daily quota limit"}"#;
    command.args(["--base-url", &front_refusing_tokens(&wechat, refusal)]);
    let checked = Checked::run(command, 0);
    checked.has("token", "notice", &["unknown", "45009"]);
    checked.has_nothing_about("address");
}

#[test]
fn a_refusal_by_wechat_is_a_problem_with_a_remedy_and_exit_status_4() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    write_with_mode(&sandbox.path("secret"), "0123456789abcdef0123456789abcdef", 0o600);
    let checked = checked(&wechat, &sandbox, 4);
    checked.has("credentials", "problem", &["40125", "AppSecret"]);
    // A fetch is refused as well, so it is no remedy, and nothing else is wrong.
    let consequence = ["nothing is published yet", "problem above first", "先解决上面的问题"];
    checked.has("token", "notice", &consequence);
}

// This host

#[test]
fn a_secret_readable_by_others_is_a_problem_and_a_missing_one_a_notice() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    write_with_mode(&sandbox.path("secret"), SECRET, 0o644);
    let open = checked(&wechat, &sandbox, 2);
    open.has("secret", "problem", &["open to others: mode 0644", "chmod 0600", "权限 0600"]);
    open.has_nothing_about("credentials").has("token", "ok", &["honoured"]);

    // A host that only reads the document has no secret, and can still check the token.
    let mut command = sandbox.command(&["check", "--base-url", &wechat.url()]);
    command.env_remove("WXTOKEN_SECRET");
    let reader = Checked::run(command, 0);
    reader.has("secret", "notice", &["no AppSecret", "LoadCredential", "secret_file"]);
    reader.has_nothing_about("credentials").has("token", "ok", &["honoured"]);
}

#[test]
fn the_source_of_the_secret_is_reported() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    let plain = || sandbox.command(&["check", "--base-url", &wechat.url()]);
    let mut command = plain();
    command.env("WXTOKEN_SECRET", SECRET);
    Checked::run(command, 0).has("secret", "ok", &["from WXTOKEN_SECRET"]);
    fs::create_dir(sandbox.path("creds")).unwrap();
    write_with_mode(&sandbox.path("creds/default.secret"), SECRET, 0o400);
    let mut command = plain();
    command.env("CREDENTIALS_DIRECTORY", sandbox.path("creds"));
    let texts = ["systemd credential", "creds/default.secret (0400)"];
    Checked::run(command, 0).has("secret", "ok", &texts).has("credentials", "ok", &[]);
}

#[test]
fn a_directory_that_cannot_be_written_is_a_problem_and_a_missing_one_is_not() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let missing = checked(&wechat, &sandbox, 3);
    missing.has("directory", "ok", &["not there yet"]).has("lock", "ok", &["free"]);
    assert!(!sandbox.path("state").exists(), "check does not create it");
    fs::write(sandbox.path("state"), "").unwrap();
    checked(&wechat, &sandbox, 3).has("directory", "problem", &["Not a directory"]);

    // Not even root can write there.
    let check_at = |file: &str, status| {
        let mut command = check(&sandbox);
        command.args(["--base-url", &wechat.url(), "--file", file]);
        Checked::run(command, status)
    };
    check_at("/proc/self/wx.json", 1).has("directory", "problem", &["cannot create /proc/self/"]);
    let nowhere = sandbox.path("secret/none/wx.json");
    check_at(nowhere.to_str().unwrap(), 3).has("directory", "problem", &["cannot enter"]);
}

/// No fetch publishes such a one, and until the next fetch it would be handed out as others have written it.
#[test]
fn a_document_that_others_can_write_is_told_with_the_command_that_ends_it() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    let document = sandbox.document_path();
    fs::set_permissions(&document, fs::Permissions::from_mode(0o664)).unwrap();
    let command = format!("chmod go-w {}", document.display());
    checked(&wechat, &sandbox, 0).has("directory", "notice", &[&command, "mode 0664"]);
    assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
    let checked = checked(&wechat, &sandbox, 0);
    let told = checked.findings.iter().filter(|it| it["about"] == "directory").count();
    assert_eq!(told, 1, "{:#?}", checked.findings);
}

#[test]
fn a_document_that_fetch_could_not_replace_is_a_problem() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    fs::rename(sandbox.document_path(), sandbox.path("elsewhere.json")).unwrap();
    std::os::unix::fs::symlink(sandbox.path("elsewhere.json"), sandbox.document_path()).unwrap();
    sandbox.run(&["fetch", "--force"]).exits(1).says(&["is a symbolic link"]);
    let checked = checked(&wechat, &sandbox, 1);
    checked.has("directory", "problem", &["is a symbolic link"]).has("token", "ok", &["honoured"]);
    let names = ["default.json", "default.lock", "default.state"];
    assert_eq!(sandbox.published_names(), names, "no file is left");
}

#[needs(mount)]
#[test]
fn a_full_disk_is_a_problem_and_no_file_is_left_on_it() {
    let small = tempfile::tempdir().unwrap();
    let script = r#"mount -t tmpfs -o size=8k none "$0" && head -c 4096 /dev/zero > "$0/full" && "$@"; code=$?
        ls -A "$0" >&2; exit $code"#;
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let inner = check(&sandbox);
    let dir = small.path().to_str().unwrap();
    let mount = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, dir];
    let mut command = wrapped(&mount, &inner);
    command.args(["--base-url", &wechat.url(), "--file"]).arg(small.path().join("wx.json"));
    let ran = command.output().unwrap();
    assert_eq!(ran.status.code(), Some(1), "{ran:?}");
    let stdout = String::from_utf8_lossy(&ran.stdout);
    assert!(
        stdout.contains("✗ default  directory") && stdout.contains("No space left"),
        "{stdout}"
    );
    assert_eq!(String::from_utf8_lossy(&ran.stderr), "full\n");
}

#[test]
fn the_holder_of_the_lock_is_reported() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    let lock = File::open(sandbox.path("state/default.lock")).unwrap();
    lock.lock().unwrap();
    let holder = format!("process {}", std::process::id());
    checked(&wechat, &sandbox, 0).has("lock", "notice", &["held by", &holder, "一分钟"]);
    lock.unlock().unwrap();
    checked(&wechat, &sandbox, 0).has("lock", "ok", &["free"]);
}

// Connections

#[test]
fn a_failed_connection_is_reported_with_the_stage_that_failed() {
    let wechat = WeChat::start();
    let front = TlsFront::before(wechat.address(), "localhost");
    let secure = format!("https://localhost:{}", front.address.port());
    let (_reserved, unused) = refusing_address();
    let sandbox = Sandbox::new(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    let check_at = |base: &str, proxy: Option<&str>| {
        let mut command = check(&sandbox);
        command.args(["--base-url", base]);
        if let Some(proxy) = proxy {
            command.env("HTTPS_PROXY", proxy);
        }
        let checked = Checked::run(command, 5);
        checked.has("token", "notice", &["was not tried"]).has_nothing_about("credentials");
        checked.has_nothing_about("clock");
        checked
    };
    check_at("https://unknown.invalid", None).has(
        "host",
        "problem",
        &["(DNS", "unknown.invalid", "resolv.conf", "请检查域名"],
    );
    let untrusted = check_at(&secure, None);
    untrusted.has("host", "problem", &["TLS", "localhost", "UnknownIssuer", "--ca-file", "根证书"]);
    let refused = check_at(&format!("http://{unused}"), None);
    refused.has("host", "problem", &["refused", &unused.to_string(), "firewall", "防火墙"]);
    let proxy = format!("http://user:password@{unused}");
    let proxied = check_at("https://api.example", Some(&proxy));
    let through = format!("api.example through the proxy {unused}");
    proxied.has("host", "problem", &[&through, "See that the proxy runs", "请确认代理正在运行"]);
    assert!(!proxied.ran.stdout.contains("firewall"), "{}", proxied.ran.stdout);
    assert!(!proxied.ran.stdout.contains("password@"));
    let forbidding = proxy_refusing_all();
    let forbidden = check_at("https://api.example", Some(&forbidding));
    forbidden.has(
        "host",
        "problem",
        &["the proxy refused", "403", "let this host through", "代理"],
    );

    // A certificate for another name.
    let others = TlsFront::before(wechat.address(), "others.test");
    write_with_mode(&sandbox.path("ca.pem"), &others.ca_pem, 0o644);
    let mut command = check(&sandbox);
    command.args(["--base-url", &format!("https://localhost:{}", others.address.port())]);
    command.arg("--ca-file").arg(sandbox.path("ca.pem"));
    Checked::run(command, 5).has("host", "problem", &["TLS", "not valid for name", "--base-url"]);

    // A trusted certificate.
    write_with_mode(&sandbox.path("ca.pem"), &front.ca_pem, 0o644);
    let mut command = check(&sandbox);
    command.args(["--base-url", &secure, "--ca-file"]).arg(sandbox.path("ca.pem"));
    Checked::run(command, 0).has("host", "ok", &["localhost"]).has("token", "ok", &["honoured"]);
}

/// Starts a proxy that answers each request with 403.
fn proxy_refusing_all() -> String {
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

/// Reads a whole request, since closing a socket with unread bytes resets the connection.
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
fn an_answer_of_a_captive_portal_or_gateway_is_a_problem() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    for (fault, text) in
        [("html", "HTML"), ("http:302", "does not redirect"), ("http:502", "gateway")]
    {
        wechat.fault(fault);
        checked(&wechat, &sandbox, 5).has("host", "problem", &[text]);
    }
}

#[test]
fn each_of_several_base_urls_is_tried() {
    let wechat = wechat_with_accounts(1, &[]);
    let (_reserved, unused) = refusing_address();
    let home = Home::new(&format!(
        "[account.a0]\nappid = \"wx0\"\nsecret_file = \"a0.secret\"\nbase_url = [\"http://{unused}\", \"{}\"]\n",
        wechat.url()
    ));
    home.put_secret("a0", &appsecret(0));
    home.run(&["fetch"]).exits(0);
    let checked = Checked::run(home.command(&["check"]), 0);
    checked.has("host", "notice", &[&unused.to_string()]).has("host", "ok", &["answers"]);
    checked.has("credentials", "ok", &[]).has("token", "ok", &["honoured"]);
    checked.has("config", "ok", &["wxtoken.toml:1: account.a0"]);
}

/// Starts a server that answers each request with this head and body.
fn server_answering(head: &'static str, body: &'static str) -> String {
    server_answering_with("200 OK", head, body)
}

fn server_answering_with(status: &'static str, head: &'static str, body: &'static str) -> String {
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
fn a_wrong_clock_is_found_by_the_date_header_or_the_rid() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    let check_at = |base: String, code| {
        let mut command = check(&sandbox);
        command.args(["--base-url", &base]);
        Checked::run(command, code)
    };
    let refusal =
        r#"{"errcode":41001,"errmsg":"access_token missing rid: 6aac005a-01bfdbee-79769285"}"#;
    // The rid is of September 2026, so this host is days ahead at any time.
    let by_rid = check_at(server_answering("", refusal), 4);
    by_rid.has("clock", "problem", &["d ", "ahead of the other side's", "NTP", "校准"]);
    let by_date = check_at(server_answering("Date: Fri, 01 Jan 2100 00:00:00 GMT\r\n", refusal), 4);
    by_date.has("clock", "problem", &["d ", "behind the other side's"]);
    let without_date =
        check_at(server_answering("Date: noon\r\n", r#"{"errcode":41001,"errmsg":""}"#), 4);
    without_date.has("clock", "notice", &["does not tell"]);
}

// Schedule

#[test]
fn the_age_of_the_document_shows_whether_fetch_is_scheduled() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    let token = sandbox.token();
    // The token is due with five minutes left; half a minute later fetch can still come.
    for (age, verdict, text, code) in [
        // A busy machine adds seconds.
        (3600, "ok", "last asked for 1h", 0),
        (6930, "ok", "last asked for 1h 5", 0),
        (7150, "notice", "not asked for since", 0),
        (9000, "notice", "not asked for since", 3),
    ] {
        sandbox.publish(&token, 7200, age);
        checked(&wechat, &sandbox, code).has("schedule", verdict, &[text]);
    }
    let expired = checked(&wechat, &sandbox, 3);
    expired.has("schedule", "notice", &["cron", "systemctl list-timers", "定时器"]);
    expired.has(
        "token",
        "problem",
        &["expired at", "see why it was not refreshed in time", "排查"],
    );
    // In the time of the host's zone.
    let mut local = sandbox.command(&["check", "-q"]);
    let local = local.env("TZ", "CST-8").env("WXTOKEN_LANG", "zh").output().unwrap();
    let shown = String::from_utf8_lossy(&local.stdout);
    assert!(shown.contains("+08:00 过期") && shown.contains("+08:00 起就应刷新"), "{shown}");
}

#[test]
fn a_document_of_another_account_or_a_truncated_one_is_a_problem() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    let document = fs::read_to_string(sandbox.document_path()).unwrap();
    write_with_mode(
        &sandbox.document_path(),
        &document.replace(APPID, "wxffffffffffffffff"),
        0o600,
    );
    checked(&wechat, &sandbox, 3).has("token", "problem", &["belongs to wxffffffffffffffff"]);
    write_with_mode(&sandbox.document_path(), &document[..20], 0o600);
    let damaged = checked(&wechat, &sandbox, 3);
    damaged.has("token", "problem", &["is no document"]);
    // What its cause asks for is said once.
    let token = damaged.findings.iter().find(|it| it["about"] == "token").unwrap();
    let what = token["what"].as_str().unwrap();
    let is_said = what.starts_with("Run ") && what.contains(", which replaces it: ");
    assert!(is_said && token["remedy"].is_null(), "{token:#}");
}

// Several accounts

#[test]
fn accounts_and_their_tickets_are_reported_in_order() {
    let wechat = wechat_with_accounts(12, &[]);
    let home = Home::with_accounts(12, &wechat.url(), "tickets = [\"jsapi\", \"wx_card\"]\n");
    home.run(&["fetch"]).exits(0).silent();
    let ran = home.run(&["check"]).exits(0);
    let findings = ran.stdout.lines().filter(|line| line.starts_with('✓'));
    let accounts = findings.map(|line| line.split_whitespace().nth(1).unwrap().to_owned());
    let mut in_order: Vec<_> = accounts.collect();
    in_order.dedup();
    let mut expected: Vec<_> = (0..12).map(|n| format!("a{n}")).collect();
    expected.sort();
    assert_eq!(in_order, expected);

    let last = Checked::run(home.command(&["check", "a11"]), 0);
    last.has("ticket", "ok", &["jsapi: "]).has("ticket", "ok", &["wx_card: "]);
    fs::remove_file(home.path("state/a11.wx_card.json")).unwrap();
    let without = Checked::run(home.command(&["check", "a11", "a0"]), 3);
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
fn the_exit_status_is_that_of_the_worst_account() {
    let wechat = wechat_with_accounts(2, &[]);
    let home = Home::with_accounts(2, &wechat.url(), "");
    home.run(&["fetch"]).exits(0).silent();
    home.put_secret("a1", &appsecret(9));
    home.run(&["check", "a0"]).exits(0);
    home.run(&["check"]).exits(4);
}

#[test]
fn a_mirror_is_checked_up_to_its_central_server() {
    let wechat = wechat_with_accounts(1, &[]);
    let first = Home::with_accounts(1, &wechat.url(), "");
    let server = first.serve(&["--refresh"]);
    let address = server.address();
    let mirror = Home::new(&format!("[account.a0]\nfrom = \"http://{address}\"\n"));
    mirror.run(&["fetch"]).exits(0).silent();
    let mints = wechat.mints();
    let healthy = Checked::run(mirror.command(&["check"]), 0);
    healthy.has("host", "ok", &[&address.to_string()]).has("key", "ok", &["by its address"]);
    healthy.has("credentials", "ok", &["the other wxtoken gives"]).has(
        "token",
        "ok",
        &["honoured"],
    );
    healthy.has("schedule", "ok", &[]);
    assert_eq!(wechat.mints(), mints);
    // Fetched long ago, and replaced since.
    mirror.publish("a0", "", "T_OLD", 900);
    let late = Checked::run(mirror.command(&["check"]), 0);
    late.has("token", "notice", &["another one by now"]);
    late.has("schedule", "notice", &["last asked for 15m"]);
    server.stop();
    // A redirect, as from a captive portal or from http to https.
    let redirecting = server_answering_with("302 Found", "Location: https://portal.test/\r\n", "");
    let portal = Home::new(&format!("[account.a0]\nfrom = \"{redirecting}\"\n"));
    let redirected = Checked::run(portal.command(&["check"]), 5);
    redirected.has("host", "problem", &["not wxtoken's: a redirect (HTTP 302)", "Check `from`"]);
    let down = Checked::run(mirror.command(&["check"]), 5);
    down.has("host", "problem", &[&address.to_string()]).has("token", "notice", &["was not tried"]);
}

// Timeout and output

#[test]
fn check_respects_the_timeout_if_a_server_never_answers() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    wechat.fault("hang");
    let mut command = check(&sandbox);
    command.args(["--base-url", &wechat.url(), "--timeout", "1s"]);
    let checked = Checked::run(command, 5);
    checked.has("host", "problem", &["no answer in time", "已连接但没有应答"]);
    // Accounts that were not checked in time are not reported as ok.
    let wechat = wechat_with_accounts(66, &[]);
    let home = Home::with_accounts(66, &wechat.url(), "");
    wechat.fault("hang");
    let ran = home.run(&["check", "--timeout", "1s", "--format", "json"]).exits(5).json();
    let accounts = ran["accounts"].as_array().unwrap();
    assert_eq!(accounts.len(), 66);
    assert!(accounts.iter().all(|it| it.to_string().contains("no answer in time")), "{ran}");
}

#[test]
fn quiet_prints_problems_and_the_verdict_only() {
    let wechat = wechat_with_accounts(2, &[]);
    let home = Home::with_accounts(2, &wechat.url(), "");
    home.run(&["fetch"]).exits(0).silent();
    home.run(&["check", "-q"]).exits(0).silent();
    fs::remove_file(home.document_path("a1")).unwrap();
    let stdout = home.run(&["check", "-q"]).exits(3).stdout;
    assert!(
        stdout.starts_with("✗ a1  token        nothing is published")
            && stdout.lines().count() == 2,
        "{stdout}"
    );
}

#[needs(script)]
#[test]
fn each_finding_is_a_line_with_colours_on_a_terminal_only() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let mut command = check(&sandbox);
    command.args(["--base-url", &wechat.url()]);
    let plain = Run::new(command).exits(3).stdout;
    assert!(!plain.contains('\x1b'));
    let (plain, verdict) = plain.trim_end().rsplit_once('\n').unwrap();
    assert!(verdict.starts_with("1 problem in 1 account: default."), "{verdict}");
    let marks: Vec<_> = plain.lines().map(|line| line.chars().next().unwrap()).collect();
    assert!(marks.iter().all(|mark| "✓!✗".contains(*mark)), "{plain}");
    assert_eq!(marks.iter().filter(|mark| **mark == '✗').count(), 1, "{plain}");
    // In columns: mark, account, subject, finding.
    let column = plain.lines().map(|line| line.chars().take(24).collect::<String>());
    assert!(
        column.into_iter().all(|it| it.starts_with(|c| "✓!✗".contains(c)) && it.ends_with("  "))
    );

    let with_no_color = |value: &str| {
        let mut command = check(&sandbox);
        command.args(["--base-url", &wechat.url()]).env("NO_COLOR", value);
        Run::new(on_terminal(&command)).exits(3).stdout
    };
    let coloured = with_no_color("");
    assert!(
        coloured.contains("\x1b[32m✓\x1b[0m config") && coloured.contains("\x1b[31m✗\x1b[0m"),
        "{coloured:?}"
    );
    let plain = with_no_color("1");
    assert!(plain.contains("✗ token") && !plain.contains("\x1b[3"), "{plain:?}");
}

// What people see

#[needs(script)]
#[test]
fn on_a_terminal_findings_fit_it_and_a_cause_that_accounts_share_is_told_once() {
    let wechat = wechat_with_accounts(2, &[]);
    let home = Home::with_accounts(2, &wechat.url(), "");
    home.run(&["fetch"]).exits(0);
    wechat.fault("errcode:40164");
    for (language, remedy, last) in
        [("en", "allowlist", "2 accounts: "), ("zh", "白名单", "2 个账号中发现 ")]
    {
        let mut command = home.command(&["check"]);
        command.env("WXTOKEN_LANG", language);
        let text = Run::new(on_terminal(&command)).exits(4).stdout;
        assert!(text.lines().all(|line| columns(line) <= 80), "{text}");
        assert!(text.lines().last().unwrap().contains(last), "{text}");
        assert!(text.contains(remedy), "{text}");
        let same = if language == "zh" { "与 a0 相同" } else { "the same as a0" };
        assert!(text.contains(same), "{text}");
    }
}

#[test]
fn the_last_line_is_the_verdict_and_counts_a_shared_cause_once() {
    let wechat = wechat_with_accounts(2, &[]);
    let home = Home::with_accounts(2, &wechat.url(), "");
    home.run(&["fetch"]).exits(0);
    let well = home.run(&["check"]).exits(0).stdout;
    assert!(well.ends_with("No problem in 2 accounts. 2 个账号均无问题。\n"), "{well}");
    wechat.fault("errcode:40164");
    let ill = home.run(&["check", "-q"]).exits(4).stdout;
    assert!(ill.lines().last().unwrap().starts_with("1 problem in 2 accounts: a0, a1."), "{ill}");
}
