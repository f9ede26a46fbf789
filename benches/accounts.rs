//! A thousand accounts in one config: what a run of `wxtoken fetch` costs in which nothing is due, how near one in which
//! all are due comes to what WeChat's own slowness allows, and what a request to `wxtoken serve` costs.
//!
//! WeChat is `wxtoken mock`, which takes a second for each answer; without TLS, which is the same for one account and
//! for a thousand.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use support::http::listening;
use support::{Server, Spread, cpu, milliseconds};

const MANY: usize = 1000;

/// How many are asked for at once; src/commands/parallel.rs says so.
const AT_ONCE: usize = 64;

/// How long the stand-in takes for each answer, in whole seconds.
const SLOWNESS: u64 = 1;

const ROUNDS: usize = 15;

/// How long a server is asked in a round.
const ASKED_FOR: Duration = Duration::from_secs(2);

/// Requests that are sent together.
const PACK: usize = 50;

const STATUS: &[u8] = b"HTTP/1.1 200 OK\r\n";

fn main() {
    support::only_under_cargo_bench();
    nothing_is_due();
    all_are_due();
    asked();
}

fn nothing_is_due() {
    let homes =
        [Home::of(MANY, "https://api.weixin.qq.com"), Home::of(1, "https://api.weixin.qq.com")];
    homes.iter().for_each(Home::publish);
    let (mut times, mut checked): ([Spread; 2], [Spread; 2]) = Default::default();
    for _ in 0..ROUNDS {
        for (nth, home) in homes.iter().enumerate() {
            times[nth].add(milliseconds(&mut home.command("fetch")));
            checked[nth].add(milliseconds(&mut home.command("status")));
        }
    }
    support::head(&format!("a run in which nothing is due, {ROUNDS} rounds, taking turns"));
    support::row(&format!("fetch of {MANY} accounts, ms"), &times[0], "target: at most 50");
    support::row("fetch of 1 account, ms", &times[1], "");
    support::row(&format!("status of {MANY} accounts, ms"), &checked[0], "");
    support::row("status of 1 account, ms", &checked[1], "");
}

fn all_are_due() {
    let mut mock = support::wxtoken();
    mock.args(["mock", "--fault", &format!("slow:{SLOWNESS}")]);
    for n in 0..MANY {
        mock.args(["--account", &format!("{}:{}", appid(n), secret(n))]);
    }
    let (_mock, at) = listening(mock);
    let mut ratio = Spread::default();
    let mut secs = Spread::default();
    let ideal = MANY.div_ceil(AT_ONCE) as f64 * SLOWNESS as f64;
    for _ in 0..3 {
        let home = Home::of(MANY, &format!("http://{at}"));
        let mut fetch = home.command("fetch");
        fetch.args(["--timeout", "5m"]);
        let spent = milliseconds(&mut fetch) / 1000.0;
        ratio.add(spent / ideal);
        secs.add(spent);
    }
    support::head(&format!(
        "a run in which all are due, {AT_ONCE} at once, {SLOWNESS} s for each answer; 3 runs"
    ));
    support::row(&format!("fetch of {MANY} accounts, s"), &secs, "");
    support::row("wxtoken : WeChat's answers alone", &ratio, "target: at most 1.1");
}

fn asked() {
    let homes =
        [Home::of(MANY, "https://api.weixin.qq.com"), Home::of(1, "https://api.weixin.qq.com")];
    homes.iter().for_each(Home::publish);
    let servers = homes.each_ref().map(|home| {
        let mut serve = home.command("serve");
        serve.args(["--listen", "127.0.0.1:0"]);
        listening(serve)
    });
    support::head(&format!(
        "CPU per request, {MANY} accounts and 1, taking turns; 5 rounds of {ASKED_FOR:?}"
    ));
    let by_name = |n: usize| format!("/token/{}", name(n));
    let by_appid = |n: usize| {
        format!("/cgi-bin/token?grant_type=client_credential&appid={}&secret=x", appid(n))
    };
    let ways: [(&str, &dyn Fn(usize) -> String); 2] =
        [("GET /token/ACCOUNT", &by_name), ("GET /cgi-bin/token", &by_appid)];
    for (what, path) in ways {
        let mut ratios: [Spread; 2] = Default::default();
        let mut each: [Spread; 3] = Default::default();
        for _ in 0..5 {
            // An SDK's route says now and then that it is asked too often, about one account as about a thousand.
            let round = [(0, 1), (0, MANY), (1, 1)].map(|(nth, accounts)| {
                let (server, at) = &servers[nth];
                microseconds(server, *at, accounts, path)
            });
            ratios[0].add(round[0] / round[2]);
            ratios[1].add(round[1] / round[2]);
            each.iter_mut().zip(round).for_each(|(each, it)| each.add(it));
        }
        let target = "target: at most 1.1";
        support::row(&format!("{what}, one of {MANY} : of 1"), &ratios[0], target);
        support::row(&format!("{what}, all {MANY} in turn : of 1"), &ratios[1], target);
        support::row(&format!("{what}, one of {MANY}, us"), &each[0], "");
        support::row(&format!("{what}, all {MANY} in turn, us"), &each[1], "");
        support::row(&format!("{what}, of 1, us"), &each[2], "");
    }
}

