//! Promise 5: the AppSecret is in nothing that wxtoken says or shows, a token in no log; with every fault, at the
//! highest verbosity.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

use crate::support::home::Home;
use crate::support::tls::TlsFront;
use crate::support::*;

/// Whatever of a secret could be recognized: itself, as hex (how a library dumps bytes), in a URL.
fn disguises(secret: &str) -> Vec<String> {
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let spaced: Vec<_> = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let reversed: String = secret.chars().rev().collect();
    vec![secret.to_owned(), hex, spaced.join(" "), reversed]
}

#[track_caller]
fn assert_hides(text: &str, secret: &str, when: &str) {
    for disguise in disguises(secret) {
        assert!(!text.contains(&disguise), "{when}: {secret:?} is in:\n{text}");
    }
}

#[test]
fn the_secret_is_in_no_output_whatever_wechat_answers_and_however_verbose() {
    let mut faults = WeChat::start().faults();
    faults.extend(["none", "errcode:-1", "errcode:40013", "http:404"].map(str::to_owned));
    std::thread::scope(|scope| {
        for faults in faults.chunks(faults.len().div_ceil(6)) {
            scope.spawn(move || {
                let wechat = WeChat::start();
                let front = TlsFront::before(wechat.address(), "localhost");
                let secure = format!("https://localhost:{}", front.address.port());
                for fault in faults {
                    wechat.fault(fault);
                    // In clear, over TLS, and over TLS that is not trusted.
                    for (url, trusted) in
                        [(wechat.url(), true), (secure.clone(), true), (secure.clone(), false)]
                    {
                        for api in ["classic", "stable", "work"] {
                            let sandbox = Sandbox::with_base_url(&url).on(api);
                            write_with_mode(&sandbox.path("ca.pem"), &front.ca_pem, 0o644);
                            let fetch = || {
                                let args = ["fetch", "-vvv", "--timeout", "1s"];
                                let mut fetch = sandbox.command(&args);
                                if trusted {
                                    fetch.arg("--ca-file").arg(sandbox.path("ca.pem"));
                                }
                                Run::new(fetch)
                            };
                            let mut ran = fetch();
                            // A busy machine may need all of its time to start.
                            while ran.stderr.contains("no time is left to ask") {
                                ran = fetch();
                            }
                            let when = format!("{fault} on {api} at {url}");
                            assert!(
                                ran.stderr.lines().count() > 3,
                                "{when}: -vvv says a lot:\n{}",
                                ran.stderr
                            );
                            assert_hides(&ran.stderr, SECRET, &when);
                            assert_eq!(ran.stdout, "", "{when}");
                            if sandbox.document_path().exists() {
                                assert_hides(&ran.stderr, &sandbox.token(), &when);
                            }
                        }
                    }
                }
            });
        }
    });
}

/// The same for `serve --refresh`, in its responses and its log: on schedule, and when a rejected token is reported.
#[test]
fn a_server_that_asks_wechat_shows_no_secret_and_logs_no_token_whatever_wechat_answers() {
    let mut faults = WeChat::start().faults();
    faults.extend(["none", "errcode:40001", "errcode:40125", "http:404"].map(str::to_owned));
    std::thread::scope(|scope| {
        for faults in faults.chunks(faults.len().div_ceil(8)) {
            scope.spawn(move || {
                for (nth, fault) in faults.iter().enumerate() {
                    let wechat = WeChat::start();
                    let api = ["stable", "classic"][nth % 2];
                    let sandbox = Sandbox::new(&wechat).on(api);
                    let server = sandbox.serve_refreshing(&["-vvv"]);
                    let token = server.get("/token").json()["access_token"].clone();
                    let token = token.as_str().expect("a token").to_owned();
                    wechat.fault(fault);
                    let probes = wechat.probes();
                    let mut telling = connect(server.address());
                    telling
                        .write_all(post_request("/token", &rejected(&token)).as_bytes())
                        .unwrap();
                    eventually("WeChat is asked", || wechat.probes() > probes);
                    let when = format!("{fault} on {api}");
                    for path in ["/metrics", "/readyz", "/"] {
                        let answer = server.get(path);
                        assert_hides(&format!("{answer:?}"), SECRET, &when);
                        assert_hides(&format!("{answer:?}"), &token, &when);
                    }
                    // What is under way has a moment to end, and the client hears of it.
                    let now = sandbox.token();
                    let log = server.stop();
                    let answer = exchange_over(telling, b"");
                    assert_hides(&format!("{answer:?}"), SECRET, &when);
                    assert!(log.lines().count() > 3, "{when}: -vvv says a lot:\n{log}");
                    assert_hides(&log, SECRET, &when);
                    for token in [token, now, sandbox.token()] {
                        assert_hides(&log, &token, &when);
                    }
                }
            });
        }
    });
}

