//! Several accounts in one config: fetched concurrently and independently, and read, shown and served by name.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::support::home::{Home, appsecret, wechat_with_accounts};
use crate::support::*;

/// Starts a stand-in that knows this many accounts, with these flags.
fn wechat(accounts: usize, more: &[&str]) -> WeChat {
    wechat_with_accounts(accounts, more)
}

// fetch

#[test]
fn fetch_handles_all_accounts_and_makes_calls_only_for_due_ones() {
    let wechat = wechat(3, &[]);
    let home = Home::with_accounts(3, &wechat.url(), "");
    home.publish("a1", "wx1", "T1", 0);
    home.run(&["fetch"]).exits(0).silent();
    assert_eq!(wechat.asked(), 2);
    assert_eq!(home.token("a1").as_deref(), Some("T1"));
    let tokens = ["a0", "a2"].map(|name| home.token(name).expect(name));
    assert_ne!(tokens[0], tokens[1]);
    home.run(&["fetch"]).exits(0).silent();
    assert_eq!(wechat.asked(), 2);
    home.run(&["fetch", "-v", "a2", "a0", "a2"]).exits(0).mentions(&["a0: not due", "a2: not due"]);
}

#[test]
fn a_failure_of_one_account_does_not_affect_others_and_the_exit_status_is_the_worst() {
    let wechat = wechat(5, &[]);
    let home = Home::with_accounts(5, &wechat.url(), "");
    // A wrong secret, one readable by others, a missing one, and a document of another account.
    home.put_secret("a0", &appsecret(99));
    write_with_mode(&home.path("a1.secret"), &appsecret(1), 0o644);
    fs::remove_file(home.path("a2.secret")).unwrap();
    home.publish("a3", "wx9", "T9", 0);
    let ran = home.run(&["fetch"]).exits(4);
    assert!(home.token("a4").is_some());
    assert_eq!(ran.stdout, "");
    let mut lines = home.stderr_lines(&ran);
    lines.sort();
    assert_eq!(lines.len(), 4, "one line for each failure: {lines:?}");
    for (line, expected) in lines.iter().zip([
        "wxtoken: fetch: a0: Copy the AppSecret again, or reset it in the console: WeChat refused (40125)",
        "wxtoken: fetch: a3: Give this account its own --file or --dir, or remove that document: state/a3.json belongs to wx9",
        "wxtoken: fetch: wxtoken.toml:11: account.a2.secret_file: Correct the path, or make what is missing: cannot read secret file a2.secret 请",
        "wxtoken: fetch: wxtoken.toml:7: account.a1.secret_file: Run chmod 0600 a1.secret: cannot read secret file a1.secret: it is open to others: mode 0644",
    ]) {
        assert!(line.starts_with(expected), "{line}\n{expected}");
    }
    assert_eq!(home.token("a3").as_deref(), Some("T9"));
    // Accounts that are not named have no effect.
    home.run(&["fetch", "a4"]).exits(0).silent();
    home.run(&["fetch", "a4", "a1"]).exits(2).says(&["account.a1.secret_file"]);
}

#[test]
fn many_accounts_are_fetched_concurrently() {
    // Each answer takes a second: sequentially they would take two minutes.
    let wechat = wechat(120, &["--fault", "slow:1"]);
    let home = Home::with_accounts(120, &wechat.url(), "");
    home.run(&["fetch", "--timeout", "100s"]).exits(0).silent();
    assert_eq!(wechat.mints(), 120);
    assert!((0..120).all(|n| home.token(&format!("a{n}")).is_some()));
}

#[test]
fn an_accounts_secret_is_found_in_a_directory_of_credentials_and_in_the_one_beside_the_config() {
    let wechat = wechat(2, &[]);
    let account = |n| format!("[account.a{n}]\nappid = 'wx{n}'\nbase_url = '{}'\n", wechat.url());
    let home = Home::new(&format!("{}{}", account(0), account(1)));
    let with_credentials = |verb: &[&str]| {
        let mut command = home.command(verb);
        command.env("CREDENTIALS_DIRECTORY", home.path("credentials"));
        Run::new(command)
    };
    // As systemd passes `LoadCredential=secrets.d:DIRECTORY`.
    for dir in ["credentials", "secrets"] {
        fs::create_dir(home.path(dir)).unwrap();
    }
    let put = |name: &str, n, mode| write_with_mode(&home.path(name), &appsecret(n), mode);
    put("credentials/secrets.d_a0.secret", 0, 0o440);
    put("secrets/a1.secret", 1, 0o600);
    with_credentials(&["fetch"]).exits(0).silent();
    assert!(home.token("a0").is_some() && home.token("a1").is_some());
    // A credential counts before the directory, and one of the account's own before those of a directory.
    put("secrets/a0.secret", 7, 0o600);
    with_credentials(&["check", "a0"]).exits(0).prints(&["credentials/secrets.d_a0.secret"]);
    put("credentials/a0.secret", 7, 0o400);
    with_credentials(&["check", "a0"]).exits(4).prints(&["credentials/a0.secret", "40125"]);
    home.run(&["check", "a1"]).exits(0).prints(&["secrets/a1.secret (0600)"]);
    put("secrets/a1.secret", 1, 0o644);
    home.run(&["fetch", "a1"]).exits(2).says(&["secrets/a1.secret", "0644"]);
}