fn name(n: usize) -> String {
    format!("account-{n:04}")
}

fn appid(n: usize) -> String {
    format!("wx{n:016x}")
}

fn secret(n: usize) -> String {
    format!("{n:032x}")
}

/// A directory with a config of so many accounts in it, and their secrets.
struct Home {
    dir: tempfile::TempDir,
    accounts: usize,
}

impl Home {
    fn of(accounts: usize, base_url: &str) -> Home {
        let dir = tempfile::tempdir().expect("a directory");
        let mut config = "dir = \"state\"\n".to_owned();
        for n in 0..accounts {
            let (name, appid) = (name(n), appid(n));
            config += &format!(
                "\n[account.{name}]\nappid = \"{appid}\"\nsecret_file = \"{name}.secret\"\nbase_url = \"{base_url}\"\n"
            );
            let mut file = fs::OpenOptions::new();
            let file = file.write(true).create_new(true).mode(0o600);
            let file = file.open(dir.path().join(format!("{name}.secret")));
            file.expect("a file").write_all(secret(n).as_bytes()).expect("a secret");
        }
        let path = dir.path().join("wxtoken.toml");
        fs::write(&path, config).expect("a config");
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("a mode");
        Home { dir, accounts }
    }

    /// Publishes what is due two hours later.
    fn publish(&self) {
        let state = self.dir.path().join("state");
        fs::create_dir(&state).expect("a directory");
        for n in 0..self.accounts {
            let path = state.join(format!("{}.json", name(n)));
            support::publish(&path, 7200);
            let document = fs::read_to_string(&path).expect("a document");
            fs::write(&path, document.replace("wx0123456789abcdef", &appid(n)))
                .expect("a document");
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("a mode");
        }
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = support::wxtoken();
        command.arg(verb).arg("--config").arg(self.config());
        command
    }

    fn config(&self) -> PathBuf {
        Path::new(self.dir.path()).join("wxtoken.toml")
    }
}

/// The server's CPU time for a request, of those that are made of it for a while over one connection, about one account
/// after the other. They come in packs, so that nobody's waking up is counted.
fn microseconds(
    server: &Server,
    at: SocketAddr,
    accounts: usize,
    path: &dyn Fn(usize) -> String,
) -> f64 {
    let request = |n| format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", path(n % accounts));
    let packs: Vec<String> =
        (0..MANY).step_by(PACK).map(|at| (at..at + PACK).map(request).collect()).collect();
    let mut stream = TcpStream::connect(at).expect("it listens");
    stream.set_nodelay(true).expect("an option");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let mut buffer = vec![0; 64 * 1024];
    let mut ask = |pack: &String| {
        stream.write_all(pack.as_bytes()).expect("it reads");
        let mut answers = Vec::new();
        while answers.windows(STATUS.len()).filter(|window| *window == STATUS).count() < PACK
            || !answers.ends_with(b"}")
        {
            let length = stream.read(&mut buffer).expect("it answers");
            assert!(length > 0, "it hung up");
            answers.extend_from_slice(&buffer[..length]);
        }
    };
    packs.iter().for_each(&mut ask); // Warm.
    let (begun, before, mut asked) = (Instant::now(), cpu(server.pid()), 0);
    for pack in packs.iter().cycle() {
        ask(pack);
        asked += PACK;
        if begun.elapsed() >= ASKED_FOR {
            break;
        }
    }
    (cpu(server.pid()) - before) * 1e6 / asked as f64
}
