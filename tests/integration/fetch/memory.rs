//! What one run of `fetch` remembers for the next: refusals, lost answers, and with which secret the token was got.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use time::UtcDateTime;

use crate::support::home::{Home, appsecret, wechat_with_accounts};
use crate::support::redis::Redis;
use crate::support::*;

const WRONG_SECRET: &str = "wrong-secret-0123456789abcdefghijklmnopqrst";

fn sandbox_with_secret(wechat: &WeChat, api: &'static str, secret: &str) -> Sandbox {
    let sandbox = Sandbox::new(wechat).on(api);
    put_secret(&sandbox, secret);
    sandbox
}

fn put_secret(sandbox: &Sandbox, secret: &str) {
    write_with_mode(&sandbox.path("secret"), secret, 0o600);
}

fn record_path(sandbox: &Sandbox) -> PathBuf {
    sandbox.path("state/default.state")
}

/// Returns how many seconds from now the time is that follows these words.
#[track_caller]
fn seconds_until(run: &Run, words: &str) -> i64 {
    let (_, rest) = run.stderr.split_once(words).unwrap_or_else(|| panic!("{}", run.stderr));
    let at = parse_rfc3339(&rest[..20]).expect("a time");
    (at - UtcDateTime::now()).whole_seconds()
}

/// Moves all times in the record into the past, as if so many seconds had passed.
fn age_record(path: &PathBuf, secs: i64) {
    fn age(value: &mut Value, secs: i64) {
        match value {
            Value::String(text) => {
                if let Some(at) = parse_rfc3339(text) {
                    *text = rfc3339(at - time::Duration::seconds(secs));
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|it| age(it, secs)),
            Value::Object(values) => values.values_mut().for_each(|it| age(it, secs)),
            _ => {}
        }
    }
    let mut record = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    age(&mut record, secs);
    write_with_mode(path, &record.to_string(), 0o600);
}

// Refusals

/// WeCom bans an address for an hour after repeated wrong secrets, and cron runs `fetch` every minute.
#[test]
fn a_refused_secret_is_sent_once_until_it_changes_or_an_hour_is_over() {
    for (api, code) in [("work", "40001"), ("stable", "40125"), ("classic", "40125")] {
        let wechat = WeChat::start();
        let sandbox = sandbox_with_secret(&wechat, api, WRONG_SECRET);
        let refused = format!("WeChat refused ({code})");
        sandbox.run(&["fetch"]).exits(4).says(&[&refused]);
        for _ in 0..3 {
            let again = sandbox.run(&["fetch"]).exits(4);
            assert!((3580..=3600).contains(&seconds_until(&again, "not asked again until ")));
            again.says(&[
                &refused,
                "unless the secret changes",
                "at once: ",
                "之前不再询问",
                "(no live token is published)",
            ]);
        }
        assert_eq!(wechat.asked(), 1, "{api}");
        // A token that a client rejects is no reason either.
        sandbox.run(&["fetch", "--rejected", "T1"]).exits(4).says(&[&refused, "not asked again"]);
        assert_eq!(wechat.asked(), 1, "{api}");
        // A person who has mended it at WeChat asks at once.
        sandbox.run(&["fetch", "--force"]).exits(4).says(&[&refused]);
        assert_eq!(wechat.asked(), 2, "{api}");
        age_record(&record_path(&sandbox), 3600);
        sandbox.run(&["fetch"]).exits(4);
        assert_eq!(wechat.asked(), 3, "{api}");
        put_secret(&sandbox, SECRET);
        sandbox.run(&["fetch"]).exits(0).silent();
        sandbox.run(&["fetch"]).exits(0).silent();
        assert_eq!(wechat.asked(), 4, "{api}");
    }
}

#[test]
fn clients_of_serve_learn_of_a_refusal_and_its_time_and_nothing_of_the_servers_machine() {
    let wechat = WeChat::start();
    let sandbox = sandbox_with_secret(&wechat, "stable", WRONG_SECRET);
    sandbox.run(&["fetch"]).exits(4);
    sandbox.run(&["fetch"]).exits(4).says(&["at once: ", "--secret-file"]);
    let server = sandbox.serve_refreshing(&[]);
    eventually("it is on the page", || server.get("/").body.contains("WeChat refused (40125)"));
    let place = sandbox.path("");
    let sdk = "/cgi-bin/token?grant_type=client_credential&appid=wx0123456789abcdef&secret=x";
    for body in ["/", "/token", "/readyz", "/metrics", sdk].map(|path| server.get(path).body) {
        for hidden in ["at once: ", "--secret-file", place.to_str().unwrap()] {
            assert!(!body.contains(hidden), "{hidden}: {body}");
        }
    }
    for path in ["/", "/token", sdk] {
        let body = server.get(path).body;
        assert!(body.contains("not asked again until"), "{path}: {body}");
    }
    assert!(server.stop().contains("; at once: "));
}

#[test]
fn the_record_is_private_and_holds_neither_secret_nor_token() {
    let wechat = WeChat::start();
    let sandbox = sandbox_with_secret(&wechat, "classic", WRONG_SECRET);
    sandbox.run(&["fetch", "--mode", "0644"]).exits(4);
    wechat.fault("echo");
    put_secret(&sandbox, SECRET);
    sandbox.run(&["fetch"]).exits(4);
    wechat.fault("none");
    sandbox.run(&["fetch", "--force", "--mode", "0644"]).exits(0);
    let text = fs::read_to_string(record_path(&sandbox)).unwrap();
    assert!(text.contains("40125") && text.contains("issued"), "{text}");
    for hidden in [SECRET, WRONG_SECRET, &sandbox.token()] {
        assert!(!text.contains(hidden), "{text}");
    }
    let mode = fs::metadata(record_path(&sandbox)).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
}

/// An address is added in WeChat's console, and then `fetch` is run again.
#[test]
fn quotas_and_addresses_hold_for_as_long_as_they_last() {
    for (code, at_least, at_most) in
        [("40164", 50, 60), ("89503", 290, 300), ("45011", 50, 60), ("45009", 0, 3600)]
    {
        let wechat = WeChat::with(&["--fault", &format!("errcode:{code}@1")]);
        let sandbox = Sandbox::new(&wechat);
        sandbox.run(&["fetch"]).exits(4);
        let again = sandbox.run(&["fetch"]);
        // At midnight in Beijing the day's quota is full again.
        if again.status.success() && code == "45009" {
            continue;
        }
        let again = again.exits(4).says(&[&format!("({code})")]);
        // Another secret would not help.
        assert!(!again.stderr.contains("unless the secret"), "{code}: {}", again.stderr);
        let held = seconds_until(&again, "not asked again until ");
        assert!((at_least..=at_most).contains(&held), "{code}: {held}");
        assert_eq!(wechat.asked(), 1, "{code}");
        age_record(&record_path(&sandbox), at_most);
        sandbox.run(&["fetch"]).exits(0).silent();
    }
}

#[test]
fn a_refusal_holds_for_the_request_that_was_refused_and_for_no_other() {
    let refusing = WeChat::with(&["--fault", "errcode:45009"]);
    let sandbox = Sandbox::new(&refusing).on("classic");
    sandbox.run(&["fetch"]).exits(4);
    sandbox.run(&["fetch"]).exits(4).says(&["not asked again"]);
    // The remedy is to use another API.
    let other_api = sandbox.on("stable");
    refusing.fault("none");
    other_api.run(&["fetch"]).exits(0).silent();
    assert_eq!(refusing.asked(), 2);
}

#[test]
fn many_that_run_at_once_send_a_refused_secret_once() {
    let wechat = WeChat::with(&["--fault", "slow:1"]);
    let sandbox = sandbox_with_secret(&wechat, "work", WRONG_SECRET);
    let fetches: Vec<_> = (0..8)
        .map(|_| {
            let mut command = sandbox.command(&["fetch", "-q"]);
            command.spawn().unwrap()
        })
        .collect();
    for mut fetch in fetches {
        assert_eq!(fetch.wait().unwrap().code(), Some(4));
    }
    assert_eq!(wechat.asked(), 1);
}

#[test]
fn promise_2_a_record_that_is_damaged_foreign_or_cannot_be_written_costs_nothing() {
    let wechat = WeChat::start();
    for damage in ["", "{", "null", "\u{0}\u{ff}", r#"{"appid":7}"#] {
        let sandbox = Sandbox::new(&wechat);
        fs::create_dir_all(sandbox.path("state")).unwrap();
        write_with_mode(&record_path(&sandbox), damage, 0o600);
        sandbox.run(&["fetch"]).exits(0).silent();
        let text = fs::read_to_string(record_path(&sandbox)).unwrap();
        assert!(text.starts_with(&format!(r#"{{"appid":"{APPID}","#)), "{text}");
    }
    // Another account's.
    let sandbox = sandbox_with_secret(&wechat, "stable", WRONG_SECRET);
    sandbox.run(&["fetch"]).exits(4);
    let text = fs::read_to_string(record_path(&sandbox)).unwrap();
    write_with_mode(&record_path(&sandbox), &text.replace(APPID, "wx9"), 0o600);
    let asked = wechat.asked();
    sandbox.run(&["fetch"]).exits(4);
    assert_eq!(wechat.asked(), asked + 1);
    // A directory is in its place, a link to nothing, or a file that others can write.
    for put in [
        |path: &PathBuf| fs::create_dir(path).unwrap(),
        |path: &PathBuf| std::os::unix::fs::symlink("/nowhere", path).unwrap(),
        |path: &PathBuf| write_with_mode(path, "{}", 0o666),
    ] {
        let sandbox = Sandbox::new(&wechat);
        fs::create_dir_all(sandbox.path("state")).unwrap();
        put(&record_path(&sandbox));
        sandbox.run(&["fetch"]).exits(0).silent();
        sandbox.run(&["fetch"]).exits(0).silent();
        sandbox.run(&["get"]).exits(0);
        sandbox.run(&["status"]).exits(0);
    }
}

#[test]
fn a_ticket_remembers_its_own_refusal() {
    let wechat = wechat_with_accounts(1, &[]);
    let home = Home::with_accounts(1, &wechat.url(), "tickets = [\"jsapi\"]\n");
    home.run(&["fetch"]).exits(0);
    fs::remove_file(home.path("state/a0.jsapi.json")).unwrap();
    wechat.fault("errcode:45009");
    home.run(&["fetch"]).exits(4).says(&["a0: jsapi ticket: ", "WeChat refused (45009)"]);
    wechat.fault("none");
    let calls = wechat.calls();
    home.run(&["fetch"]).exits(4).says(&[
        "a0: jsapi ticket: ",
        "WeChat refused (45009)",
        "until 20",
    ]);
    assert_eq!(wechat.calls(), calls);
    age_record(&home.path("state/a0.jsapi.state"), 3600);
    home.run(&["fetch"]).exits(0).silent();
}

/// WeChat bans addresses, and each host has another one.
#[needs(redis)]
#[test]
fn hosts_that_share_a_redis_remember_each_for_itself() {
    let redis = Redis::start();
    let wechat = wechat_with_accounts(1, &[]);
    let hosts = [(); 2].map(|()| Home::on_redis("work", &wechat.url(), &redis.url(), ""));
    for (host, asked) in [(&hosts[0], 1), (&hosts[1], 2), (&hosts[0], 2), (&hosts[1], 2)] {
        host.put_secret("a0", WRONG_SECRET);
        host.run(&["fetch"]).exits(4).says(&["WeChat refused (40001)"]);
        assert_eq!(wechat.asked(), asked);
        assert!(host.path("state/a0.state").exists());
    }
    hosts[0].put_secret("a0", &appsecret(0));
    hosts[0].run(&["fetch"]).exits(0).silent();
    // The token of another host was got with a secret that this one does not know.
    hosts[1].run(&["fetch"]).exits(0).silent();
    assert_eq!(wechat.asked(), 3);
}

// Lost answers

#[test]
fn answers_lost_on_classic_are_rationed_and_the_message_says_what_is_going_on() {
    let wechat = WeChat::with(&["--fault", "lost"]);
    let sandbox = Sandbox::new(&wechat).on("classic");
    // With so little time there is one attempt in a run, and on a busy machine none.
    let fetch = ["fetch", "--timeout", "1s"];
    eventually("requests are rationed", || {
        let run = sandbox.run(&fetch).exits(5);
        let is_rationed = run.stderr.contains("were lost");
        assert!(is_rationed || run.stderr.contains("cannot reach WeChat"), "{run:?}");
        is_rationed
    });
    for _ in 0..3 {
        let run = sandbox.run(&fetch).exits(5);
        assert!((300..=480).contains(&seconds_until(&run, "the next request follows at ")));
        run.says(&["20 answers of WeChat were lost", "--api stable", "fetch --force", "应答丢失"]);
    }
    // One that did not arrive in time counts, too.
    let mints = wechat.mints();
    assert!(mints <= 20, "{mints}");
    // Eight minutes later there is one more.
    age_record(&record_path(&sandbox), 8 * 60);
    eventually("requests are rationed again", || {
        sandbox.run(&fetch).exits(5).stderr.contains("21 answers of WeChat were lost")
    });
    assert!(wechat.mints() <= mints + 1);
    // A person may ask, and an answer that comes is published.
    wechat.fault("none");
    sandbox.run(&["fetch", "--force"]).exits(0);
    assert!(wechat.is_alive(&sandbox.token()));
}

#[test]
fn answers_lost_on_stable_are_asked_for_again_by_every_run() {
    let wechat = WeChat::with(&["--fault", "lost"]);
    let sandbox = Sandbox::new(&wechat);
    eventually("each run asks", || {
        sandbox.run(&["fetch", "--timeout", "1s"]).exits(5).says(&["cannot reach WeChat"]);
        wechat.asked() >= 25
    });
    assert_eq!(wechat.mints(), 1);
    assert!(!record_path(&sandbox).exists(), "there is nothing to remember");
}

/// `fetch` is killed, or ends itself, before the answer comes.
#[test]
fn the_mint_of_a_run_that_is_killed_counts_as_a_lost_answer() {
    let wechat = WeChat::with(&["--fault", "hang"]);
    let sandbox = Sandbox::new(&wechat).on("classic");
    let mut fetch = sandbox.command(&["fetch"]).spawn().unwrap();
    eventually("WeChat is asked", || wechat.asked() == 1);
    fetch.kill().unwrap();
    fetch.wait().unwrap();
    let lost = || {
        let record: Value =
            serde_json::from_slice(&fs::read(record_path(&sandbox)).unwrap()).unwrap();
        record["lost"].as_array().unwrap().len()
    };
    assert_eq!(lost(), 1);
    wechat.fault("none");
    sandbox.run(&["fetch"]).exits(0).silent();
    assert_eq!(lost(), 1, "its own answer came");
}

// Another secret

/// Returns two WeChats, before and after a reset of the account's AppSecret, and an account that has fetched from the first.
/// The token is dead at the second.
fn reset_secret(api: &str) -> (WeChat, Home) {
    let before = wechat_with_accounts(1, &[]);
    let after = WeChat::with(&["--account", &format!("wx0:{}", appsecret(7))]);
    let home = Home::with_accounts(1, &before.url(), &format!("api = \"{api}\"\n"));
    home.run(&["fetch"]).exits(0).silent();
    home.write(&home.config().replace(&before.url(), &after.url()));
    (after, home)
}

#[test]
fn a_token_that_another_secret_got_is_replaced_if_wechat_no_longer_honours_it() {
    for api in ["stable", "classic", "work"] {
        let (wechat, home) = reset_secret(api);
        let dead = home.token("a0").unwrap();
        assert!(!wechat.is_alive(&dead));
        let probes = wechat.probes();
        home.put_secret("a0", &appsecret(7));
        let ran = home.run(&["fetch"]).exits(0);
        match api {
            // It may have been another app of the corp.
            "work" => ran.says(&["if its Secret was reset, this is all"]),
            _ => ran.silent(),
        };
        let token = home.token("a0").unwrap();
        assert!(wechat.is_alive(&token), "{api}");
        assert_eq!((wechat.asked(), wechat.mints()), (1, 1), "{api}");
        assert_eq!(wechat.probes() - probes - 1, u64::from(api == "classic"), "{api}");
        home.run(&["fetch"]).exits(0).silent();
        assert_eq!(wechat.asked(), 1, "{api}");
    }
}

#[test]
fn promise_7_a_token_that_fetch_finds_dead_is_handed_out_no_more_also_if_no_other_can_be_had() {
    for fault in ["token/errcode:45009", "token/errcode:-1", "token/close"] {
        let (wechat, home) = reset_secret("classic");
        let dead = home.token("a0").unwrap();
        home.put_secret("a0", &appsecret(7));
        home.run(&["get", "a0"]).exits(0);
        wechat.fault(fault);
        assert!(!home.run(&["fetch", "--timeout", "3s"]).status.success(), "{fault}");
        home.run(&["get", "a0"]).exits(3).says(&["expired"]);
        assert_eq!(home.serve(&[]).get("/token").status, 503, "{fault}");
        assert_eq!(home.token("a0"), Some(dead), "what is published is known all the same");
        wechat.fault("none");
        home.run(&["fetch", "--force", "a0"]).exits(0);
        home.run(&["get", "a0"]).exits(0);
        assert!(wechat.is_alive(&home.token("a0").unwrap()));
    }
}

#[test]
fn a_token_that_another_secret_got_is_kept_while_wechat_honours_it() {
    for (api, asked) in [("stable", 1), ("classic", 0), ("work", 1)] {
        let wechat = WeChat::start();
        let sandbox = Sandbox::new(&wechat).on(api);
        sandbox.run(&["fetch"]).exits(0);
        let (token, asked_before) = (sandbox.token(), wechat.asked());
        // The record says that another secret got it.
        let mut record: Value =
            serde_json::from_slice(&fs::read(record_path(&sandbox)).unwrap()).unwrap();
        record["issued"]["secret"] = "0".into();
        write_with_mode(&record_path(&sandbox), &record.to_string(), 0o600);
        let probes = wechat.probes();
        for _ in 0..2 {
            sandbox.run(&["fetch"]).exits(0).silent();
            assert_eq!(sandbox.token(), token, "{api}");
            assert_eq!((wechat.asked() - asked_before, wechat.mints()), (asked, 1), "{api}");
            assert_eq!(wechat.probes() - probes, u64::from(api == "classic"), "{api}: once");
        }
    }
}

#[test]
fn promise_2_a_wrong_new_secret_costs_no_token_and_is_reported_by_each_run() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    let published = sandbox.document_bytes();
    put_secret(&sandbox, WRONG_SECRET);
    for _ in 0..3 {
        sandbox
            .run(&["fetch"])
            .exits(4)
            .says(&["WeChat refused (40125)", "(the published token lives for 1h 59m"]);
        assert_eq!(sandbox.document_bytes(), published);
    }
    assert_eq!(wechat.asked(), 2);
    put_secret(&sandbox, SECRET);
    sandbox.run(&["fetch"]).exits(0).silent();
    assert_eq!((wechat.asked(), sandbox.document_bytes()), (2, published));
}

// check

fn check(sandbox: &Sandbox, wechat: &WeChat) -> Run {
    let secret = sandbox.path("secret");
    let account = ["--secret-file", secret.to_str().unwrap(), "--base-url", &wechat.url()];
    sandbox.run(&[&["check", "--format", "json"], &account[..]].concat())
}

/// Returns the findings about this subject: each one's verdict and text.
fn findings(run: &Run, about: &str) -> Vec<(String, String)> {
    let findings = run.json()["accounts"][0]["findings"].as_array().unwrap().clone();
    let text = |it: &Value, field: &str| it[field].as_str().unwrap_or_default().to_owned();
    let findings = findings.iter().filter(|it| it["about"] == about);
    findings.map(|it| (text(it, "verdict"), text(it, "what") + &text(it, "remedy"))).collect()
}

#[test]
fn check_shows_what_is_remembered_and_sends_no_refused_secret() {
    let wechat = WeChat::start();
    let sandbox = sandbox_with_secret(&wechat, "work", WRONG_SECRET);
    sandbox.run(&["fetch"]).exits(4);
    let checked = check(&sandbox, &wechat).exits(4);
    let credentials = findings(&checked, "credentials");
    assert!(
        matches!(&credentials[..], [(verdict, what)] if verdict == "problem"
            && what.contains("WeChat refused (40001)") && what.contains("not asked again until")),
        "{credentials:?}"
    );
    assert_eq!(wechat.asked(), 1);

    // A quota of the tokens' API: check asks all the same, and says why fetch does not.
    let wechat = WeChat::with(&["--fault", "errcode:45009@1"]);
    let sandbox = Sandbox::new(&wechat).on("classic");
    sandbox.run(&["fetch"]).exits(4);
    let checked = check(&sandbox, &wechat);
    let record = findings(&checked, "record");
    assert!(
        matches!(&record[..], [(verdict, what)] if verdict == "notice" && what.contains("(45009)")),
        "{record:?}"
    );
    assert_eq!(findings(&checked, "credentials")[0].0, "ok");

    // Lost answers, and another secret.
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat).on("classic");
    sandbox.run(&["fetch"]).exits(0);
    assert!(findings(&check(&sandbox, &wechat), "record").is_empty());
    wechat.fault("lost@1");
    sandbox.run(&["fetch", "--force", "--timeout", "1s"]).exits(5);
    put_secret(&sandbox, WRONG_SECRET);
    let record = findings(&check(&sandbox, &wechat), "record");
    let said: Vec<_> = record.iter().map(|(_, what)| what.as_str()).collect();
    assert!(said[0].contains("not the one that got the published token"), "{said:?}");
    assert!(said[1].contains("answers of WeChat lost within a day: 1,"), "{said:?}");
}

/// The timeout of a test must not hide that a request was sent.
#[test]
fn promise_3_a_run_that_does_not_ask_ends_at_once() {
    let wechat = WeChat::start();
    let sandbox = sandbox_with_secret(&wechat, "stable", WRONG_SECRET);
    sandbox.run(&["fetch"]).exits(4);
    wechat.fault("hang");
    let started = std::time::Instant::now();
    sandbox.run(&["fetch", "--timeout", "600s"]).exits(4).says(&["not asked again"]);
    assert!(started.elapsed() < Duration::from_secs(60));
}
