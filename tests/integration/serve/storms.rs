//! Crowds, floods and nonsense against `wxtoken serve`: an honest caller is answered throughout, and when it is over
//! memory and descriptors come back. Nothing here measures speed; the bounds are what a person would notice.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

const TOKEN: &str = "T0KEN_for_honest_callers_only";

/// How long an honest caller may have to wait while a storm rages: connecting, asking and reading. Measured: under
/// half a second on two busy cores, debug build.
const NOTICEABLE: Duration = Duration::from_secs(5);

/// How long a request may take to arrive (wxtoken(1), status 408).
const ARRIVAL_LIMIT: Duration = Duration::from_secs(10);

/// All that the process may keep after a storm: what it began with, and what the allocator holds back for the next
/// one. Measured: up to 30 MiB in a debug build, which begins with 9; a release build begins with 4.
const AFTER_A_STORM: usize = 32 * MIB;

const MIB: usize = 1 << 20;

/// A server with a live token, as it was before the storm.
struct Calm {
    sandbox: Sandbox,
    server: Server,
    memory: usize,
    descriptors: usize,
}

impl Calm {
    fn before_the_storm(args: &[&str]) -> Calm {
        let sandbox = published();
        let server = sandbox.serve(args);
        Calm::of(sandbox, server)
    }

