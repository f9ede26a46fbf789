//! What messages promise: they are short, and the commands in them work where they are pasted.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use needs::needs;

use serde_json::Value;

use crate::support::home::{Home, wechat_with_accounts};
use crate::support::tls::TlsFront;
use crate::support::*;

/// The most characters of a common message in one language.
const MAX: usize = 200;

/// Returns the message of a failed command in a language, without verb and account.
fn message(mut command: Command, language: &str) -> String {
    command.env("WXTOKEN_LANG", language).env("WXTOKEN_LOG_FORMAT", "json");
    let ran = Run::new(command);
    let line: Value = serde_json::from_str(&ran.stderr).expect(&ran.stderr);
    line["message"].as_str().unwrap().to_owned()
}

/// Asserts that the message of a failed `fetch` is short in each language, and well ordered.
#[track_caller]
fn is_short(fetch: impl Fn() -> (Sandbox, Command)) {
    for (language, alive) in [("en", "(the published token lives for "), ("zh", "（已发布的 token")]
    {
        let (_sandbox, command) = fetch();
        let message = message(command, language);
        let length = message.chars().count();
        assert!(length <= MAX, "{length}: {message}");
        // What to do, what happened, the words from outside, and what the published token lives for.
        let [said, life] = [" [", alive].map(|part| message.find(part).expect(&message));
        assert!(0 < said && said < life, "{message}");
    }
}

/// Returns a `fetch` of an account whose published token is due.
fn fetch_of_due_token(sandbox: Sandbox) -> (Sandbox, Command) {
    sandbox.publish("T1", 7200, 7000);
    let command = sandbox.command(&["fetch", "--timeout", "3s"]);
    (sandbox, command)
}

#[test]
fn the_common_messages_are_short_in_each_language_and_end_with_the_life_of_the_token() {
    let wechat = WeChat::start();
    for code in [40164, 40125, 40001, 40013, 45009, 40243] {
        for api in ["stable", "classic"] {
            is_short(|| {
                wechat.fault(&format!("errcode:{code}"));
                fetch_of_due_token(Sandbox::new(&wechat).on(api))
            });
        }
    }
    // No server, no such name, a server that does not speak TLS, and one whose CA is unknown.
    let no_tls = wechat.url().replace("http://", "https://");
    let front = TlsFront::before(wechat.address(), "localhost");
    let unknown_ca = format!("https://localhost:{}", front.address.port());
    for base_url in ["http://127.0.0.1:1", "https://nowhere.invalid", &no_tls, &unknown_ca] {
        is_short(|| fetch_of_due_token(Sandbox::with_base_url(base_url)));
    }
    // A proxy that is not there.
    is_short(|| {
        let (sandbox, mut command) =
            fetch_of_due_token(Sandbox::with_base_url("https://wechat.invalid"));
        command.env("HTTPS_PROXY", "http://127.0.0.1:1");
        (sandbox, command)
    });
}

#[test]
fn a_file_without_permission_is_told_shortly_and_with_what_to_do_first() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, 7000);
    write_with_mode(&sandbox.path("secret"), "0123456789abcdef0123456789abcdef", 0o644);
    let secret = sandbox.path("secret").display().to_string();
    for (language, begin, what) in [
        ("en", format!("Run chmod 0600 {secret}: "), "cannot read secret file"),
        ("zh", format!("请执行 chmod 0600 {secret}："), "无法读取 AppSecret 文件"),
    ] {
        let mut fetch = wxtoken();
        fetch.args(["fetch", "--appid", APPID, "--secret-file", &secret, "--dir"]);
        fetch.arg(sandbox.path("state"));
        let message = message(fetch, language);
        assert!(message.starts_with(&begin) && message.contains(what), "{message}");
        // Beside the path, which stands there twice.
        let length = message.replace(&secret, "").chars().count();
        assert!(length <= MAX, "{length}: {message}");
    }
}

/// Runs a command of a message in a shell, elsewhere and without the variables of the run that printed it.
#[track_caller]
fn paste(command: &str) -> Run {
    let mut shell = Command::new("env");
    shell.args(["-i", "PATH=/usr/bin:/bin", "sh", "-c", command]).current_dir("/");
    Run::new(shell)
}

/// Returns what stands between two parts of a text.
#[track_caller]
fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let rest = text.split_once(begin).unwrap_or_else(|| panic!("{begin:?}: {text}")).1;
    rest.split_once(end).unwrap_or_else(|| panic!("{end:?}: {text}")).0
}

/// Returns a command that has all its settings from variables, with paths that hold in its directory only.
fn by_variables(sandbox: &Sandbox, wechat: &WeChat, args: &[&str]) -> Command {
    let mut command = wxtoken();
    command.args(args).current_dir(sandbox.path("")).env("WXTOKEN_LANG", "en");
    command.env("WXTOKEN_APPID", APPID).env("WXTOKEN_DIR", "state");
    command.env("WXTOKEN_SECRET_FILE", "secret").env("WXTOKEN_BASE_URL", wechat.url());
    command
}

