//! `on_change`: the command that runs when an account's token has changed. When it runs, what it is passed, how it can fail and
//! how it is ended.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::support::home::{Home, appsecret, wechat_with_accounts};
use crate::support::redis::Redis;
use crate::support::*;

/// Returns a stand-in that knows account `a0`, and a config with that account and `on_change = ARGV`, in TOML.
fn home_with(argv: &str, more: &str) -> (WeChat, Home) {
    let wechat = wechat_with_accounts(1, &[]);
    let home = Home::with_accounts(1, &wechat.url(), &format!("on_change = {argv}\n{more}"));
    (wechat, home)
}

/// The same with a shell script of these lines as the hook.
fn home_with_script(lines: &str, more: &str) -> (WeChat, Home) {
    let (wechat, home) = home_with(r#"["./hook", "one", "two words"]"#, more);
    write_script(&home, lines);
    (wechat, home)
}

fn write_script(home: &Home, lines: &str) {
    write_program(&home.path("hook"), &format!("#!/bin/sh\n{lines}\n"));
}

/// Returns the lines of a file that the hook has written.
fn lines(home: &Home, name: &str) -> Vec<String> {
    let text = fs::read_to_string(home.path(name)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn send(signal: &str, pid: u32) {
    let kill = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status();
    assert!(kill.unwrap().success());
}

/// Appends a line to `runs` at each run.
const RECORD_RUN: &str = r#"echo "$WXTOKEN_ACCOUNT" >> "$(dirname "$0")/runs""#;

// When it runs

#[test]
fn the_hook_runs_only_when_the_token_has_changed() {
    let (wechat, home) = home_with_script(RECORD_RUN, "");
    home.run(&["fetch"]).exits(0).silent();
    assert_eq!(lines(&home, "runs"), ["a0"]);
    home.run(&["fetch"]).exits(0).silent(); // Not due.
    assert_eq!(lines(&home, "runs").len(), 1);
    // Due, but WeChat returns the same token.
    let token = home.token("a0").unwrap();
    home.publish("a0", "wx0", &token, 7000);
    home.run(&["fetch", "-v"]).exits(0).mentions(&["confirmed"]);
    assert_eq!(lines(&home, "runs").len(), 1);
    // The rejected token is not the published one.
    home.run(&["fetch", "--rejected", "another-token"]).exits(0).says(&["token "]);
    assert_eq!(lines(&home, "runs").len(), 1);
    wechat.kill_tokens();
    home.run(&["fetch", "--rejected", &token]).exits(0).says(&["token "]);
    assert_eq!(lines(&home, "runs"), ["a0", "a0"]);
    // A refusal publishes nothing.
    wechat.fault("errcode:40164");
    home.run(&["fetch", "--force", "a0"]).exits(4);
    assert_eq!(lines(&home, "runs").len(), 2);
}

#[test]
fn the_hook_runs_for_a_token_replaced_by_a_ticket_call_and_not_for_a_new_ticket() {
    let (wechat, home) = home_with_script(RECORD_RUN, "tickets = [\"jsapi\"]\n");
    home.publish("a0", "wx0", "T_DEAD", 60);
    // The ticket call reports the dead token.
    home.run(&["fetch"]).exits(0).silent();
    assert_ne!(home.token("a0").unwrap(), "T_DEAD");
    assert_eq!(lines(&home, "runs"), ["a0"]);
    fs::remove_file(home.path("state/a0.jsapi.json")).unwrap();
    home.run(&["fetch"]).exits(0).silent();
    assert!(home.path("state/a0.jsapi.json").exists());
    assert_eq!(lines(&home, "runs"), ["a0"]);

    // The same in serve.
    let token = home.token("a0").unwrap();
    wechat.kill_tokens();
    fs::remove_file(home.path("state/a0.jsapi.json")).unwrap();
    let server = home.serve(&["--refresh"]);
    eventually("the hook has run again", || lines(&home, "runs") == ["a0", "a0"]);
    assert_ne!(home.token("a0").unwrap(), token);
    server.stop();
}

#[test]
fn a_mirror_runs_the_hook_when_its_token_has_changed() {
    let (wechat, first) = home_with("\"true\"", "");
    let server = first.serve(&["--refresh"]);
    let config =
        format!("[account.a0]\nfrom = \"http://{}\"\non_change = [\"./hook\"]\n", server.address());
    let mirror = Home::new(&config);
    write_script(&mirror, RECORD_RUN);
    mirror.run(&["fetch"]).exits(0).silent();
    assert_eq!(lines(&mirror, "runs"), ["a0"]);
    // The central server answers with the same token.
    let token = mirror.token("a0").unwrap();
    mirror.run(&["fetch", "--rejected", "another-token"]).exits(0).says(&["token "]);
    mirror.run(&["fetch", "--force"]).exits(0);
    assert_eq!(mirror.token("a0").unwrap(), token);
    assert_eq!(lines(&mirror, "runs").len(), 1);
    wechat.kill_tokens();
    mirror.run(&["fetch", "--rejected", &token]).exits(0).says(&["token "]);
    assert_ne!(mirror.token("a0").unwrap(), token);
    assert_eq!(lines(&mirror, "runs").len(), 2);
}

/// WXTOKEN_FILE is the local copy.
#[needs(redis)]
#[test]
fn of_hosts_that_share_a_redis_the_publishing_one_runs_the_hook() {
    let redis = Redis::start();
    let (wechat, first) =
        home_with_script(&format!("{RECORD_RUN}; cat \"$WXTOKEN_FILE\" > copy"), "");
    let second = Home::new(&first.config());
    second.put_secret("a0", &appsecret(0));
    write_script(&second, RECORD_RUN);
    let shared = format!("store = \"{}\"\n{}", redis.url(), first.config());
    [&first, &second].into_iter().for_each(|host| host.write(&shared));
    let mut fetch = first.command(&["fetch"]);
    fetch.current_dir(first.path(""));
    Run::new(fetch).exits(0).silent();
    second.run(&["fetch"]).exits(0).silent();
    assert_eq!((lines(&first, "runs").len(), lines(&second, "runs").len()), (1, 0));
    let token = redis.token("wxtoken:a0").unwrap();
    assert!(lines(&first, "copy").concat().contains(&token));
    wechat.kill_tokens();
    second.run(&["fetch", "--rejected", &token]).exits(0).says(&["token "]);
    first.run(&["fetch"]).exits(0).silent();
    assert_eq!((lines(&first, "runs").len(), lines(&second, "runs").len()), (1, 1));
}

#[test]
fn of_concurrent_fetches_one_runs_the_hook() {
    let (wechat, home) = home_with_script(RECORD_RUN, "");
    let fetches: Vec<_> = (0..12).map(|_| home.command(&["fetch"]).spawn().unwrap()).collect();
    for mut fetch in fetches {
        assert!(fetch.wait().unwrap().success());
    }
    assert_eq!(wechat.mints(), 1);
    assert_eq!(lines(&home, "runs"), ["a0"]);
}

#[test]
fn the_hook_runs_after_the_document_is_published_and_the_lock_released() {
    // With the lock held, this hook would wait for ever.
    let script = r#"wxtoken get -r --file "$WXTOKEN_FILE" > "$(dirname "$0")/token" &&
        flock --nonblock "${WXTOKEN_FILE%.json}.lock" true && echo free > "$(dirname "$0")/lock""#;
    let (_wechat, home) = home_with_script(script, "");
    let bin = Path::new(env!("CARGO_BIN_EXE_wxtoken")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut fetch = home.command(&["fetch"]);
    fetch.env("PATH", path);
    Run::new(fetch).exits(0).silent();
    assert_eq!(lines(&home, "token"), [home.token("a0").unwrap()]);
    assert_eq!(lines(&home, "lock"), ["free"]);
}

// What it is passed

/// `WXTOKEN_FILE` is a setting elsewhere, which would be an error beside a config.
#[test]
fn a_hook_can_run_wxtoken_with_or_without_the_config() {
    let script = r#"cd "$(dirname "$0")" && wxtoken get -r >> tokens && wxtoken get -r -c wxtoken.toml a0 >> tokens &&
        wxtoken get -r -c wxtoken.toml >> tokens"#;
    let (_wechat, home) = home_with_script(script, "");
    let bin = Path::new(env!("CARGO_BIN_EXE_wxtoken")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut fetch = home.command(&["fetch"]);
    fetch.env("PATH", path);
    Run::new(fetch).exits(0).silent();
    let token = home.token("a0").unwrap();
    assert_eq!(lines(&home, "tokens"), [&*token; 3]);
}

#[test]
fn the_hook_is_run_without_a_shell() {
    let (_wechat, home) = home_with(r#"["touch", "$(id)", "a b;c"]"#, "");
    let mut fetch = home.command(&["fetch"]);
    fetch.current_dir(home.path(""));
    Run::new(fetch).exits(0).silent();
    assert!(home.path("$(id)").exists() && home.path("a b;c").exists());
}

#[test]
fn the_hook_gets_the_account_and_the_path_and_neither_token_nor_secret() {
    let script = r#"cd "$(dirname "$0")"; env > env; cat /proc/$$/cmdline > argv; cat > stdin"#;
    let (_wechat, home) = home_with_script(script, "");
    let mut fetch = home.command(&["fetch"]);
    fetch.env("CREDENTIALS_DIRECTORY", home.path("creds"));
    fetch.env("WXTOKEN_TIMEOUT", "29s").env("NOTIFY_SOCKET", "/nowhere").env("LANG", "zh_CN.UTF-8");
    Run::new(fetch).exits(0).silent();
    let env = lines(&home, "env");
    let variable = |name: &str| env.iter().find_map(|line| line.strip_prefix(&format!("{name}=")));
    assert_eq!(variable("WXTOKEN_ACCOUNT"), Some("a0"));
    assert_eq!(variable("WXTOKEN_FILE"), home.document_path("a0").to_str());
    assert_eq!(variable("LANG"), Some("zh_CN.UTF-8"), "other variables are inherited");
    let own = env.iter().filter(|line| line.starts_with("WXTOKEN_"));
    assert_eq!(own.count(), 2, "{env:?}");
    assert_eq!([variable("CREDENTIALS_DIRECTORY"), variable("NOTIFY_SOCKET")], [None, None]);
    let argv = fs::read_to_string(home.path("argv")).unwrap();
    assert!(argv.ends_with("/hook\0one\0two words\0"), "{argv}");
    for secret in [home.token("a0").unwrap(), appsecret(0)] {
        assert!(!env.concat().contains(&secret) && !argv.contains(&secret));
    }
    assert_eq!(lines(&home, "stdin"), [""; 0]);
}

#[test]
fn output_of_the_hook_goes_to_stderr() {
    let (_wechat, home) = home_with_script("echo reloaded; echo warned >&2", "");
    let ran = home.run(&["fetch"]).exits(0);
    assert_eq!((&*ran.stdout, &*ran.stderr), ("", "reloaded\nwarned\n"));
}

// How it can fail

#[test]
fn a_failed_hook_is_status_7_and_never_a_second_fetch() {
    let (wechat, home) = home_with_script(&format!("{RECORD_RUN}; exit 3"), "");
    let parts = ["the token is published", "/hook exited with status 3", "run it yourself", "手动"];
    home.run(&["fetch"]).exits(7).says(&parts);
    assert!(home.token("a0").is_some());
    home.run(&["fetch"]).exits(0).silent();
    assert_eq!((wechat.asked(), lines(&home, "runs").len()), (1, 1));
}

#[test]
fn a_failed_hook_does_not_affect_other_accounts() {
    let wechat = wechat_with_accounts(3, &[]);
    let home = Home::with_accounts(3, &wechat.url(), "on_change = \"false\"\n");
    home.run(&["fetch"]).exits(7).says(&[
        "a2: See what ",
        "the token is published",
        "false exited with status 1",
    ]);
    assert!(["a0", "a1", "a2"].iter().all(|name| home.token(name).is_some()));
}

#[test]
fn a_hook_that_is_missing_or_not_executable_is_an_error_with_its_name() {
    for (argv, message) in [
        (r#""no-such-program""#, "no-such-program is not there"),
        (r#"["./nothing"]"#, "/nothing is not there"),
        (r#"["./hook"]"#, "/hook [Permission denied"),
        (r#"["./lost"]"#, "/lost cannot be run: the interpreter of its first line is not there"),
        (r#"["./"]"#, "[Permission denied"),
    ] {
        let (_wechat, home) = home_with(argv, "");
        write_with_mode(&home.path("hook"), "#!/bin/sh\n", 0o644);
        write_program(&home.path("lost"), "#!/no/such/sh\n");
        home.run(&["fetch"]).exits(7).says(&["the token is published", message]);
        assert!(home.token("a0").is_some());
    }
}

#[test]
fn a_killed_hook_is_an_error_with_the_signal() {
    let (_wechat, home) = home_with_script("kill -KILL $$", "");
    home.run(&["fetch"]).exits(7).says(&["/hook was killed by signal 9"]);
}

#[test]
fn a_hook_that_times_out_is_killed_with_its_children() {
    let script = r#"trap '' TERM; cd "$(dirname "$0")"
        (trap '' TERM; echo begun > begun; for _ in $(seq 600); do sleep 1; done) & echo $! > child; wait"#;
    let (_wechat, home) = home_with_script(script, "on_change_timeout = \"5s\"\n");
    home.run(&["fetch"]).exits(7).says(&["/hook was killed after 5s", "on_change_timeout"]);
    assert_eq!(lines(&home, "begun"), ["begun"]);
    let child = &lines(&home, "child")[0];
    eventually("the hook's child has ended", || !is_running(child));
}

#[test]
fn a_hook_that_times_out_gets_sigterm_first() {
    let script = r#"cd "$(dirname "$0")"; trap 'echo tidy > tidy; exit 0' TERM; sleep 60 & wait"#;
    let (_wechat, home) = home_with_script(script, "on_change_timeout = 5\n");
    home.run(&["fetch"]).exits(7).says(&["was killed after 5s"]);
    assert_eq!(lines(&home, "tidy"), ["tidy"]);
}

#[test]
fn a_daemon_started_by_the_hook_is_left_running() {
    let script = r#"cd "$(dirname "$0")"; sleep 1000 </dev/null >/dev/null 2>&1 & echo $! > child"#;
    let (_wechat, home) = home_with_script(script, "");
    home.run(&["fetch"]).exits(0).silent();
    let child = &lines(&home, "child")[0];
    assert!(is_running(child), "the daemon is left running");
    send("TERM", child.parse().unwrap());
}

/// fetch waits for the hook itself, not for the end of its stderr.
#[test]
fn a_daemon_with_the_hooks_stderr_does_not_delay_fetch() {
    let (_wechat, home) =
        home_with_script(r#"cd "$(dirname "$0")"; sleep 1000 & echo $! > child"#, "");
    let mut fetch = home.command(&["fetch"]);
    fetch.stderr(fs::File::create(home.path("stderr")).unwrap());
    assert!(fetch.status().unwrap().success());
    let child = &lines(&home, "child")[0];
    assert!(is_running(child), "the daemon is left running");
    send("TERM", child.parse().unwrap());
}

/// Writes its process ID to `hook.pid` and that of a child to `child`; both ignore SIGTERM.
const IGNORES_SIGTERM: &str = r#"trap '' TERM; cd "$(dirname "$0")"
    (trap '' TERM; for _ in $(seq 600); do sleep 1; done) & echo $! > child
    echo $$ > new && mv new hook.pid; wait"#;

/// Returns whether the process runs. A zombie does not.
fn is_running(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
}

/// Waits until the hook has started. Returns its process ID and its child's.
fn wait_for_start(home: &Home) -> [String; 2] {
    eventually("the hook has begun", || home.path("hook.pid").exists());
    ["hook.pid", "child"].map(|name| lines(home, name)[0].clone())
}

#[test]
fn a_signal_to_fetch_ends_its_hook_first_and_then_fetch() {
    for (name, number) in [("TERM", 15), ("INT", 2), ("HUP", 1), ("QUIT", 3), ("ALRM", 14)] {
        let (_wechat, home) = home_with_script(IGNORES_SIGTERM, "");
        let fetch =
            with_default_signals(&home.command(&["fetch"])).stderr(Stdio::piped()).spawn().unwrap();
        let pids = wait_for_start(&home);
        send(name, fetch.id());
        let output = fetch.wait_with_output().unwrap();
        assert_eq!(output.status.signal(), Some(number), "{output:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(
            stderr.contains("a0: Run it by hand: the token is published, and its hook failed"),
            "{stderr}"
        );
        assert!(stderr.contains("/hook was cut short"), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        eventually("both have ended", || !pids.iter().any(|pid| is_running(pid)));
        assert!(home.token("a0").is_some());
    }
}

#[test]
fn a_signal_that_fetch_ignores_does_not_end_its_hook() {
    let (_wechat, home) = home_with_script(
        r#"cd "$(dirname "$0")"; echo $$ > hook.pid; read _ < go; echo end > end"#,
        "",
    );
    assert!(Command::new("mkfifo").arg(home.path("go")).status().unwrap().success());
    let fetch = home.command(&["fetch"]);
    let nohup = ["sh", "-c", r#"trap '' HUP; exec "$0" "$@""#];
    let mut nohup = wrapped(&nohup, &fetch).spawn().unwrap();
    eventually("the hook has begun", || !lines(&home, "hook.pid").is_empty());
    send("HUP", nohup.id());
    fs::write(home.path("go"), "\n").unwrap();
    assert_eq!(nohup.wait().unwrap().code(), Some(0));
    assert_eq!(lines(&home, "end"), ["end"]);
}

#[test]
fn after_its_hook_fetch_ends_by_a_signal_as_before() {
    let wechat = wechat_with_accounts(1, &[]);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let second = format!(
        "[account.a1]\nappid = \"wx1\"\nsecret_file = \"a0.secret\"\nbase_url = \"http://{}\"\n",
        silent.local_addr().unwrap()
    );
    let home =
        Home::with_accounts(1, &wechat.url(), &format!("on_change = [\"./hook\"]\n{second}"));
    write_script(&home, RECORD_RUN);
    let mut fetch = home.command(&["fetch", "-v"]);
    let mut fetch = fetch.stderr(fs::File::create(home.path("log")).unwrap()).spawn().unwrap();
    eventually("the hook has ended", || home.has_logged("a0: on_change has run"));
    send("TERM", fetch.id());
    assert_eq!(fetch.wait().unwrap().signal(), Some(15));
}

#[test]
fn the_hook_inherits_no_descriptor_of_a_lock_socket_or_document() {
    let script = r#"cd "$(dirname "$0")"; ls -l /proc/self/fd > new && mv new fds"#;
    let (_wechat, home) = home_with_script(script, "");
    home.run(&["fetch"]).exits(0);
    let by_fetch = lines(&home, "fds");
    fs::remove_file(home.path("fds")).unwrap();
    fs::remove_file(home.document_path("a0")).unwrap();
    let server = home.serve(&["--refresh"]);
    assert_eq!(server.get("/token").status, 200);
    eventually("the hook has run", || home.path("fds").exists());
    let is_socket = |line: &&String| line.contains(" -> socket:");
    // Descriptors inherited by the tests are inherited by the hook, too.
    let before = Command::new("ls").args(["-l", "/proc/self/fd"]).output().unwrap().stdout;
    let before = String::from_utf8(before).unwrap().matches(" -> socket:").count();
    for fds in [by_fetch, lines(&home, "fds")] {
        assert!(fds.len() > 3, "{fds:#?}");
        assert!(fds.iter().filter(is_socket).count() <= before, "{fds:#?}");
        assert!(!fds.iter().any(|line| line.contains("/state/")), "{fds:#?}");
    }
}

// serve

#[test]
fn serve_runs_the_hook_in_the_background_for_each_published_token() {
    // Records its start, and waits for the file `go`.
    let script = r#"cd "$(dirname "$0")"; echo "$WXTOKEN_FILE" >> runs
        while [ ! -e go ]; do sleep 0.02; done; echo done >> ended"#;
    let (wechat, home) = home_with_script(script, "");
    let server = home.serve(&["--refresh"]);
    eventually("the hook has begun", || lines(&home, "runs").len() == 1);
    // Meanwhile requests are answered and the token is replaced.
    let first = server.get("/token").json()["access_token"].as_str().unwrap().to_owned();
    wechat.kill_tokens();
    assert_eq!(server.report_rejected(&first).status, 200);
    let second = home.token("a0").unwrap();
    assert_ne!(second, first);
    assert_eq!(lines(&home, "runs").len(), 1, "one at a time");
    fs::write(home.path("go"), "").unwrap();
    eventually("the hook has run for the second token", || lines(&home, "ended").len() == 2);
    assert_eq!(lines(&home, "runs"), vec![home.document_path("a0").display().to_string(); 2]);
    assert_eq!(wechat.mints(), 2);
    server.stop();
}

#[test]
fn a_failed_hook_in_serve_is_logged_and_in_the_metrics_and_has_no_other_effect() {
    let (wechat, home) = home_with_script("exit 5", "");
    let server = home.serve_with_log(&["--refresh"]);
    eventually("the failure is logged", || {
        home.has_logged("the token is published, and its hook failed")
    });
    assert!(home.has_logged("/hook exited with status 5"));
    assert_eq!(server.get("/token").status, 200);
    assert_eq!(wechat.asked(), 1);
    let failed_at = || {
        let metrics = server.get("/metrics").body;
        let lead = "wxtoken_hook_last_failure_timestamp_seconds{account=\"a0\"} ";
        let value = metrics.lines().find_map(|line| line.strip_prefix(lead));
        value.expect("the metric is there").parse::<i64>().unwrap()
    };
    let now = time::UtcDateTime::now().unix_timestamp();
    eventually("the failure is in the metrics", || failed_at() > 0);
    assert!((now - 120..=now + 120).contains(&failed_at()), "{}", failed_at());
    write_script(&home, "exit 0");
    wechat.kill_tokens();
    assert_eq!(server.report_rejected(&home.token("a0").unwrap()).status, 200);
    eventually("a success clears the failure", || failed_at() == 0);
}

/// More accounts than threads for hooks.
#[test]
fn long_running_hooks_do_not_delay_a_refresh() {
    let wechat = wechat_with_accounts(24, &[]);
    let home = Home::with_accounts(24, &wechat.url(), "");
    let config = home.config().replace("[account.", "on_change = [\"./hook\"]\n[account.");
    home.write(&format!(
        "{}on_change = [\"./hook\"]\n",
        config.trim_start_matches("on_change = [\"./hook\"]\n")
    ));
    write_script(&home, r#"cd "$(dirname "$0")"; echo $$ >> runs; exec sleep 600"#);
    let server = home.serve(&["--refresh"]);
    eventually("as many hooks run as the limit allows", || lines(&home, "runs").len() == 16);
    eventually("all have tokens", || server.get("/readyz").status == 200);
    assert_eq!(lines(&home, "runs").len(), 16);
    let dead = home.token("a7").unwrap();
    wechat.kill_tokens();
    let answer = server.post("/token/a7", &rejected(&dead));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_ne!(home.token("a7").unwrap(), dead);
    server.stop();
}

#[test]
fn shutdown_of_serve_ends_its_hooks() {
    let (_wechat, home) = home_with_script(IGNORES_SIGTERM, "");
    let server = home.serve(&["--refresh"]);
    let pids = wait_for_start(&home);
    let begun = Instant::now();
    let stderr = server.stop();
    // The hook would run for ten minutes.
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    assert!(
        stderr.contains("serve: a0: Run it by hand: the token is published")
            && stderr.contains("cut short"),
        "{stderr}"
    );
    assert!(!pids.iter().any(|pid| is_running(pid)), "{pids:?}");
}

#[test]
fn shutdown_of_serve_waits_for_a_hook_that_ends_soon() {
    let script = r#"cd "$(dirname "$0")"; echo $$ > hook.pid
        while [ ! -e go ]; do sleep 0.02; done; echo end > end"#;
    let (_wechat, home) = home_with_script(script, "");
    let server = home.serve(&["--refresh"]);
    eventually("the hook has begun", || !lines(&home, "hook.pid").is_empty());
    server.signal("TERM");
    fs::write(home.path("go"), "").unwrap();
    let (status, stderr) = server.end();
    assert_eq!((status.code(), &*stderr), (Some(0), ""));
    assert_eq!(lines(&home, "end"), ["end"]);
}

#[test]
fn serve_without_refresh_runs_no_hook() {
    let (_wechat, home) = home_with_script(RECORD_RUN, "");
    home.publish("a0", "wx0", "T1", 0);
    let server = home.serve(&[]);
    assert_eq!(server.get("/token/a0").status, 200);
    home.publish("a0", "wx0", "T2", 0);
    eventually("the new token is served", || server.get("/token/a0").body.contains("T2"));
    server.stop();
    assert_eq!(lines(&home, "runs"), [""; 0]);
}

// check

#[test]
fn check_reports_whether_the_hook_is_executable_without_running_it() {
    let (_wechat, home) = home_with_script(RECORD_RUN, "");
    home.run(&["fetch"]).exits(0).silent();
    let hook_line = |code| {
        let stdout = home.run(&["check"]).exits(code).stdout;
        let line =
            stdout.lines().find(|line| line.contains("  hook  ")).expect("a line for the hook");
        line.to_owned()
    };
    let line = hook_line(0);
    assert!(line.starts_with("✓ a0") && line.ends_with("/hook"), "{line}");
    assert_eq!(lines(&home, "runs").len(), 1);
    // In PATH, missing, not executable, and a directory.
    let config = home.config();
    let set_hook =
        |argv: &str| home.write(&config.replace(r#"["./hook", "one", "two words"]"#, argv));
    set_hook(r#""true""#);
    assert!(hook_line(0).ends_with("/true"));
    set_hook(r#""no-such-program""#);
    assert!(hook_line(7).contains("no-such-program: it is not in PATH"));
    set_hook(r#""./hook""#);
    write_with_mode(&home.path("hook"), "#!/bin/sh\n", 0o644);
    let line = hook_line(7);
    assert!(line.contains("/hook: Permission denied") && line.contains("执行权限"), "{line}");
    set_hook(r#""./state""#);
    assert!(hook_line(7).contains("/state: not a file"));
}

// Config

#[test]
fn an_invalid_on_change_is_a_config_error_without_its_value() {
    for (keys, message) in [
        ("on_change = []", "account.a0.on_change: Put something in it"),
        ("on_change = [\"\"]", "Write a program as the first word"),
        ("on_change = \"systemctl reload app\"", "Write a list, like ["),
        ("on_change = [\"curl\", 7]", "entry 2: Write a string"),
        (
            "on_change = [\"curl\", \"0123456789abcdef0123456789abcdef\"]",
            "entry 2: Put it into a file with mode 0600, and name that in secret_file: this has the form of",
        ),
        ("on_change = { run = \"x\" }", "Write a string in quotes"),
        ("on_change = \"true\"\non_change_timeout = 0", "Write more than zero"),
        ("on_change = \"true\"\non_change_timeout = \"soon\"", "account.a0.on_change_timeout"),
        ("on_change_timeout = \"3s\"", "it goes with on_change"),
        ("on_chnage = \"true\"", "is it on_change?"),
    ] {
        let home = Home::with_accounts(1, "http://127.0.0.1:9", &format!("{keys}\n"));
        let ran = home.run(&["fetch"]).exits(2).says(&["account.a0.", message]);
        assert!(!ran.stderr.contains("0123456789abcdef0123456789abcdef"));
    }
}

#[test]
fn a_hook_path_with_a_slash_is_relative_to_the_config() {
    let (_wechat, home) = home_with(r#"["bin/reload"]"#, "");
    fs::create_dir(home.path("bin")).unwrap();
    let script = "#!/bin/sh\ntouch \"$(dirname \"$0\")/ran\"\n";
    write_program(&home.path("bin/reload"), script);
    home.run(&["fetch"]).exits(0).silent();
    assert!(home.path("bin/ran").exists());
}