/// The same for `serve --gateway`, through which tokens pass and clients send their keys.
#[test]
fn a_gateway_logs_no_token_no_key_and_no_query_whatever_wechat_answers() {
    let mut faults = WeChat::start().faults();
    // The client would wait for a minute.
    faults.retain(|fault| fault != "hang" && fault != "drip");
    faults.extend(["none", "errcode:40001", "errcode:45009"].map(str::to_owned));
    std::thread::scope(|scope| {
        for faults in faults.chunks(faults.len().div_ceil(8)) {
            scope.spawn(move || {
                for fault in faults {
                    let wechat = WeChat::start();
                    let sandbox = Sandbox::new(&wechat);
                    let made = Run::new({
                        let mut command = wxtoken();
                        command.args(["key", "php"]);
                        command
                    });
                    let part = |begin: &str| {
                        let line = made.stdout.lines().find_map(|it| it.strip_prefix(begin));
                        line.expect("key prints it").trim().to_owned()
                    };
                    let (key, line) = (part("key:"), part("line:"));
                    write_with_mode(&sandbox.path("keys"), &format!("{line}\n"), 0o644);
                    let keys = sandbox.path("keys").display().to_string();
                    let server = sandbox.serve_refreshing(&["--gateway", "-vvv", "--keys", &keys]);
                    let call = format!(
                        "POST /cgi-bin/getcallbackip?openid=QU3RY HTTP/1.1\r\nHost: localhost\r\n\
                         Authorization: Bearer {key}\r\nContent-Length: 4\r\nConnection: close\r\n\r\nB0DY"
                    );
                    server.send(&call);
                    let token = sandbox.token();
                    wechat.fault(fault);
                    server.send(&call);
                    wechat.fault("none");
                    wechat.kill_tokens();
                    server.send(&call);
                    let metrics = server.send(&format!(
                        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\
                         Connection: close\r\n\r\n"
                    ));
                    assert_eq!(metrics.status, 200);
                    let log = server.stop() + &metrics.body;
                    assert!(log.contains("POST /cgi-bin/getcallbackip"), "{fault}: {log}");
                    for hidden in [SECRET, &key, &token, &sandbox.token(), "QU3RY", "B0DY"] {
                        assert_hides(&log, hidden, fault);
                    }
                }
            });
        }
    });
}

#[test]
fn the_secret_is_in_no_file_of_ours_not_even_while_wechat_is_asked() {
    let wechat = WeChat::with(&["--fault", "hang"]);
    let sandbox = Sandbox::new(&wechat);
    let mut fetch = sandbox.command(&["fetch", "-vvv"]).stderr(Stdio::piped()).spawn().unwrap();
    eventually("the call has begun", || wechat.asked() > 0);
    let names = sandbox.published_names();
    assert_eq!(names, [".default.json.tmp", "default.lock"]);
    for name in names {
        assert_hides(
            &std::fs::read_to_string(sandbox.path("state").join(&name)).unwrap(),
            SECRET,
            &name,
        );
    }
    // There is no flag that would take it, and nothing is started that could show it.
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", fetch.id()))
        .unwrap_or_default();
    assert_eq!(children, "");
    fetch.kill().unwrap();
    fetch.wait().unwrap();
}