    /// With `limit` descriptors, of which `taken` are somebody else's.
    fn with_descriptors(limit: usize, taken: usize) -> Calm {
        let sandbox = published();
        let serve = sandbox.command(&["serve", "--listen", "127.0.0.1:0"]);
        let mut command = Command::new("bash");
        let take: String =
            (0..taken).map(|n| format!("exec {}</dev/null; ", limit - 1 - n)).collect();
        command.args(["-c", &format!(r#"ulimit -n {limit}; {take}exec "$0" "$@""#)]);
        command.arg(serve.get_program()).args(serve.get_args());
        for (name, value) in serve.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let server = Server::start(command, 1);
        Calm::of(sandbox, server)
    }

    fn of(sandbox: Sandbox, server: Server) -> Calm {
        let descriptors = server.descriptors();
        // What the first requests cost is no storm's doing.
        for _ in 0..10 {
            ask_honestly(&server);
        }
        eventually("the first callers are gone", || server.descriptors() == descriptors);
        Calm { memory: server.memory(), sandbox, server, descriptors }
    }

    fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Asks as an honest caller again and again while `storm` goes on, and is answered in bounded time.
    fn endures<T: Send>(&self, storm: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let storm = scope.spawn(storm);
            let (mut answers, mut longest) = (0, Duration::ZERO);
            while !storm.is_finished() || answers < 10 {
                longest = longest.max(ask_honestly(&self.server));
                answers += 1;
                assert!(longest < NOTICEABLE, "honest caller {answers} waited for {longest:?}");
                // Honest callers do not hurry.
                thread::sleep(Duration::from_millis(10));
            }
            eprintln!("{answers} honest answers, the slowest after {longest:?}");
            storm.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// After the storm: who was there is gone, memory came back, and it ends as cleanly as ever.
    fn returns(self) -> String {
        eventually("its descriptors come back", || self.server.descriptors() == self.descriptors);
        ask_honestly(&self.server);
        let after = self.server.memory();
        eprintln!("VmRSS {} KiB before, {} KiB after", self.memory / 1024, after / 1024);
        assert!(after < AFTER_A_STORM, "VmRSS {} KiB", after / 1024);
        // A replaced token is seen at once, as on the first day.
        self.sandbox.publish("T2", 7200, 0);
        assert_eq!(self.server.get("/token").json()["access_token"], "T2");
        self.server.stop()
    }
}

fn published() -> Sandbox {
    let sandbox = Sandbox::asking("http://127.0.0.1:1");
    sandbox.publish(TOKEN, 7200, 0);
    sandbox
}

/// Asks over a new connection, and gets the token; how long that took.
#[track_caller]
fn ask_honestly(server: &Server) -> Duration {
    let asked_at = Instant::now();
    assert_is_the_token(&server.get("/token"));
    asked_at.elapsed()
}

#[track_caller]
fn assert_is_the_token(response: &Response) {
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.json()["access_token"], TOKEN);
}

/// Lets this process, which is all the strangers at once, have as many descriptors as it may; how many that is.
fn many_descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("it is allowed");
    limit.maximum.map_or(1 << 20, |maximum| maximum as usize)
}

/// Opens up to this many connections, fewer where the machine allows no more, and says so.
fn crowd(wanted: usize, address: SocketAddr) -> Vec<TcpStream> {
    // Tests run side by side in one process.
    let possible = many_descriptors().saturating_sub(3000);
    if possible < wanted {
        eprintln!("\n*** {possible} connections instead of {wanted}: ulimit -Hn ***\n");
    }
    (0..wanted.min(possible)).map(|_| connect(address)).collect()
}

/// Whether the other side has closed, by whatever it said before. Does not wait.
fn is_cut(stream: &mut TcpStream, said: &mut Vec<u8>) -> bool {
    stream.set_nonblocking(true).unwrap();
    match stream.read_to_end(said) {
        Ok(_) => true,
        Err(err) => err.kind() != io::ErrorKind::WouldBlock,
    }
}

#[test]
fn five_hundred_who_send_a_byte_now_and_then_are_cut_at_ten_seconds_and_hold_nobody_up() {
    many_descriptors();
    let calm = Calm::before_the_storm(&[]);
    calm.endures(|| {
        let begun_at = Instant::now();
        let mut slow: Vec<_> =
            crowd(500, calm.address()).into_iter().map(|stream| (stream, Vec::new())).collect();
        let request = b"GET /token HTTP/1.1\r\nHost: localhost\r\nX-Slow: ".iter();
        let mut bytes = request.chain(std::iter::repeat(&b'x'));
        let mut cut = 0;
        while cut < slow.len() {
            let byte = [*bytes.next().unwrap()];
            for (stream, _) in &mut slow {
                let _ = stream.write(&byte); // It may be cut off already.
            }
            thread::sleep(Duration::from_millis(100));
            let elapsed = begun_at.elapsed();
            cut = slow
                .iter_mut()
                .map(|(stream, said)| is_cut(stream, said))
                .filter(|cut| *cut)
                .count();
            assert!(cut == 0 || elapsed >= ARRIVAL_LIMIT, "cut after {elapsed:?}");
            assert!(elapsed < 2 * ARRIVAL_LIMIT, "{cut} are cut after {elapsed:?}");
        }
        for (_, said) in &slow {
            assert_eq!(Response::parse(said).status, 408, "{}", String::from_utf8_lossy(said));
        }
    });
    assert_eq!(calm.returns(), "");
}

#[test]
fn ten_thousand_who_say_nothing_make_room_for_whoever_asks() {
    many_descriptors();
    let calm = Calm::before_the_storm(&[]);
    let idle = calm.endures(|| crowd(10_000, calm.address()));
    for _ in 0..50 {
        assert!(ask_honestly(&calm.server) < NOTICEABLE);
    }
    let held = calm.server.descriptors() - calm.descriptors;
    assert!((1..=1024).contains(&held), "--max-connections is 1024, {held} are open");
    let full = calm.server.memory();
    eprintln!("VmRSS {} KiB with {held} of {} connections", full / 1024, idle.len());
    assert!(full < 32 * MIB, "{} KiB", full / 1024);
    drop(idle);
    let stderr = calm.returns();
    assert!(stderr.contains("1024") && stderr.contains("--max-connections"), "{stderr}");
    assert!(stderr.lines().count() < 10, "a line in ten seconds:\n{stderr}");
}

#[test]
fn ten_thousand_kept_connections_cost_16_kib_each_at_most() {
    let calm = Calm::before_the_storm(&["--max-connections", "12000"]);
    let kept = calm.endures(|| {
        let mut kept = crowd(10_000, calm.address());
        for stream in &mut kept {
            // Each has been served, and may ask again.
            stream.write_all(b"HEAD /token HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        }
        for stream in &mut kept {
            assert!(stream.read(&mut [0; 1024]).unwrap() > 100);
        }
        kept
    });
    let allowed = 16 * 1024 * kept.len();
    let each = || calm.server.memory().saturating_sub(calm.memory);
    eventually("the silent ones give back their buffers", || each() <= allowed);
    eprintln!("{} bytes each for {} connections", each() / kept.len(), kept.len());
    assert_eq!(calm.server.descriptors(), calm.descriptors + kept.len(), "nobody had to go");
    for stream in kept.into_iter().step_by(1000) {
        assert_eq!(Caller::over(stream).get("/token").status, 200, "they still can");
    }
    eventually("they are gone", || calm.server.descriptors() == calm.descriptors);
}

#[test]
fn crowd_after_crowd_costs_no_more_memory_than_one() {
    let calm = Calm::before_the_storm(&[]);
    for _ in 0..10 {
        let mut crowd = crowd(500, calm.address());
        for stream in &mut crowd {
            stream.write_all(b"HEAD /token HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        }
        for stream in &mut crowd {
            assert!(stream.read(&mut [0; 1024]).unwrap() > 100);
        }
        drop(crowd);
        eventually("they are gone", || calm.server.descriptors() == calm.descriptors);
    }
    assert_eq!(calm.returns(), "");
}

#[test]
fn a_header_of_a_megabyte_is_refused_and_not_kept() {
    let calm = Calm::before_the_storm(&[]);
    let mut request = b"GET /token HTTP/1.1\r\nHost: localhost\r\nCookie: ".to_vec();
    request.resize(MIB, b'x');
    calm.endures(|| {
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        assert_eq!(exchange(calm.address(), &request).status, 431);
                    }
                });
            }
        });
    });
    assert_eq!(calm.returns(), "");
}

