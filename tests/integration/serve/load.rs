//! `wxtoken serve` under many connections, floods and malformed input: a normal client is answered throughout, and afterwards
//! memory and descriptors are released. Nothing here measures speed; the bounds are generous.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::*;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use socket2::{Domain, Socket, Type};

const TOKEN: &str = "T0KEN_for_normal_clients_only";

/// The server's limit for a request to arrive (wxtoken(1), status 408). A silent connection is closed after it, too.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(10);

/// How long the server keeps a connection that has served a request.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// Limit on the resident memory after the load, with what the allocator retains. Measured: up to 30 MiB in a debug build, which
/// starts with 9; a release build starts with 4.
const MAX_MEMORY_AFTER_LOAD: usize = 32 * MIB;

const MIB: usize = 1 << 20;

/// A server with a live token, and its memory and descriptors before the load.
struct LoadTest {
    sandbox: Sandbox,
    server: Server,
    memory: usize,
    descriptors: usize,
    started_at: Instant,
}

impl LoadTest {
    fn start(args: &[&str]) -> LoadTest {
        let sandbox = published();
        let server = sandbox.serve(args);
        LoadTest::new(sandbox, server)
    }

    /// Starts a server with `limit` descriptors.
    fn with_descriptors(limit: usize) -> LoadTest {
        let sandbox = published();
        let serve = sandbox.command(&["serve", "--listen", "127.0.0.1:0"]);
        let script = format!(r#"ulimit -n {limit}; exec "$0" "$@""#);
        let server = Server::start(wrapped(&["bash", "-c", &script], &serve), 1);
        LoadTest::new(sandbox, server)
    }

    fn new(sandbox: Sandbox, server: Server) -> LoadTest {
        let descriptors = server.descriptors();
        // Excludes what the first requests allocate.
        for _ in 0..10 {
            request_token(&server);
        }
        eventually("the first connections are closed", || server.descriptors() == descriptors);
        LoadTest {
            memory: server.memory(),
            sandbox,
            server,
            descriptors,
            started_at: Instant::now(),
        }
    }

    fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Runs `load` and requests the token meanwhile, again and again. Each request has to be answered within
    /// `PATIENCE`; how fast, is the machine's affair.
    fn serves_during<T: Send>(&self, load: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let load = scope.spawn(load);
            let mut waits = Vec::new();
            while !load.is_finished() || waits.len() < 10 {
                waits.push(request_token(&self.server));
                assert!(waits[waits.len() - 1] < PATIENCE, "{waits:?}");
                // A normal client is not a load itself.
                thread::sleep(Duration::from_millis(10));
            }
            waits.sort();
            let (count, median) = (waits.len(), waits[waits.len() / 2]);
            eprintln!("{count} requests answered, half of them within {median:?}");
            load.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Checks that descriptors and memory are released, that a new token is served, and that the server ends cleanly. Returns its
    /// stderr.
    fn recovers(self) -> String {
        eventually("its descriptors are released", || {
            self.server.descriptors() == self.descriptors
        });
        request_token(&self.server);
        let after = self.server.memory();
        eprintln!("VmRSS {} KiB before, {} KiB after", self.memory / 1024, after / 1024);
        assert!(after < MAX_MEMORY_AFTER_LOAD, "VmRSS {} KiB", after / 1024);
        // A new document is served at once.
        self.sandbox.publish("T2", 7200, 0);
        assert_eq!(self.server.get("/token").json()["access_token"], "T2");
        self.server.stop()
    }
}

fn published() -> Sandbox {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish(TOKEN, 7200, 0);
    sandbox
}

/// Checks that there are at most this many lines for each ten seconds since the start, which is how the server limits them.
#[track_caller]
fn assert_few_lines(stderr: &str, each_interval: u64, started_at: Instant) {
    let intervals = 1 + started_at.elapsed().as_secs() / 10;
    assert!(stderr.lines().count() as u64 <= each_interval * intervals, "{stderr}");
}

/// Requests the token over a new connection. Returns how long it took.
#[track_caller]
fn request_token(server: &Server) -> Duration {
    let asked_at = Instant::now();
    assert_has_token(&server.get("/token"));
    asked_at.elapsed()
}

#[track_caller]
fn assert_has_token(response: &Response) {
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.json()["access_token"], TOKEN);
}

/// Raises the descriptor limit of this process, which opens all the connections, and of what it starts to its maximum.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
        .expect("the limit can be raised");
}

