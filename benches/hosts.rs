//! Many hosts on one Redis through a hard life, compressed: a classic account whose tokens live six seconds instead of
//! two hours; four hosts with `serve --refresh` and fifty `fetch`es, which are killed and paused at random; holders of
//! the lock who are killed, or paused for longer than it lasts; a Redis that hangs, and a primary that is lost, so that
//! sentinels have to find the next.
//!
//! What it finds out: how many tokens are made against how many were needed; whether any reader ever sees an older token
//! after a newer one; and whether a token is ever dead while it is promised to live. It fails when a need is not met.

mod support;

use std::collections::HashMap;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use support::http::{Chance, ask, listening, read_request};
use support::{Server, Spread};

const APPID: &str = "wx0123456789abcdef";
const SECRET: &str = "5ec2e75ec2e75ec2e75ec2e75ec2e75e";

const ROTATIONS: usize = 200;
const HOSTS: usize = 4;
const FETCHES: u64 = 50;

/// A token's life, how long a replaced one is still honoured, and how long before its end it is replaced.
const LIFE: u64 = 6;
const OVERLAP: u64 = 5;
const REFRESH_BEFORE: u64 = 3;

/// Longer than the lock holds by itself.
const LONG_PAUSE: Duration = Duration::from_secs(38);

/// When nothing changes any more the world has stopped.
const LONGEST_LULL: Duration = Duration::from_secs(120);

fn main() {
    support::only_under_cargo_bench();
    let Some(redis_server) = support::peer("redis-server") else { return };
    let world = World::new(&redis_server);
    world.live();
    world.tell();
}

/// A process that is killed when this ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid as i32) {
        let _ = kill_process(pid, signal); // It may be gone.
    }
}

fn free_port() -> u16 {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
    free.expect("a free port").port()
}

struct World {
    dir: tempfile::TempDir,
    redis_server: PathBuf,
    /// Those of the two Redis; which one is the primary changes.
    ports: [u16; 2],
    redis: Mutex<[Option<Killed>; 2]>,
    sentinel_at: u16,
    _sentinel: Killed,
    wechat_at: SocketAddr,
    _wechat: Server,
    gateway_at: SocketAddr,
    gateway: Arc<Gateway>,
    servers_at: [SocketAddr; HOSTS],
    is_over: AtomicBool,
    seen: Mutex<Seen>,
    kills: AtomicU64,
    pauses: AtomicU64,
    failovers: AtomicU64,
    /// Holders of the lock who were killed, or paused for longer than it lasts.
    struck: AtomicU64,
}

/// What readers saw.
#[derive(Default)]
struct Seen {
    reads: u64,
    /// Tokens that somebody was given, by their numbers.
    given: HashMap<usize, ()>,
    backwards: Vec<String>,
    dead: Vec<String>,
    probed: u64,
    without: Spread,
    lag: Spread,
}

