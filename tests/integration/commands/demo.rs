//! `wxtoken demo`: its output, its servers with --keep, and that nothing is left behind.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::*;

/// Returns a command for the demo with `dir` as its temporary directory.
fn demo(dir: &std::path::Path, args: &[&str]) -> Command {
    let mut command = wxtoken();
    command.arg("demo").args(args).env("TMPDIR", dir);
    command
}

fn is_empty(dir: &std::path::Path) -> bool {
    std::fs::read_dir(dir).unwrap().next().is_none()
}

#[test]
fn the_demo_shows_each_step_and_cleans_up() {
    let dir = tempfile::tempdir().unwrap();
    let ran = Run::new(demo(dir.path(), &[])).exits(0);
    assert_eq!(ran.stderr, "");
    for part in [
        "$ wxtoken fetch",
        "\"access_token\":\"",
        "$ wxtoken get",
        "WeChat was asked once in all",
        "--allow 127.0.0.1 &",
        "$ curl -s http://127.0.0.1:",
        "  {\"errcode\":40164,",
        "\"error\":\"forbidden\"",
        "} 403\n",
        "WeChat refused (40164)",
        "白名单",
        "default  live",
    ] {
        assert!(ran.stdout.contains(part), "{part:?} is not in:\n{}", ran.stdout);
    }
    assert!(is_empty(dir.path()), "nothing is left");
    // The stand-in's secret is in the command that writes it to a file, and nowhere else.
    assert_eq!(ran.stdout.matches("0123456789abcdef0123456789abcdef").count(), 1, "{}", ran.stdout);
}

#[test]
fn the_full_demo_shows_each_step_and_cleans_up() {
    let dir = tempfile::tempdir().unwrap();
    let ran = Run::new(demo(dir.path(), &["--full"])).exits(0);
    assert_eq!(ran.stderr, "");
    let mut rest = &*ran.stdout;
    for part in [
        "appid = \"wx0123456789abcdef\"",
        "appid = \"wxfedcba9876543210\"",
        "appid = \"ww0123456789abcdef\"",
        "$ wxtoken fetch -c central.toml",
        "WeChat refused (40125)",
        "$ wxtoken check -q -c central.toml mini",
        "✗ mini  credentials",
        "$ wxtoken status -c central.toml",
        "crm/agent_config  live",
        "shop/wx_card      live",
        "WeChat gave 3 tokens and 4 tickets in all",
        "/ticket/shop/wx_card\n  {\"ticket\":\"",
        "/cgi-bin/gettoken\n  {\"errcode\":0,",
        "from = \"http://127.0.0.1:",
        "$ wxtoken serve --refresh -c mirror.toml",
        "/token/shop\n  {\"access_token\":\"",
        "| curl -s -d @- ",
        "WeChat made one token for it",
        "another program refreshed the token",
        "shop: here the app would be reloaded",
        "$ kill -9 %?central",
        "/token/shop\n  {\"access_token\":\"",
        "That is all.",
    ] {
        let (_, after) = rest
            .split_once(part)
            .unwrap_or_else(|| panic!("{part:?} is not in, or not in its place:\n{}", ran.stdout));
        rest = after;
    }
    // Tokens are shortened, and no secret is shown.
    for secret in ["5409", "3141", "2718"].map(|end| format!("{end:0>32}")) {
        assert!(!ran.stdout.contains(&secret), "{}", ran.stdout);
    }
    let longest = ran.stdout.split(|c: char| !c.is_ascii_alphanumeric()).map(str::len).max();
    assert!(longest.unwrap() < 32, "{}", ran.stdout);
    let ports: std::collections::BTreeSet<_> = ran
        .stdout
        .split("http://127.0.0.1:")
        .skip(1)
        .map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next().unwrap())
        .collect();
    assert_eq!(ports.len(), 3, "the stand-in, the central server and the mirror");
    assert!(is_empty(dir.path()), "nothing is left");
}

/// Returns the commands of the demo, as they are shown: some have further lines.
fn commands(shown: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    let mut is_open = false;
    for line in shown.lines() {
        let command = line.strip_prefix("$ ");
        match commands.last_mut() {
            Some(last) if is_open => *last += &format!("\n{line}"),
            _ => commands.extend(command.map(str::to_owned)),
        }
        let is_here_document = command.is_some_and(|it| it.ends_with("<<'END'"));
        let is_in_document = is_open && commands.last().is_some_and(|it| it.contains("<<'END'"));
        is_open = match is_in_document {
            true => line != "END",
            false => is_here_document || ((is_open || command.is_some()) && line.ends_with('\\')),
        };
    }
    commands
}

