//! `on_change`: the command that an account's owner wants run when its token changed. Then, never else; told where the
//! document is, never what is in it; and whatever becomes of it, the token stays.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::home::{Home, appsecret, wechat_of};
use crate::support::redis::Redis;
use crate::support::*;

/// A stand-in that knows account `a0`, and a home with that account, whose `on_change` is `argv` as TOML writes it.
fn home_with(argv: &str, more: &str) -> (WeChat, Home) {
    let wechat = wechat_of(1, &[]);
    let home = Home::of_accounts(1, &wechat.url(), &format!("on_change = {argv}\n{more}"));
    (wechat, home)
}

/// The same where `on_change` is a program of these lines for `sh`, beside the config.
fn home_with_script(lines: &str, more: &str) -> (WeChat, Home) {
    let (wechat, home) = home_with(r#"["./hook", "one", "two words"]"#, more);
    put_script(&home, lines);
    (wechat, home)
}

fn put_script(home: &Home, lines: &str) {
    write_program(&home.path("hook"), &format!("#!/bin/sh\n{lines}\n"));
}

/// What the hook wrote in the home's file of this name, line by line.
fn lines(home: &Home, name: &str) -> Vec<String> {
    let text = fs::read_to_string(home.path(name)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn send(signal: &str, pid: u32) {
    let kill = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status();
    assert!(kill.unwrap().success());
}

/// A line for each run, in `runs`.
const NOTED: &str = r#"echo "$WXTOKEN_ACCOUNT" >> "$(dirname "$0")/runs""#;

// When

#[test]
fn it_runs_when_the_token_changed_and_never_else() {
    let (wechat, home) = home_with_script(NOTED, "");
    home.run(&["fetch"]).exits(0).silent();
    assert_eq!(lines(&home, "runs"), ["a0"]);
    home.run(&["fetch"]).exits(0).silent(); // Not due.
    assert_eq!(lines(&home, "runs").len(), 1);
    // Due, and WeChat gives the same token again.
    let token = home.token("a0").unwrap();
    home.publish("a0", "wx0", &token, 7000);
    home.run(&["fetch", "-v"]).exits(0).says_something(&["confirmed"]);
    assert_eq!(lines(&home, "runs").len(), 1);
    // Somebody else's rejected token.
    home.run(&["fetch", "--rejected", "another-token"]).exits(0).silent();
    assert_eq!(lines(&home, "runs").len(), 1);
    wechat.kill_tokens();
    home.run(&["fetch", "--rejected", &token]).exits(0).silent();
    assert_eq!(lines(&home, "runs"), ["a0", "a0"]);
    // Nothing is published, and nothing changed.
    wechat.fault("errcode:40164");
    home.run(&["fetch", "--force", "a0"]).exits(4);
    assert_eq!(lines(&home, "runs").len(), 2);
}

#[test]
fn it_runs_when_the_token_was_replaced_for_a_ticket_and_not_for_a_ticket_alone() {
    let (wechat, home) = home_with_script(NOTED, "tickets = [\"jsapi\"]\n");
    home.publish("a0", "wx0", "T_DEAD", 60);
    // WeChat says so when it is asked for the ticket.
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
    eventually("it ran again", || lines(&home, "runs") == ["a0", "a0"]);
    assert_ne!(home.token("a0").unwrap(), token);
    server.stop();
}

#[test]
fn a_mirror_runs_it_when_the_token_that_it_takes_over_is_another() {
    let (wechat, first) = home_with("\"true\"", "");
    let server = first.serve(&["--refresh"]);
    let config =
        format!("[account.a0]\nfrom = \"http://{}\"\non_change = [\"./hook\"]\n", server.address());
    let mirror = Home::with(&config);
    put_script(&mirror, NOTED);
    mirror.run(&["fetch"]).exits(0).silent();
    assert_eq!(lines(&mirror, "runs"), ["a0"]);
    // Asked again, and told the same.
    let token = mirror.token("a0").unwrap();
    mirror.run(&["fetch", "--rejected", "another-token"]).exits(0).silent();
    mirror.run(&["fetch", "--force"]).exits(0);
    assert_eq!(mirror.token("a0").unwrap(), token);
    assert_eq!(lines(&mirror, "runs").len(), 1);
    wechat.kill_tokens();
    mirror.run(&["fetch", "--rejected", &token]).exits(0).silent();
    assert_ne!(mirror.token("a0").unwrap(), token);
    assert_eq!(lines(&mirror, "runs").len(), 2);
}

/// And what it is told of is there: this host's copy.
#[test]
fn of_hosts_that_share_a_redis_the_one_that_published_runs_it() {
    let Some(redis) = Redis::start() else { return };
    let (wechat, first) = home_with_script(&format!("{NOTED}; cat \"$WXTOKEN_FILE\" > copy"), "");
    let second = Home::with(&first.config());
    second.put_secret("a0", &appsecret(0));
    put_script(&second, NOTED);
    let shared = format!("store = \"{}\"\n{}", redis.url(), first.config());
    [&first, &second].into_iter().for_each(|host| host.write(&shared));
    let mut fetch = first.command(&["fetch"]);
    fetch.current_dir(first.path(""));
    Ran::of(fetch).exits(0).silent();
    second.run(&["fetch"]).exits(0).silent();
    assert_eq!((lines(&first, "runs").len(), lines(&second, "runs").len()), (1, 0));
    let token = redis.token("wxtoken:a0").unwrap();
    assert!(lines(&first, "copy").concat().contains(&token));
    wechat.kill_tokens();
    second.run(&["fetch", "--rejected", &token]).exits(0).silent();
    first.run(&["fetch"]).exits(0).silent();
    assert_eq!((lines(&first, "runs").len(), lines(&second, "runs").len()), (1, 1));
}

#[test]
fn of_many_who_fetch_at_once_one_runs_it() {
    let (wechat, home) = home_with_script(NOTED, "");
    let fetches: Vec<_> = (0..12).map(|_| home.command(&["fetch"]).spawn().unwrap()).collect();
    for mut fetch in fetches {
        assert!(fetch.wait().unwrap().success());
    }
    assert_eq!(wechat.mints(), 1);
    assert_eq!(lines(&home, "runs"), ["a0"]);
}

#[test]
fn the_lock_is_free_and_the_document_there_when_it_runs() {
    // It reads the token, and would wait for its own lock for ever.
    let script = r#"wxtoken get -r --file "$WXTOKEN_FILE" > "$(dirname "$0")/token" &&
        flock --nonblock "${WXTOKEN_FILE%.json}.lock" true && echo free > "$(dirname "$0")/lock""#;
    let (_wechat, home) = home_with_script(script, "");
    let bin = Path::new(env!("CARGO_BIN_EXE_wxtoken")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut fetch = home.command(&["fetch"]);
    fetch.env("PATH", path);
    Ran::of(fetch).exits(0).silent();
    assert_eq!(lines(&home, "token"), [home.token("a0").unwrap()]);
    assert_eq!(lines(&home, "lock"), ["free"]);
}

// With what

#[test]
fn it_is_an_argv_and_no_shell_sees_it() {
    let (_wechat, home) = home_with(r#"["touch", "$(id)", "a b;c"]"#, "");
    let mut fetch = home.command(&["fetch"]);
    fetch.current_dir(home.path(""));
    Ran::of(fetch).exits(0).silent();
    assert!(home.path("$(id)").exists() && home.path("a b;c").exists());
}

#[test]
fn it_is_told_the_account_and_the_document_and_neither_token_nor_secret() {
    let script = r#"cd "$(dirname "$0")"; env > env; cat /proc/$$/cmdline > argv; cat > stdin"#;
    let (_wechat, home) = home_with_script(script, "");
    let mut fetch = home.command(&["fetch"]);
    fetch.env("WXTOKEN_SECRET", appsecret(7)).env("CREDENTIALS_DIRECTORY", home.path("creds"));
    fetch.env("WXTOKEN_TIMEOUT", "29s").env("NOTIFY_SOCKET", "/nowhere").env("LANG", "zh_CN.UTF-8");
    Ran::of(fetch).exits(0).silent();
    let env = lines(&home, "env");
    let of = |name: &str| env.iter().find_map(|line| line.strip_prefix(&format!("{name}=")));
    assert_eq!(of("WXTOKEN_ACCOUNT"), Some("a0"));
    assert_eq!(of("WXTOKEN_FILE"), home.document_path("a0").to_str());
    assert_eq!(of("LANG"), Some("zh_CN.UTF-8"), "the rest is ours");
    let ours = env.iter().filter(|line| line.starts_with("WXTOKEN_"));
    assert_eq!(ours.count(), 2, "{env:?}");
    assert_eq!([of("CREDENTIALS_DIRECTORY"), of("NOTIFY_SOCKET")], [None, None]);
    let argv = fs::read_to_string(home.path("argv")).unwrap();
    assert!(argv.ends_with("/hook\0one\0two words\0"), "{argv}");
    for secret in [home.token("a0").unwrap(), appsecret(0), appsecret(7)] {
        assert!(!env.concat().contains(&secret) && !argv.contains(&secret));
    }
    assert_eq!(lines(&home, "stdin"), [""; 0]);
}

#[test]
fn what_it_says_is_on_stderr_and_stdout_stays_empty() {
    let (_wechat, home) = home_with_script("echo reloaded; echo warned >&2", "");
    let ran = home.run(&["fetch"]).exits(0);
    assert_eq!((&*ran.stdout, &*ran.stderr), ("", "reloaded\nwarned\n"));
}

// What may become of it

#[test]
fn a_failed_hook_is_status_7_and_never_a_second_fetch() {
    let (wechat, home) = home_with_script(&format!("{NOTED}; exit 3"), "");
    let said =
        ["a0: the token is published", "/hook exited with status 3", "run it yourself", "手动"];
    home.run(&["fetch"]).exits(7).says(&said);
    assert!(home.token("a0").is_some());
    home.run(&["fetch"]).exits(0).silent();
    assert_eq!((wechat.asked(), lines(&home, "runs").len()), (1, 1));
}

#[test]
fn one_accounts_failed_hook_is_no_trouble_of_the_others() {
    let wechat = wechat_of(3, &[]);
    let home = Home::of_accounts(3, &wechat.url(), "on_change = \"false\"\n");
    home.run(&["fetch"])
        .exits(7)
        .says(&["a2: the token is published", "false exited with status 1"]);
    assert!(["a0", "a1", "a2"].iter().all(|name| home.token(name).is_some()));
}

#[test]
fn a_hook_that_is_not_there_or_cannot_be_run_is_told_with_its_name() {
    for (argv, said) in [
        (r#""no-such-program""#, "no-such-program is not there"),
        (r#"["./nothing"]"#, "/nothing is not there"),
        (r#"["./hook"]"#, "/hook cannot be run: Permission denied"),
        (r#"["./lost"]"#, "/lost cannot be run: the interpreter of its first line is not there"),
        (r#"["./"]"#, "cannot be run: Permission denied"),
    ] {
        let (_wechat, home) = home_with(argv, "");
        write_with_mode(&home.path("hook"), "#!/bin/sh\n", 0o644);
        write_program(&home.path("lost"), "#!/no/such/sh\n");
        home.run(&["fetch"]).exits(7).says(&["the token is published", said]);
        assert!(home.token("a0").is_some());
    }
}

#[test]
fn a_hook_that_is_killed_is_told_with_the_signal() {
    let (_wechat, home) = home_with_script("kill -KILL $$", "");
    home.run(&["fetch"]).exits(7).says(&["/hook was killed by signal 9"]);
}

/// Neither the one who does not listen, nor those whom he left behind.
#[test]
fn a_hook_that_takes_too_long_is_killed_with_all_that_it_started() {
    let script = r#"trap '' TERM; cd "$(dirname "$0")"
        (trap '' TERM; echo begun > begun; for _ in $(seq 60); do sleep 1; done) & echo $! > child; wait"#;
    let (_wechat, home) = home_with_script(script, "on_change_timeout = \"1s\"\n");
    let begun = Instant::now();
    home.run(&["fetch"]).exits(7).says(&["/hook was killed after 1s", "on_change_timeout"]);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(lines(&home, "begun"), ["begun"]);
    let child = &lines(&home, "child")[0];
    eventually("the hook's child is gone", || !is_running(child));
}

#[test]
fn a_hook_that_listens_to_sigterm_may_put_things_in_order() {
    let script = r#"cd "$(dirname "$0")"; trap 'echo tidy > tidy; exit 0' TERM; sleep 60 & wait"#;
    let (_wechat, home) = home_with_script(script, "on_change_timeout = 1\n");
    home.run(&["fetch"]).exits(7).says(&["was killed after 1s"]);
    assert_eq!(lines(&home, "tidy"), ["tidy"]);
}

#[test]
fn a_hook_that_leaves_a_daemon_behind_is_done_when_it_ends_itself() {
    let script = r#"cd "$(dirname "$0")"; sleep 1000 </dev/null >/dev/null 2>&1 & echo $! > child"#;
    let (_wechat, home) = home_with_script(script, "");
    home.run(&["fetch"]).exits(0).silent();
    let child = &lines(&home, "child")[0];
    assert!(is_running(child), "it was left alone");
    send("TERM", child.parse().unwrap());
}

/// A daemon that keeps our stderr keeps nobody waiting either: only the hook itself is waited for.
#[test]
fn a_daemon_that_holds_what_the_hook_was_given_holds_up_nothing() {
    let (_wechat, home) =
        home_with_script(r#"cd "$(dirname "$0")"; sleep 1000 & echo $! > child"#, "");
    let mut fetch = home.command(&["fetch"]);
    fetch.stderr(fs::File::create(home.path("said")).unwrap());
    assert!(fetch.status().unwrap().success());
    let child = &lines(&home, "child")[0];
    assert!(is_running(child), "it was left alone");
    send("TERM", child.parse().unwrap());
}

/// It writes its own number in `hook.pid` and that of a child in `child`, and neither of them listens to SIGTERM.
const STUBBORN: &str = r#"trap '' TERM; cd "$(dirname "$0")"
    (trap '' TERM; for _ in $(seq 60); do sleep 1; done) & echo $! > child
    echo $$ > new && mv new hook.pid; wait"#;

/// Whether a process has ended; until its parent looks, it is there and is none.
fn is_running(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
}

/// Waits until the stubborn one has begun; its number and its child's.
fn begun(home: &Home) -> [String; 2] {
    eventually("the hook has begun", || home.path("hook.pid").exists());
    ["hook.pid", "child"].map(|name| lines(home, name)[0].clone())
}

#[test]
fn a_fetch_that_is_told_to_end_ends_its_hook_first_and_dies_of_that_signal() {
    for (name, number) in [("TERM", 15), ("INT", 2), ("HUP", 1)] {
        let (_wechat, home) = home_with_script(STUBBORN, "");
        let fetch = home.command(&["fetch"]).stderr(Stdio::piped()).spawn().unwrap();
        let pids = begun(&home);
        send(name, fetch.id());
        let said = fetch.wait_with_output().unwrap();
        assert_eq!(said.status.signal(), Some(number), "{said:?}");
        let said = String::from_utf8(said.stderr).unwrap();
        assert!(said.contains("a0: the token is published, and its hook failed"), "{said}");
        assert!(said.contains("/hook was cut short"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        eventually("nobody is left", || !pids.iter().any(|pid| is_running(pid)));
        assert!(home.token("a0").is_some());
    }
}

#[test]
fn what_fetch_was_started_to_ignore_does_not_end_it_with_its_hook() {
    let (_wechat, home) = home_with_script(
        r#"cd "$(dirname "$0")"; echo $$ > hook.pid; read _ < go; echo end > end"#,
        "",
    );
    assert!(Command::new("mkfifo").arg(home.path("go")).status().unwrap().success());
    let fetch = home.command(&["fetch"]);
    let mut nohup = Command::new("sh");
    nohup.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).arg(fetch.get_program());
    nohup.args(fetch.get_args()).env("STATE_DIRECTORY", home.path("state"));
    let mut nohup = nohup.spawn().unwrap();
    eventually("the hook has begun", || !lines(&home, "hook.pid").is_empty());
    send("HUP", nohup.id());
    fs::write(home.path("go"), "\n").unwrap();
    assert_eq!(nohup.wait().unwrap().code(), Some(0));
    assert_eq!(lines(&home, "end"), ["end"]);
}

/// Once the hooks are done, a signal is what it was before.
#[test]
fn a_fetch_whose_hook_is_done_ends_by_a_signal_as_ever() {
    let wechat = wechat_of(1, &[]);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let second = format!(
        "[account.a1]\nappid = \"wx1\"\nsecret_file = \"a0.secret\"\nbase_url = \"http://{}\"\n",
        silent.local_addr().unwrap()
    );
    let home = Home::of_accounts(1, &wechat.url(), &format!("on_change = [\"./hook\"]\n{second}"));
    put_script(&home, NOTED);
    let mut fetch = home.command(&["fetch", "-v"]);
    let mut fetch = fetch.stderr(fs::File::create(home.path("log")).unwrap()).spawn().unwrap();
    eventually("the hook is done", || home.has_logged("a0: on_change has run"));
    send("TERM", fetch.id());
    assert_eq!(fetch.wait().unwrap().signal(), Some(15));
}

#[test]
fn it_inherits_no_lock_no_socket_and_no_document() {
    let script = r#"cd "$(dirname "$0")"; ls -l /proc/self/fd > new && mv new fds"#;
    let (_wechat, home) = home_with_script(script, "");
    home.run(&["fetch"]).exits(0);
    let by_fetch = lines(&home, "fds");
    fs::remove_file(home.path("fds")).unwrap();
    fs::remove_file(home.document_path("a0")).unwrap();
    let server = home.serve(&["--refresh"]);
    assert_eq!(server.get("/token").status, 200);
    eventually("it ran", || home.path("fds").exists());
    let of_socket = |line: &&String| line.contains(" -> socket:");
    // What the tests were started with comes along.
    let before = Command::new("ls").args(["-l", "/proc/self/fd"]).output().unwrap().stdout;
    let before = String::from_utf8(before).unwrap().matches(" -> socket:").count();
    for fds in [by_fetch, lines(&home, "fds")] {
        assert!(fds.len() > 3, "{fds:#?}");
        assert!(fds.iter().filter(of_socket).count() <= before, "{fds:#?}");
        assert!(!fds.iter().any(|line| line.contains("/state/")), "{fds:#?}");
    }
}

// In serve

#[test]
fn serve_runs_it_in_the_background_for_each_token_that_it_publishes() {
    // It says that it has begun, and goes on when it may.
    let script = r#"cd "$(dirname "$0")"; echo "$WXTOKEN_FILE" >> runs
        while [ ! -e go ]; do sleep 0.02; done; echo done >> ended"#;
    let (wechat, home) = home_with_script(script, "");
    let server = home.serve(&["--refresh"]);
    eventually("the hook has begun", || lines(&home, "runs").len() == 1);
    // While it runs there are answers, and another token.
    let first = server.get("/token").json()["access_token"].as_str().unwrap().to_owned();
    wechat.kill_tokens();
    assert_eq!(server.tell_rejected(&first).status, 200);
    let second = home.token("a0").unwrap();
    assert_ne!(second, first);
    assert_eq!(lines(&home, "runs").len(), 1, "one at a time");
    fs::write(home.path("go"), "").unwrap();
    eventually("it ran for the second token, too", || lines(&home, "ended").len() == 2);
    assert_eq!(lines(&home, "runs"), vec![home.document_path("a0").display().to_string(); 2]);
    assert_eq!(wechat.mints(), 2);
    server.stop();
}

#[test]
fn a_hook_that_fails_in_serve_is_told_and_costs_nothing() {
    let (wechat, home) = home_with_script("exit 5", "");
    let server = home.serve_with_log(&["--refresh"]);
    eventually("it is told", || home.has_logged("serve: a0: the token is published, and its hook"));
    assert!(home.has_logged("/hook exited with status 5"));
    assert_eq!(server.get("/token").status, 200);
    assert_eq!(wechat.asked(), 1);
    // A monitor hears of it, and that it is over.
    let failed_at = || {
        let metrics = server.get("/metrics").body;
        let lead = "wxtoken_hook_last_failure_timestamp_seconds{account=\"a0\"} ";
        let value = metrics.lines().find_map(|line| line.strip_prefix(lead));
        value.expect("it is told").parse::<i64>().unwrap()
    };
    let now = time::UtcDateTime::now().unix_timestamp();
    eventually("a monitor hears of it", || failed_at() > 0);
    assert!((now - 30..=now + 30).contains(&failed_at()), "{}", failed_at());
    put_script(&home, "exit 0");
    wechat.kill_tokens();
    assert_eq!(server.tell_rejected(&home.token("a0").unwrap()).status, 200);
    eventually("all is well", || failed_at() == 0);
}

/// More of them than threads that ask.
#[test]
fn hooks_that_take_long_hold_up_no_refresh() {
    let wechat = wechat_of(24, &[]);
    let home = Home::of_accounts(24, &wechat.url(), "");
    let config = home.config().replace("[account.", "on_change = [\"./hook\"]\n[account.");
    home.write(&format!(
        "{}on_change = [\"./hook\"]\n",
        config.trim_start_matches("on_change = [\"./hook\"]\n")
    ));
    put_script(&home, r#"cd "$(dirname "$0")"; echo $$ >> runs; exec sleep 60"#);
    let server = home.serve(&["--refresh"]);
    eventually("as many run as may", || lines(&home, "runs").len() == 16);
    eventually("all have tokens", || server.get("/readyz").status == 200);
    assert_eq!(lines(&home, "runs").len(), 16);
    let dead = home.token("a7").unwrap();
    wechat.kill_tokens();
    let answer = server.post("/token/a7", &rejected(&dead));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_ne!(home.token("a7").unwrap(), dead);
}

#[test]
fn a_server_that_ends_leaves_no_hook_behind() {
    let (_wechat, home) = home_with_script(STUBBORN, "");
    let server = home.serve(&["--refresh"]);
    let pids = begun(&home);
    let begun = Instant::now();
    let said = server.stop();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(
        said.contains("serve: a0: the token is published") && said.contains("cut short"),
        "{said}"
    );
    assert!(!pids.iter().any(|pid| is_running(pid)), "{pids:?}");
}

#[test]
fn a_hook_that_is_nearly_done_may_end_with_the_server() {
    let script = r#"cd "$(dirname "$0")"; echo $$ > hook.pid; sleep 1; echo end > end"#;
    let (_wechat, home) = home_with_script(script, "");
    let server = home.serve(&["--refresh"]);
    eventually("the hook has begun", || !lines(&home, "hook.pid").is_empty());
    assert_eq!(server.stop(), "");
    assert_eq!(lines(&home, "end"), ["end"]);
}

#[test]
fn serve_without_refresh_runs_no_hook() {
    let (_wechat, home) = home_with_script(NOTED, "");
    home.publish("a0", "wx0", "T1", 0);
    let server = home.serve(&[]);
    assert_eq!(server.get("/token/a0").status, 200);
    home.publish("a0", "wx0", "T2", 0);
    eventually("the new one is there", || server.get("/token/a0").body.contains("T2"));
    server.stop();
    assert_eq!(lines(&home, "runs"), [""; 0]);
}

// In check

#[test]
fn check_tells_whether_it_could_be_run_and_does_not_run_it() {
    let (_wechat, home) = home_with_script(NOTED, "");
    home.run(&["fetch"]).exits(0).silent();
    let checked = |code| {
        let said = home.run(&["check"]).exits(code).stdout;
        let line = said.lines().find(|line| line.contains("  hook  ")).expect("it is told");
        line.to_owned()
    };
    let well = checked(0);
    assert!(well.starts_with("✓ a0") && well.ends_with("/hook"), "{well}");
    assert_eq!(lines(&home, "runs").len(), 1);
    // In PATH, nowhere, not to be executed, and no program at all.
    let config = home.config();
    let named = |argv: &str| home.write(&config.replace(r#"["./hook", "one", "two words"]"#, argv));
    named(r#""true""#);
    assert!(checked(0).ends_with("/true"));
    named(r#""no-such-program""#);
    assert!(checked(7).contains("on_change cannot run no-such-program: it is not in PATH"));
    named(r#""./hook""#);
    write_with_mode(&home.path("hook"), "#!/bin/sh\n", 0o644);
    let said = checked(7);
    assert!(said.contains("/hook: Permission denied") && said.contains("执行权限"), "{said}");
    named(r#""./state""#);
    assert!(checked(7).contains("/state: not a file"));
}

// In the config

#[test]
fn what_is_no_command_is_told_with_its_line_and_without_its_words() {
    for (keys, said) in [
        ("on_change = []", "account.a0.on_change: is empty"),
        ("on_change = [\"\"]", "expected a program as the first word"),
        ("on_change = \"systemctl reload app\"", "is no line for a shell; write ["),
        ("on_change = [\"curl\", 7]", "entry 2: expected a string"),
        (
            "on_change = [\"curl\", \"0123456789abcdef0123456789abcdef\"]",
            "entry 2: this has the form of",
        ),
        ("on_change = { run = \"x\" }", "expected a string"),
        ("on_change = \"true\"\non_change_timeout = 0", "expected more than no time at all"),
        ("on_change = \"true\"\non_change_timeout = \"soon\"", "account.a0.on_change_timeout"),
        ("on_change_timeout = \"3s\"", "goes with on_change"),
        ("on_chnage = \"true\"", "is it on_change?"),
    ] {
        let home = Home::of_accounts(1, "http://127.0.0.1:9", &format!("{keys}\n"));
        let ran = home.run(&["fetch"]).exits(2).says(&["account.a0.", said]);
        assert!(!ran.stderr.contains("0123456789abcdef0123456789abcdef"));
    }
}

#[test]
fn a_hook_that_is_named_with_a_slash_is_looked_for_beside_the_config() {
    let (_wechat, home) = home_with(r#"["bin/reload"]"#, "");
    fs::create_dir(home.path("bin")).unwrap();
    let script = "#!/bin/sh\ntouch \"$(dirname \"$0\")/ran\"\n";
    write_program(&home.path("bin/reload"), script);
    home.run(&["fetch"]).exits(0).silent();
    assert!(home.path("bin/ran").exists());
}