#[test]
fn an_accounts_secret_comes_from_its_file_or_a_credential_and_wxtoken_secret_is_an_error() {
    let wechat = wechat(2, &[]);
    let config = format!(
        "[account.a0]\nappid = 'wx0'\nbase_url = '{0}'\n[account.a1]\nappid = 'wx1'\nbase_url = '{0}'\nsecret_file = 'a1.secret'\n",
        wechat.url()
    );
    let home = Home::new(&config);
    home.put_secret("a1", &appsecret(1));
    home.run(&["fetch", "a0"]).exits(2).says(&[
        "account.a0",
        "Give secret_file, or a systemd credential named a0.secret, or the file ",
        "/secrets/a0.secret",
    ]);
    for verb in [&["fetch"][..], &["fetch", "a1"], &["check"], &["serve", "--refresh"]] {
        let mut command = home.command(verb);
        command.env("WXTOKEN_SECRET", appsecret(0));
        Run::new(command).exits(2).says(&["WXTOKEN_SECRET goes with --appid", "wxtoken.toml"]);
    }
    assert_eq!(wechat.asked(), 0);
    // Commands that read no secret ignore it.
    home.publish("a1", "wx1", "T1", 0);
    let mut get = home.command(&["get", "-r", "a1"]);
    get.env("WXTOKEN_SECRET", appsecret(0));
    assert_eq!(Run::new(get).exits(0).stdout, "T1\n");
    fs::remove_file(home.document_path("a1")).unwrap();
    fs::create_dir(home.path("credentials")).unwrap();
    write_with_mode(&home.path("credentials/a0.secret"), &appsecret(0), 0o440);
    let mut with = home.command(&["fetch"]);
    with.env("CREDENTIALS_DIRECTORY", home.path("credentials"));
    Run::new(with).exits(0).silent();
    assert!(home.token("a0").is_some() && home.token("a1").is_some());
}

#[test]
fn force_and_rejected_need_the_names_of_accounts() {
    let wechat = wechat(3, &[]);
    let home = Home::with_accounts(3, &wechat.url(), "");
    home.run(&["fetch"]).exits(0);
    let before = home.token("a0").unwrap();
    home.run(&["fetch", "--force"]).exits(2).says(&[
        "--force",
        "all 3 accounts",
        "Name the accounts",
    ]);
    home.run(&["fetch", "--rejected", &before]).exits(2).says(&["--rejected", "Name the ACCOUNT"]);
    home.run(&["fetch", "--rejected", &before, "a0", "a1"]).exits(2).says(&["--rejected"]);
    assert_eq!((wechat.asked(), home.token("a0").unwrap()), (3, before.clone()));
    wechat.kill_tokens();
    home.run(&["fetch", "--rejected", &before, "a0"]).exits(0).says(&["token "]);
    assert_ne!(home.token("a0").unwrap(), before);
    home.run(&["fetch", "--force", "a1", "a2"]).exits(0).silent();
    assert_eq!(wechat.mints(), 6);
}

/// Runs on a terminal that script(1) provides.
#[needs(script)]
#[test]
fn progress_is_shown_on_a_terminal_only() {
    let wechat = wechat(40, &["--fault", "slow:1"]);
    let home = Home::with_accounts(40, &wechat.url(), "");
    home.put_secret("a3", &appsecret(99));
    let fetch = home.command(&["fetch"]);
    let on_terminal = |term: &str| {
        let mut fetch = home.command(&["fetch"]);
        Run::new(on_terminal(fetch.env("TERM", term))).exits(4).stdout
    };
    let shown = on_terminal("xterm");
    assert!(shown.contains("\r\x1b[Kfetch: 0 of 40 accounts"), "{shown:?}");
    // A failure has a line of its own, and the progress is erased.
    assert!(shown.contains("\r\x1b[Kwxtoken: fetch: a3: Copy the AppSecret again"), "{shown:?}");
    assert!(shown.ends_with("\r\x1b[K"), "{shown:?}");
    fs::remove_dir_all(home.path("state")).unwrap();
    let plain = on_terminal("dumb");
    assert!(plain.contains("WeChat refused") && !plain.contains('\x1b'), "{plain:?}");
    fs::remove_dir_all(home.path("state")).unwrap();
    let ran = Run::new(fetch).exits(4);
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
}