/// Types the commands that a demo has shown into bash, in an empty directory. `status` is the exit status that one of them
/// has to have.
fn type_again(shown: &str, host: &str, status: impl Fn(&str) -> u8) -> Run {
    let dir = tempfile::tempdir().unwrap();
    let mut script = String::from("set -e\nkill_all() { kill $(jobs -p); }\ntrap kill_all EXIT\n");
    for command in commands(shown) {
        // An address that no other test listens at. A token that is being fetched is asked for again.
        let command = command.replace("127.0.0.1:", host).replace("curl -s", "curl --retry 30 -s");
        // The hook runs beside the server, which answers before.
        if command == "cat central.log" {
            script += "until grep -q reloaded central.log; do sleep 0.1; done\n";
        }
        let expected = match status(&command) {
            0 => String::new(),
            status => format!(" || test $? = {status}"),
        };
        script += &format!("{command}{expected}\n");
        if command.ends_with('&') {
            let address = command.split("--listen ").nth(1).unwrap().split(' ').next().unwrap();
            script += &format!("until curl -s http://{address}/ >ignored; do sleep 0.1; done\n");
        }
    }
    let program_dir = std::path::Path::new(env!("CARGO_BIN_EXE_wxtoken")).parent().unwrap();
    let path = format!("{}:{}", program_dir.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("bash");
    command.args(["-c", &script]).current_dir(dir.path()).env_clear().env("PATH", path);
    Run::new(command).exits(0)
}

#[needs(curl)]
#[test]
fn each_command_of_the_demo_can_be_typed_again() {
    let dir = tempfile::tempdir().unwrap();
    let shown = Run::new(demo(dir.path(), &[])).exits(0).stdout;
    let refused = |command: &str| if command.contains("--force") { 4 } else { 0 };
    let ran = type_again(&shown, "127.83.6.1:", refused);
    for part in ["\"access_token\":\"", "\"errcode\":40164,", " 403", "default  live"] {
        assert!(ran.stdout.contains(part), "{part:?} is not in:\n{}", ran.stdout);
    }
    assert!(ran.stderr.contains("WeChat refused (40164)"), "{}", ran.stderr);
}

#[needs(curl)]
#[test]
fn each_command_of_the_full_demo_can_be_typed_again() {
    let dir = tempfile::tempdir().unwrap();
    let shown = Run::new(demo(dir.path(), &["--full"])).exits(0).stdout;
    let fetches = std::cell::Cell::new(0);
    let refused = |command: &str| match command {
        "wxtoken fetch -c central.toml" => {
            fetches.set(fetches.get() + 1);
            if fetches.get() == 1 { 4 } else { 0 }
        }
        command if command.starts_with("wxtoken check") => 4,
        _ => 0,
    };
    let ran = type_again(&shown, "127.83.6.2:", refused);
    for part in [
        "✗ mini  credentials",
        "crm/agent_config  live",
        "\"ticket\":\"",
        "\"errcode\":0,",
        "another program refreshed the token",
        "shop: here the app would be reloaded",
    ] {
        assert!(ran.stdout.contains(part), "{part:?} is not in:\n{}", ran.stdout);
    }
}

#[needs(script)]
#[test]
fn on_a_terminal_the_demo_is_coloured_and_fits_it_in_the_language_of_the_reader() {
    let dir = tempfile::tempdir().unwrap();
    for (language, step) in [("en", "3. fetch, every minute"), ("zh", "3. fetch（由 cron")] {
        let mut command = demo(dir.path(), &[]);
        command.env("WXTOKEN_LANG", language);
        let shown = Run::new(on_terminal(&command)).exits(0).stdout;
        assert!(shown.lines().all(|line| columns(line) <= 80), "{shown}");
        assert!(shown.contains(step) && shown.contains("\x1b[32m$ wxtoken fetch"), "{shown}");
        // What has another form on a terminal is shown in that one.
        let heading =
            if language == "en" { "\nACCOUNT  STATE  LEFT" } else { "\n账号     状态  剩余" };
        assert!(shown.replace('\r', "").contains(heading), "{shown}");
        let other = if language == "en" { "微信拒绝时" } else { "WeChat refuses:" };
        assert!(!shown.contains(other), "{shown}");
    }
    let mut plain = demo(dir.path(), &[]);
    plain.env("NO_COLOR", "1");
    assert!(!Run::new(on_terminal(&plain)).exits(0).stdout.contains("\x1b["));
}

#[needs(script)]
#[test]
fn on_a_terminal_the_full_demo_waits_for_the_reader_before_each_further_step() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = on_terminal(&demo(dir.path(), &["--full"]));
    command.env("WXTOKEN_LANG", "en").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut shown = String::new();
    for step in 1..7 {
        while shown.matches("Press Enter to go on").count() < step {
            let mut some = [0; 4096];
            let count = stdout.read(&mut some).unwrap();
            assert!(count > 0, "it has ended at step {step}: {shown}");
            shown.push_str(&String::from_utf8_lossy(&some[..count]));
        }
        assert!(!shown.contains(&format!("{step}. ")), "the next step waits: {shown}");
        std::io::Write::write_all(&mut stdin, b"\n").unwrap();
    }
    stdout.read_to_string(&mut shown).unwrap();
    assert!(child.wait().unwrap().success(), "{shown}");
    assert!(shown.contains("That is all."), "{shown}");
    // A command that check says to run is not broken, so that it can be pasted.
    let fits = |line: &str| columns(line) <= 80 || line.contains("wxtoken fetch --force --config");
    assert!(shown.lines().all(fits), "{shown}");
}

