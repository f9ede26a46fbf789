//! Simulates faults of several hosts that share a Redis, on a shortened time scale: a classic account with tokens that
//! live six seconds instead of two hours; four hosts with `serve --refresh` and fifty `fetch`es, which are killed and
//! paused at random; lock holders that are killed, or paused for longer than the lock's lifetime; a Redis that hangs, and
//! failovers to a replica by a sentinel.
//!
//! Measures how many tokens are minted compared with those handed out, whether a reader ever sees an older token after a
//! newer one, and whether a token is ever dead within its promised lifetime. Fails if a requirement is not met.

mod support;

use std::collections::HashSet;
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
use support::http::{Random, read_request, send, start_server};
use support::{Server, Spread};

const APPID: &str = "wx0123456789abcdef";
const SECRET: &str = "5ec2e75ec2e75ec2e75ec2e75ec2e75e";

const ROTATIONS: usize = 200;
const HOSTS: usize = 4;
const FETCHES: u64 = 50;

/// A token's lifetime, how long a replaced one remains valid, and the refresh margin, in seconds.
const LIFE: u64 = 6;
const OVERLAP: u64 = 5;
const REFRESH_BEFORE: u64 = 3;

/// Longer than the lifetime of the lock.
const LONG_PAUSE: Duration = Duration::from_secs(38);

/// The simulation stops if no token is minted for this long.
const MAX_PAUSE_BETWEEN_MINTS: Duration = Duration::from_secs(120);

fn main() {
    support::only_under_cargo_bench();
    let Some(redis_server) = support::find_program("redis-server") else { return };
    let simulation = Simulation::new(&redis_server);
    simulation.run();
    simulation.report();
}

/// A process that is killed on drop.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
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

struct Simulation {
    dir: tempfile::TempDir,
    redis_server: PathBuf,
    /// Of the two Redis servers. A failover changes which of them is the primary.
    ports: [u16; 2],
    redis: Mutex<[Option<KillOnDrop>; 2]>,
    sentinel_at: u16,
    _sentinel: KillOnDrop,
    wechat_at: SocketAddr,
    _wechat: Server,
    gateway_at: SocketAddr,
    gateway: Arc<Gateway>,
    servers_at: [SocketAddr; HOSTS],
    is_over: AtomicBool,
    observations: Mutex<Observations>,
    kills: AtomicU64,
    pauses: AtomicU64,
    failovers: AtomicU64,
    /// Lock holders that were killed, or paused for longer than the lock's lifetime.
    holder_faults: AtomicU64,
}

/// What the readers observed.
#[derive(Default)]
struct Observations {
    reads: u64,
    /// The numbers of the tokens that were handed out.
    handed_out: HashSet<usize>,
    older_after_newer: Vec<String>,
    /// Tokens that were dead within their promised lifetime.
    dead: Vec<String>,
    probed: u64,
    /// How long a reader had no token.
    without_token: Spread,
    /// From the mint of a token until a reader had it.
    lag: Spread,
}