#[test]
fn the_next_base_url_is_used_if_one_is_unreachable() {
    let wechat = wechat(1, &[]);
    let (_reserved, address) = refusing_address();
    let unused = format!("http://{address}");
    let config = |urls: &[&str]| {
        let urls: Vec<_> = urls.iter().map(|url| format!("'{url}'")).collect();
        format!(
            "[account.a0]\nappid = 'wx0'\nsecret_file = 'a0.secret'\nbase_url = [{}]\n",
            urls.join(", ")
        )
    };
    let home = Home::new(&config(&["https://unknown.invalid", &unused, &wechat.url()]));
    home.put_secret("a0", &appsecret(0));
    home.run(&["fetch"]).exits(0).silent();
    assert_eq!(wechat.asked(), 1);
    // After a refusal or a lost answer the next one is not used.
    home.write(&config(&[&wechat.url(), &wechat.url()]));
    wechat.fault("errcode:40164");
    home.run(&["fetch", "--force"]).exits(4).says(&["40164"]);
    assert_eq!(wechat.asked(), 2);
    let mut asked = 0;
    in_time(|| {
        wechat.fault("reset@1");
        asked = wechat.asked();
        home.run(&["fetch", "--force", "--timeout", "1s"])
    })
    .exits(5);
    assert_eq!(wechat.asked(), asked + 1);
    home.write(&config(&["https://unknown.invalid", &unused]));
    in_time(|| home.run(&["fetch", "--force", "--timeout", "2s"]))
        .exits(5)
        .says(&["(unknown.invalid)", &address.to_string()]);
}

#[test]
fn an_accounts_proxy_is_used_and_its_password_never_shown() {
    let wechat = wechat(2, &[]);
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = proxy.local_addr().unwrap();
    let target = wechat.address();
    // A CONNECT proxy for one connection. Returns the head of its request.
    let proxying = std::thread::spawn(move || {
        let (mut client, _) = proxy.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            std::io::Read::read_exact(&mut client, &mut byte).unwrap();
            head.push(byte[0]);
        }
        let mut server = TcpStream::connect(target).unwrap();
        std::io::Write::write_all(&mut client, b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        let (mut to, mut from) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Write); // The request is complete.
        });
        let _ = std::io::copy(&mut server, &mut client);
        String::from_utf8(head).unwrap()
    });
    let password = "Pa55word";
    let home = Home::with_accounts(
        2,
        &wechat.url(),
        &format!("proxy = 'http://user:{password}@{address}'\n"),
    );
    let ran = home.run(&["fetch", "-vvv"]).exits(0);
    assert!(!ran.stderr.contains(password), "{}", ran.stderr);
    let head = proxying.join().unwrap();
    assert!(
        head.starts_with(&format!("CONNECT {target} "))
            && head.to_lowercase().contains("proxy-authorization: basic"),
        "{head}"
    );
    // The proxy is gone, and is not bypassed.
    let fetch = ["fetch", "--force", "-vvv", "--timeout", "1s", "a1"];
    let ran = in_time(|| home.run(&fetch)).exits(5);
    assert!(!ran.stderr.contains(password), "{}", ran.stderr);
    ran.mentions(&[&format!("through the proxy {address}")]);
    assert_eq!(wechat.asked(), 2);
}

// get and status

#[test]
fn get_needs_a_name_with_several_accounts() {
    let home = Home::with_accounts(12, "http://127.0.0.1:1", "");
    home.publish("a1", "wx1", "T1", 0);
    assert_eq!(home.run(&["get", "-r", "a1"]).exits(0).stdout, "T1\n");
    home.run(&["get", "a2"]).exits(3).says(&["a2: Run ", "no token", "a2.json does not exist"]);
    home.run(&["get"])
        .exits(2)
        .says(&["which ACCOUNT?", "a0, a1, a10, a11, a2, a3, a4, a5, a6, a7 and 2 more"]);
    home.run(&["get", "b1"]).exits(2).says(&["there is no account b1", "a0, a1"]);
    home.run(&["get", "a_11"]).exits(2).says(&["there is no account a_11", "is it a11?"]);
    let secret = "5ec2e75ec2e75ec2e75ec2e75ec2e75e";
    let ran = home.run(&["status", secret, "unknown"]).exits(2);
    assert!(!ran.stderr.contains(secret) && ran.stderr.lines().count() == 2, "{}", ran.stderr);
    let only = Home::with_accounts(1, "http://127.0.0.1:1", "");
    only.publish("a0", "wx0", "T0", 0);
    assert_eq!(only.run(&["get", "-r"]).exits(0).stdout, "T0\n");
}

