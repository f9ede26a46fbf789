//! `from = "…"`: mirrors of another wxtoken, which has the AppSecret. A mirror serves the same tokens, with no longer a life.

use std::fs;

use crate::support::home::{Home, appsecret, wechat_with_accounts};
use crate::support::proxy::detour;
use crate::support::tls::{Authority, Identity};
use crate::support::*;

/// Returns a host that fetches account `a0` from WeChat.
fn central(wechat: &WeChat, more: &str) -> Home {
    Home::with_accounts(1, &wechat.url(), more)
}

fn wechat(more: &[&str]) -> WeChat {
    wechat_with_accounts(1, more)
}

/// Returns a host whose account `a0` is a mirror of this server.
fn mirror_of(server: &Server, more: &str) -> Home {
    Home::new(&format!("[account.a0]\nfrom = \"http://{}\"\n{more}", server.address()))
}

/// Returns the server of `first`, a mirror of it with its server, and a mirror of that one that has fetched the token.
fn chain_behind(first: &Home) -> (Server, Home, Server, Home) {
    let first_server = first.serve(&["--refresh"]);
    let second = mirror_of(&first_server, "");
    let second_server = second.serve(&["--refresh"]);
    let third = mirror_of(&second_server, "");
    third.run(&["fetch"]).exits(0).silent();
    (first_server, second, second_server, third)
}

/// Returns the life that `get` prints, in seconds.
fn promised(home: &Home) -> u64 {
    home.run(&["get"]).exits(0).json()["expires_in"].as_u64().unwrap()
}

fn token_of(server: &Server) -> String {
    let answer = server.get("/token/a0");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["access_token"].as_str().unwrap().to_owned()
}

fn life_of(server: &Server) -> u64 {
    server.get("/token/a0").json()["expires_in"].as_u64().unwrap()
}

#[test]
fn promise_4_a_chain_of_three_hosts_never_shows_a_longer_life_than_the_first() {
    for api in ["stable", "classic"] {
        let wechat = wechat(&[]);
        let first = central(&wechat, &format!("api = \"{api}\"\nrefresh_before = \"1h\"\n"));
        let (first_server, _second, second_server, third) = chain_behind(&first);
        // From the end of the chain to its start: time passing makes the test stricter.
        let lives = [promised(&third), life_of(&second_server), life_of(&first_server)];
        let [third_life, second_life, first_life] = lives;
        assert!(third_life <= second_life + 2 && second_life <= first_life + 2, "{lives:?}");
        // On classic an early refresh can leave five minutes, so the first host promises no more than those for the last hour.
        let whole = if api == "classic" { 3600 + 300 } else { 7200 };
        assert!((whole - 120..=whole).contains(&third_life), "{api}: {lives:?}");
        assert_eq!(third.token("a0"), first.token("a0"));
        assert!(wechat.is_alive(&third.token("a0").unwrap()));
        assert_eq!(wechat.mints(), 1);
    }
}

#[test]
fn a_mirror_without_an_appsecret_serves_sdks_under_its_appid() {
    let wechat = wechat(&[]);
    let first = central(&wechat, "");
    let server = first.serve(&["--refresh"]);
    let by_appid = "/cgi-bin/token?grant_type=client_credential&appid=wx0&secret=x";
    let nameless = mirror_of(&server, "").serve(&["--refresh"]).get(by_appid).json();
    assert_eq!(nameless["errcode"], 40013);
    let said = nameless["errmsg"].as_str().unwrap();
    assert!(said.contains("Check the appid") && said.contains("写明 appid"), "{said}");
    let mirror = mirror_of(&server, "appid = \"wx0\"\n");
    let mirrored = mirror.serve(&["--refresh"]);
    let token = token_of(&mirrored);
    assert_eq!(token, first.token("a0").unwrap());
    let sdk = mirrored.get(by_appid);
    assert_eq!(sdk.json()["access_token"], token);
    let document = fs::read_to_string(mirror.document_path("a0")).unwrap();
    assert!(document.starts_with("{\"appid\":\"wx0\",\"access_token\":\""), "{document}");
    mirror.run(&["status"]).exits(0);
}