/// A small generator of the same numbers each time (xorshift64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    fn bytes(&mut self, most: usize, from: &[u8]) -> Vec<u8> {
        (0..self.below(most)).map(|_| from[self.below(from.len())]).collect()
    }
}

/// Nonsense of many shapes: noise, HTTP with a few bytes changed, its pieces in any order, other protocols.
fn nonsense(dice: &mut Dice) -> Vec<u8> {
    const GOOD: &[u8] =
        b"POST /token?x=y HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nAccept: */*\r\n\r\nhello";
    const PIECES: [&[u8]; 20] = [
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
    const OTHERS: [&[u8]; 6] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        b"\x05\x01\x00",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"\xff\xfb\x01\xff\xfd\x03",
    ];
    let any: Vec<u8> = (0..=255).collect();
    match dice.below(6) {
        0 => dice.bytes(3000, &any),
        1 => dice.bytes(3000, b"\r\n :/GETHTP1.0\0"),
        2 => {
            let mut bytes = GOOD.to_vec();
            for _ in 0..=dice.below(4) {
                let at = dice.below(bytes.len());
                bytes[at] = dice.below(256) as u8;
            }
            bytes
        }
        3 => GOOD[..dice.below(GOOD.len())].to_vec(),
        4 => (0..dice.below(40)).flat_map(|_| PIECES[dice.below(PIECES.len())]).copied().collect(),
        _ => [OTHERS[dice.below(OTHERS.len())], &dice.bytes(2000, &any)].concat(),
    }
}

/// Asserts that what came back, if anything, is whole HTTP answers of the kinds that there are.
#[track_caller]
fn assert_is_well_formed(mut said: &[u8], to: &[u8]) {
    let show =
        || format!("{:?} to {:?}", String::from_utf8_lossy(said), to.escape_ascii().to_string());
    while !said.is_empty() {
        let response = Response::parse(said);
        assert!(matches!(response.status, 200 | 400 | 404 | 405 | 413 | 421 | 431), "{}", show());
        let length = response.header("content-length").unwrap_or_else(|| panic!("{}", show()));
        let body: usize = if to.starts_with(b"HEAD") { 0 } else { length.parse().unwrap() };
        let whole = response.head.len() + 4 + body;
        assert!(said.len() >= whole, "{}", show());
        assert!(response.body.starts_with('{'), "{}", show());
        said = &said[whole..];
    }
}