#[test]
fn status_prints_a_table_and_its_exit_status_is_the_worst() {
    let home = Home::with_accounts(3, "http://127.0.0.1:1", "");
    home.publish("a0", "wx0", "T0", 0);
    home.publish("a2", "wx2", "T2", 8000);
    let ran = home.run(&["status"]).exits(3);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines.len(), 3);
    for (line, expected) in
        lines.iter().zip(["a0  live     1h 59m ", "a1  missing  ", "a2  expired  0s left"])
    {
        assert!(line.starts_with(expected), "{line}");
    }
    assert_eq!(lines[0].find("since"), lines[2].find("since"), "{}", ran.stdout);
    let lines = home.stderr_lines(&ran);
    assert!(
        lines.len() == 2
            && lines[0].contains(": a1: Run ")
            && lines[0].contains("no token")
            && lines[1].contains(": a2: Run ")
            && lines[1].contains("the token expired"),
        "{lines:?}"
    );

    assert_eq!(home.run(&["status", "a0"]).exits(0).stdout.lines().count(), 1);
    let json = home.run(&["status", "--format", "json"]).exits(3).json();
    let states: Vec<_> = json["accounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["account"].as_str().unwrap(), row["state"].as_str().unwrap()))
        .collect();
    assert_eq!(states, [("a0", "live"), ("a1", "missing"), ("a2", "expired")]);
    let metrics = home.run(&["status", "--format", "prometheus"]).exits(3).stdout;
    assert_eq!(metrics.matches("# TYPE wxtoken_token_expiry_timestamp_seconds gauge\n").count(), 1);
    assert!(
        metrics.contains("wxtoken_token_expiry_timestamp_seconds{account=\"a1\"} 0\n"),
        "{metrics}"
    );
}

#[test]
fn two_accounts_with_one_document_are_a_config_error() {
    // Of another extension it would have the other one's lock, and the record of what was asked and refused.
    // By way of a symbolic link it is the same one, too.
    for file in ["state/a.json", "state/a.txt", "state/a", "link/a.json", "state/../link/a.json"] {
        let home = Home::new(&format!(
            "dir = 'state'\n[account.a]\nappid = 'wx1'\n[account.b]\nappid = 'wx2'\nfile = '{file}'\n",
        ));
        fs::create_dir(home.path("state")).unwrap();
        symlink("state", home.path("link")).unwrap();
        for verb in ["fetch", "status", "serve"] {
            let ran = home.run(&[verb]).exits(2);
            let expected = format!(
                "wxtoken: {verb}: wxtoken.toml:4: account.b: Give each account a file with another name: its document {file} \
                 is account a's, or has the same name but for the extension 请为每个账号的 file 指定不同的文件名：其 token 文件 \
                 {file} 与账号 a 的相同，或仅扩展名不同"
            );
            assert_eq!(home.stderr_lines(&ran), [expected]);
        }
    }
    let home = Home::new(
        "dir = '.'\n[account.a]\nappid = 'wx1'\n[account.b]\nappid = 'wx2'\nfile = 'a.json'\n",
    );
    home.run(&["status"]).exits(2).says(&["account.b", "a.json is account a's"]);
}

// serve

const NATIVE: &str = "/token/";

#[test]
fn serve_answers_for_each_account_by_name_and_by_appid() {
    let home = Home::with_accounts(3, "http://127.0.0.1:1", "");
    for n in 0..3 {
        home.publish(&format!("a{n}"), &format!("wx{n}"), &format!("T{n}"), 0);
    }
    let server = home.serve(&[]);
    for n in 0..3 {
        let token = format!("T{n}");
        assert_eq!(server.get(&format!("{NATIVE}a{n}")).json()["access_token"], token);
        let query = format!("grant_type=client_credential&appid=wx{n}&secret=x");
        assert_eq!(server.get(&format!("/cgi-bin/token?{query}")).json()["access_token"], token);
    }
    let unnamed = server.get("/token");
    assert_eq!((unnamed.status, &unnamed.json()["error"]), (404, &"which_account".into()));
    assert_eq!(server.get("/token/a3").status, 404);
    assert_eq!(server.get("/readyz").status, 200);
    assert_eq!(
        server.get("/cgi-bin/token?grant_type=client_credential&appid=wx9&secret=x").json()["errcode"],
        40013
    );
    // A missing token does not affect other accounts.
    fs::remove_file(home.document_path("a1")).unwrap();
    assert_eq!((server.get("/token/a1").status, server.get("/token/a2").status), (503, 200));
    let ready = server.get("/readyz");
    assert!(ready.status == 503 && ready.body.contains("no live token for a1."), "{}", ready.body);
}

