//! Promise 8: a message says what happened, where, and what to do; WeChat's refusals in English and Chinese.

use crate::support::home::Home;
use crate::support::*;

#[test]
fn a_refusal_names_the_address_the_rid_and_the_remedy_in_both_languages() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    wechat.fault("errcode:40164");
    sandbox.run(&["fetch"]).exits(4).says(&[
        "wxtoken: fetch: default: Add IP 203.0.113.9 to the account's API IP allowlist: WeChat refused (40164)",
        "请将 IP 203.0.113.9 加入",
        "rid: ",
    ]);
    for (code, english, chinese) in [
        (-1, "busy", "繁忙"),
        (40001, "Copy this AppID's AppSecret", "该 AppID 的 AppSecret"),
        (40125, "AppSecret is wrong", "AppSecret 错误"),
        (40243, "frozen", "冻结"),
        (45009, "Daily quota", "当日获取 token 的次数"),
        (45011, "this minute", "分钟级"),
        (50004, "token access denied", "禁止使用 token 接口"),
        (61024, "third-party platform", "第三方平台"),
        (89503, "must approve this IP", "确认此 IP"),
        (77777, "Unknown error 77777", "未知错误 77777"),
    ] {
        // Each in a place of its own: a refusal is remembered.
        let sandbox = Sandbox::new(&wechat);
        wechat.fault(&format!("errcode:{code}"));
        let ran = in_time(|| sandbox.run(&["fetch", "--timeout", "1s"]));
        ran.says(&[&format!("({code})"), english, chinese]);
    }
}

fn has_chinese(text: &str) -> bool {
    text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c))
}

#[test]
fn a_message_is_in_the_language_of_the_environment_and_in_both_where_that_is_unknown() {
    let wechat = WeChat::start();
    for (variables, english, chinese) in [
        (&[][..], true, true),
        (&[("LANG", "C.UTF-8")], true, true),
        (&[("LANG", "en_US.UTF-8")], true, false),
        (&[("LC_ALL", "zh_CN.UTF-8")], false, true),
        (&[("LC_ALL", "en_US.UTF-8"), ("WXTOKEN_LANG", "zh")], false, true),
    ] {
        let sandbox = Sandbox::new(&wechat);
        wechat.fault("errcode:40164");
        let mut fetch = sandbox.command(&["fetch"]);
        fetch.envs(variables.iter().copied());
        let line = Run::new(fetch).exits(4).says(&["(40164)", "203.0.113.9"]).stderr;
        assert_eq!(line.contains("Add IP"), english, "{variables:?}: {line}");
        assert_eq!(has_chinese(&line), chinese, "{variables:?}: {line}");
    }
}

#[test]
fn an_error_over_http_is_in_the_language_of_accept_language() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    wechat.fault("errcode:40164");
    let server = sandbox.serve_refreshing(&[]);
    for path in
        ["/token", &format!("/cgi-bin/token?grant_type=client_credential&appid={APPID}&secret=x")]
    {
        for (header, english, chinese) in [
            ("", true, true),
            ("Accept-Language: en-US,en;q=0.9\r\n", true, false),
            ("Accept-Language: zh-CN,zh;q=0.9,en;q=0.8\r\n", false, true),
        ] {
            let response = server.send(&format!(
                "GET {path} HTTP/1.1\r\nHost: localhost\r\n{header}Connection: close\r\n\r\n"
            ));
            let body = response.body;
            assert_eq!(body.contains("Add IP"), english, "{path} {header}: {body}");
            assert_eq!(has_chinese(&body), chinese, "{path} {header}: {body}");
        }
    }
}

#[test]
fn every_refusal_over_http_is_in_the_language_of_accept_language() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    let keys = sandbox.path("keys");
    write_with_mode(&keys, "", 0o600);
    let open = sandbox.serve(&[]);
    let locked = sandbox.serve(&["--keys", keys.to_str().unwrap()]);
    let local = "Host: localhost\r\n";
    for (server, line, headers, status) in [
        (&open, "GET /nowhere", local, 404),
        (&open, "GET /token/unknown", local, 404),
        (&open, "PUT /token", local, 405),
        (&open, "POST /token", local, 405),
        (&open, "GET /token", "Host: evil.example\r\n", 421),
        (&open, "GET /token", "Host: localhost\r\nHost: localhost\r\n", 400),
        (&open, "GET /token", "Host: localhost\r\nVia: 1.1 x\r\n", 403),
        (&open, "GET /token", "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n", 403),
        (&open, "GET /readyz", local, 503),
        (&open, "GET /token", local, 503),
        (&open, "GET /jssdk", local, 400),
        (&open, "GET /cgi-bin/token", local, 200),
        (&locked, "GET /token", local, 401),
    ] {
        for (language, english, chinese) in [
            ("", true, true),
            ("Accept-Language: en\r\n", true, false),
            ("Accept-Language: zh\r\n", false, true),
        ] {
            let request =
                format!("{line} HTTP/1.1\r\n{headers}{language}Connection: close\r\n\r\n");
            let response = server.send(&request);
            assert_eq!(response.status, status, "{request} {response:?}");
            let body = response.json();
            let message = body.get("message").or(body.get("errmsg")).unwrap().as_str().unwrap();
            let has_english = [" the ", " a ", " this ", "Send ", "there is "]
                .iter()
                .any(|it| message.contains(it));
            assert_eq!(
                (has_english, has_chinese(message)),
                (english, chinese),
                "{request} {message}"
            );
            assert!(!message.contains('\n'), "{message}");
        }
    }
}

