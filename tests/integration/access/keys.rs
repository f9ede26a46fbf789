//! `serve --keys`: clients need a key beside an allowed address. The file contains digests only, and can be changed while the
//! server runs.

use std::fs;
use std::path::PathBuf;

use crate::support::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const TOKEN: &str = "T0KEN_for_those_with_a_key_only_0123456789abcdefghijklmnopqrstuvwxyz";

/// A sandbox with a live token and a keys file.
struct KeysSetup {
    sandbox: Sandbox,
}

impl KeysSetup {
    fn new(lines: &[&str]) -> KeysSetup {
        let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
        sandbox.publish(TOKEN, 7200, 0);
        let setup = KeysSetup { sandbox };
        setup.write(lines);
        setup
    }

    fn path(&self) -> PathBuf {
        self.sandbox.path("keys")
    }

    /// Replaces the keys file atomically.
    fn write(&self, lines: &[&str]) {
        let new = self.sandbox.path("keys.new");
        write_with_mode(&new, &lines.join("\n"), 0o644);
        fs::rename(new, self.path()).unwrap();
    }

    fn serve(&self, args: &[&str]) -> Server {
        let path = self.path();
        self.sandbox.serve(&[&["--keys", path.to_str().unwrap()], args].concat())
    }

    /// Runs `serve`, which must not start.
    #[track_caller]
    fn refused(&self) -> Run {
        self.sandbox.serve_refused(&["--keys", self.path().to_str().unwrap()])
    }
}

/// Returns a request with these headers; each has its line end.
fn request(target: &str, headers: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n")
}

fn bearer(key: &str) -> String {
    format!("Authorization: Bearer {key}\r\n")
}

fn basic(user: &str, key: &str) -> String {
    format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("{user}:{key}")))
}

/// Requests the token with these headers. Returns the status.
#[track_caller]
fn ask(server: &Server, headers: &str) -> u16 {
    let response = server.send(&request("/token", headers));
    match response.status {
        200 => assert_eq!(response.json()["access_token"], TOKEN),
        _ => assert!(!response.body.contains(&TOKEN[..20]), "{response:?}"),
    }
    response.status
}

#[test]
fn a_key_is_accepted_as_a_bearer_token_or_password_and_in_no_other_place() {
    let php = new_key(&["php"]);
    let setup = KeysSetup::new(&["# ours", &php.line]);
    let server = setup.serve(&[]);
    let key = &php.key;
    for headers in [
        bearer(key),
        format!("authorization: bearer {key}\r\n"),
        format!("AUTHORIZATION: BEARER   {key} \t \r\n"),
        basic("", key),
        basic("php", key),
        basic("other", key),
    ] {
        assert_eq!(ask(&server, &headers), 200, "{headers}");
    }
    let other = new_key(&["php"]);
    let digest = php.line.split(' ').nth(1).unwrap();
    for headers in [
        String::new(),
        "Authorization:\r\n".to_owned(),
        "Authorization: Bearer\r\n".to_owned(),
        "Authorization: Bearer \t\r\n".to_owned(),
        format!("Authorization: {key}\r\n"),
        format!("Authorization: Bearer\t{key}\r\n"),
        format!("Authorization: Bearer{key}\r\n"),
        format!("Authorization: Digest {key}\r\n"),
        format!("Authorization: Basic {key}\r\n"),
        format!("Cookie: {key}\r\nProxy-Authorization: Bearer {key}\r\n"),
        format!("X-Authorization: Bearer {key}\r\n"),
        bearer(&key[..46]),
        bearer(&format!("{key}x")),
        bearer(&format!("{key} {key}")),
        bearer(&format!("\"{key}\"")),
        bearer(&key.to_uppercase()),
        bearer(digest),
        bearer(&other.key),
        bearer(&"x".repeat(7000)),
        bearer("密钥"),
        basic(key, ""),
        basic("php", digest),
        basic("php", &format!("{key}\n")),
    ] {
        assert_eq!(ask(&server, &headers), 401, "{headers}");
    }
    // Not accepted in the query, which proxies log.
    for query in ["key", "secret", "access_key", "token"] {
        let response = server.send(&request(&format!("/token?{query}={key}"), ""));
        assert_eq!(response.status, 401, "{query}");
    }
}

