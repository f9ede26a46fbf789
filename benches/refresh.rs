//! Simulates faults of `wxtoken serve --refresh` on a shortened time scale: tokens that live 20 s instead of two hours, a
//! WeChat that fails a third of the calls, tokens that are invalidated externally, and a server that is terminated and
//! killed repeatedly. 50 clients request tokens, use them, and report rejected ones. On stable and on classic, in parallel.
//!
//! Measures the calls to WeChat compared with the minimum, and how long clients held a dead token. A client that keeps a
//! token for its promised lifetime must never hold a dead one, unless it was invalidated externally: then it gets another
//! one after a round trip and a refresh. Fails if a requirement is not met.

mod support;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use support::http::{Random, Response, read_request, respond, send, start_server};
use support::{Server, Spread};

const APPID: &str = "wx0123456789abcdef";
const SECRET: &str = "5ec2e75ec2e75ec2e75ec2e75ec2e75e";

const DURATION: Duration = Duration::from_secs(150);
const CLIENTS: u64 = 50;

/// A token's lifetime, how long a replaced one remains valid, and the refresh margin, in seconds.
const LIFE: u64 = 20;
const OVERLAP: u64 = 2;
const REFRESH_BEFORE: u64 = 1;

/// One in so many calls fails.
const FAILING: u64 = 3;

/// Mean pause between two uses of a token by a client; varies by half.
const BETWEEN_USES: Duration = Duration::from_millis(300);

/// Intervals of external invalidations and of restarts. They never coincide, and invalidations are too rare to use up the
/// quota of forced refreshes.
const BETWEEN_INVALIDATIONS: Duration = Duration::from_secs(37);
const BETWEEN_RESTARTS: Duration = Duration::from_secs(23);

/// Maximum time for a round trip and a refresh without faults, on a busy machine.
const MAX_REPLACEMENT: f64 = 1.0; // s

/// The same with failures of WeChat and restarts of the server.
const MAX_REPLACEMENT_WITH_FAULTS: f64 = 15.0; // s

fn main() {
    support::only_under_cargo_bench();
    let simulations = thread::scope(|scope| {
        let running = ["stable", "classic"].map(|api| scope.spawn(|| Simulation::new(api).run()));
        running.map(|simulation| simulation.join().expect("no panic"))
    });
    let mut requirements = Vec::new();
    for simulation in &simulations {
        simulation.report(&mut requirements);
    }
    let unmet: Vec<&String> =
        requirements.iter().filter(|(_, met)| !met).map(|(what, _)| what).collect();
    assert!(unmet.is_empty(), "not met: {unmet:?}");
}

/// A WeChat with faults, a server, and the statistics of its clients.
struct Simulation {
    api: &'static str,
    dir: tempfile::TempDir,
    wechat_at: SocketAddr,
    _wechat: Server,
    gateway: Arc<Gateway>,
    gateway_at: SocketAddr,
    server_at: SocketAddr,
    /// When tokens were invalidated externally.
    invalidations: Mutex<Vec<Instant>>,
    is_over: AtomicBool,
    stats: Mutex<ClientStats>,
}

/// Statistics of all clients, in seconds.
#[derive(Default)]
struct ClientStats {
    /// From the first rejection of a token until the client has another one.
    held_dead_after_invalidation: Spread,
    held_dead_otherwise: Spread,
    /// From needing a token until having one.
    waited: Spread,
    uses: u64,
}