#[test]
fn of_several_accounts_with_one_appid_the_route_or_the_key_selects_one() {
    let account = |name: &str, api: &str| {
        format!("[account.{name}]\nappid = 'ww1'\napi = '{api}'\nsecret_file = '{name}.secret'\n")
    };
    let home = Home::new(&["crm", "mail"].map(|name| account(name, "work")).concat());
    for name in ["crm", "mail"] {
        home.publish(name, "ww1", &format!("T-{name}"), 0);
    }
    let mut key = wxtoken();
    key.args(["key", "php", "crm"]);
    let printed = Run::new(key).exits(0).stdout;
    let field = |label: &str| {
        let line = printed.lines().find_map(|line| line.strip_prefix(label)).unwrap();
        line.trim().to_owned()
    };
    write_with_mode(&home.path("keys"), &field("line:"), 0o600);
    let gettoken = |server: &Server, secret: &str| {
        server.get(&format!("/cgi-bin/gettoken?corpid=ww1&corpsecret={secret}")).json()
    };
    let without_keys = home.serve(&[]);
    let answer = gettoken(&without_keys, "x");
    assert_eq!(answer["errcode"], 40013, "{answer}");
    assert!(answer["errmsg"].as_str().unwrap().contains("a key for its own account"), "{answer}");
    let with_keys = home.serve(&["--keys", home.path("keys").to_str().unwrap()]);
    assert_eq!(gettoken(&with_keys, &field("key:"))["access_token"], "T-crm");

    let home = Home::new(&[account("stable", "stable"), account("classic", "classic")].concat());
    for name in ["stable", "classic"] {
        home.publish(name, "ww1", &format!("T-{name}"), 0);
    }
    let server = home.serve(&[]);
    let classic = server.get("/cgi-bin/token?grant_type=client_credential&appid=ww1&secret=x");
    assert_eq!(classic.json()["access_token"], "T-classic");
    let body = r#"{"grant_type":"client_credential","appid":"ww1","secret":"x"}"#;
    let stable = server.send(&post_request("/cgi-bin/stable_token", body));
    assert_eq!(stable.json()["access_token"], "T-stable");
}

/// 127.0.0.2 and 127.0.0.3 stand for other hosts.
#[test]
fn an_accounts_allow_list_restricts_the_servers() {
    let home = Home::new(
        "[account.shop]\nappid = 'wx1'\nallow = ['127.0.0.2', '127.0.0.9']\n[account.mall]\nappid = 'wx2'\n\
         [serve]\nallow = ['127.0.0.2', '127.0.0.3']\n",
    );
    home.publish("shop", "wx1", "T1", 0);
    home.publish("mall", "wx2", "T2", 0);
    let server = home.serve(&[]);
    let get = |from: &str, path: &str| {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        exchange_over(connect_from(from, server.address()), request.as_bytes())
    };
    assert_eq!(get("127.0.0.2", "/token/shop").json()["access_token"], "T1");
    assert_eq!(get("127.0.0.2", "/token/mall").json()["access_token"], "T2");
    assert_eq!(get("127.0.0.2", "/token").status, 404, "it may read both");
    let refused = get("127.0.0.3", "/token/shop");
    assert_eq!((refused.status, &refused.json()["error"]), (403, &"forbidden_account".into()));
    assert!(refused.body.contains("127.0.0.3") && !refused.body.contains("T1"), "{}", refused.body);
    assert_eq!(get("127.0.0.3", "/token/mall").json()["access_token"], "T2");
    // It may read one account only, which needs no name.
    assert_eq!(get("127.0.0.3", "/token").json()["access_token"], "T2");
    // In the list of the account, and not in the server's.
    assert_eq!(get("127.0.0.9", "/token/shop").status, 403);
    assert_eq!(get("127.0.0.1", "/token/mall").status, 403);
    let sdk =
        |from| get(from, "/cgi-bin/token?grant_type=client_credential&appid=wx1&secret=x").json();
    assert_eq!(sdk("127.0.0.2")["access_token"], "T1");
    assert_eq!(sdk("127.0.0.3")["errcode"], 40164);
    // A client that may not read the account does not see its name anywhere.
    for path in ["/metrics", "/page", "/"] {
        let answer = get("127.0.0.3", path);
        assert!(!answer.body.contains("shop"), "{path}: {}", answer.body);
    }
    assert!(get("127.0.0.2", "/metrics").body.contains("shop"));
    fs::remove_file(home.document_path("shop")).unwrap();
    assert!(get("127.0.0.2", "/readyz").body.contains("shop"));
    let ready = get("127.0.0.3", "/readyz");
    assert!(ready.status == 503 && !ready.body.contains("shop"), "{}", ready.body);
    assert!(server.stop().contains("127.0.0.3"), "the refusal is logged");
}