#[test]
fn two_authorization_headers_or_a_malformed_one_are_400() {
    let php = new_key(&["php"]);
    let server = KeysSetup::new(&[&php.line]);
    let server = server.serve(&[]);
    let (good, bad) = (bearer(&php.key), bearer("wxk_"));
    for headers in [
        format!("{good}{good}"),
        format!("{good}{bad}"),
        format!("{bad}{good}"),
        format!("{good}{}", basic("", &php.key)),
        format!("{good}Authorization:\r\n"),
        format!("{good}Accept: */*\r\nauthorization: x\r\n"),
    ] {
        let response = server.send(&request("/token", &headers));
        assert_eq!(response.status, 400, "{headers}");
        assert_eq!(response.json()["error"], "bad_request");
        assert!(response.body.contains("Send one Authorization header"), "{response:?}");
    }
    for headers in [
        format!("Authorization: Bearer\r\n {}\r\n", php.key),
        format!("Authorization:\r\n\tBearer {}\r\n", php.key),
        format!("Accept: x\r\n {good}"),
        format!("Authorization : Bearer {}\r\n", php.key),
        format!(" {good}"),
        format!("Authorization: Bearer {}\0\r\n", php.key),
        format!("Authorization: Bearer {}\rx\r\n", php.key),
    ] {
        let response = server.send(&request("/token", &headers));
        assert_eq!(response.status, 400, "{headers:?} {response:?}");
    }
}

#[test]
fn a_missing_or_wrong_key_is_401_with_a_challenge_and_a_remedy() {
    let php = new_key(&["php"]);
    let server = KeysSetup::new(&[&php.line]);
    let server = server.serve(&[]);
    for (target, headers, says) in [
        (
            "/token",
            "",
            "Send Authorization: Bearer KEY: a key is needed here. On the server, `wxtoken key NAME` makes one.",
        ),
        ("/token", "Authorization: Bearer wxk_\r\n", "not in the server's keys file"),
        ("/token/default", "", "a key is needed here"),
        ("/token/unknown", "", "a key is needed here"),
        ("/ticket/jsapi", "", "a key is needed here"),
        ("/metrics", "", "a key is needed here"),
    ] {
        let response = server.send(&request(target, headers));
        assert_eq!(response.status, 401, "{target} {response:?}");
        assert_eq!(response.header("www-authenticate"), Some("Bearer"), "{target}");
        assert_eq!(response.header("cache-control"), Some("no-store"));
        assert_eq!(response.json()["error"], "unauthorized");
        assert!(response.body.contains(says), "{target} {response:?}");
    }
    // The page asks for a password, so that browsers prompt for one.
    let response = server.get("/");
    assert_eq!(response.status, 401);
    assert_eq!(response.header("www-authenticate"), Some("Basic realm=\"wxtoken\""));
    let page = server.send(&request("/", &basic("me", &php.key)));
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert_eq!(server.send(&request("/", &bearer(&php.key))).status, 200);
    // 404 and 405 need no key.
    assert_eq!(server.get("/nowhere").status, 404);
    assert_eq!(server.send(&request("/token", "").replace("GET", "DELETE")).status, 405);
    // A 401 does not close the connection.
    let mut caller = server.caller();
    assert_eq!(caller.get("/token").status, 401);
    caller.send(format!("GET /token HTTP/1.1\r\nHost: localhost\r\n{}\r\n", bearer(&php.key)));
    assert_eq!(caller.answer().status, 200);
}

#[test]
fn a_request_needs_an_allowed_address_and_a_valid_key() {
    let php = new_key(&["php"]);
    let setup = KeysSetup::new(&[&php.line]);
    let socket = format!("unix:{}", setup.sandbox.path("socket").display());
    let args = ["--listen", "127.0.0.1:0", "--listen", &socket, "--allow", "127.0.0.2"];
    let server = setup.serve(&args);
    for target in ["/token", "/healthz", "/readyz", "/metrics", "/"] {
        for (source, key, expected) in [
            ("127.0.0.2", &php.key[..], 200),
            ("127.0.0.2", "", if target.ends_with('z') { 200 } else { 401 }),
            ("127.0.0.3", &php.key, 403),
            ("127.0.0.3", "", 403),
        ] {
            let stream = connect_from(source, server.address());
            let response = exchange_over(stream, request(target, &bearer(key)).as_bytes());
            assert_eq!(response.status, expected, "{target} {source} {key:?} {response:?}");
        }
    }
    // The unix socket needs a key, too.
    let over_unix = |headers: &str| {
        let stream = connect_unix(&server.addresses[1]);
        exchange_over(stream, request("/token", headers).as_bytes()).status
    };
    assert_eq!((over_unix(""), over_unix(&bearer(&php.key))), (401, 200));
}