/// A hook is a child process: neither its arguments nor its environment nor its stdin contain them.
#[test]
fn a_hook_finds_neither_secret_nor_token_in_anything_that_it_is_given() {
    let wechat = WeChat::with(&["--account", &format!("wx0:{SECRET}")]);
    let home = Home::with_accounts(1, &wechat.url(), "on_change = [\"./hook\"]\n");
    home.put_secret("a0", SECRET);
    let script = "#!/bin/sh\ncd \"$(dirname \"$0\")\"\n\
        { cat /proc/$$/environ /proc/$$/cmdline; cat; echo; ls -l /proc/$$/fd; } > new && mv new given\n\
        cat given; cat given >&2; exit 9\n";
    write_program(&home.path("hook"), script);
    let credentials = home.path("credentials");
    for verb in ["fetch", "serve"] {
        let mut command = home.command(&[verb, "-vvv"]);
        command.env("WXTOKEN_VERBOSE", "3").env("WXTOKEN_REJECTED", "").env("LANG", "C");
        command.env("CREDENTIALS_DIRECTORY", &credentials);
        let said = match verb {
            "fetch" => Run::new(command).exits(7).stderr,
            _ => {
                command.args(["--refresh", "--listen", "127.0.0.1:0"]);
                let server = Server::start(command, 1);
                eventually("the hook has run", || home.path("given").exists());
                server.stop()
            }
        };
        let given = std::fs::read_to_string(home.path("given")).unwrap();
        assert!(given.contains("WXTOKEN_ACCOUNT=a0\0") && given.contains("LANG=C\0"), "{given}");
        assert!(!given.contains(credentials.to_str().unwrap()), "{given}");
        for hidden in [SECRET, &home.token("a0").unwrap()] {
            assert_hides(&given, hidden, verb);
            assert_hides(&said, hidden, verb);
        }
        assert!(said.contains("/hook exited with status 9"), "{said}");
        std::fs::remove_file(home.path("given")).unwrap();
        std::fs::remove_file(home.document_path("a0")).unwrap();
    }
}

#[test]
fn the_secret_is_taken_from_stdin_a_credential_and_the_environment_too() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let fetch = || {
        let mut command = wxtoken();
        command.args([
            "fetch",
            "--force",
            "--api",
            "classic",
            "--appid",
            APPID,
            "--base-url",
            &wechat.url(),
            "--dir",
        ]);
        command.arg(sandbox.path("state")).stderr(Stdio::piped()).stdout(Stdio::piped());
        command
    };

    let mut from_stdin = fetch();
    let mut child = from_stdin.args(["--secret-file", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{SECRET}\r\n").as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());

    let mut from_environment = fetch();
    from_environment.env("WXTOKEN_SECRET", SECRET);
    Run::new(from_environment).exits(0).silent();

    // As systemd makes it: readable through an ACL whose mask looks like the group's bits.
    std::fs::create_dir(sandbox.path("credentials")).unwrap();
    write_with_mode(&sandbox.path("credentials/default.secret"), SECRET, 0o440);
    let mut from_credential = fetch();
    from_credential
        .env("CREDENTIALS_DIRECTORY", sandbox.path("credentials"))
        .env("WXTOKEN_SECRET", "wrong");
    Run::new(from_credential).exits(0).silent();

    let none = fetch();
    Run::new(none).exits(2).says(&["--secret-file", "WXTOKEN_SECRET"]);
    assert_eq!(wechat.mints(), 3);
}

#[test]
fn a_secret_file_that_others_can_read_is_refused_by_name_and_mode() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    for mode in [0o644, 0o640, 0o604] {
        write_with_mode(&sandbox.path("secret"), SECRET, mode);
        let ran = sandbox.run(&["fetch"]).exits(2);
        assert_hides(&ran.stderr, SECRET, "a refused file");
        ran.says(&["secret", &format!("mode {mode:04o}"), "0600"]);
    }
    assert_eq!(wechat.asked(), 0);
}

/// The message names the place and not the content.
#[test]
fn a_secret_in_the_wrong_place_is_not_repeated() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    for content in [
        "",
        "S3CR3T S3CR3T",
        "S3CR3T\nS3CR3T\n",
        "{\"secret\":\"S3CR3T S3CR3T\"}",
        &"S3CR3T".repeat(100),
    ] {
        write_with_mode(&sandbox.path("secret"), content, 0o600);
        let ran = sandbox.run(&["fetch"]).exits(2);
        assert_hides(&ran.stderr, "S3CR3T", content);
        ran.says(&["secret file"]);
    }
    let mut swapped = wxtoken();
    swapped.args(["fetch", "--appid", "S3CR3T S3CR3T"]).env("WXTOKEN_SECRET", "S3CR3T\u{e9}");
    swapped.args(["--base-url", "https://x/?secret=S3CR3T"]);
    let ran = Run::new(swapped).exits(2);
    assert_hides(&ran.stderr, "S3CR3T", "everything wrong");
    ran.says(&["--appid", "WXTOKEN_SECRET", "--base-url"]);
}