#[test]
fn promise_2_a_mirror_that_is_given_its_appid_or_an_appsecret_goes_on_with_its_token() {
    let wechat = wechat(&[]);
    let first = central(&wechat, "tickets = [\"jsapi\"]\n");
    first.run(&["fetch"]).exits(0).silent();
    let server = first.serve(&["--refresh"]);
    let mirror = mirror_of(&server, "tickets = [\"jsapi\"]\n");
    mirror.run(&["fetch"]).exits(0).silent();
    let sign = ["sign", "https://example.com/"];
    mirror.run(&sign).exits(2).says(&["appid", "AppID"]);
    let token = first.token("a0").unwrap();

    mirror.write(&(mirror.config() + "appid = \"wx0\"\n"));
    let mirrored = mirror.serve(&[]);
    assert_eq!(token_of(&mirrored), token);
    mirror.run(&sign).exits(0);
    mirror.run(&["fetch", "--force"]).exits(0);
    let document = fs::read_to_string(mirror.document_path("a0")).unwrap();
    assert!(document.starts_with("{\"appid\":\"wx0\","), "{document}");
    drop(mirrored);

    // The central host is gone.
    let heir = mirror_of(&server, "");
    heir.run(&["fetch"]).exits(0).silent();
    drop(server);
    heir.write(central(&wechat, "").config().as_str());
    heir.put_secret("a0", &appsecret(0));
    heir.run(&["fetch"]).exits(0);
    assert_eq!(heir.run(&["get", "-r"]).exits(0).stdout.trim_end(), token);
    heir.run(&["fetch", "--force"]).exits(0);
    assert!(wechat.is_alive(&heir.token("a0").unwrap()));
}

#[test]
fn tickets_are_mirrored_like_tokens() {
    let wechat = wechat(&[]);
    let first = central(&wechat, "tickets = [\"jsapi\"]\n");
    first.run(&["fetch"]).exits(0).silent();
    let server = first.serve(&[]);
    let mirror = mirror_of(&server, "tickets = [\"jsapi\"]\n");
    mirror.run(&["fetch"]).exits(0).silent();
    let [there, here] = [&first, &mirror].map(|home| {
        let ticket = home.run(&["get", "a0", "--ticket", "jsapi"]).exits(0).json();
        (ticket["ticket"].as_str().unwrap().to_owned(), ticket["expires_in"].as_u64().unwrap())
    });
    assert_eq!(here.0, there.0);
    assert!(here.1 <= there.1, "{here:?} {there:?}");
    assert_eq!(wechat.calls()["tickets"], 1);
}

#[test]
fn a_ticket_or_replacement_that_the_central_server_does_not_offer_is_an_error_that_says_so() {
    let wechat = wechat(&[]);
    let first = central(&wechat, "");
    first.run(&["fetch"]).exits(0).silent();
    let server = first.serve(&[]);
    let mirror = mirror_of(&server, "tickets = [\"jsapi\"]\n");
    mirror.run(&["fetch"]).exits(4).says(&[
        "a0: jsapi ticket: ",
        "answers 404",
        "tickets there, too",
    ]);
    mirror.run(&["fetch", "--rejected", &mirror.token("a0").unwrap()]).exits(4).says(&[
        "answers 405",
        "it runs without --refresh",
        "未启用 --refresh",
    ]);
}

#[test]
fn promise_2_while_the_central_server_is_down_the_document_stays() {
    let wechat = wechat(&[]);
    let first = central(&wechat, "");
    let server = first.serve(&["--refresh"]);
    let mirror = mirror_of(&server, "");
    mirror.run(&["fetch"]).exits(0).silent();
    let before = fs::read(mirror.document_path("a0")).unwrap();
    // A fetch right after another makes no call.
    mirror.run(&["fetch", "-v"]).exits(0).mentions(&["not due"]);
    server.stop();
    in_time(|| mirror.run(&["fetch", "--force", "--timeout", "2s"])).exits(5).says(&[
        "a0: Check that it runs",
        "cannot reach the wxtoken that this is a mirror of",
        "无法连接上游 wxtoken",
        "the published token lives for 1h 59m",
    ]);
    assert_eq!(fs::read(mirror.document_path("a0")).unwrap(), before);
    assert!(promised(&mirror) > 7000);
    let served = mirror.serve(&["--refresh"]);
    assert_eq!(token_of(&served), first.token("a0").unwrap());
}