#[test]
fn readyz_without_a_key_does_not_name_the_accounts() {
    let setup = KeysSetup::new(&[&new_key(&["php"]).line]);
    fs::remove_file(setup.sandbox.document_path()).unwrap();
    let response = setup.serve(&[]).get("/readyz");
    assert_eq!((response.status, &response.json()["error"]), (503, &"not_ready".into()));
    assert!(!response.body.contains("default"), "{response:?}");
    assert!(setup.sandbox.serve(&[]).get("/readyz").body.contains("default"));
}

#[test]
fn wrong_keys_are_counted_and_add_no_series() {
    let php = new_key(&["php"]);
    let server = KeysSetup::new(&[&php.line]);
    let server = server.serve(&[]);
    let series = || {
        let response = server.send(&request("/metrics", &bearer(&php.key)));
        let lines = response.body.lines().filter(|line| !line.starts_with('#'));
        let named = lines.filter_map(|line| line.rsplit_once(' '));
        named.map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<Vec<_>>()
    };
    let try_keys = |n: usize| {
        for key in [format!("wxk_{n}"), format!("{n}\"}} {n}"), String::new()] {
            for target in ["/token", "/metrics", "/"] {
                assert_eq!(server.send(&request(target, &bearer(&key))).status, 401);
                assert_eq!(server.send(&request(target, &basic(&key, &key))).status, 401);
            }
        }
        series()
    };
    try_keys(0);
    let (before, after) = (try_keys(1), try_keys(2));
    let names =
        |series: &[(String, String)]| series.iter().map(|it| it.0.clone()).collect::<Vec<_>>();
    assert_eq!(names(&before), names(&after));
    let unauthorized = "wxtoken_http_refused_total{reason=\"unauthorized\"}".to_owned();
    assert!(after.contains(&(unauthorized, "54".to_owned())), "{after:#?}");
}