#[test]
fn a_wrong_account_and_a_wrong_secret_have_different_errors() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    write_with_mode(&sandbox.path("secret"), "0000000000000000", 0o600);
    for api in ["stable", "classic"] {
        let mut wrong_secret = wxtoken();
        wrong_secret.args([
            "fetch",
            "--appid",
            APPID,
            "--api",
            api,
            "--base-url",
            &wechat.url(),
            "--secret-file",
        ]);
        wrong_secret.arg(sandbox.path("secret")).arg("--dir").arg(sandbox.path("state"));
        Run::new(wrong_secret).exits(4).says(&["(40125)", "AppSecret"]);
        let mut wrong_appid = wxtoken();
        wrong_appid.args([
            "fetch",
            "--appid",
            "wxunknown",
            "--api",
            api,
            "--base-url",
            &wechat.url(),
            "--secret-file",
        ]);
        wrong_appid.arg(sandbox.path("secret")).arg("--dir").arg(sandbox.path("state"));
        Run::new(wrong_appid).exits(4).says(&["(40013)", "AppID"]);
    }
}

#[test]
fn control_characters_from_outside_are_escaped() {
    let wechat = WeChat::with(&["--fault", "escape"]);
    let ran = Sandbox::new(&wechat).run(&["fetch"]).exits(4);
    assert!(ran.stderr.chars().all(|c| c == '\n' || !c.is_control()), "{:?}", ran.stderr);
    assert!(!ran.stderr.contains('\u{202e}'), "{:?}", ran.stderr);
    ran.says(&["\\u{1b}"]);
}

#[test]
fn an_answer_of_a_gateway_is_described() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    for (fault, parts) in [
        ("html", &["an HTML page", "proxy or portal"][..]),
        ("empty", &["an empty body"]),
        ("garbage", &["not JSON"]),
        ("half", &["ends too soon"]),
        ("huge", &["more than 65536 bytes"]),
        ("redirect", &["302", "--base-url"]),
        ("http:404", &["404", "--base-url"]),
        ("http:412", &["412", "Content-Length"]),
        ("http:502", &["502", "gateway or proxy"]),
        ("notoken", &["neither access_token nor errcode"]),
        ("badtoken", &["no token"]),
        ("zero", &["expires_in"]),
        ("hang", &["no answer in time"]),
        ("nothttp", &["not HTTP"]),
    ] {
        wechat.fault(fault);
        let fetch = || sandbox.run(&["fetch", "--timeout", "1s"]);
        (if fault == "hang" { fetch() } else { in_time(fetch) }).says(parts);
    }
}

#[test]
fn a_missing_setting_is_named_with_its_flag() {
    let run = |args: &[&str]| {
        let mut command = wxtoken();
        command.args(args);
        Run::new(command)
    };
    run(&["fetch"]).exits(2).says(&["--appid", "WXTOKEN_APPID", "--secret-file"]);
    run(&["get", "--dir", "/nonexistent"]).exits(3).says(&[
        "/nonexistent/default.json",
        "wxtoken fetch",
        "--dir",
    ]);
    run(&["get", "--file", "/"]).exits(2).says(&["--file"]);
    run(&["nonsense"]).exits(2);
    run(&[]).exits(2);
    run(&["get", "--min-life", "soon"]).exits(2).mentions(&["--min-life", "90s"]);
    run(&["get", "--min-life", "2M"]).exits(2).mentions(&["Write a day at most"]);
}