#[test]
fn promise_7_a_dead_token_is_replaced_through_two_mirrors_by_one_mint() {
    let wechat = wechat(&[]);
    let first = central(&wechat, "");
    let (_first_server, second, second_server, third) = chain_behind(&first);
    let dead = third.token("a0").unwrap();
    wechat.kill_tokens();
    third.run(&["fetch", "--rejected", &dead]).exits(0).says(&["token "]);
    let next = third.token("a0").unwrap();
    assert_ne!(next, dead);
    assert!(wechat.is_alive(&next));
    assert_eq!([first.token("a0"), second.token("a0")], [Some(next.clone()), Some(next.clone())]);
    assert_eq!(wechat.mints(), 2);
    // Reported again to the middle mirror: the central server has replaced it already.
    let answer = second_server.post("/token/a0", &rejected(&dead));
    assert_eq!((answer.status, answer.json()["access_token"].as_str()), (200, Some(&*next)));
    // A live token is not replaced although it is reported.
    let refused = third.run(&["fetch", "--rejected", &next]).exits(5);
    refused.says(&["which honours it", "上游 wxtoken 确认"]);
    // --force is not forwarded, and the message says so.
    let forced = third.run(&["fetch", "--force", "a0"]).exits(0);
    forced.says(&["--force is to ask that one", "--rejected", "上游仍给出原 token"]);
    assert_eq!((third.token("a0"), wechat.mints()), (Some(next), 2));
}

#[test]
fn a_key_is_sent_over_https_and_never_logged() {
    let wechat = wechat(&[]);
    let first = central(&wechat, "");
    let made = first.run(&["key", "branch"]).exits(0).stdout;
    let field = |label| {
        let line = made.lines().find_map(|line| line.strip_prefix(label)).unwrap();
        line.trim().to_owned()
    };
    let (key, line) = (field("key:"), field("line:"));
    write_with_mode(&first.path("keys"), &format!("{line}\n"), 0o644);
    let (authority, sandbox) = (Authority::new(), Sandbox::new(&wechat));
    authority.sign().write_to(&sandbox);
    let flags = Identity::flags(&sandbox);
    let mut args: Vec<&str> = flags.iter().map(String::as_str).collect();
    let keys = first.path("keys").display().to_string();
    args.extend(["--refresh", "--keys", &keys]);
    let server = first.serve(&args);

    let ca_file = sandbox.path("ca.pem");
    fs::write(&ca_file, &authority.pem).unwrap();
    let config = format!(
        "[account.a0]\nfrom = \"https://{}\"\nkey_file = \"central.key\"\nca_file = \"{}\"\n",
        server.address(),
        ca_file.display()
    );
    let mirror = Home::new(&config);
    // Without the key file, with one readable by others, and with a wrong key.
    mirror.run(&["fetch"]).exits(2).says(&["account.a0.key_file: ", "cannot read key file"]);
    write_with_mode(&mirror.path("central.key"), &key, 0o644);
    mirror.run(&["fetch"]).exits(2).says(&["key file", "open to others: mode 0644"]);
    let other = if key.ends_with('A') { 'B' } else { 'A' };
    let wrong = format!("{}{other}", &key[..key.len() - 1]);
    fs::remove_file(mirror.path("central.key")).unwrap();
    write_with_mode(&mirror.path("central.key"), &wrong, 0o600);
    let ran = mirror.run(&["fetch", "-vv"]).exits(4);
    assert!(
        ran.stderr.contains("answers 401") && ran.stderr.contains("请检查 key_file"),
        "{ran:?}"
    );
    assert!(!ran.stderr.contains(&wrong), "{ran:?}");

    write_with_mode(&mirror.path("central.key"), &format!("{key}\n"), 0o600);
    let ran = mirror.run(&["fetch", "-vv"]).exits(0);
    assert!(!ran.stderr.contains(&key), "{ran:?}");
    assert_eq!(mirror.token("a0"), first.token("a0"));

    // Without ca_file the server is not trusted, and check says so, too.
    let other = Home::new(&format!("[account.a0]\nfrom = \"https://{}\"\n", server.address()));
    for (verb, remedy) in
        [("fetch", "Name a CA of your own in ca_file"), ("check", "Name the CA with --ca-file")]
    {
        let ran = other.run(&[verb]).exits(5);
        let output = format!("{}{}", ran.stdout, ran.stderr);
        assert!(output.contains(remedy) && output.contains("自建 CA"), "{verb}: {output}");
    }
}