#[test]
fn the_demo_ignores_wxtokens_environment_variables() {
    for args in [&[][..], &["--full"]] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = demo(dir.path(), args);
        command
            .env("WXTOKEN_DIR", "/nonexistent")
            .env("WXTOKEN_API", "nonsense")
            .env("WXTOKEN_QUIET", "true");
        command
            .env("HTTPS_PROXY", "http://127.0.0.1:1")
            .env("HTTP_PROXY", "http://127.0.0.1:1")
            .env("WXTOKEN_LISTEN", "nonsense")
            .env("STATE_DIRECTORY", "/x");
        Run::new(command).exits(0);
    }
}

#[test]
fn the_demo_runs_with_a_relative_tmpdir() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("tmp")).unwrap();
    for args in [&[][..], &["--full"]] {
        let mut command = demo(std::path::Path::new("tmp"), args);
        command.current_dir(dir.path());
        Run::new(command).exits(0);
        assert!(is_empty(&dir.path().join("tmp")));
    }
}

#[test]
fn a_full_demo_with_keep_serves_until_a_signal() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = demo(dir.path(), &["--full", "--keep"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let addresses: Vec<std::net::SocketAddr> = loop {
        let mut line = String::new();
        assert!(lines.read_line(&mut line).unwrap() > 0, "the demo has ended");
        if line.starts_with("Going on until Ctrl-C") {
            let after = line.split("http://").skip(1);
            break after
                .map(|it| it.trim_end().split(',').next().unwrap().parse().unwrap())
                .collect();
        }
    };
    let [central, mirror, wechat] = addresses[..] else { panic!("{addresses:?}") };
    let request = b"GET /token/shop HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let [from_central, from_mirror] = [central, mirror].map(|address| exchange(address, request));
    assert_eq!((from_central.status, from_mirror.status), (200, 200));
    assert_eq!(from_central.json()["access_token"], from_mirror.json()["access_token"]);
    // The secrets are not in the arguments of its processes.
    let secret = format!("{:0>32}", "5409");
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
        let [status, cmdline] = ["status", "cmdline"].map(|name| String::from_utf8(read(name)));
        if status.unwrap_or_default().contains(&format!("\nPPid:\t{}\n", child.id())) {
            assert!(!cmdline.unwrap_or_default().contains(&secret));
        }
    }
    Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(is_empty(dir.path()), "nothing is left");
    for address in [central, mirror, wechat] {
        assert!(std::net::TcpStream::connect(address).is_err(), "nothing listens");
    }
}

#[test]
fn a_demo_with_keep_serves_until_a_signal() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = demo(dir.path(), &["--keep"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let address = loop {
        let mut line = String::new();
        assert!(lines.read_line(&mut line).unwrap() > 0, "the demo has ended");
        if let Some(rest) = line.strip_prefix("Going on until Ctrl-C: wxtoken at http://") {
            break rest.split('/').next().unwrap().parse().unwrap();
        }
    };
    let request = b"GET /token HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(exchange(address, request).status, 200);

    // The secret is neither in the environment nor in the arguments of its processes.
    let mut children = 0;
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let read = |name: &str| {
            String::from_utf8_lossy(&std::fs::read(entry.path().join(name)).unwrap_or_default())
                .into_owned()
        };
        if read("status").contains(&format!("\nPPid:\t{}\n", child.id())) {
            children += 1;
            for place in ["environ", "cmdline"] {
                assert!(
                    !read(place).contains("0123456789abcdef0123456789abcdef"),
                    "{place}: {}",
                    read(place)
                );
            }
        }
    }
    assert_eq!(children, 2, "the stand-in and serve");

    Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert!(is_empty(dir.path()), "nothing is left");
    assert!(std::net::TcpStream::connect(address).is_err(), "nothing listens");
}

#[test]
fn the_demo_succeeds_although_stdout_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = demo(dir.path(), &[]).stdout(writer).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(is_empty(dir.path()));
}

#[test]
fn a_demo_interrupted_at_any_time_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    for (args, moments) in [(&[][..], 0..20), (&["--full"], 0..30)] {
        for moment in moments {
            let mut child =
                demo(dir.path(), args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(4 * moment));
            // From `kill`, Ctrl-C and a closed terminal.
            let signal = ["-TERM", "-INT", "-HUP"][moment as usize % 3];
            Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
            child.wait().unwrap();
            let left: Vec<_> = std::fs::read_dir(dir.path())
                .unwrap()
                .flatten()
                .map(|entry| entry.path())
                .collect();
            assert!(left.is_empty(), "{args:?} after {moment} * 4 ms: {left:?}");
        }
    }
    // A step in progress can take a moment to end; a server would never end.
    let remaining_process = || {
        std::fs::read_dir("/proc").unwrap().flatten().find(|entry| {
            let cwd = std::fs::read_link(entry.path().join("cwd"));
            cwd.is_ok_and(|cwd| cwd.starts_with(dir.path()))
        })
    };
    eventually("every process has ended", || remaining_process().is_none());
}