#[test]
fn a_command_in_a_message_does_the_same_wherever_it_is_pasted() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let run = |args: &[&str]| Run::new(by_variables(&sandbox, &wechat, args));
    // Nothing is published.
    let missing = run(&["get"]).exits(3).stderr;
    paste(between(&missing, "Run ", ": no token")).exits(0).silent();
    assert!(wechat.is_alive(&sandbox.token()));
    // What is published is no document.
    std::fs::write(sandbox.document_path(), "nonsense").unwrap();
    let damaged = run(&["get"]).exits(3).stderr;
    paste(between(&damaged, "Run ", ", which replaces it")).exits(0).silent();
    // The token is dead.
    let dead = sandbox.token();
    wechat.kill_tokens();
    let checked = run(&["check"]).exits(3).stdout;
    // The lines of check are broken at the width of a terminal.
    let checked = checked.split_whitespace().collect::<Vec<_>>().join(" ");
    paste(between(&checked, "Replace it now: ", "; serve --refresh"))
        .exits(0)
        .mentions(&["replaced"]);
    assert_ne!(sandbox.token(), dead);
    // It is alive, and reported.
    let alive = sandbox.token();
    let kept = run(&["fetch", "--rejected", &alive]).exits(0).stderr;
    assert_eq!(sandbox.token(), alive);
    paste(between(&kept, ", so it stays. To replace it all the same: ", "\n")).exits(0);
    assert_ne!(sandbox.token(), alive);
    // WeChat has refused, and is not asked again.
    wechat.fault("errcode:40243");
    run(&["fetch", "--force"]).exits(4);
    sandbox.publish("T1", 7200, 7000);
    let refused = run(&["fetch"]).exits(4).stderr;
    wechat.fault("none");
    paste(between(&refused, "at once: ", ")")).exits(0);
    assert!(wechat.is_alive(&sandbox.token()));
}

/// Returns a command as [`by_variables`] does, for files in a directory with a blank in its name, which is made.
fn by_variables_with_blank(sandbox: &Sandbox, wechat: &WeChat, args: &[&str]) -> Command {
    std::fs::create_dir_all(sandbox.path("my shop")).unwrap();
    if !sandbox.path("my shop/secret").exists() {
        write_with_mode(&sandbox.path("my shop/secret"), SECRET, 0o600);
    }
    let mut command = by_variables(sandbox, wechat, args);
    command.env("WXTOKEN_DIR", "my shop/state").env("WXTOKEN_SECRET_FILE", "my shop/secret");
    command
}

#[needs(script)]
#[test]
fn on_a_terminal_a_command_is_one_line_that_works_where_it_is_pasted() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let command = |args: &[&str]| by_variables_with_blank(&sandbox, &wechat, args);
    Run::new(command(&["fetch"])).exits(0);
    for language in ["en", "zh", "both"] {
        wechat.kill_tokens();
        let mut check = command(&["check"]);
        check.env("WXTOKEN_LANG", language);
        let mut terminal = on_terminal(&check);
        terminal.current_dir(sandbox.path(""));
        let shown = Run::new(terminal).exits(3).stdout;
        let report = shown.lines().find(|line| line.contains(" get -r ")).expect(&shown);
        paste(report.trim()).exits(0).mentions(&["replaced"]);
        let others = shown.lines().filter(|line| !line.contains("--dir"));
        others.for_each(|line| assert!(columns(line) <= 80, "{shown}"));
    }
}

#[test]
fn a_command_about_a_file_works_wherever_it_is_pasted() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let run = |args: &[&str]| Run::new(by_variables_with_blank(&sandbox, &wechat, args));
    run(&["fetch"]).exits(0);
    let secret = sandbox.path("my shop/secret");
    std::fs::set_permissions(&secret, Permissions::from_mode(0o644)).unwrap();
    let open = run(&["fetch"]).exits(2).stderr;
    paste(between(&open, "fetch: Run ", ": cannot read")).exits(0).silent();
    run(&["fetch"]).exits(0);
}

#[test]
fn a_command_gives_documents_the_mode_of_this_run() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let run = |args: &[&str]| Run::new(by_variables(&sandbox, &wechat, args));
    run(&["fetch", "--mode", "0640"]).exits(0);
    let alive = sandbox.token();
    let kept = run(&["fetch", "--mode", "0640", "--rejected", &alive]).exits(0).stderr;
    paste(between(&kept, ", so it stays. To replace it all the same: ", "\n")).exits(0);
    let mode = sandbox.document_path().metadata().unwrap().permissions().mode();
    assert_eq!((sandbox.token() != alive, mode & 0o777), (true, 0o640));
}

#[test]
fn a_command_says_which_option_is_to_be_filled_in() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    let missing = sandbox.run(&["get"]).exits(3).stderr;
    assert!(missing.contains(&format!("--appid {APPID}")), "{missing}");
    assert!(missing.contains(" --secret-file FILE"), "{missing}");
}

#[test]
fn a_command_about_an_account_of_a_config_names_both() {
    let wechat = wechat_with_accounts(2, &[]);
    let home = Home::with_accounts(2, &wechat.url(), "");
    home.run(&["fetch"]).exits(0);
    let dead = home.token("a1").unwrap();
    wechat.kill_tokens();
    let mut check = home.command(&["check", "a1"]);
    check.env("WXTOKEN_LANG", "en");
    let checked = Run::new(check).exits(3).stdout;
    let checked = checked.split_whitespace().collect::<Vec<_>>().join(" ");
    paste(between(&checked, "Replace it now: ", "; serve --refresh")).exits(0);
    assert_ne!(home.token("a1").unwrap(), dead);
}

#[test]
fn serve_says_how_to_try_at_once_when_the_next_try_is_far_away() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    wechat.fault("errcode:40125");
    let server = sandbox.serve_refreshing(&[]);
    assert_eq!(server.get("/token").status, 503);
    wechat.fault("none");
    let pid = server.pid();
    server.signal("HUP");
    eventually("there is a token", || server.get("/token").status == 200);
    let stderr = server.stop();
    assert!(stderr.contains(&format!("at once: kill -HUP {pid}")), "{stderr}");
}