/// Opens this many connections.
fn open_connections(count: usize, address: SocketAddr) -> Vec<TcpStream> {
    open_connections_with(b"", count, address)
}

/// Opens this many connections and writes `begin` to each at once: before others are open, the first could be too late.
fn open_connections_with(begin: &[u8], count: usize, address: SocketAddr) -> Vec<TcpStream> {
    raise_descriptor_limit();
    let open = |_| {
        let mut stream = connect(address);
        let _ = stream.write_all(begin); // It can be closed by now.
        stream
    };
    (0..count).map(open).collect()
}

/// Held by tests with ten thousand connections: two of them at once may exceed the limit of this process.
static TEN_THOUSAND: Mutex<()> = Mutex::new(());

/// Returns whether the peer has closed the connection. Appends what it sent; does not block.
fn is_closed_by_peer(stream: &mut TcpStream, received: &mut Vec<u8>) -> bool {
    stream.set_nonblocking(true).unwrap();
    match stream.read_to_end(received) {
        Ok(_) => true,
        Err(err) => err.kind() != io::ErrorKind::WouldBlock,
    }
}

#[test]
fn five_hundred_slow_clients_get_408_after_ten_seconds_and_delay_no_request() {
    raise_descriptor_limit();
    let test = LoadTest::start(&[]);
    test.serves_during(|| {
        let begun_at = Instant::now();
        let (first, rest) = b"GET /token HTTP/1.1\r\nHost: localhost\r\nX-Slow: ".split_at(1);
        let mut slow: Vec<_> = open_connections_with(first, 500, test.address())
            .into_iter()
            .map(|stream| (stream, Vec::new()))
            .collect();
        let mut bytes = rest.iter().chain(std::iter::repeat(&b'x'));
        let mut closed = 0;
        while closed < slow.len() {
            let byte = [*bytes.next().unwrap()];
            for (stream, _) in &mut slow {
                let _ = stream.write(&byte); // It can be closed already.
            }
            thread::sleep(Duration::from_millis(100));
            closed = slow
                .iter_mut()
                .map(|(stream, received)| is_closed_by_peer(stream, received))
                .filter(|closed| *closed)
                .count();
            let elapsed = begun_at.elapsed();
            assert!(closed == 0 || elapsed >= ARRIVAL_LIMIT, "closed after {elapsed:?}");
            assert!(elapsed < PATIENCE, "{closed} are closed after {elapsed:?}");
        }
        for (_, received) in &slow {
            assert_eq!(
                Response::parse(received).status,
                408,
                "{}",
                String::from_utf8_lossy(received)
            );
        }
    });
    assert_eq!(test.recovers(), "");
}

#[needs(descriptors, root)]
#[test]
fn ten_thousand_silent_connections_are_closed_for_new_ones() {
    let _alone = TEN_THOUSAND.lock().unwrap_or_else(PoisonError::into_inner);
    raise_descriptor_limit();
    let test = LoadTest::start(&[]);
    let idle = test.serves_during(|| open_connections(10_000, test.address()));
    let (opened_at, last) = (Instant::now(), connect(test.address()));
    for _ in 0..50 {
        assert!(request_token(&test.server) < PATIENCE);
    }
    let held = test.server.descriptors().saturating_sub(test.descriptors);
    assert!(held <= 1024, "--max-connections is 1024, {held} are open");
    assert!(held > 0 || opened_at.elapsed() >= ARRIVAL_LIMIT, "not all are closed");
    let full = test.server.memory();
    eprintln!("VmRSS {} KiB with {held} of {} connections", full / 1024, idle.len());
    assert!(full < 32 * MIB, "{} KiB", full / 1024);
    drop((idle, last));
    let started_at = test.started_at;
    let stderr = test.recovers();
    assert!(stderr.contains("1024") && stderr.contains("--max-connections"), "{stderr}");
    assert_few_lines(&stderr, 2, started_at);
}