#[test]
fn promise_8_a_refusal_of_the_central_server_is_an_error_with_a_remedy() {
    let wechat = wechat(&[]);
    let first = central(&wechat, "");
    first.run(&["fetch"]).exits(0);
    let server = first.serve(&[]);
    let from = format!("from = \"http://{}\"\n", server.address());
    let other = Home::new(&format!("[account.b0]\n{from}"));
    other.run(&["fetch"]).exits(4).says(&[
        "b0: ",
        "answers 404",
        "no account b0 for this host",
        "没有可供本机使用的账号 b0",
        "`wxtoken status`",
    ]);
    // A server that does not allow this client.
    let guarded = first.serve(&["--allow", "10.9.8.7"]);
    mirror_of(&guarded, "").run(&["fetch"]).exits(4).says(&["answers 403", "allow list", "放行"]);
    // A server without a token.
    fs::remove_file(first.document_path("a0")).unwrap();
    in_time(|| mirror_of(&server, "").run(&["fetch", "--timeout", "1s"])).exits(5).says(&[
        "answers 503",
        "no live token",
        "(no live token is published)",
    ]);
    // A server that is not wxtoken.
    let other = Home::new(&format!("[account.a0]\nfrom = \"{}\"\n", wechat.url()));
    other.run(&["fetch"]).exits(4).says(&["answers 404", "Check `from`"]);
}

#[test]
fn a_mirror_of_itself_does_not_prolong_the_life() {
    let wechat = wechat(&[]);
    let first = central(&wechat, "");
    first.run(&["fetch"]).exits(0);
    let server = first.serve(&[]);
    first.write(&format!("[account.a0]\nfrom = \"http://{}\"\n", server.address()));
    let token = first.token("a0");
    for _ in 0..3 {
        let before = promised(&first);
        first.run(&["fetch", "--force"]).exits(4).says(&["asks WeChat itself"]);
        assert!(promised(&first) <= before);
    }
    assert_eq!(first.token("a0"), token);
    assert_eq!(wechat.asked(), 1);
}

#[test]
fn settings_for_calls_to_wechat_are_config_errors_in_a_mirror() {
    let config = "[account.a0]\nfrom = \"http://10.0.0.1:7200\"\nsecret_file = \"a0.secret\"\nbase_url = \"https://api.weixin.qq.com\"\n\
                  refresh_before = \"10m\"\n[account.a1]\nappid = \"wx1\"\nkey_file = \"k\"\n[account.a2]\n";
    let home = Home::new(config);
    home.put_secret("a0", &appsecret(0));
    let ran = home.run(&["get", "a0"]).exits(2);
    let lines = home.stderr_lines(&ran);
    let expected = [
        "wxtoken.toml:2: account.a0.from: Write https://: key and token would cross the network in clear",
        "wxtoken.toml:3: account.a0.secret_file: Leave it out: it is for an account that asks WeChat itself",
        "wxtoken.toml:4: account.a0.base_url: Leave it out: it is for an account that asks WeChat itself",
        "wxtoken.toml:5: account.a0.refresh_before: Leave it out: it is for an account that asks WeChat itself",
        "wxtoken.toml:8: account.a1.key_file: Leave it out, or give `from`",
        "wxtoken.toml:9: account.a2: Write appid = … in it: it has no appid",
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.contains(expected), "{expected:?} is not in {line:?}");
    }
}