impl Simulation {
    fn new(api: &'static str) -> Simulation {
        let dir = tempfile::tempdir().expect("a directory");
        let secret = dir.path().join("secret");
        std::fs::write(&secret, SECRET).expect("a file");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&secret, mode).expect("its mode");
        let mut mock = support::wxtoken();
        mock.args(["mock", "--listen", "127.0.0.1:0", "--account", &format!("{APPID}:{SECRET}")]);
        mock.args(["--life", &LIFE.to_string(), "--overlap", &OVERLAP.to_string()]);
        let (wechat, wechat_at) = start_server(mock);
        let (gateway, gateway_at) = Gateway::start(wechat_at);
        // Fixed, so that it stays the same when the server is restarted.
        let free = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
        Simulation {
            api,
            dir,
            wechat_at,
            _wechat: wechat,
            gateway,
            gateway_at,
            server_at: free.expect("a free port"),
            invalidations: Mutex::default(),
            is_over: AtomicBool::new(false),
            stats: Mutex::default(),
        }
    }

    fn run(self) -> Simulation {
        let mut server = self.serve();
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                scope.spawn({
                    let simulation = &self;
                    move || Client { simulation, random: Random(client) }.run()
                });
            }
            let started = Instant::now();
            let (mut invalidate_at, mut restart_at) = (BETWEEN_INVALIDATIONS, BETWEEN_RESTARTS);
            let mut restarts = 0;
            while started.elapsed() < DURATION {
                sleep(Duration::from_millis(50));
                if started.elapsed() >= invalidate_at {
                    invalidate_at += BETWEEN_INVALIDATIONS;
                    self.invalidations.lock().unwrap().push(Instant::now());
                    send(self.wechat_at, "POST", "/mock/kill", "").expect("the mock answers");
                }
                if started.elapsed() >= restart_at {
                    restart_at += BETWEEN_RESTARTS;
                    restarts += 1;
                    if restarts % 2 == 0 {
                        server.child().kill().expect("it runs");
                    }
                    drop(server);
                    server = self.serve();
                }
            }
            self.is_over.store(true, Ordering::Relaxed);
        });
        self
    }

    fn serve(&self) -> Server {
        let mut command = support::wxtoken();
        command.args(["serve", "--refresh", "-q", "--appid", APPID, "--api", self.api, "--dir"]);
        command.arg(self.dir.path()).arg("--secret-file").arg(self.dir.path().join("secret"));
        command.args(["--base-url", &format!("http://{}", self.gateway_at)]);
        command.args(["--refresh-before", &REFRESH_BEFORE.to_string()]);
        command.args(["--listen", &self.server_at.to_string()]);
        start_server(command).0
    }

    fn report(&self, requirements: &mut Vec<(String, bool)>) {
        let api = self.api;
        let invalidations = self.invalidations.lock().unwrap().len() as u64;
        let ClientStats { held_dead_after_invalidation, held_dead_otherwise, waited, uses } =
            &*self.stats.lock().unwrap();
        let calls = self.gateway.calls.lock().unwrap();
        let count = |kind: &str| calls.get(kind).copied().unwrap_or_default();
        let (requested, probed) = (count("requested"), count("probed"));
        // The first token, one for each lifetime, and for each invalidation a probe and another token; divided by the
        // share of calls that succeed.
        let lives = 1 + DURATION.as_secs() / (LIFE - REFRESH_BEFORE);
        let ideal = (lives + 2 * invalidations) as f64 * FAILING as f64 / (FAILING - 1) as f64;
        let ratio = (requested + probed) as f64 / ideal;

        println!(
            "\n{api}: {} s, tokens of {LIFE} s, {invalidations} invalidations, {CLIENTS} clients, {uses} uses",
            DURATION.as_secs()
        );
        println!(
            "  calls to WeChat: {requested} for tokens, {probed} probes; {} of them failed, and {} more after the mint",
            count("failed"),
            count("lost"),
        );
        println!("  compared with a minimum of {ideal:.0}: {ratio:.2}   requirement: at most 2");
        support::print_header("  seconds");
        support::print_row(
            "from a rejection to another token, after an invalidation",
            held_dead_after_invalidation,
            "requirement: at most 15",
        );
        if held_dead_otherwise.len() > 0 {
            support::print_row(
                "the same, otherwise",
                held_dead_otherwise,
                "requirement: at most 1",
            );
        }
        support::print_row(
            "from needing a token to having one",
            waited,
            "failures and restarts included",
        );
        println!(
            "  rejections: {} after an invalidation, {} otherwise",
            held_dead_after_invalidation.len(),
            held_dead_otherwise.len()
        );
        let mut require = |what: &str, met| requirements.push((format!("{api}: {what}"), met));
        require("calls within twice the minimum", ratio <= 2.0);
        require(
            "a dead token only after an invalidation",
            held_dead_otherwise.max().max(0.0) <= MAX_REPLACEMENT,
        );
        require(
            "an invalidated token is replaced",
            held_dead_after_invalidation.max().max(0.0) <= MAX_REPLACEMENT_WITH_FAULTS,
        );
        require(
            "invalidations were noticed",
            invalidations > 2 && held_dead_after_invalidation.len() > 0,
        );
        require("tokens were used", *uses > 10_000);
    }
}

/// A client that keeps a token for its promised lifetime and uses it.
struct Client<'a> {
    simulation: &'a Simulation,
    random: Random,
}

/// The token that a client holds.
struct Held {
    token: String,
    since: Instant,
    until: Instant,
}