#[needs(descriptors, root)]
#[test]
fn ten_thousand_idle_connections_use_at_most_16_kib_each() {
    let _alone = TEN_THOUSAND.lock().unwrap_or_else(PoisonError::into_inner);
    let test = LoadTest::start(&["--max-connections", "12000"]);
    let opened_at = Instant::now();
    let kept = test.serves_during(|| {
        // Each connection has served a request and stays open.
        let request = b"HEAD /token HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let mut kept = open_connections_with(request, 10_000, test.address());
        for stream in &mut kept {
            assert!(stream.read(&mut [0; 1024]).unwrap() > 100);
        }
        kept
    });
    let allowed = 16 * 1024 * kept.len();
    let each = || test.server.memory().saturating_sub(test.memory);
    eventually("idle connections release their buffers", || each() <= allowed);
    eprintln!("{} bytes each for {} connections", each() / kept.len(), kept.len());
    let descriptors = test.server.descriptors();
    // On a machine that takes longer, the first ones are idle for too long.
    if opened_at.elapsed() < IDLE_LIMIT {
        assert_eq!(descriptors, test.descriptors + kept.len(), "no connection was closed");
    }
    for (n, stream) in kept.into_iter().enumerate().step_by(1000) {
        let mut caller = Caller::new(stream);
        let is_kept = caller.try_send("GET /token HTTP/1.1\r\nHost: localhost\r\n\r\n").is_ok();
        if opened_at.elapsed() < IDLE_LIMIT {
            assert!(is_kept && caller.answer().status == 200, "connection {n} still works");
        }
    }
    eventually("the connections are closed", || test.server.descriptors() == test.descriptors);
}

/// Of 4,000 requests that all differ, few are kept. Measured: 2.5 KiB each in a debug build; 6.5 if all of them were kept.
#[needs(descriptors, root)]
#[test]
fn connections_whose_requests_differ_keep_few_of_them() {
    let _alone = TEN_THOUSAND.lock().unwrap_or_else(PoisonError::into_inner);
    let test = LoadTest::start(&["--max-connections", "12000"]);
    let mut kept = open_connections(4_000, test.address());
    for (n, stream) in kept.iter_mut().enumerate() {
        let request = format!("GET /token HTTP/1.1\r\nHost: localhost\r\nX: {n}\r\n\r\n");
        let _ = stream.write_all(request.as_bytes()); // It can be closed by now.
    }
    for stream in &mut kept {
        let _ = stream.read(&mut [0; 1024]);
    }
    let each = test.server.memory().saturating_sub(test.memory) / kept.len();
    assert!(each <= 5 * 1024, "{each} bytes each");
}

#[test]
fn repeated_bursts_of_connections_use_no_more_memory_than_one() {
    let test = LoadTest::start(&[]);
    for _ in 0..10 {
        let request = b"HEAD /token HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let mut streams = open_connections_with(request, 500, test.address());
        for stream in &mut streams {
            assert!(stream.read(&mut [0; 1024]).unwrap() > 100);
        }
        drop(streams);
        eventually("the connections are closed", || test.server.descriptors() == test.descriptors);
    }
    assert_eq!(test.recovers(), "");
}

#[test]
fn a_header_of_a_megabyte_is_refused_and_not_buffered() {
    let test = LoadTest::start(&[]);
    let mut request = b"GET /token HTTP/1.1\r\nHost: localhost\r\nCookie: ".to_vec();
    request.resize(MIB, b'x');
    test.serves_during(|| {
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        assert_eq!(exchange(test.address(), &request).status, 431);
                    }
                });
            }
        });
    });
    assert_eq!(test.recovers(), "");
}