impl Simulation {
    fn new(redis_server: &Path) -> Simulation {
        let dir = tempfile::tempdir().expect("a directory");
        let mut mock = support::wxtoken();
        mock.args(["mock", "-q", "--listen", "127.0.0.1:0", "--account"]);
        mock.arg(format!("{APPID}:{SECRET}")).args(["--life", &LIFE.to_string()]);
        mock.args(["--overlap", &OVERLAP.to_string()]);
        let (wechat, wechat_at) = start_server(mock);
        let (gateway, gateway_at) = Gateway::start(wechat_at);
        let ports = [(); 2].map(|()| free_port());
        let redis = [0, 1].map(|nth| {
            let primary = (nth == 1).then_some(ports[0]);
            Some(start_redis(redis_server, dir.path(), ports[nth], primary))
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
        let sentinel = KillOnDrop(command.spawn().expect("a sentinel"));
        let simulation = Simulation {
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
            observations: Mutex::default(),
            kills: AtomicU64::default(),
            pauses: AtomicU64::default(),
            failovers: AtomicU64::default(),
            holder_faults: AtomicU64::default(),
            dir,
        };
        (0..HOSTS).for_each(|host| simulation.make_host(host));
        // The sentinel has to know the replica before the primary is lost.
        sleep(Duration::from_secs(12));
        simulation
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

    fn serve(&self, host: usize) -> KillOnDrop {
        let at = self.servers_at[host].to_string();
        let mut command = self.command(host, &["serve", "-q", "--refresh", "--listen", &at]);
        command.stdout(Stdio::null());
        KillOnDrop(command.spawn().expect("a server"))
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn run(&self) {
        thread::scope(|scope| {
            for fetch in 0..FETCHES {
                scope.spawn(move || self.fetch(Random(fetch)));
            }
            for host in 0..HOSTS {
                scope.spawn(move || self.read(host, &|| self.request_token(host)));
                scope.spawn(move || self.keep_serving(host, Random(1000 + host as u64)));
            }
            scope.spawn(|| self.read(0, &|| self.get(0)));
            scope.spawn(|| self.inject_faults());
            let mut last = (0, Instant::now());
            while self.gateway.minted() < ROTATIONS {
                sleep(Duration::from_millis(100));
                if self.gateway.minted() != last.0 {
                    last = (self.gateway.minted(), Instant::now());
                }
                if last.1.elapsed() > MAX_PAUSE_BETWEEN_MINTS {
                    println!("no token has been minted for {MAX_PAUSE_BETWEEN_MINTS:?}");
                    break;
                }
            }
            self.is_over.store(true, Ordering::Relaxed);
        });
    }

    /// Runs `fetch` again and again, like cron on a random host, and kills or pauses some of them.
    fn fetch(&self, mut random: Random) {
        while !self.is_over() {
            sleep(Duration::from_millis(500 + random.next() % 1500));
            let host = (random.next() % HOSTS as u64) as usize;
            let Ok(mut fetch) = self.command(host, &["fetch", "-q", "--timeout", "10"]).spawn()
            else {
                continue;
            };
            match random.next() % 40 {
                0 => {
                    sleep(Duration::from_micros(random.next() % 40_000));
                    self.kills.fetch_add(1, Ordering::Relaxed);
                    let _ = fetch.kill();
                }
                1 => {
                    sleep(Duration::from_micros(random.next() % 40_000));
                    self.pauses.fetch_add(1, Ordering::Relaxed);
                    signal(fetch.id(), Signal::STOP);
                    sleep(Duration::from_millis(random.next() % 4000));
                    signal(fetch.id(), Signal::CONT);
                }
                _ => {}
            }
            // Also waits for one that the gateway has paused.
            let _ = fetch.wait();
        }
    }

    /// Runs a server, which is killed or paused at random, and restarted.
    fn keep_serving(&self, host: usize, mut random: Random) {
        let mut server = self.serve(host);
        let mut until = Instant::now() + Duration::from_millis(20_000 + random.next() % 40_000);
        while !self.is_over() {
            sleep(Duration::from_millis(50));
            let has_ended = server.0.try_wait().is_ok_and(|ended| ended.is_some());
            if Instant::now() >= until && !has_ended {
                until = Instant::now() + Duration::from_millis(20_000 + random.next() % 40_000);
                if random.next().is_multiple_of(2) {
                    self.kills.fetch_add(1, Ordering::Relaxed);
                    let _ = server.0.kill();
                } else {
                    self.pauses.fetch_add(1, Ordering::Relaxed);
                    signal(server.0.id(), Signal::STOP);
                    sleep(Duration::from_millis(1000 + random.next() % 4000));
                    signal(server.0.id(), Signal::CONT);
                }
            }
            if server.0.try_wait().is_ok_and(|ended| ended.is_some()) {
                server = self.serve(host);
            }
        }
    }

    /// Injects faults of Redis and of lock holders, each after a share of all rotations.
    fn inject_faults(&self) {
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
                1 | 5 => self.gateway.plan_fault(HolderFault::KillBeforeMint),
                3 | 8 => self.gateway.plan_fault(HolderFault::PauseAfterMint),
                2 | 6 => self.hang_redis(),
                4 | 7 => self.kill_primary(),
                _ => {}
            }
            if let Some((fault, pid)) = self.gateway.inject_planned_fault(self) {
                self.holder_faults.fetch_add(1, Ordering::Relaxed);
                if fault == HolderFault::PauseAfterMint {
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
            sleep(Duration::from_millis(1200)); // Too short for a failover.
            signal(pid, Signal::CONT);
        }
    }

    /// Kills the primary, waits for the failover, and restarts it as a replica.
    fn kill_primary(&self) {
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
        let (dir, primary_port) = (self.dir.path(), Some(self.ports[other]));
        let redis = start_redis(&self.redis_server, dir, self.ports[primary], primary_port);
        self.redis.lock().unwrap()[primary] = Some(redis);
    }

    fn request_token(&self, host: usize) -> Option<(String, u64)> {
        let answer = send(self.servers_at[host], "GET", "/token", "").ok()?;
        let token = answer.body["access_token"].as_str()?.to_owned();
        Some((token, answer.body["expires_in"].as_u64()?))
    }

    fn get(&self, host: usize) -> Option<(String, u64)> {
        let output = self.command(host, &["get", "-q", "shop"]).output().ok()?;
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        Some((answer["access_token"].as_str()?.to_owned(), answer["expires_in"].as_u64()?))
    }

    /// Reads the token again and again, and checks that each lives until the end of its promised lifetime.
    fn read(&self, host: usize, request: &dyn Fn() -> Option<(String, u64)>) {
        let mut last: Option<usize> = None;
        let mut promised: Vec<(String, Instant)> = Vec::new();
        let mut without_since: Option<Instant> = None;
        while !self.is_over() {
            sleep(Duration::from_millis(60));
            let asked_at = Instant::now();
            if let Some((token, life)) = request() {
                let Some(number) = self.gateway.number_of(&token) else { continue };
                let mut observations = self.observations.lock().unwrap();
                observations.reads += 1;
                if last.is_none_or(|last| number > last) {
                    observations.lag.add(self.gateway.age_of(number).as_secs_f64());
                    observations.handed_out.insert(number);
                }
                if last.is_some_and(|last| number < last) {
                    let what = format!("host {host}: token {number} after {last:?}");
                    observations.older_after_newer.push(what);
                }
                if let Some(since) = without_since.take() {
                    observations.without_token.add(since.elapsed().as_secs_f64());
                }
                drop(observations);
                last = Some(number);
                let until = asked_at + Duration::from_secs(life);
                match promised.iter_mut().find(|(known, _)| *known == token) {
                    Some((_, promise)) => *promise = until.max(*promise),
                    None => promised.push((token, until)),
                }
            } else {
                without_since.get_or_insert(asked_at);
            }
            // As late as the check certainly completes in time.
            let (due, later): (Vec<_>, Vec<_>) = promised
                .into_iter()
                .partition(|(_, until)| *until <= Instant::now() + Duration::from_millis(300));
            promised = later;
            for (token, until) in due {
                let path = format!("/cgi-bin/get_api_domain_ip?access_token={token}");
                let answer = send(self.wechat_at, "GET", &path, "");
                let is_alive = answer.is_ok_and(|answer| answer.body["ip_list"].is_array());
                let mut observations = self.observations.lock().unwrap();
                if !is_alive && Instant::now() < until {
                    let number = self.gateway.number_of(&token);
                    observations.dead.push(format!("host {host}: token {number:?}"));
                }
                observations.probed += 1;
            }
        }
    }

    fn report(&self) {
        let observations = self.observations.lock().unwrap();
        let minted = self.gateway.minted();
        let rotations = observations.handed_out.len();
        let ratio = minted as f64 / rotations as f64;
        let [kills, pauses, failovers, holder_faults] =
            [&self.kills, &self.pauses, &self.failovers, &self.holder_faults]
                .map(|count| count.load(Ordering::Relaxed));
        println!(
            "\n{HOSTS} hosts, {FETCHES} fetches, {kills} kills and {pauses} pauses, {holder_faults} of them of lock \
             holders, {failovers} failovers; {} reads, {} promised lifetimes checked",
            observations.reads, observations.probed
        );
        println!(
            "  {minted} tokens minted, {rotations} handed out: {ratio:.3} each   requirement: at most 1.02"
        );
        support::print_header("  seconds");
        support::print_row("from the mint until a reader has the token", &observations.lag, "");
        support::print_row(
            "without a token",
            &observations.without_token,
            "killed holders included",
        );
        println!(
            "  an older token after a newer one: {:?}   requirement: never",
            observations.older_after_newer
        );
        println!(
            "  dead within the promised lifetime: {:?}   requirement: never",
            observations.dead
        );
        assert!(ratio <= 1.02, "too many tokens were minted");
        assert!(observations.older_after_newer.is_empty(), "a reader saw an older token");
        assert!(observations.dead.is_empty(), "a token was dead within its promised lifetime");
        assert_eq!((failovers, holder_faults), (2, 4), "a planned fault did not happen");
        assert!(rotations * 100 >= ROTATIONS * 95, "too few rotations");
    }
}

fn start_redis(program: &Path, dir: &Path, port: u16, primary: Option<u16>) -> KillOnDrop {
    let mut command = Command::new(program);
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
    command.args(["--repl-diskless-sync-delay", "0", "--dir"]).arg(dir);
    if let Some(port) = primary {
        command.args(["--replicaof", "127.0.0.1", &port.to_string()]);
    }
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let redis = KillOnDrop(command.spawn().expect("a redis-server"));
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

/// A fault of the next lock holder that requests a token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HolderFault {
    KillBeforeMint,
    PauseAfterMint,
}

/// A proxy between the hosts and WeChat. Numbers the tokens, and holds back a request until a planned fault is injected.
struct Gateway {
    wechat_at: SocketAddr,
    minted: Mutex<Vec<(String, Instant)>>,
    count: AtomicUsize,
    planned_fault: Mutex<Option<HolderFault>>,
    /// Whether a request is held back.
    waiting: AtomicBool,
}

impl Gateway {
    fn start(wechat_at: SocketAddr) -> (Arc<Gateway>, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = listener.local_addr().expect("an address");
        let gateway = Arc::new(Gateway {
            wechat_at,
            minted: Mutex::default(),
            count: AtomicUsize::default(),
            planned_fault: Mutex::default(),
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
        self.minted.lock().unwrap().iter().position(|(minted, _)| minted == token)
    }

    fn age_of(&self, number: usize) -> Duration {
        self.minted.lock().unwrap()[number].1.elapsed()
    }

    fn plan_fault(&self, fault: HolderFault) {
        *self.planned_fault.lock().unwrap() = Some(fault);
    }

    /// Injects the planned fault as soon as a request is held back. Returns the fault and the process; `None` if none is
    /// planned.
    fn inject_planned_fault(&self, simulation: &Simulation) -> Option<(HolderFault, u32)> {
        let fault = (*self.planned_fault.lock().unwrap())?;
        while !self.waiting.load(Ordering::Relaxed) {
            if simulation.is_over() {
                return None;
            }
            sleep(Duration::from_millis(5));
        }
        // The lock's value names its owner.
        let owner = cli(simulation.ports[simulation.primary()], &["get", "wxtoken:shop:lock"]);
        let pid = owner.split(' ').nth(1).and_then(|pid| pid.parse().ok()).unwrap_or(0);
        signal(pid, if fault == HolderFault::PauseAfterMint { Signal::STOP } else { Signal::KILL });
        *self.planned_fault.lock().unwrap() = None;
        self.waiting.store(false, Ordering::Relaxed);
        (pid != 0).then_some((fault, pid))
    }

    fn pass(&self, mut client: TcpStream) -> Option<()> {
        let request = read_request(&client).ok()?;
        let is_token = request.starts_with(b"GET /cgi-bin/token");
        let fault = is_token.then(|| *self.planned_fault.lock().unwrap()).flatten();
        if fault == Some(HolderFault::KillBeforeMint) {
            self.wait_for_fault();
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
                self.minted.lock().unwrap().push((token.to_owned(), Instant::now()));
                self.count.fetch_add(1, Ordering::Relaxed);
            }
        }
        if fault == Some(HolderFault::PauseAfterMint) {
            self.wait_for_fault();
        }
        std::io::Write::write_all(&mut client, &answer).ok()
    }

    fn wait_for_fault(&self) {
        self.waiting.store(true, Ordering::Relaxed);
        let since = Instant::now();
        while self.waiting.load(Ordering::Relaxed) && since.elapsed() < Duration::from_secs(8) {
            sleep(Duration::from_millis(5));
        }
    }
}