impl World {
    fn new(redis_server: &Path) -> World {
        let dir = tempfile::tempdir().expect("a directory");
        let mut mock = support::wxtoken();
        mock.args(["mock", "-q", "--listen", "127.0.0.1:0", "--account"]);
        mock.arg(format!("{APPID}:{SECRET}")).args(["--life", &LIFE.to_string()]);
        mock.args(["--overlap", &OVERLAP.to_string()]);
        let (wechat, wechat_at) = listening(mock);
        let (gateway, gateway_at) = Gateway::before(wechat_at);
        let ports = [(); 2].map(|()| free_port());
        let redis = [0, 1].map(|nth| {
            let of = (nth == 1).then_some(ports[0]);
            Some(start_redis(redis_server, dir.path(), ports[nth], of))
        });
        let sentinel_at = free_port();
        let config = dir.path().join("sentinel.conf");
        let text = format!(
            "port {sentinel_at}\nbind 127.0.0.1\ndir {}\nsentinel monitor main 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds main 1500\nsentinel failover-timeout main 5000\n",
            dir.path().display(),
            ports[0]
        );
        fs::write(&config, text).expect("a config");
        let mut command = Command::new(redis_server);
        command.arg(&config).arg("--sentinel").stdout(Stdio::null()).stderr(Stdio::null());
        let sentinel = Killed(command.spawn().expect("a sentinel"));
        let world = World {
            redis_server: redis_server.to_owned(),
            ports,
            redis: Mutex::new(redis),
            sentinel_at,
            _sentinel: sentinel,
            wechat_at,
            _wechat: wechat,
            gateway_at,
            gateway,
            servers_at: [(); HOSTS].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port()))),
            is_over: AtomicBool::new(false),
            seen: Mutex::default(),
            kills: AtomicU64::default(),
            pauses: AtomicU64::default(),
            failovers: AtomicU64::default(),
            struck: AtomicU64::default(),
            dir,
        };
        (0..HOSTS).for_each(|host| world.make_host(host));
        // The sentinel has to know the replica before the primary is lost.
        sleep(Duration::from_secs(12));
        world
    }

    fn make_host(&self, host: usize) {
        let dir = self.host(host);
        fs::create_dir(&dir).expect("a directory");
        let config = format!(
            "store = \"redis+sentinel://127.0.0.1:{}/main\"\nrefresh_before = {REFRESH_BEFORE}\n\
             [account.shop]\nappid = \"{APPID}\"\nsecret_file = \"secret\"\napi = \"classic\"\n\
             base_url = \"http://{}\"\n",
            self.sentinel_at, self.gateway_at
        );
        fs::write(dir.join("wxtoken.toml"), config).expect("a config");
        fs::write(dir.join("secret"), SECRET).expect("a secret");
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(dir.join("secret"), private).expect("a mode");
    }

    fn host(&self, host: usize) -> PathBuf {
        self.dir.path().join(format!("host{host}"))
    }

    fn command(&self, host: usize, args: &[&str]) -> Command {
        let mut command = support::wxtoken();
        command.args(args).arg("--dir").arg(self.host(host).join("state"));
        command.arg("--config").arg(self.host(host).join("wxtoken.toml"));
        command
    }

    fn serve(&self, host: usize) -> Killed {
        let at = self.servers_at[host].to_string();
        let mut command = self.command(host, &["serve", "-q", "--refresh", "--listen", &at]);
        command.stdout(Stdio::null());
        Killed(command.spawn().expect("a server"))
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn live(&self) {
        thread::scope(|scope| {
            for fetch in 0..FETCHES {
                scope.spawn(move || self.fetch(Chance(fetch)));
            }
            for host in 0..HOSTS {
                scope.spawn(move || self.read(host, &|| self.ask(host)));
                scope.spawn(move || self.keep_serving(host, Chance(1000 + host as u64)));
            }
            scope.spawn(|| self.read(0, &|| self.get(0)));
            scope.spawn(|| self.trouble());
            let mut last = (0, Instant::now());
            while self.gateway.minted() < ROTATIONS {
                sleep(Duration::from_millis(100));
                if self.gateway.minted() != last.0 {
                    last = (self.gateway.minted(), Instant::now());
                }
                if last.1.elapsed() > LONGEST_LULL {
                    println!("nothing happens any more");
                    break;
                }
            }
            self.is_over.store(true, Ordering::Relaxed);
        });
    }

    /// What cron does on one of many hosts, less patiently.
    fn fetch(&self, mut chance: Chance) {
        while !self.is_over() {
            sleep(Duration::from_millis(500 + chance.next() % 1500));
            let host = (chance.next() % HOSTS as u64) as usize;
            let Ok(mut fetch) = self.command(host, &["fetch", "-q", "--timeout", "10"]).spawn()
            else {
                continue;
            };
            match chance.next() % 40 {
                0 => {
                    sleep(Duration::from_micros(chance.next() % 40_000));
                    self.kills.fetch_add(1, Ordering::Relaxed);
                    let _ = fetch.kill();
                }
                1 => {
                    sleep(Duration::from_micros(chance.next() % 40_000));
                    self.pauses.fetch_add(1, Ordering::Relaxed);
                    signal(fetch.id(), Signal::STOP);
                    sleep(Duration::from_millis(chance.next() % 4000));
                    signal(fetch.id(), Signal::CONT);
                }
                _ => {}
            }
            // One whose pause the gateway ends is waited for.
            let _ = fetch.wait();
        }
    }

    /// A server that is killed, paused and started again.
    fn keep_serving(&self, host: usize, mut chance: Chance) {
        let mut server = self.serve(host);
        let mut until = Instant::now() + Duration::from_millis(20_000 + chance.next() % 40_000);
        while !self.is_over() {
            sleep(Duration::from_millis(50));
            let has_ended = server.0.try_wait().is_ok_and(|ended| ended.is_some());
            if Instant::now() >= until && !has_ended {
                until = Instant::now() + Duration::from_millis(20_000 + chance.next() % 40_000);
                if chance.next().is_multiple_of(2) {
                    self.kills.fetch_add(1, Ordering::Relaxed);
                    let _ = server.0.kill();
                } else {
                    self.pauses.fetch_add(1, Ordering::Relaxed);
                    signal(server.0.id(), Signal::STOP);
                    sleep(Duration::from_millis(1000 + chance.next() % 4000));
                    signal(server.0.id(), Signal::CONT);
                }
            }
            if server.0.try_wait().is_ok_and(|ended| ended.is_some()) {
                server = self.serve(host);
            }
        }
    }

    /// What happens to Redis and to those who hold the lock, by how many tokens there were.
    fn trouble(&self) {
        let at = |part: usize| ROTATIONS * part / 10;
        let wait = |part| {
            while self.gateway.minted() < at(part) && !self.is_over() {
                sleep(Duration::from_millis(20));
            }
            !self.is_over()
        };
        for part in 1..10 {
            if !wait(part) {
                return;
            }
            match part {
                1 | 5 => self.gateway.next_holder(Fate::KilledBeforeTheMint),
                3 | 8 => self.gateway.next_holder(Fate::PausedAfterTheMint),
                2 | 6 => self.hang_redis(),
                4 | 7 => self.lose_primary(),
                _ => {}
            }
            if let Some((fate, pid)) = self.gateway.struck(self) {
                self.struck.fetch_add(1, Ordering::Relaxed);
                if fate == Fate::PausedAfterTheMint {
                    self.pauses.fetch_add(1, Ordering::Relaxed);
                    sleep(LONG_PAUSE);
                    signal(pid, Signal::CONT);
                } else {
                    self.kills.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn primary(&self) -> usize {
        let is_primary = |nth: &usize| cli(self.ports[*nth], &["role"]).starts_with("master");
        (0..2).find(is_primary).unwrap_or(0)
    }

    fn hang_redis(&self) {
        let primary = self.primary();
        let pid = self.redis.lock().unwrap()[primary].as_ref().map(|it| it.0.id());
        if let Some(pid) = pid {
            signal(pid, Signal::STOP);
            sleep(Duration::from_millis(1200)); // Not so long that it is taken for lost.
            signal(pid, Signal::CONT);
        }
    }

    /// Kills the primary, and brings it back as a replica.
    fn lose_primary(&self) {
        let primary = self.primary();
        let other = 1 - primary;
        drop(self.redis.lock().unwrap()[primary].take());
        let since = Instant::now();
        while !cli(self.ports[other], &["role"]).starts_with("master") {
            sleep(Duration::from_millis(50));
            if since.elapsed() > Duration::from_secs(30) {
                println!("no failover");
                return;
            }
        }
        self.failovers.fetch_add(1, Ordering::Relaxed);
        let (dir, of) = (self.dir.path(), Some(self.ports[other]));
        let redis = start_redis(&self.redis_server, dir, self.ports[primary], of);
        self.redis.lock().unwrap()[primary] = Some(redis);
    }

    fn ask(&self, host: usize) -> Option<(String, u64)> {
        let answer = ask(self.servers_at[host], "GET", "/token", "").ok()?;
        let token = answer.body["access_token"].as_str()?.to_owned();
        Some((token, answer.body["expires_in"].as_u64()?))
    }

    fn get(&self, host: usize) -> Option<(String, u64)> {
        let output = self.command(host, &["get", "-q", "shop"]).output().ok()?;
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        Some((answer["access_token"].as_str()?.to_owned(), answer["expires_in"].as_u64()?))
    }

    /// One who reads again and again, and finds out whether each token lives until its promise ends.
    fn read(&self, host: usize, ask: &dyn Fn() -> Option<(String, u64)>) {
        let mut last: Option<usize> = None;
        let mut promised: Vec<(String, Instant)> = Vec::new();
        let mut without: Option<Instant> = None;
        while !self.is_over() {
            sleep(Duration::from_millis(60));
            let asked_at = Instant::now();
            if let Some((token, life)) = ask() {
                let Some(number) = self.gateway.number_of(&token) else { continue };
                let mut seen = self.seen.lock().unwrap();
                seen.reads += 1;
                if last.is_none_or(|last| number > last) {
                    seen.lag.add(self.gateway.age_of(number).as_secs_f64());
                    seen.given.insert(number, ());
                }
                if last.is_some_and(|last| number < last) {
                    let told = format!("host {host}: token {number} after {last:?}");
                    seen.backwards.push(told);
                }
                if let Some(since) = without.take() {
                    seen.without.add(since.elapsed().as_secs_f64());
                }
                drop(seen);
                last = Some(number);
                let until = asked_at + Duration::from_secs(life);
                match promised.iter_mut().find(|(known, _)| *known == token) {
                    Some((_, promise)) => *promise = until.max(*promise),
                    None => promised.push((token, until)),
                }
            } else {
                without.get_or_insert(asked_at);
            }
            // As late as it can be found out surely.
            let (due, later): (Vec<_>, Vec<_>) = promised
                .into_iter()
                .partition(|(_, until)| *until <= Instant::now() + Duration::from_millis(300));
            promised = later;
            for (token, until) in due {
                let path = format!("/cgi-bin/get_api_domain_ip?access_token={token}");
                let answer = support::http::ask(self.wechat_at, "GET", &path, "");
                let is_alive = answer.is_ok_and(|answer| answer.body["ip_list"].is_array());
                let mut seen = self.seen.lock().unwrap();
                if !is_alive && Instant::now() < until {
                    let number = self.gateway.number_of(&token);
                    seen.dead.push(format!("host {host}: token {number:?}"));
                }
                seen.probed += 1;
            }
        }
    }

    fn tell(&self) {
        let seen = self.seen.lock().unwrap();
        let minted = self.gateway.minted();
        let rotations = seen.given.len();
        let ratio = minted as f64 / rotations as f64;
        let [kills, pauses, failovers, struck] =
            [&self.kills, &self.pauses, &self.failovers, &self.struck]
                .map(|count| count.load(Ordering::Relaxed));
        println!(
            "\n{HOSTS} hosts, {FETCHES} fetches, {kills} kills and {pauses} pauses, {struck} of them of who held the \
             lock, {failovers} failovers; {} reads, {} promises tried",
            seen.reads, seen.probed
        );
        println!(
            "  {minted} tokens made, {rotations} handed out: {ratio:.3} each   need: at most 1.02"
        );
        support::head("  seconds");
        support::row("from its making until a reader has a token", &seen.lag, "");
        support::row("without a token", &seen.without, "killed holders included");
        println!("  an older token after a newer one: {:?}   need: never", seen.backwards);
        println!("  dead while promised: {:?}   need: never", seen.dead);
        assert!(ratio <= 1.02, "too many tokens are made");
        assert!(seen.backwards.is_empty(), "a reader saw an older token");
        assert!(seen.dead.is_empty(), "a token was dead while promised");
        assert_eq!((failovers, struck), (2, 4), "what was to happen did not");
        assert!(rotations * 100 >= ROTATIONS * 95, "not enough happened");
    }
}

fn start_redis(program: &Path, dir: &Path, port: u16, of: Option<u16>) -> Killed {
    let mut command = Command::new(program);
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
    command.args(["--repl-diskless-sync-delay", "0", "--dir"]).arg(dir);
    if let Some(of) = of {
        command.args(["--replicaof", "127.0.0.1", &of.to_string()]);
    }
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let redis = Killed(command.spawn().expect("a redis-server"));
    while cli(port, &["ping"]) != "PONG" {
        sleep(Duration::from_millis(20));
    }
    redis
}

fn cli(port: u16, args: &[&str]) -> String {
    let mut command = Command::new("redis-cli");
    command.args(["-p", &port.to_string()]).args(args).stderr(Stdio::null());
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}

/// What happens to the next one who asks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    KilledBeforeTheMint,
    PausedAfterTheMint,
}

/// What stands between the hosts and WeChat: it numbers the tokens.
struct Gateway {
    wechat_at: SocketAddr,
    made: Mutex<Vec<(String, Instant)>>,
    count: AtomicUsize,
    fate: Mutex<Option<Fate>>,
    /// A call waits here until the one who made it is struck.
    waiting: AtomicBool,
}

impl Gateway {
    fn before(wechat_at: SocketAddr) -> (Arc<Gateway>, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = listener.local_addr().expect("an address");
        let gateway = Arc::new(Gateway {
            wechat_at,
            made: Mutex::default(),
            count: AtomicUsize::default(),
            fate: Mutex::default(),
            waiting: AtomicBool::new(false),
        });
        let passing = Arc::clone(&gateway);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let gateway = Arc::clone(&passing);
                thread::spawn(move || gateway.pass(stream));
            }
        });
        (gateway, at)
    }

    fn minted(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn number_of(&self, token: &str) -> Option<usize> {
        self.made.lock().unwrap().iter().position(|(made, _)| made == token)
    }

    fn age_of(&self, number: usize) -> Duration {
        self.made.lock().unwrap()[number].1.elapsed()
    }

    fn next_holder(&self, fate: Fate) {
        *self.fate.lock().unwrap() = Some(fate);
    }

    /// Strikes the holder who waits here, when he does; who, and how. Nobody, where none was to be.
    fn struck(&self, world: &World) -> Option<(Fate, u32)> {
        let fate = (*self.fate.lock().unwrap())?;
        while !self.waiting.load(Ordering::Relaxed) {
            if world.is_over() {
                return None;
            }
            sleep(Duration::from_millis(5));
        }
        // Its owner's name is the lock's value.
        let owner = cli(world.ports[world.primary()], &["get", "wxtoken:shop:lock"]);
        let pid = owner.split(' ').nth(1).and_then(|pid| pid.parse().ok()).unwrap_or(0);
        signal(pid, if fate == Fate::PausedAfterTheMint { Signal::STOP } else { Signal::KILL });
        *self.fate.lock().unwrap() = None;
        self.waiting.store(false, Ordering::Relaxed);
        (pid != 0).then_some((fate, pid))
    }

    fn pass(&self, mut client: TcpStream) -> Option<()> {
        let request = read_request(&client).ok()?;
        let is_token = request.starts_with(b"GET /cgi-bin/token");
        let fate = is_token.then(|| *self.fate.lock().unwrap()).flatten();
        if fate == Some(Fate::KilledBeforeTheMint) {
            self.wait_for_the_blow();
            return None;
        }
        let mut wechat = TcpStream::connect(self.wechat_at).ok()?;
        std::io::Write::write_all(&mut wechat, &request).ok()?;
        let mut answer = Vec::new();
        std::io::Read::read_to_end(&mut wechat, &mut answer).ok()?;
        if is_token {
            let text = String::from_utf8_lossy(&answer);
            let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            let body: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
            if let Some(token) = body["access_token"].as_str() {
                self.made.lock().unwrap().push((token.to_owned(), Instant::now()));
                self.count.fetch_add(1, Ordering::Relaxed);
            }
        }
        if fate == Some(Fate::PausedAfterTheMint) {
            self.wait_for_the_blow();
        }
        std::io::Write::write_all(&mut client, &answer).ok()
    }

    fn wait_for_the_blow(&self) {
        self.waiting.store(true, Ordering::Relaxed);
        let since = Instant::now();
        while self.waiting.load(Ordering::Relaxed) && since.elapsed() < Duration::from_secs(8) {
            sleep(Duration::from_millis(5));
        }
    }
}