#[test]
fn a_mirror_repeats_why_it_is_refused_in_the_language_of_its_own_messages() {
    let wechat = wechat(&[]);
    let first = central(&wechat, "");
    write_with_mode(&first.path("keys"), "", 0o644);
    let keys = first.path("keys").display().to_string();
    let server = first.serve(&["--keys", &keys]);
    let mirror = mirror_of(&server, "");
    let [english, chinese] = ["a key is needed here", "此处需要访问密钥"];
    for (language, said, unsaid) in [("zh", chinese, english), ("en", english, chinese)] {
        let mut command = mirror.command(&["fetch"]);
        command.env("WXTOKEN_LANG", language);
        let ran = Run::new(command).says(&[said]);
        assert!(!ran.stderr.contains(unsaid), "{}", ran.stderr);
    }
    mirror.run(&["fetch"]).says(&[english, chinese]);
}

/// As where the config of the hosts that mirror it is put on it, too.
#[test]
fn a_mirror_of_itself_is_a_loop_and_is_said_by_each_process_that_asks() {
    let (address, leads_to) = detour();
    let home = Home::new(&format!("[account.a0]\nfrom = \"http://{address}\"\n"));
    home.publish("a0", "wx0", "T0K3N", 0);
    let server = home.serve(&[]);
    leads_to.send(server.address()).unwrap();
    assert_eq!(token_of(&server), "T0K3N", "others get it");
    home.run(&["fetch", "--force"]).exits(4).says(&["asks WeChat itself", "answers 508"]);
    home.run(&["check", "a0"]).exits(4);
    let (address, leads_to) = detour();
    home.write(&format!("[account.a0]\nfrom = \"http://{address}\"\n"));
    let server = home.serve_with_log(&["--refresh"]);
    leads_to.send(server.address()).unwrap();
    eventually("it is logged", || {
        server.report_rejected("T0K3N");
        home.has_logged("asks WeChat itself")
    });
    assert!(!home.has_logged("T0K3N"));
}

/// One of two hosts that mirror each other runs `fetch`, and `serve` without `--refresh`.
#[test]
fn a_loop_through_a_host_that_runs_fetch_is_said_by_the_one_that_refreshes() {
    let (address, leads_to) = detour();
    let fetching = Home::new(&format!("[account.a0]\nfrom = \"http://{address}\"\n"));
    fetching.publish("a0", "wx0", "T0K3N", 0);
    let read_only = fetching.serve(&[]);
    let refreshing = mirror_of(&read_only, "");
    let server = refreshing.serve_with_log(&["--refresh"]);
    leads_to.send(server.address()).unwrap();
    assert_eq!(token_of(&server), "T0K3N");
    fetching.run(&["fetch", "--force", "--timeout", "10s"]);
    eventually("it is logged", || {
        server.report_rejected("T0K3N");
        refreshing.has_logged("asks WeChat itself")
    });
    assert!(!refreshing.has_logged("T0K3N"));
}

#[test]
fn mirrors_of_each_other_are_a_loop_and_a_chain_is_none() {
    let detours = [detour(), detour(), detour()];
    let to_next = |n: usize| detours[(n + 1) % 3].0;
    let home = |n| Home::new(&format!("[account.a0]\nfrom = \"http://{}\"\n", to_next(n)));
    let homes = [0, 1, 2].map(home);
    let servers = [0, 1, 2].map(|n: usize| homes[n].serve(&["--refresh"]));
    for ((_, leads_to), server) in detours.iter().zip(&servers) {
        leads_to.send(server.address()).unwrap();
    }
    eventually("it is said", || {
        servers.iter().any(|server| server.get("/token/a0").body.contains("asks WeChat itself"))
    });
    let wechat = wechat(&[]);
    let first = central(&wechat, "");
    let (_first_server, _second, second_server, third) = chain_behind(&first);
    let third_server = third.serve(&["--refresh"]);
    assert_eq!(token_of(&third_server), token_of(&second_server));
}