/// A secret put where a file's name, or anything else, is expected: no error about it repeats it.
#[test]
fn a_flag_or_variable_in_the_form_of_a_secret_is_refused_without_being_repeated() {
    const OF_FILES: [&str; 10] = [
        "--config",
        "--dir",
        "--secret-file",
        "--ca-file",
        "--file",
        "--allow-file",
        "--keys",
        "--tls-cert",
        "--tls-key",
        "--tls-client-ca",
    ];
    let corpsecret = "xPk1N_Zx9oRrMnIqS-mG4g8tW7vHbY2dQcJ5eLfA0uK";
    let (key, token) = (format!("wxk_{corpsecret}"), format!("72_{}", "aZ-9_".repeat(27)));
    let secrets = [SECRET, corpsecret, &key, &token];
    let refused = |command: Command, secret: &str, name: &str| {
        let ran = Run::new(command).exits(2);
        assert_hides(&format!("{}{}", ran.stdout, ran.stderr), secret, name);
        assert!(ran.stderr.contains(name), "{name}:\n{}", ran.stderr);
    };
    let of_all = ["--config", "--dir", "--verbose", "--quiet"];
    let of_accounts = [
        "--appid",
        "--secret-file",
        "--api",
        "--base-url",
        "--ca-file",
        "--refresh-before",
        "--file",
    ];
    let of_serve = [
        "--listen",
        "--allow",
        "--allow-file",
        "--trusted-proxy",
        "--keys",
        "--tls-cert",
        "--tls-key",
        "--tls-client-ca",
        "--refresh",
        "--mode",
        "--max-connections",
    ];
    let verbs = [
        ("fetch", &["--timeout", "--mode", "--force"][..]),
        ("get", &["--ticket", "--min-life", "--raw"]),
        ("serve", &of_serve),
        ("status", &["--format", "--min-life"]),
        ("check", &["--format", "--timeout"]),
    ];
    // Each flag of each verb in each way with one of the secrets. Most are flags of five verbs, and so meet all of them.
    for (nth_verb, (verb, flags)) in verbs.into_iter().enumerate() {
        let flags = of_all.iter().chain(&of_accounts).chain(flags);
        for (nth_flag, flag) in flags.enumerate() {
            let secret = |way: usize| secrets[(nth_verb + nth_flag + way) % secrets.len()];
            let name = format!("WXTOKEN_{}", flag[2..].replace('-', "_").to_uppercase());
            let mut variable = wxtoken();
            variable.arg(verb).env(&name, secret(0));
            refused(variable, secret(0), if OF_FILES.contains(flag) { &name } else { "" });
            for (secret, value) in [
                (secret(1), secret(1).to_owned()),
                (secret(2), format!("/etc/wxtoken/{}.pem", secret(2))),
            ] {
                let mut typed = wxtoken();
                typed.args([verb, "-vvv", &format!("{flag}={value}")]);
                refused(typed, secret, flag);
            }
        }
    }
    for secret in secrets {
        for (verb, _) in verbs {
            for words in [&[secret][..], &["--secret", secret], &["--fault", secret]] {
                let mut positional = wxtoken();
                positional.arg(verb).args(words);
                refused(positional, secret, "");
            }
        }
        let mut unknown = wxtoken();
        unknown.arg(secret);
        refused(unknown, secret, "unrecognized subcommand");
        for words in [&[secret][..], &["php", secret]] {
            let mut key = wxtoken();
            key.arg("key").args(words);
            refused(key, secret, "a name in the form of");
        }
        let mut mock = wxtoken();
        mock.args(["mock", "--fault", secret]);
        refused(mock, secret, "--fault");
    }
    let mut two = wxtoken();
    two.args(["fetch", "--secret-file", SECRET]).env("WXTOKEN_CA_FILE", SECRET);
    let ran = Run::new(two).exits(2);
    assert_hides(&ran.stderr, SECRET, "two at once");
    ran.says(&["--secret-file and WXTOKEN_CA_FILE", "form of an AppSecret", "mode 0600"]);
}