#[test]
fn nonsense_of_any_shape_is_answered_properly_or_not_at_all() {
    let calm = Calm::before_the_storm(&[]);
    calm.endures(|| {
        thread::scope(|scope| {
            for seed in 1..=4 {
                let address = calm.address();
                scope.spawn(move || {
                    let mut dice = Dice(0x5eed_0000 + seed);
                    for _ in 0..1000 {
                        let bytes = nonsense(&mut dice);
                        let mut stream = connect(address);
                        let _ = stream.write_all(&bytes);
                        let _ = stream.shutdown(Shutdown::Write); // It may be gone by now.
                        let mut said = Vec::new();
                        let _ = stream.read_to_end(&mut said);
                        assert_is_well_formed(&said, &bytes);
                    }
                });
            }
        });
    });
    assert_eq!(calm.returns().matches("panicked").count(), 0);
}

/// Sends what fits of `text`, again and again from where it stopped; `false` when the other side has closed.
fn pour(stream: &mut TcpStream, text: &[u8], sent: &mut usize) -> bool {
    stream.set_nonblocking(true).unwrap();
    loop {
        match stream.write(&text[*sent % text.len()..]) {
            Ok(n) => *sent += n,
            Err(err) => return err.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

#[test]
fn whoever_asks_without_end_and_never_reads_is_cut() {
    const FLOOD: usize = 5;
    let calm = Calm::before_the_storm(&[]);
    let requests = "GET /token HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1000);
    let peak = calm.endures(|| {
        let begun_at = Instant::now();
        let mut flood: Vec<_> = (0..FLOOD)
            .map(|_| {
                // A small buffer on this side: filling the kernel's is not what is tried here.
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                socket.set_recv_buffer_size(4096).unwrap();
                socket.connect(&calm.address().into()).unwrap();
                (TcpStream::from(socket), 0)
            })
            .collect();
        let (mut peak, mut all_were_there) = (0, false);
        // The server's own count: the kernel may go on offering what nobody reads long after the server has gone. An
        // honest caller may be there, too.
        while !all_were_there || calm.server.descriptors() > calm.descriptors + 2 {
            all_were_there |= calm.server.descriptors() >= calm.descriptors + FLOOD;
            assert!(begun_at.elapsed() < 4 * ARRIVAL_LIMIT, "they are not cut");
            flood.retain_mut(|(stream, sent)| pour(stream, requests.as_bytes(), sent));
            peak = peak.max(calm.server.memory());
            thread::sleep(Duration::from_millis(20));
        }
        eprintln!("all were cut after {:?}", begun_at.elapsed());
        peak
    });
    eprintln!("VmRSS {} KiB at the height of it", peak / 1024);
    assert!(peak < AFTER_A_STORM, "VmRSS went to {} KiB", peak / 1024);
    assert_eq!(calm.returns(), "");
}

#[test]
fn a_body_without_end_is_not_read_to_the_end() {
    let calm = Calm::before_the_storm(&[]);
    for framing in
        ["Transfer-Encoding: chunked", "Content-Length: 16384", "Content-Length: 99999999999"]
    {
        calm.endures(|| {
            let begun_at = Instant::now();
            let head = format!("POST /token HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n");
            let chunks = format!("1000\r\n{}\r\n", "x".repeat(0x1000)).repeat(100);
            let mut endless: Vec<_> =
                crowd(50, calm.address()).into_iter().map(|stream| (stream, 0)).collect();
            for (stream, _) in &mut endless {
                stream.write_all(head.as_bytes()).unwrap();
            }
            while !endless.is_empty() {
                assert!(begun_at.elapsed() < ARRIVAL_LIMIT, "{} are not cut", endless.len());
                endless.retain_mut(|(stream, sent)| pour(stream, chunks.as_bytes(), sent));
                thread::sleep(Duration::from_millis(5));
            }
        });
    }
    assert_eq!(calm.returns(), "");
}

#[test]
fn two_hundred_find_room_where_there_are_64_descriptors() {
    let calm = Calm::with_descriptors(64, 0);
    let kept = calm.endures(|| {
        let mut kept = crowd(200, calm.address());
        // Some say nothing, some are in the middle of a request.
        for stream in kept.iter_mut().step_by(2) {
            let _ = stream.write_all(b"GET /token HTTP/1.1\r\n"); // It may have made room by now.
        }
        // And each is let in again when it comes again.
        for _ in 0..200 {
            ask_honestly(&calm.server);
        }
        kept
    });
    assert!((30..=64).contains(&calm.server.descriptors()), "{}", calm.server.descriptors());
    drop(kept);
    let stderr = calm.returns();
    assert!(stderr.contains("--max-connections, ulimit -n"), "{stderr}");
    assert!(stderr.lines().count() < 10, "{stderr}");
}

#[test]
fn where_there_are_no_descriptors_left_it_goes_on_as_soon_as_there_are() {
    // It counts on 40 connections, and the kernel refuses long before.
    let calm = Calm::with_descriptors(64, 44);
    let kept = calm.endures(|| {
        let kept = crowd(30, calm.address());
        for _ in 0..20 {
            ask_honestly(&calm.server);
        }
        kept
    });
    drop(kept);
    let stderr = calm.returns();
    assert!(stderr.contains("cannot accept a connection: Too many open files"), "{stderr}");
    assert!(stderr.lines().count() < 10, "{stderr}");
}

#[test]
fn thousands_of_strangers_take_nobodys_place() {
    let calm = Calm::before_the_storm(&["--allow", "127.0.0.1", "--max-connections", "100"]);
    let mut friend = calm.server.caller();
    assert_eq!(friend.get("/token").status, 200);
    let strangers = calm.endures(|| {
        let mut strangers = Vec::new();
        for n in 0..5000 {
            let mut stranger = connect_from(&format!("127.0.0.{}", 2 + n % 10), calm.address());
            match n % 5 {
                // Neither reads nor hangs up.
                0 => strangers.push(stranger),
                1 => drop(stranger),
                2 => {
                    let _ = stranger.write_all(b"GET /token HTTP/1.1\r\nHost: localhost\r\n\r\n");
                }
                _ => {
                    let mut said = Vec::new();
                    let _ = stranger.read_to_end(&mut said);
                    // In the thick of it he may be hung up on, but is never told anything else.
                    assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 403 "), "{said:?}");
                }
            }
        }
        strangers
    });
    assert_eq!(friend.get("/token").status, 200, "who was here before them still is");
    drop((friend, strangers));
    let stderr = calm.returns();
    assert!(stderr.contains("not in --allow"), "{stderr}");
    assert!(stderr.lines().count() < 10, "{stderr}");
}

#[test]
fn two_listeners_that_are_full_at_the_same_moment_both_let_their_newcomer_in() {
    let both = ["--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"];
    for capacity in ["1", "4"] {
        let calm = Calm::before_the_storm(&[&both[..], &["--max-connections", capacity]].concat());
        let other: SocketAddr =
            calm.server.addresses[1].strip_prefix("http://").unwrap().parse().unwrap();
        let mut kept = crowd(4, calm.address());
        for _ in 0..20 {
            let begun_at = Instant::now();
            calm.server.signal("STOP");
            let newcomers = [connect(calm.address()), connect(other)];
            calm.server.signal("CONT");
            kept.extend(newcomers);
            // Each listener goes on accepting.
            ask_honestly(&calm.server);
            let request = b"GET /token HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            assert_is_the_token(&exchange(other, request));
            assert!(begun_at.elapsed() < NOTICEABLE, "{:?}", begun_at.elapsed());
        }
        drop(kept);
        calm.returns();
    }
}