#[test]
fn with_refresh_a_broken_account_does_not_affect_others_and_recovers_at_sighup() {
    let wechat = wechat(3, &[]);
    let home = Home::with_accounts(3, &wechat.url(), "[serve]\nrefresh = true\n");
    fs::remove_file(home.path("a1.secret")).unwrap();
    let server = home.serve(&[]);
    for name in ["a0", "a2"] {
        eventually("there is a token", || home.token(name).is_some());
        assert_eq!(server.get(&format!("/token/{name}")).status, 200);
    }
    let broken = server.get("/token/a1");
    assert!(
        broken.status == 503
            && broken.body.contains("it has a local fault. (there is no good token: a1)"),
        "{}",
        broken.body
    );
    // SIGHUP is enough after the repair.
    home.put_secret("a1", &appsecret(1));
    server.signal("HUP");
    eventually("there is a token", || home.token("a1").is_some());
    assert_eq!(server.get("/token/a1").status, 200);
    let stderr = server.stop();
    assert!(stderr.contains("cannot read secret file"), "{stderr}");
    // The environment variable can switch off what the config switches on.
    let mut command = home.command(&["serve", "--listen", "127.0.0.1:0"]);
    command.env("WXTOKEN_REFRESH", "false");
    let server = Server::start(command, 1);
    let post = server.send(&post_request("/token/a0", &rejected("T0")));
    assert_eq!(post.status, 405, "no refresh here");
}

#[test]
fn a_changed_config_is_loaded_and_an_invalid_one_is_not() {
    let wechat = wechat(4, &[]);
    let home = Home::with_accounts(2, &wechat.url(), "[serve]\nrefresh = true\n");
    let server = home.serve_with_log(&["-v"]);
    for name in ["a0", "a1"] {
        eventually("a token is served", || server.get(&format!("/token/{name}")).status == 200);
    }
    let (kept, mints) = (server.get("/token/a1").body, wechat.mints());

    // One account is removed, one is added, one stays.
    let config = home.config();
    let (_, a1) = config.split_once("[account.a1]").unwrap();
    let changed = format!("[account.a1]{a1}").replace("[serve]", &format!("[account.a3]\nappid = \"wx3\"\nsecret_file = \"a3.secret\"\nbase_url = \"{}\"\n[serve]", wechat.url()));
    home.put_secret("a3", &appsecret(3));
    home.write(&changed);
    eventually("the new account is served", || server.get("/token/a3").status == 200);
    assert_eq!(server.get("/token/a0").status, 404);
    let token = |body: &str| {
        serde_json::from_str::<serde_json::Value>(body).unwrap()["access_token"].clone()
    };
    assert_eq!(token(&server.get("/token/a1").body), token(&kept));
    assert_eq!(wechat.mints(), mints + 1, "only the new account is fetched");

    // A setting counts at the next request.
    let life = || {
        let query = "grant_type=client_credential&appid=wx3&secret=x";
        server.get(&format!("/cgi-bin/token?{query}")).json()["expires_in"].as_u64()
    };
    assert!(life() > Some(7000));
    home.write(&changed.replace("[serve]", "[serve]\nsdk_life = \"290s\""));
    eventually("SDKs are told another life", || life() == Some(290));

    home.write(
        &changed
            .replace("appid = \"wx1\"", "apid = \"wx1\"")
            .replace("refresh = true", "refresh = 1"),
    );
    for message in [
        "wxtoken.toml:1: account.a1: Write appid = … in it: it has no appid",
        "wxtoken.toml:2: account.a1.apid: Correct the name: there is no such key; is it appid?",
        "serve.refresh: Write true or false: found an integer; the last good accounts and access rules stay ",
    ] {
        eventually(message, || home.has_logged(message));
    }
    assert_eq!(server.get("/token/a1").status, 200);
    home.write(&changed.replace("[serve]", "[serve]\nallow = '127.0.0.2'"));
    eventually("the new allow list applies", || server.get("/token/a1").status == 403);
    home.write(&changed.replace("[serve]", "[serve]\nmax_connections = 7\n"));
    eventually("the old allow list applies again", || server.get("/token/a1").status == 200);
    assert!(home.has_logged("max_connections have changed: that counts from the next start on"));
    // SIGHUP loads the config without waiting for the poll.
    home.write(&changed.replace("[serve]", "[serve]\nallow = '127.0.0.2'"));
    server.signal("HUP");
    eventually("the new allow list applies", || server.get("/token/a1").status == 403);
    server.stop();
}