#[test]
fn sdk_routes_accept_the_key_as_the_secret() {
    let php = new_key(&["php"]);
    let server = KeysSetup::new(&[&php.line]);
    let server = server.serve(&[]);
    let key = php.key.as_str();
    let token = |secret: &str, headers: &str| {
        let query = format!("grant_type=client_credential&appid={APPID}{secret}");
        server.send(&request(&format!("/cgi-bin/token?{query}"), headers))
    };
    let work = |secret: &str, headers: &str| {
        server.send(&request(&format!("/cgi-bin/gettoken?corpid={APPID}{secret}"), headers))
    };
    let stable = |secret: &str, headers: &str| {
        let body = format!(r#"{{"grant_type":"client_credential","appid":"{APPID}"{secret}}}"#);
        let length = body.len();
        server.send(&format!(
            "POST /cgi-bin/stable_token HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Length: {length}\r\n{headers}\r\n{body}"
        ))
    };
    let query = |secret: &str| format!("&secret={secret}");
    let corp = |secret: &str| format!("&corpsecret={secret}");
    let json = |secret: &str| format!(r#","secret":"{secret}""#);
    let (good, bad) = (bearer(key), bearer("wxk_"));
    let basic = basic("", key);
    type Ask<'a> = &'a dyn Fn(&str, &str) -> Response;
    type Write<'a> = &'a dyn Fn(&str) -> String;
    let routes: [(Ask<'_>, Write<'_>); 3] = [(&token, &query), (&work, &corp), (&stable, &json)];
    for (ask, write) in routes {
        for (secret, headers, expected) in [
            (write(key), "", 0),
            (write(key), bad.as_str(), 0),
            (write(""), &good, 0),
            (String::new(), &good, 0),
            (String::new(), &basic, 0),
            (String::new(), "", 41004),
            (write(""), "", 41004),
            (String::new(), &bad, 40125),
            (String::new(), "Authorization: x\r\n", 40125),
            (write(SECRET), &good, 40125),
            (write(&key[1..]), "", 40125),
            (write("%00"), "", 40125),
        ] {
            let response = ask(&secret, headers);
            assert_eq!(response.status, 200, "{secret} {headers} {response:?}");
            let errcode = response.json()["errcode"].as_i64().unwrap_or(0);
            assert_eq!(errcode, expected, "{secret} {headers} {response:?}");
            assert_eq!(response.body.contains(TOKEN), expected == 0, "{response:?}");
        }
    }
    let two = token("", &format!("{good}{good}"));
    assert_eq!((two.status, &two.json()["error"]), (400, &"bad_request".into()));
    let other_account = server.send(&request(
        &format!("/cgi-bin/token?grant_type=client_credential&appid=wx0&secret={key}"),
        "",
    ));
    assert_eq!(other_account.json()["errcode"], 40013);
}

#[test]
fn a_key_for_some_apis_is_handed_no_token_with_which_all_could_be_called() {
    let limited = new_key(&["limited"]);
    let setup = KeysSetup::new(&[&format!("{} * /cgi-bin/message", limited.line)]);
    let server = setup.serve(&[]);
    for path in ["/token", "/token/default", "/ticket/jsapi"] {
        let answer = server.send(&request(path, &bearer(&limited.key)));
        assert_eq!((answer.status, &answer.json()["error"]), (403, &"forbidden_api".into()));
        assert!(!answer.body.contains("T0KEN"), "{}", answer.body);
    }
    let target =
        format!("/cgi-bin/token?grant_type=client_credential&appid={APPID}&secret={}", limited.key);
    let answer = server.send(&request(&target, ""));
    assert_eq!((answer.status, answer.json()["errcode"].as_i64()), (200, Some(48001)));
    assert_eq!(server.send(&request("/metrics", &bearer(&limited.key))).status, 200);
}

#[test]
fn all_errors_of_a_keys_file_are_reported_at_once_without_quoting_it() {
    let (php, java) = (new_key(&["php"]), new_key(&["java"]));
    let key = new_key(&["x"]).key;
    let setup = KeysSetup::new(&[
        &format!("php {key}"),
        &php.line,
        "# a comment with T0KEN in it",
        TOKEN,
        "j\u{e4}va 00",
        &php.line.replace("php", "again"),
        &format!("{} elsewhere", java.line),
        &format!("{} default shop", new_key(&["y"]).line),
        "php 5ec2e75ec2e75ec2e75ec2e75ec2e75e",
    ]);
    let ran = setup.refused().says(&[
        &format!(
            "wxtoken: serve: keys file {}: line 1: Put the line of `wxtoken key` here, with the key's SHA-256: this looks like the key itself; ",
            setup.path().display()
        ),
        "; line 4: Write NAME SHA256 [ACCOUNT,… [API,…]]",
        "; line 5: Copy the line again: its second word is not a SHA-256 in 64 hex digits",
        "; line 6: Leave out one of them: the same SHA-256 as on line 2",
        "; line 7: Correct the account: it is for an account that is not served here; there are default",
        "; line 8: Write `all`, or paths",
        "; line 9: Copy the line again",
    ]);
    for hidden in [&key[4..], &TOKEN[..20], "va 00", "elsewhere", "shop", "5ec2e75"] {
        assert!(!ran.stderr.contains(hidden), "{hidden} is in {}", ran.stderr);
    }
}

#[test]
fn a_keys_file_that_is_missing_or_writable_by_others_is_an_error() {
    let setup = KeysSetup::new(&[&new_key(&["php"]).line]);
    let name = format!("keys file {}", setup.path().display());
    for mode in [0o664, 0o646] {
        write_with_mode(&setup.path(), "", mode);
        setup.refused().says(&[
            "Run chmod go-w",
            &format!("cannot read {name}: it can be written by others: mode {mode:04o}"),
        ]);
    }
    fs::remove_file(setup.path()).unwrap();
    setup.refused().says(&[&format!("cannot read {name} "), "[No such file"]);
    fs::create_dir(setup.path()).unwrap();
    setup.refused().says(&[&format!("cannot read {name}: it is not a plain file")]);
    // Errors of all access flags are reported together.
    let path = setup.path();
    let mut args = vec!["--allow", "nowhere", "--trusted-proxy", "anywhere"];
    args.extend(["--allow-file", "/nowhere", "--keys", path.to_str().unwrap()]);
    setup.sandbox.serve_refused(&args).says(&[
        "--allow: nowhere:",
        "--trusted-proxy: anywhere:",
        "cannot read allow file /nowhere",
        &name,
    ]);
}

#[test]
fn an_empty_keys_file_refuses_every_request_with_a_warning() {
    for lines in [&[][..], &["# none yet"]] {
        let setup = KeysSetup::new(lines);
        let server = setup.serve(&[]);
        assert_eq!(ask(&server, ""), 401);
        assert_eq!(ask(&server, &bearer("")), 401);
        assert_eq!(ask(&server, &basic("", "")), 401);
        assert_eq!(server.get("/healthz").status, 200);
        let stderr = server.stop();
        let expected = format!(
            "wxtoken: serve: Make one with `wxtoken key NAME`: keys file {} holds no key, and no client gets a token ",
            setup.path().display()
        );
        assert!(stderr.starts_with(&expected), "{stderr}");
    }
}

#[test]
fn a_key_is_replaced_while_the_server_runs_and_never_by_an_invalid_file() {
    let (old, new) = (new_key(&["php"]), new_key(&["php"]));
    let setup = KeysSetup::new(&[&old.line]);
    let server = setup.serve(&[]);
    let is_accepted = |key: &NewKey| ask(&server, &bearer(&key.key)) == 200;
    let mut kept = server.caller();
    let mut request_over_kept = || {
        kept.send(format!("GET /token HTTP/1.1\r\nHost: localhost\r\n{}\r\n", bearer(&old.key)));
        kept.answer().status
    };
    assert!(is_accepted(&old) && !is_accepted(&new));
    assert_eq!(request_over_kept(), 200);
    // Both keys have one name until the client has changed.
    setup.write(&[&old.line, &new.line]);
    eventually("the new key is accepted", || is_accepted(&new));
    assert!(is_accepted(&old));
    // Polling would notice the change within seconds, too.
    setup.write(&["php wxk_in_the_wrong_place", &new.line]);
    server.signal("HUP");
    setup.write(&[&new.line]);
    eventually("the old key is refused", || !is_accepted(&old));
    assert!(is_accepted(&new));
    assert_eq!(request_over_kept(), 401, "also on an open connection");
    write_with_mode(&setup.path(), &old.line, 0o666);
    server.signal("HUP");
    fs::remove_file(setup.path()).unwrap();
    server.signal("HUP");
    let third = new_key(&["php"]);
    setup.write(&[&new.line, &third.line]);
    eventually("the third key is accepted", || {
        assert!(is_accepted(&new) && !is_accepted(&old), "unreadable files change nothing");
        is_accepted(&third)
    });
    let stderr = server.stop();
    assert!(!stderr.contains("in_the_wrong_place"), "{stderr}");
}

#[test]
fn an_invalid_keys_file_is_logged_with_its_lines_and_the_last_good_one_kept() {
    let php = new_key(&["php"]);
    let setup = KeysSetup::new(&[&php.line]);
    let log = setup.sandbox.path("log");
    let mut command = setup.sandbox.command(&["serve", "-v", "--listen", "127.0.0.1:0"]);
    command.arg("--keys").arg(setup.path());
    let server = Server::start_with_log(&command, &log);
    let has_logged = |text: &str| fs::read_to_string(&log).unwrap().contains(text);
    setup.write(&["", "nonsense"]);
    let expected = format!(
        "wxtoken: serve: keys file {path}: line 2: Write NAME SHA256 [ACCOUNT,… [API,…]], the line that `wxtoken key` prints: this \
         is another one; the last good keys stay 访问密钥文件 {path}：第 2 行：请填写 NAME SHA256 [ACCOUNT,… [API,…]]，\
         即 `wxtoken key` 输出的那一行：格式不对；继续使用此前的访问密钥\n",
        path = setup.path().display()
    );
    eventually("the error is logged", || has_logged(&expected));
    assert_eq!(ask(&server, &bearer(&php.key)), 200);
    write_with_mode(&setup.path(), &php.line, 0o622);
    eventually("the error is logged", || has_logged("can be written by others: mode 0622"));
    assert_eq!(ask(&server, &bearer(&php.key)), 200);
    setup.write(&[&php.line]);
    eventually("the file is read again", || has_logged("read keys again"));
    assert_eq!(ask(&server, &bearer(&php.key)), 200);
    server.stop();
}

#[test]
fn each_of_ten_thousand_keys_is_accepted_and_no_other() {
    let digest = |key: &str| -> String {
        let digest = ring::digest::digest(&ring::digest::SHA256, key.as_bytes());
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let lines: Vec<String> =
        (0..10_000).map(|n| format!("c{n} {}", digest(&format!("K{n}")))).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let setup = KeysSetup::new(&lines);
    let server = setup.serve(&[]);
    for (key, status) in [("K0", 200), ("K5000", 200), ("K9999", 200), ("K10000", 401), ("K", 401)]
    {
        assert_eq!(ask(&server, &bearer(key)), status, "{key}");
    }
}

#[test]
fn the_log_has_the_name_of_the_key_and_never_the_key() {
    let php = new_key(&["php.web-1"]);
    let setup = KeysSetup::new(&[&php.line]);
    for verbose in ["", "-q", "-v", "-vvv"] {
        let args: &[&str] = if verbose.is_empty() { &[] } else { &[verbose] };
        let server = setup.serve(args);
        assert_eq!(ask(&server, &bearer(&php.key)), 200);
        assert_eq!(ask(&server, &basic("any-user", &php.key)), 200);
        assert_eq!(ask(&server, &bearer(&new_key(&["unknown"]).key)), 401);
        assert_eq!(ask(&server, &format!("{0}{0}", bearer(&php.key)).repeat(2)), 400);
        let query = format!("grant_type=client_credential&appid={APPID}&secret={}", php.key);
        assert_eq!(server.get(&format!("/cgi-bin/token?{query}")).status, 200);
        assert_eq!(server.get(&format!("/{}", php.key)).status, 404);
        let stderr = server.stop();
        for hidden in ["wxk_", &php.key[4..], "any-user", "Bearer", TOKEN] {
            assert!(!stderr.contains(hidden), "{verbose} {hidden}:\n{stderr}");
        }
        let named = stderr.lines().filter(|line| line.ends_with("us php.web-1")).count();
        assert_eq!(named, if verbose.starts_with("-v") { 3 } else { 0 }, "{stderr}");
        // Wrong keys are logged.
        let refusal = ": refused 127.0.0.1: it showed a key that is not in the keys file";
        assert_eq!(stderr.contains(refusal), verbose != "-q", "{stderr}");
    }
}

#[test]
fn a_key_of_another_account_is_logged_by_its_name_and_at_most_every_ten_seconds() {
    let key = new_key(&["php"]);
    let setup = KeysSetup::new(&[&key.line]);
    let server = setup.serve(&[]);
    for path in ["/token/shop", "/ticket/shop/jsapi"] {
        for _ in 0..20 {
            assert_eq!(server.send(&request(path, &bearer(&key.key))).status, 404);
        }
    }
    let stderr = server.stop();
    let lines: Vec<_> = stderr.lines().filter(|line| line.contains("its key php")).collect();
    assert!(!lines.is_empty() && lines.len() < 10, "{stderr}");
    assert!(
        lines[0].starts_with("wxtoken: serve: Give it the key of that account, or add the account")
            && lines[0].contains("(/token/shop)")
            && lines[0].contains("其访问密钥 php 不能用于所请求的账号"),
        "{stderr}"
    );
    assert!(!stderr.contains(&key.key[4..]), "{stderr}");
}

#[test]
fn a_key_sent_as_the_host_is_not_logged() {
    let php = new_key(&["php"]);
    let server = KeysSetup::new(&[&php.line]).serve(&[]);
    let host = format!("{}.test", php.key);
    let request = format!("GET /token HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    assert_eq!(server.send(&request).status, 421);
    let stderr = server.stop();
    assert!(stderr.contains("for host […].test"), "{stderr}");
}

#[test]
fn without_a_keys_file_authorization_headers_are_ignored() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish(TOKEN, 7200, 0);
    let server = sandbox.serve(&[]);
    let two = format!("{0}{0}", bearer("x"));
    for headers in ["", &bearer("x"), &two, "Authorization: \u{e9}\r\n"] {
        assert_eq!(ask(&server, headers), 200, "{headers}");
    }
}