#[test]
fn serve_reports_a_wrong_account_and_wrong_access_rules_together() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    write_with_mode(&sandbox.path("keys"), &format!("php {} default\n", "0".repeat(64)), 0o644);
    let keys = sandbox.path("keys").display().to_string();
    let wrong =
        ["serve", "--appid", "x y", "--allow", "10.0.0.1/8", "--tls-cert", "x", "--keys", &keys];
    let mut command = wxtoken();
    command.args(wrong);
    let ran = Run::new(command).exits(2);
    // The account of the keys is no problem: it has the wrong AppID, and its name is known.
    assert!(!ran.stderr.contains("keys file"), "{}", ran.stderr);
    ran.says(&["--appid: Write the AppID", "--allow: ", "Write 10.0.0.0/8", "--tls-cert needs"]);
    let mut refreshing = wxtoken();
    refreshing.args(wrong).args(["--refresh", "--base-url", "ftp://x"]);
    Run::new(refreshing).exits(2).says(&["--appid", "--allow: ", "--base-url", "no AppSecret"]);
    // The same of a config.
    let home = Home::new(
        "[account.a]\nappid = 'wx1'\nfile = 'x.json'\n[account.b]\nappid = 'wx2'\nfile = 'x.json'\n",
    );
    let ran = home.run(&["serve", "--allow", "10.0.0.1/8"]).exits(2);
    ran.says(&["account.b: ", "its document", "--allow: ", "Write 10.0.0.0/8"]);
}

#[test]
fn quiet_prints_nothing_and_sets_the_exit_status() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.run(&["get", "-q"]).exits(3).silent();
    sandbox.run(&["fetch", "-q", "--timeout", "1"]).exits(5).silent();
}

#[test]
fn verbose_logs_what_was_done_with_the_fingerprint_of_the_token() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let published = sandbox.run(&["fetch", "-v"]).exits(0).stderr;
    let name =
        sandbox.run(&["status", "--format", "json"]).exits(0).json()["accounts"][0]["token_sha256"]
            .clone();
    assert!(
        published.contains(&format!("published token {}", name.as_str().unwrap())),
        "{published}"
    );
    let kept = sandbox.run(&["fetch", "-v"]).exits(0).stderr;
    assert!(kept.contains("not due: token "), "{kept}");
}

/// A variable stands in for a flag, and gives way to one.
#[test]
fn a_flag_wins_over_a_variable_that_says_otherwise() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let run = |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = sandbox.command(args);
        command.envs(variables.iter().copied());
        Run::new(command)
    };
    run(&["get", "-q"], &[("WXTOKEN_VERBOSE", "1")]).exits(3).silent();
    let ran = run(&["get", "-v"], &[("WXTOKEN_QUIET", "1")]).exits(3);
    assert!(ran.stderr.contains("no token"), "{}", ran.stderr);
    run(&["get"], &[("WXTOKEN_QUIET", "yes"), ("WXTOKEN_VERBOSE", "0")]).exits(3).silent();
    run(&["fetch"], &[("WXTOKEN_FORCE", "0")]).exits(0).silent();
    run(&["fetch", "--rejected", "T"], &[("WXTOKEN_FORCE", "1")]).exits(0).says(&["token "]);
    assert_eq!(wechat.mints(), 1, "T is not the published one, and nothing is forced");
    run(&["fetch", "--force"], &[("WXTOKEN_REJECTED", "T")]).exits(0);
    assert_eq!(wechat.mints(), 2);
    run(&["fetch", "--force", "--rejected", "T"], &[])
        .exits(2)
        .mentions(&["--force and --rejected"]);
    // Of equals, neither wins.
    run(&["fetch"], &[("WXTOKEN_FORCE", "1"), ("WXTOKEN_REJECTED", "T")])
        .exits(2)
        .mentions(&["WXTOKEN_FORCE and WXTOKEN_REJECTED"]);
    run(&["get"], &[("WXTOKEN_QUIET", "1"), ("WXTOKEN_VERBOSE", "1")])
        .exits(2)
        .mentions(&["WXTOKEN_QUIET and WXTOKEN_VERBOSE"]);
    let both = [("WXTOKEN_SECRET_FILE", "secret"), ("WXTOKEN_SECRET", "x")];
    let mut fetch = wxtoken();
    fetch.args(["fetch", "--appid", APPID]).envs(both);
    Run::new(fetch).exits(2).says(&["WXTOKEN_SECRET_FILE and WXTOKEN_SECRET", "Unset one"]);
    run(&["fetch"], &both).exits(0).silent(); // --secret-file is typed.
    assert_eq!(wechat.mints(), 2);
    run(&["get", "-q", "-v"], &[]).exits(2).mentions(&["--quiet and --verbose"]);
    // As in a template of variables that was not filled in.
    let mut unset = wxtoken();
    unset.args(["get", "-r", "--dir"]).arg(sandbox.path("state")).env("WXTOKEN_APPID", "");
    Run::new(unset).exits(0);
}