/// A reproducible random number generator (xorshift64).
struct TestRandom(u64);

impl TestRandom {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    fn bytes(&mut self, bound: usize, alphabet: &[u8]) -> Vec<u8> {
        (0..self.below(bound)).map(|_| alphabet[self.below(alphabet.len())]).collect()
    }
}

/// Returns random bytes, HTTP with some bytes changed, fragments of HTTP in random order, or another protocol.
fn malformed_input(random: &mut TestRandom) -> Vec<u8> {
    const VALID: &[u8] =
        b"POST /token?x=y HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nAccept: */*\r\n\r\nhello";
    const FRAGMENTS: [&[u8]; 20] = [
        b"GET ",
        b"/token ",
        b"HTTP/1.1",
        b"HTTP/1.0",
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"\r",
        b"\0",
        b": ",
        b"Host: localhost\r\n",
        b"Content-Length: ",
        b"99999999999999999999",
        b"Transfer-Encoding: chunked\r\n",
        b"Expect: 100-continue\r\n",
        b"Connection: upgrade\r\n",
        b"Upgrade: h2c\r\n",
        b"http://[::1",
        b"%00",
        b"0\r\n\r\n",
    ];
    const OTHER_PROTOCOLS: [&[u8]; 6] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        b"\x05\x01\x00",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"\xff\xfb\x01\xff\xfd\x03",
    ];
    let any: Vec<u8> = (0..=255).collect();
    match random.below(6) {
        0 => random.bytes(3000, &any),
        1 => random.bytes(3000, b"\r\n :/GETHTP1.0\0"),
        2 => {
            let mut bytes = VALID.to_vec();
            for _ in 0..=random.below(4) {
                let at = random.below(bytes.len());
                bytes[at] = random.below(256) as u8;
            }
            bytes
        }
        3 => VALID[..random.below(VALID.len())].to_vec(),
        4 => (0..random.below(40))
            .flat_map(|_| FRAGMENTS[random.below(FRAGMENTS.len())])
            .copied()
            .collect(),
        _ => [OTHER_PROTOCOLS[random.below(OTHER_PROTOCOLS.len())], &random.bytes(2000, &any)]
            .concat(),
    }
}

/// Asserts that `received` is empty or consists of complete responses with expected statuses.
#[track_caller]
fn assert_valid_responses(mut received: &[u8], request: &[u8]) {
    let show = || {
        format!(
            "{:?} to {:?}",
            String::from_utf8_lossy(received),
            request.escape_ascii().to_string()
        )
    };
    while !received.is_empty() {
        let response = Response::parse(received);
        assert!(matches!(response.status, 200 | 400 | 404 | 405 | 413 | 421 | 431), "{}", show());
        let length = response.header("content-length").unwrap_or_else(|| panic!("{}", show()));
        let body: usize = if request.starts_with(b"HEAD") { 0 } else { length.parse().unwrap() };
        let whole = response.head.len() + 4 + body;
        assert!(received.len() >= whole, "{}", show());
        assert!(response.body.starts_with('{'), "{}", show());
        received = &received[whole..];
    }
}

#[test]
fn malformed_input_gets_a_valid_response_or_none() {
    let test = LoadTest::start(&[]);
    test.serves_during(|| {
        thread::scope(|scope| {
            for seed in 1..=4 {
                let address = test.address();
                scope.spawn(move || {
                    let mut random = TestRandom(0x5eed_0000 + seed);
                    for _ in 0..1000 {
                        let bytes = malformed_input(&mut random);
                        let mut stream = connect(address);
                        let _ = stream.write_all(&bytes);
                        let _ = stream.shutdown(Shutdown::Write); // It can be closed by now.
                        let mut received = Vec::new();
                        let _ = stream.read_to_end(&mut received);
                        assert_valid_responses(&received, &bytes);
                    }
                });
            }
        });
    });
    assert_eq!(test.recovers().matches("panicked").count(), 0);
}