/// Other variables than ours name files and hosts, too.
#[test]
fn no_message_repeats_a_secret_from_a_variable_of_the_system() {
    let sandbox = Sandbox::with_base_url("https://wechat.test");
    let place = sandbox.path(SECRET);
    for (name, value) in [
        ("CREDENTIALS_DIRECTORY", place.to_str().unwrap()),
        ("STATE_DIRECTORY", "/dev/null/5ec2e75ec2e75ec2e75ec2e75ec2e75e"),
        ("XDG_STATE_HOME", "/dev/null/5ec2e75ec2e75ec2e75ec2e75ec2e75e"),
        ("HTTPS_PROXY", "http://5ec2e75ec2e75ec2e75ec2e75ec2e75e:3128"),
        ("HTTPS_PROXY", SECRET),
        ("ALL_PROXY", SECRET),
    ] {
        std::fs::create_dir_all(&place).unwrap();
        write_with_mode(&place.join("default.secret"), "x y", 0o600);
        for verb in ["fetch", "check"] {
            let mut command = wxtoken();
            command.args([verb, "-vvv", "--appid", APPID, "--base-url", "https://wechat.test"]);
            command.args(["--timeout", "1"]).env(name, value);
            if !name.ends_with("HOME") && !name.starts_with("STATE") {
                command.arg("--dir").arg(sandbox.path("state"));
            }
            if name != "CREDENTIALS_DIRECTORY" {
                command.arg("--secret-file").arg(sandbox.path("secret"));
            }
            let ran = Run::new(command);
            assert!(!ran.status.success(), "{name}");
            let shown = format!("{}{}", ran.stdout, ran.stderr);
            assert!(!shown.contains(SECRET), "{verb} {name}={value}\n{shown}");
        }
    }
}

#[test]
fn help_shows_no_value_from_the_environment() {
    for verb in ["fetch", "get", "serve", "status", "mock", "demo"] {
        let mut command = wxtoken();
        command.args([verb, "--help"]);
        for name in ["SECRET", "REJECTED", "ACCOUNT", "APPID", "SECRET_FILE"] {
            command.env(format!("WXTOKEN_{name}"), "S3CR3T");
        }
        assert_hides(&Run::new(command).exits(0).stdout, "S3CR3T", verb);
    }
}

#[test]
fn readers_work_without_any_secret_and_never_show_the_token_but_on_stdout() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    std::fs::remove_file(sandbox.path("secret")).unwrap();
    let token = sandbox.token();
    assert_eq!(sandbox.run(&["get", "-r", "-vvv"]).exits(0).stderr, "");
    for format in ["text", "json", "prometheus"] {
        let ran = sandbox.run(&["status", "-vvv", "--format", format]).exits(0);
        assert_hides(&format!("{}{}", ran.stdout, ran.stderr), &token, format);
    }
}

// In memory only

/// Starts it where a crash would leave a core, and waits until it is the program and has a core limit of 0.
fn start_with_cores(command: &Command, dir: &Path) -> Child {
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -c unlimited; exec \"$@\"", "sh"]).arg(command.get_program());
    shell.args(command.get_args()).current_dir(dir).stdout(Stdio::null()).stderr(Stdio::null());
    let child = shell.spawn().unwrap();
    let about = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", child.id()));
    eventually("its core limit is 0", || {
        let limits = about("limits").expect("it runs");
        let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        let is_limited = line.split_whitespace().nth(4) == Some("0");
        is_limited && about("comm").expect("it runs") == "wxtoken\n"
    });
    child
}

/// Whether it leaves a core when it crashes, although its core limit is raised before.
fn leaves_core(mut child: Child) -> bool {
    let pid = Pid::from_child(&child);
    prlimit(Some(pid), Resource::Core, Rlimit { current: None, maximum: None }).unwrap();
    kill_process(pid, Signal::ABORT).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()));
    status.core_dumped()
}

/// Neither the limit nor the handler of cores is what keeps a core from being left: the process is not dumpable.
#[needs(cores)]
#[test]
fn a_crash_leaves_no_core() {
    let wechat = WeChat::with(&["--fault", "hang"]);
    let sandbox = Sandbox::new(&wechat);
    let mut serve = sandbox.command(&["serve"]);
    serve.args(["--listen", "127.0.0.1:0"]);
    let mut mock = wxtoken();
    mock.arg("mock");
    for command in [sandbox.command(&["fetch"]), serve, mock] {
        assert!(!leaves_core(start_with_cores(&command, &sandbox.path(""))), "{command:?}");
    }
    let other = Command::new("sleep").arg("60").current_dir(sandbox.path("")).spawn().unwrap();
    assert!(leaves_core(other), "another program leaves one, so that this test shows something");
}

#[test]
fn every_unit_forbids_cores() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/systemd");
    let units = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let services = units.filter(|path| path.extension().is_some_and(|it| it == "service"));
    let services: Vec<_> = services.collect();
    assert!(services.len() > 2);
    for path in services {
        let unit = std::fs::read_to_string(&path).unwrap();
        assert!(unit.lines().any(|line| line == "LimitCORE=0"), "{}", path.display());
    }
}
