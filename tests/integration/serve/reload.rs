//! Reloads: what one keeps, and that requests are answered while one reads.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::home::{Home, appsecret, wechat_with_accounts};
use crate::support::*;

/// `O_NONBLOCK` on Linux.
const NONBLOCKING: i32 = 0o4000;

/// The server forces no two tokens within this time.
const FORCED_INTERVAL: Duration = Duration::from_secs(30);

/// How often WeChat was asked for a token of account `a0` with success, as the server counts it.
fn counted_attempts(server: &Server) -> u64 {
    let metrics = server.get("/metrics").body;
    let attempts = r#"wxtoken_fetch_attempts_total{account="a0",result="ok",errcode="0"} "#;
    let line = metrics.lines().find_map(|line| line.strip_prefix(attempts));
    line.map_or(0, |count| count.parse().unwrap())
}

#[test]
fn a_reload_of_a_ticket_or_a_hook_resets_no_ration_of_forced_mints() {
    let wechat = wechat_with_accounts(1, &[]);
    // On classic each call that replaces a token counts as forced.
    let home = Home::with_accounts(1, &wechat.url(), "api = \"classic\"\n");
    let server = home.serve(&["--refresh"]);
    eventually("there is a token", || server.get("/token").status == 200);

    // A client reports the token as rejected, and a new one is forced.
    let rejected_token = home.token("a0").unwrap();
    wechat.kill_tokens();
    let forced_at = Instant::now();
    assert_eq!(server.report_rejected(&rejected_token).status, 200);
    let forced_token = home.token("a0").unwrap();
    assert_ne!(forced_token, rejected_token);
    let attempts = counted_attempts(&server);
    assert!(attempts >= 2, "{attempts}");

    let config = home.config();
    home.write(&format!("{config}tickets = [\"jsapi\"]\n"));
    eventually("the ticket is served", || server.get("/ticket/jsapi").status == 200);
    assert!(counted_attempts(&server) >= attempts, "the scheduler is a new one");

    // The lines move, and a hook is added.
    let hook = home.path("hook");
    write_program(&hook, "#!/bin/sh\n");
    home.write(&format!("# A comment.\n{config}tickets = [\"jsapi\"]\non_change = [\"./hook\"]\n"));
    let hook_metric = "wxtoken_hook_last_failure_timestamp_seconds";
    eventually("there is a hook", || server.get("/metrics").body.contains(hook_metric));
    assert!(counted_attempts(&server) >= attempts, "the scheduler is a new one");

    // The next one is not forced so soon.
    wechat.kill_tokens();
    let mints = wechat.mints();
    let answer = server.report_rejected(&forced_token);
    if forced_at.elapsed() < FORCED_INTERVAL {
        assert_eq!((answer.status, wechat.mints()), (503, mints), "{}", answer.body);
        assert!(answer.body.contains("once in 30 seconds"), "{}", answer.body);
    }
}

fn make_pipe(path: &Path) {
    let made = Command::new("mkfifo").args(["-m", "600"]).arg(path).status();
    assert!(made.expect("mkfifo runs").success());
}

/// Opens a pipe for writing if another process is opening it for reading.
fn open_if_awaited(path: &Path) -> Option<File> {
    OpenOptions::new().write(true).custom_flags(NONBLOCKING).open(path).ok()
}

#[test]
fn requests_are_answered_while_a_reload_waits_for_a_secret() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let (config, pipe) = (sandbox.path("wxtoken.toml"), sandbox.path("pipe"));
    let secret = fs::read(sandbox.path("secret")).unwrap();
    make_pipe(&pipe);
    write_with_mode(&config, "refresh_before = '5m'\n", 0o644);
    let mut command = sandbox.command(&["serve", "-v", "--refresh", "--listen", "127.0.0.1:0"]);
    command.args(["--base-url", &wechat.url()]);
    command.arg("--config").arg(&config).arg("--secret-file").arg(&pipe);
    let server = std::thread::scope(|scope| {
        let writer = scope.spawn(|| fs::write(&pipe, &secret).unwrap());
        let server = Server::start(command, 1);
        writer.join().unwrap();
        server
    });
    eventually("there is a token", || server.get("/token").status == 200);

    // The account is another one now, so its secret is read again, and the pipe has no writer yet.
    write_with_mode(&config, "refresh_before = '6m'\n", 0o644);
    server.signal("HUP");
    let mut writer = None;
    eventually("the secret is awaited", || {
        writer = writer.take().or_else(|| open_if_awaited(&pipe));
        writer.is_some()
    });
    for path in ["/healthz", "/readyz", "/token", "/metrics"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    let mut writer = writer.unwrap();
    writer.write_all(&secret).unwrap();
    drop(writer);
    eventually("the new account is served", || {
        !server.get("/metrics").body.contains("wxtoken_fetch_attempts_total")
    });
    let stderr = server.stop();
    assert!(stderr.contains("read accounts and access rules again"), "{stderr}");
}

/// The secret of `a0` is on a mount that hangs: strace delays each look at it by a minute.
#[needs(strace)]
#[test]
fn a_secret_on_a_mount_that_hangs_holds_up_no_other_account() {
    let wechat = wechat_with_accounts(2, &[]);
    let home = Home::with_accounts(2, &wechat.url(), "");
    home.put_secret("a1", &appsecret(7));
    let hangs = home.path("a0.secret");
    let strace = ["strace", "-D", "-f", "-qq", "-o", "/dev/null"];
    let calls = "statx,fstat,newfstatat";
    let inject = format!("inject={calls}:delay_enter=60000000");
    let delay = ["-P", hangs.to_str().unwrap(), "-e", &format!("trace={calls}"), "-e", &inject];
    let serve = home.command(&["serve", "--refresh", "--listen", "127.0.0.1:0"]);
    let server = wrapped(&[&strace[..], &delay].concat(), &serve);
    let server = Server::start_with_log(&server, &home.path("log"));
    assert!(home.has_logged("See whether the disk answers that they are on: a0: "));
    assert_eq!(server.get("/token/a1").status, 503, "its secret is wrong");
    home.put_secret("a1", &appsecret(1));
    server.signal("HUP");
    eventually("the right secret brings a token", || server.get("/token/a1").status == 200);
    // A further SIGHUP does not wait for what the one before has begun.
    let asked = wechat.asked();
    home.put_secret("a1", &appsecret(8));
    server.signal("HUP");
    eventually("the next secret is used", || wechat.asked() > asked);
    // It would keep the server from ending for that minute.
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:\t")).unwrap();
    assert!(Command::new("kill").args(["-KILL", tracer]).status().unwrap().success());
}