#[test]
fn a_removed_account_is_not_refreshed_any_more() {
    let wechat = wechat(2, &["--life", "3s"]);
    let home =
        Home::with_accounts(2, &wechat.url(), "refresh_before = '1s'\n[serve]\nrefresh = true\n");
    let server = home.serve(&[]);
    for name in ["a0", "a1"] {
        eventually("there is a token", || home.token(name).is_some());
    }
    let config = home.config();
    let (_, a1) = config.split_once("[account.a1]").unwrap();
    home.write(&format!("[account.a1]{a1}"));
    eventually("the account is removed", || server.get("/token/a0").status == 404);
    let last = home.token("a0").unwrap();
    let mut tokens = std::collections::BTreeSet::from([home.token("a1").unwrap()]);
    eventually("the other account's token is replaced twice", || {
        tokens.insert(home.token("a1").unwrap());
        tokens.len() == 3
    });
    assert_eq!(home.token("a0").unwrap(), last);
}

/// Its secret comes from stdin, which can be read once.
#[test]
fn the_account_of_the_command_line_is_kept_when_the_config_changes() {
    let wechat = WeChat::start();
    let home = Home::new("[serve]\nallow = '127.0.0.1'\n");
    home.put_secret("piped", SECRET);
    let mut command = home.command(&["serve", "--refresh", "--appid", APPID, "--secret-file", "-"]);
    command.args(["--listen", "127.0.0.1:0", "--base-url", &wechat.url()]);
    command.stdin(fs::File::open(home.path("piped.secret")).unwrap());
    let server = Server::start(command, 1);
    eventually("there is a token", || server.get("/token").status == 200);
    home.write("[serve]\nallow = '127.0.0.2'\n");
    eventually("the new allow list applies", || server.get("/token").status == 403);
    home.write("[serve]\nallow = '127.0.0.1'\n");
    eventually("the old allow list applies again", || server.get("/token").status == 200);
    let token = home.token("default").unwrap();
    wechat.kill_tokens();
    let other = server.report_rejected(&token);
    assert_eq!(other.status, 200, "{}", other.body);
    let stderr = server.stop();
    assert!(!stderr.contains("stdin") && !stderr.contains("last good"), "{stderr}");
}

/// Reading it would block until it has a writer.
#[test]
fn a_pipe_is_refused_as_an_accounts_secret_file() {
    let wechat = wechat(2, &[]);
    let home = Home::with_accounts(2, &wechat.url(), "[serve]\nrefresh = true\n");
    fs::remove_file(home.path("a0.secret")).unwrap();
    let made = Command::new("mkfifo").args(["-m", "600"]).arg(home.path("a0.secret")).status();
    assert!(made.unwrap().success());
    home.run(&["fetch"]).exits(2).says(&["account.a0.secret_file", "not a plain file"]);
    let server = home.serve(&[]);
    assert_eq!((server.get("/token/a0").status, server.get("/token/a1").status), (503, 200));
    home.write(&format!("x = 1\n{}", home.config()));
    home.run(&["fetch"]).exits(2).mentions(&["no such key", "not a plain file"]);
}

/// Publishes the token of `wx0` as the account of the command line, in the directory of the accounts.
fn fetch_as_single_account(home: &Home, wechat: &WeChat, api: &str) {
    let mut command = wxtoken();
    command.args(["fetch", "--appid", "wx0", "--api", api, "--base-url", &wechat.url()]);
    command.arg("--secret-file").arg(home.path("a0.secret")).arg("--dir").arg(home.path("state"));
    command.env("HOME", home.path(""));
    Run::new(command).exits(0).silent();
}