impl Client<'_> {
    fn run(mut self) {
        let mut held = self.obtain(None);
        while let Some(Held { token, since, until }) = &held {
            let pause = BETWEEN_USES.mul_f64(0.5 + (self.random.next() % 1000) as f64 / 1000.0);
            sleep(pause);
            if Instant::now() >= *until {
                held = self.obtain(None);
                continue;
            }
            let used_at = Instant::now();
            let path = format!("/cgi-bin/get_api_domain_ip?access_token={token}");
            let answer =
                send(self.simulation.wechat_at, "GET", &path, "").expect("the mock answers");
            self.simulation.stats.lock().unwrap().uses += 1;
            // A call that was under way at the end of the promised lifetime proves nothing.
            if answer.body["ip_list"].is_array() || Instant::now() >= *until {
                continue;
            }
            let invalidations = self.simulation.invalidations.lock().unwrap();
            let was_invalidated =
                invalidations.iter().any(|at| *at >= *since && *at <= Instant::now());
            drop(invalidations);
            held = self.obtain(Some(token));
            let took = used_at.elapsed().as_secs_f64();
            let mut stats = self.simulation.stats.lock().unwrap();
            match was_invalidated {
                true => stats.held_dead_after_invalidation.add(took),
                false => stats.held_dead_otherwise.add(took),
            }
        }
    }

    /// Obtains a token other than the rejected one; `None` at the end of the simulation.
    fn obtain(&mut self, rejected: Option<&str>) -> Option<Held> {
        let needed_at = Instant::now();
        while !self.simulation.is_over.load(Ordering::Relaxed) {
            let asked_at = Instant::now();
            let answer = match rejected {
                None => send(self.simulation.server_at, "GET", "/token", ""),
                Some(token) => {
                    let body = serde_json::json!({ "rejected": token }).to_string();
                    send(self.simulation.server_at, "POST", "/token", &body)
                }
            };
            if let Ok(Response { status: 200, body }) = &answer
                && let (Some(token), Some(life)) =
                    (body["access_token"].as_str(), body["expires_in"].as_u64())
                && rejected != Some(token)
            {
                self.simulation.stats.lock().unwrap().waited.add(needed_at.elapsed().as_secs_f64());
                let until = asked_at + Duration::from_secs(life);
                return Some(Held { token: token.to_owned(), since: asked_at, until });
            }
            // No server or no token. Ignores Retry-After, because of the shortened time scale.
            sleep(Duration::from_millis(200 + self.random.next() % 100));
        }
        None
    }
}

/// A proxy between the server and WeChat that lets some calls fail.
struct Gateway {
    wechat_at: SocketAddr,
    passed: AtomicU64,
    /// The number of calls by kind and by result.
    calls: Mutex<BTreeMap<&'static str, u64>>,
}

impl Gateway {
    fn start(wechat_at: SocketAddr) -> (Arc<Gateway>, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = listener.local_addr().expect("an address");
        let gateway =
            Arc::new(Gateway { wechat_at, passed: AtomicU64::default(), calls: Mutex::default() });
        let passing = Arc::clone(&gateway);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let gateway = Arc::clone(&passing);
                thread::spawn(move || gateway.pass(stream));
            }
        });
        (gateway, at)
    }

    fn count(&self, what: &'static str) {
        *self.calls.lock().unwrap().entry(what).or_default() += 1;
    }

    /// Forwards a call, or lets it fail in one of several ways. Returns `None` if a peer is gone.
    fn pass(&self, mut client: TcpStream) -> Option<()> {
        let request = read_request(&client).ok()?;
        let is_probe = request.starts_with(b"GET /cgi-bin/get_api_domain_ip");
        self.count(if is_probe { "probed" } else { "requested" });
        let nth = self.passed.fetch_add(1, Ordering::Relaxed);
        let random = Random(nth).next();
        if random.is_multiple_of(FAILING) {
            match random / FAILING % 4 {
                0 => {
                    self.count("failed");
                    let busy = r#"{"errcode":-1,"errmsg":"system error"}"#;
                    respond(&mut client, "200 OK", busy).ok()?;
                }
                1 => {
                    self.count("failed");
                    respond(&mut client, "502 Bad Gateway", "<html>").ok()?;
                }
                2 => self.count("failed"), // Closed without an answer.
                _ => {
                    self.count("lost");
                    self.exchange(&request).ok()?;
                }
            }
            return Some(());
        }
        let answer = self.exchange(&request).ok()?;
        client.write_all(&answer).ok()
    }

    fn exchange(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut wechat = TcpStream::connect(self.wechat_at)?;
        wechat.write_all(request)?;
        let mut answer = Vec::new();
        wechat.read_to_end(&mut answer)?;
        Ok(answer)
    }
}