/// Writes `text` repeatedly, continuing at `sent`, until the socket would block. Returns false if the peer has closed it.
fn write_until_blocked(stream: &mut TcpStream, text: &[u8], sent: &mut usize) -> bool {
    stream.set_nonblocking(true).unwrap();
    loop {
        match stream.write(&text[*sent % text.len()..]) {
            Ok(n) => *sent += n,
            Err(err) => return err.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

#[test]
fn a_client_that_sends_requests_and_never_reads_is_disconnected() {
    const FLOOD: usize = 5;
    let test = LoadTest::start(&[]);
    let requests = "GET /token HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1000);
    let peak = test.serves_during(|| {
        let begun_at = Instant::now();
        let mut flood: Vec<_> = (0..FLOOD)
            .map(|_| {
                // A small receive buffer, so that the server blocks early.
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                socket.set_recv_buffer_size(4096).unwrap();
                socket.connect(&test.address().into()).unwrap();
                (TcpStream::from(socket), 0)
            })
            .collect();
        let (mut peak, mut all_connected) = (0, false);
        // Counted by the server's descriptors, since the kernel accepts writes for a while after the server has closed. Up
        // to two more belong to the normal client. On a machine that is busy they may be closed before they are counted.
        while !flood.is_empty()
            && (!all_connected || test.server.descriptors() > test.descriptors + 2)
        {
            all_connected |= test.server.descriptors() >= test.descriptors + FLOOD;
            assert!(begun_at.elapsed() < PATIENCE, "they are not disconnected");
            flood.retain_mut(|(stream, sent)| {
                write_until_blocked(stream, requests.as_bytes(), sent)
            });
            peak = peak.max(test.server.memory());
            thread::sleep(Duration::from_millis(20));
        }
        eprintln!("all were disconnected after {:?}", begun_at.elapsed());
        peak
    });
    eprintln!("VmRSS {} KiB at most", peak / 1024);
    assert!(peak < MAX_MEMORY_AFTER_LOAD, "VmRSS went to {} KiB", peak / 1024);
    assert_eq!(test.recovers(), "");
}

#[test]
fn an_endless_body_is_not_read_to_the_end() {
    let test = LoadTest::start(&[]);
    for framing in
        ["Transfer-Encoding: chunked", "Content-Length: 16384", "Content-Length: 99999999999"]
    {
        test.serves_during(|| {
            let begun_at = Instant::now();
            let head = format!("POST /token HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n");
            let chunks = format!("1000\r\n{}\r\n", "x".repeat(0x1000)).repeat(100);
            let mut endless: Vec<_> = open_connections(50, test.address())
                .into_iter()
                .map(|stream| (stream, 0))
                .collect();
            for (stream, _) in &mut endless {
                stream.write_all(head.as_bytes()).unwrap();
            }
            let mut total = 0;
            while !endless.is_empty() {
                let left = endless.len();
                assert!(begun_at.elapsed() < PATIENCE, "{left} are not disconnected");
                endless.retain_mut(|(stream, sent)| {
                    let before = *sent;
                    let is_open = write_until_blocked(stream, chunks.as_bytes(), sent);
                    total += *sent - before;
                    is_open
                });
                thread::sleep(Duration::from_millis(5));
            }
            // The kernel buffers about 5 MB for each. A server that reads takes more than that each second.
            assert!(total < 1 << 30, "{total} bytes of {framing} were taken");
        });
    }
    assert_eq!(test.recovers(), "");
}

#[test]
fn two_hundred_connections_are_served_with_64_descriptors() {
    let test = LoadTest::with_descriptors(64);
    let kept = test.serves_during(|| {
        // Some are silent, some are in the middle of a request.
        let mut kept = open_connections(100, test.address());
        kept.extend(open_connections_with(b"GET /token HTTP/1.1\r\n", 100, test.address()));
        // New connections are still served.
        for _ in 0..200 {
            request_token(&test.server);
        }
        kept
    });
    let (opened_at, last) = (Instant::now(), open_connections(60, test.address()));
    // When the server has answered this, it has accepted those.
    request_token(&test.server);
    let open = test.server.descriptors();
    assert!(open <= 64, "{open}");
    assert!(open >= 30 || opened_at.elapsed() >= ARRIVAL_LIMIT, "{open}");
    drop((kept, last));
    let started_at = test.started_at;
    let stderr = test.recovers();
    assert!(stderr.contains("Raise --max-connections or ulimit -n"), "{stderr}");
    assert_few_lines(&stderr, 2, started_at);
}

#[test]
fn accepting_resumes_when_descriptors_are_free_again() {
    let test = LoadTest::with_descriptors(64);
    // The server expects room for some 35 connections, and the kernel refuses earlier.
    let pid = Pid::from_raw(test.server.pid().try_into().unwrap());
    let fewer = Rlimit { current: Some(24), maximum: Some(64) };
    prlimit(pid, Resource::Nofile, fewer).unwrap();
    let kept = test.serves_during(|| {
        let kept = open_connections(30, test.address());
        for _ in 0..20 {
            request_token(&test.server);
        }
        kept
    });
    drop(kept);
    let started_at = test.started_at;
    let stderr = test.recovers();
    assert!(stderr.contains("[Too many open files"), "{stderr}");
    assert_few_lines(&stderr, 2, started_at);
}

#[test]
fn thousands_of_refused_clients_do_not_displace_an_allowed_one() {
    let test = LoadTest::start(&["--allow", "127.0.0.1", "--max-connections", "100"]);
    let mut allowed = test.server.caller();
    assert_eq!(allowed.get("/token").status, 200);
    let refused = test.serves_during(|| {
        let mut refused = Vec::new();
        for n in 0..5000 {
            if n % 500 == 0 {
                // Idle for longer, it may be closed.
                assert_eq!(allowed.get("/token").status, 200, "it is still open");
            }
            let mut client = connect_from(&format!("127.0.0.{}", 2 + n % 10), test.address());
            match n % 5 {
                // Neither reads nor closes.
                0 => refused.push(client),
                1 => drop(client),
                2 => {
                    let _ = client.write_all(b"GET /token HTTP/1.1\r\nHost: localhost\r\n\r\n");
                }
                _ => {
                    let mut received = Vec::new();
                    let _ = client.read_to_end(&mut received);
                    // Under load it can be disconnected instead, but never gets another answer.
                    assert!(
                        received.is_empty() || received.starts_with(b"HTTP/1.1 403 "),
                        "{received:?}"
                    );
                }
            }
        }
        refused
    });
    assert_eq!(allowed.get("/token").status, 200, "the connection from before is still open");
    drop((allowed, refused));
    let started_at = test.started_at;
    let stderr = test.recovers();
    assert!(stderr.contains("not in --allow"), "{stderr}");
    // One for each address, and one for those that were left out.
    assert_few_lines(&stderr, 11, started_at);
}

#[test]
fn two_full_listeners_both_accept_a_new_connection_at_the_same_time() {
    let both = ["--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"];
    for capacity in ["1", "4"] {
        let test = LoadTest::start(&[&both[..], &["--max-connections", capacity]].concat());
        let other: SocketAddr =
            test.server.addresses[1].strip_prefix("http://").unwrap().parse().unwrap();
        let mut kept = open_connections(4, test.address());
        for _ in 0..20 {
            let begun_at = Instant::now();
            test.server.signal("STOP");
            let new = [connect(test.address()), connect(other)];
            test.server.signal("CONT");
            kept.extend(new);
            // Each listener continues to accept.
            request_token(&test.server);
            let request = b"GET /token HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            assert_has_token(&exchange(other, request));
            assert!(begun_at.elapsed() < PATIENCE, "{:?}", begun_at.elapsed());
        }
        drop(kept);
        test.recovers();
    }
}