#[test]
fn where_one_account_becomes_several_its_token_goes_on_and_no_stale_document_stays() {
    for api in ["stable", "classic"] {
        for takes_over in ["fetch", "serve"] {
            let wechat = wechat_with_accounts(2, &[]);
            let home = Home::with_accounts(2, &wechat.url(), "");
            let config = home.config();
            home.write(&config.replace("secret_file", &format!("api = {api:?}\nsecret_file")));
            fetch_as_single_account(&home, &wechat, api);
            let token = home.token("default").unwrap();
            match takes_over {
                "fetch" => {
                    home.run(&["fetch"]).exits(0).silent();
                }
                _ => {
                    let _server = home.serve(&["--refresh"]);
                    let has = |name| home.token(name).is_some();
                    eventually("there are both tokens", || has("a0") && has("a1"));
                }
            }
            assert_eq!(home.token("a0").as_ref(), Some(&token), "{api} {takes_over}");
            assert_eq!(wechat.mints(), 2, "{api} {takes_over}: that of wx1 is the second one");
            assert_eq!(home.token("default").as_ref(), Some(&token), "programs may still read it");
            // Its life is over.
            home.publish("default", "wx0", &token, 7300);
            home.publish("a0", "wx0", &token, 7100);
            home.run(&["fetch"]).exits(0).silent();
            assert_eq!(home.token("default"), None, "{api} {takes_over}");
        }
    }
}

#[test]
fn an_account_that_gets_another_name_goes_on_with_its_token_where_a_call_would_end_it() {
    for takes_over in ["fetch", "serve"] {
        let wechat = wechat_with_accounts(1, &[]);
        let home = Home::with_accounts(1, &wechat.url(), "api = 'classic'\n");
        home.run(&["fetch"]).exits(0).silent();
        let token = home.token("a0").unwrap();
        home.write(&home.config().replace("account.a0", "account.shop"));
        match takes_over {
            "fetch" => drop(home.run(&["fetch"]).exits(0).silent()),
            _ => {
                let _server = home.serve(&["--refresh"]);
                eventually("there is a token", || home.token("shop").is_some());
            }
        }
        assert_eq!(home.token("shop").as_ref(), Some(&token), "{takes_over}");
        assert_eq!(home.token("a0").as_ref(), Some(&token), "programs may still read it");
        assert_eq!(wechat.mints(), 1, "{takes_over}");
        // One that has expired is of no use.
        home.publish("a0", "wx0", &token, 7300);
        fs::remove_file(home.document_path("shop")).unwrap();
        home.run(&["fetch"]).exits(0).silent();
        assert_eq!(wechat.mints(), 2, "{takes_over}");
    }
}

#[test]
fn promise_6_no_app_of_a_corp_takes_over_the_token_of_another_one() {
    let secrets = [appsecret(0), appsecret(1)];
    let apps = secrets.each_ref().map(|secret| format!("wx0:{secret}"));
    let wechat = WeChat::with(&["--account", &apps[0], "--account", &apps[1]]);
    let home = Home::with_accounts(2, &wechat.url(), "");
    let config = home.config().replace("secret_file", "api = 'work'\nsecret_file");
    home.write(&config.replace("wx1", "wx0"));
    fetch_as_single_account(&home, &wechat, "work");
    home.run(&["fetch"]).exits(0).silent();
    assert_eq!(home.token("a0"), home.token("default"), "issued again");
    assert_ne!(home.token("a1"), home.token("default"));
    assert_eq!(wechat.mints(), 2);
}

#[test]
fn a_document_that_another_account_may_use_is_not_taken_over() {
    let wechat = wechat_with_accounts(2, &[]);
    let config = Home::with_accounts(2, &wechat.url(), "").config();
    let config = config.replace("secret_file", "api = 'classic'\nsecret_file");
    for (config, appid, name) in [
        (config.clone(), "wx9", "of another AppID"),
        (config.replace("account.a1", "account.default"), "wx0", "an account has that name"),
        (format!("{config}file = 'state/default.json'\n"), "wx0", "an account has that file"),
    ] {
        let home = Home::with_accounts(2, &wechat.url(), "");
        home.write(&config);
        home.publish("default", appid, "T0K3N", 7300);
        home.run(&["fetch", "a0"]).exits(0).silent();
        assert_eq!(home.token("default").as_deref(), Some("T0K3N"), "{name}");
        home.publish("default", appid, "T0K3N", 60);
        fs::remove_file(home.document_path("a0")).unwrap();
        home.run(&["fetch", "a0"]).exits(0).silent();
        assert_ne!(home.token("a0").as_deref(), Some("T0K3N"), "{name}");
    }
}
