//! `wxtoken serve` under systemd: notifications, watchdog and passed sockets. The tests play the service manager, by
//! sd_notify(3) and sd_listen_fds(3).

use std::fs;
use std::io::{ErrorKind, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::tls::{Authority, Identity, TlsClient};
use crate::support::*;
use rustix::time::{ClockId, clock_gettime};

/// A service manager that receives notifications.
struct Manager {
    socket: UnixDatagram,
    /// The value of NOTIFY_SOCKET.
    name: String,
}

impl Manager {
    fn in_sandbox(sandbox: &Sandbox) -> Manager {
        let path = sandbox.path("notify");
        Manager::new(UnixDatagram::bind(&path).unwrap(), path.display().to_string())
    }

    fn with_abstract_socket() -> Manager {
        let name = format!("wxtoken-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        Manager::new(UnixDatagram::bind_addr(&address).unwrap(), format!("@{name}"))
    }

    fn new(socket: UnixDatagram, name: String) -> Manager {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Manager { socket, name }
    }

    /// Waits for the next notification.
    #[track_caller]
    fn next(&self) -> String {
        let mut bytes = [0; 4096];
        let length = loop {
            match self.socket.recv(&mut bytes) {
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                received => break received.expect("a notification"),
            }
        };
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    /// Waits for the next notification that is not a watchdog ping.
    #[track_caller]
    fn next_except_watchdog(&self) -> String {
        loop {
            match self.next() {
                ping if ping == "WATCHDOG=1" => {}
                other => return other,
            }
        }
    }

    /// Returns whether no notification is waiting; for a server that has ended.
    fn has_no_more(&self) -> bool {
        self.socket.set_nonblocking(true).unwrap();
        self.socket.recv(&mut [0; 4096]).is_err_and(|err| err.kind() == ErrorKind::WouldBlock)
    }

    fn serve(&self, sandbox: &Sandbox, variables: &[(&str, &str)]) -> Server {
        let mut command = sandbox.command(&["serve", "--listen", "127.0.0.1:0"]);
        command.env("NOTIFY_SOCKET", &self.name).envs(variables.iter().copied());
        Server::start(command, 1)
    }
}

fn published() -> Sandbox {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, 0);
    sandbox
}

fn monotonic_micros() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap() * 1_000_000 + u64::try_from(now.tv_nsec).unwrap() / 1000
}

#[test]
fn the_manager_is_notified_of_ready_reloading_and_stopping() {
    let sandbox = published();
    for manager in [Manager::in_sandbox(&sandbox), Manager::with_abstract_socket()] {
        let server = manager.serve(&sandbox, &[]);
        let url = format!("http://{}", server.address());
        assert_eq!(manager.next(), format!("READY=1\nSTATUS=serving 1 account on {url}"));
        for _ in 0..3 {
            let before = monotonic_micros();
            server.signal("HUP");
            let reloading = manager.next();
            let at = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&reloading);
            assert!((before..=monotonic_micros()).contains(&at.parse().unwrap()), "{reloading}");
            assert_eq!(manager.next(), "READY=1");
        }
        // STOPPING is sent while a request is still in progress.
        let mut pending = server.caller();
        assert_eq!(pending.get("/token").status, 200);
        pending.send("GET /token HTTP/1.1\r\nHost: localhost\r\n");
        assert_eq!(server.get("/healthz").status, 200);
        server.signal("TERM");
        assert_eq!(manager.next(), "STOPPING=1");
        pending.send("\r\n");
        assert_eq!(pending.answer().status, 200);
        let (status, stderr) = server.end();
        assert_eq!((status.code(), &*stderr), (Some(0), ""));
        assert!(manager.has_no_more());
    }
}

#[test]
fn ready_is_sent_after_the_listening_lines_are_printed() {
    let sandbox = published();
    let manager = Manager::in_sandbox(&sandbox);
    let mut command = sandbox.command(&["serve", "--listen", "127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", &manager.name).stdout(Stdio::piped());
    let mut server = command.spawn().unwrap();
    assert!(manager.next().starts_with("READY=1\n"));
    let waiting = rustix::io::ioctl_fionread(server.stdout.as_ref().unwrap().as_fd()).unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(waiting > "listening on ".len() as u64);
}

#[test]
fn a_server_that_fails_to_start_never_sends_ready() {
    let sandbox = published();
    let manager = Manager::in_sandbox(&sandbox);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let mut command = sandbox.command(&["serve", "--listen", &taken]);
    command.env("NOTIFY_SOCKET", &manager.name);
    Run::new(command).exits(1).says(&["in use"]);
    assert!(manager.has_no_more());
}

#[test]
fn the_watchdog_is_pinged_twice_per_interval_if_it_is_for_this_process() {
    let sandbox = published();
    let manager = Manager::in_sandbox(&sandbox);
    let begun_at = Instant::now();
    let server = manager.serve(&sandbox, &[("WATCHDOG_USEC", "1000000")]);
    assert!(manager.next_except_watchdog().starts_with("READY=1"));
    for _ in 0..4 {
        assert_eq!(manager.next(), "WATCHDOG=1");
    }
    // The first can come at once; half a second lies between two.
    assert!(begun_at.elapsed() > Duration::from_millis(1400), "{:?}", begun_at.elapsed());
    eventually("the next one comes within an interval", || {
        let awaited_at = Instant::now();
        assert_eq!(manager.next(), "WATCHDOG=1");
        awaited_at.elapsed() < Duration::from_secs(1)
    });
    server.signal("TERM");
    assert_eq!(manager.next_except_watchdog(), "STOPPING=1");
    assert!(server.end().0.success());

    let ours = std::process::id().to_string();
    for not_ours in [
        &[("WATCHDOG_USEC", "1000"), ("WATCHDOG_PID", &*ours)][..],
        &[("WATCHDOG_USEC", "0")],
        &[("WATCHDOG_USEC", "often")],
        &[],
    ] {
        let server = manager.serve(&sandbox, not_ours);
        assert!(manager.next().starts_with("READY=1"));
        assert_eq!(server.get("/token").status, 200);
        server.signal("TERM");
        assert_eq!(manager.next(), "STOPPING=1", "{not_ours:?}");
        assert!(server.end().0.success());
    }
}

#[test]
fn without_notify_socket_nothing_is_logged_and_an_unreachable_one_is_logged_once() {
    let sandbox = published();
    for (name, lines) in [("", 0), ("/nonexistent/notify", 1), ("@nobody-listens-here", 1)] {
        let mut command = sandbox.command(&["serve", "--listen", "127.0.0.1:0"]);
        command.env("NOTIFY_SOCKET", name).env("WATCHDOG_USEC", "20000");
        let server = Server::start(command, 1);
        server.signal("HUP");
        assert_eq!(server.get("/token").status, 200);
        let stderr = server.stop();
        assert_eq!(stderr.lines().count(), lines, "{stderr}");
        assert_eq!(stderr.contains("NOTIFY_SOCKET"), lines == 1, "{stderr}");
    }
}

#[test]
fn a_manager_that_does_not_read_does_not_block_requests() {
    let sandbox = published();
    let manager = Manager::in_sandbox(&sandbox);
    let full = UnixDatagram::unbound().unwrap();
    full.set_nonblocking(true).unwrap();
    full.connect(sandbox.path("notify")).unwrap();
    while full.send(b"full").is_ok() {}
    let server = manager.serve(&sandbox, &[("WATCHDOG_USEC", "1000000")]);
    let mut caller = server.caller();
    for _ in 0..100 {
        assert_eq!(caller.get("/token").status, 200);
    }
    assert!(server.stop().contains("NOTIFY_SOCKET"));
}

#[test]
fn the_notified_status_shows_https_and_no_secret() {
    let sandbox = published();
    let authority = Authority::new();
    authority.sign().write_to(&sandbox);
    let manager = Manager::in_sandbox(&sandbox);
    let mut command = sandbox.command(&["serve", "--listen", "127.0.0.1:0"]);
    command.args(Identity::flags(&sandbox)).env("NOTIFY_SOCKET", &manager.name);
    let server = Server::start(command, 1);
    let ready = manager.next();
    assert!(
        ready.ends_with(&format!("serving 1 account on https://{}", server.address())),
        "{ready}"
    );
    assert_eq!(TlsClient::trusting(&authority).caller(server.address()).get("/token").status, 200);
    server.signal("HUP");
    for notification in [ready, manager.next(), manager.next()] {
        assert!(!notification.contains("T1") && !notification.contains(SECRET), "{notification}");
    }
}

/// Returns `wxtoken serve ARGS…` with `descriptor` passed as descriptor 3, by a shell that does what systemd does.
fn passing(sandbox: &Sandbox, descriptor: OwnedFd, args: &[&str]) -> Command {
    let mut serve = sandbox.command(&["serve"]);
    serve.args(args);
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ exec \"$0\" \"$@\"";
    let mut shell = wrapped(&["sh", "-c", script], &serve);
    shell.env("LISTEN_FDS", "1").stdin(Stdio::from(descriptor));
    shell
}

#[test]
fn a_passed_socket_overrides_listen_and_stays_open_after_the_exit() {
    let sandbox = published();
    let ours = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = ours.local_addr().unwrap();
    for (names, shown) in [
        (Some("wxtoken-serve.socket"), format!("http://{address} (wxtoken-serve.socket)")),
        (Some("a\u{1b}[2J"), format!("http://{address} (a\\u{{1b}}[2J)")),
        (Some(""), format!("http://{address}")),
        (None, format!("http://{address}")),
    ] {
        let mut command = passing(
            &sandbox,
            ours.try_clone().unwrap().into(),
            &["--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"],
        );
        if let Some(names) = names {
            command.env("LISTEN_FDNAMES", names);
        }
        let server = Server::start(command, 1);
        assert_eq!(server.addresses, [shown]);
        let mut caller = Caller::new(connect(address));
        for _ in 0..3 {
            assert_eq!(caller.get("/token").json()["access_token"], "T1");
        }
        let (stdout, stderr) = server.stop_with_output();
        assert_eq!((&*stdout, &*stderr), ("", ""), "nothing else is listened on or logged");
        assert!(caller.is_closed());
        // A connection made between two runs waits in the backlog for the next one.
        connect(address);
    }
}

#[test]
fn a_passed_unix_socket_is_not_removed() {
    let sandbox = published();
    let path = sandbox.path("passed");
    let ours = UnixListener::bind(&path).unwrap();
    for _ in 0..2 {
        let server = Server::start(passing(&sandbox, ours.try_clone().unwrap().into(), &[]), 1);
        assert_eq!(server.addresses, [format!("unix:{}", path.display())]);
        let answer = Caller::new(connect_unix(&server.addresses[0])).get("/token");
        assert_eq!(answer.status, 200);
        assert_eq!(server.stop(), "");
        assert!(path.exists());
    }
    let name = format!("wxtoken-passed-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let ours = UnixListener::bind_addr(&address).unwrap();
    let server = Server::start(passing(&sandbox, ours.into(), &[]), 1);
    assert_eq!(server.addresses, [format!("unix:@{name}")]);
    let answer = Caller::new(UnixStream::connect_addr(&address).unwrap()).get("/token");
    assert_eq!(answer.status, 200);
}

#[test]
fn a_passed_socket_has_the_same_access_checks() {
    let sandbox = published();
    let authority = Authority::new();
    authority.sign().write_to(&sandbox);
    let ours = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = ours.local_addr().unwrap().port();
    let server = Server::start(passing(&sandbox, ours.try_clone().unwrap().into(), &[]), 1);
    let request = b"GET /token HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let local_client = || connect_from("127.0.0.2", format!("127.0.0.1:{port}").parse().unwrap());
    assert_eq!(exchange_over(local_client(), request).status, 200);
    let stderr = server.stop();
    let warning =
        format!("serve: Give --allow: listens on http://0.0.0.0:{port} and allows no other host");
    assert!(stderr.contains(&warning), "{stderr}");

    let server = Server::start(
        passing(&sandbox, ours.try_clone().unwrap().into(), &["--allow", "127.0.0.1"]),
        1,
    );
    assert_eq!(exchange_over(local_client(), request).status, 403);
    drop(server);

    let local = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server::start(passing(&sandbox, local.try_clone().unwrap().into(), &[]), 1);
    let other_host = "GET /token HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert_eq!(server.send(other_host).status, 421);
    drop(server);

    let flags = Identity::flags(&sandbox);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let server = Server::start(passing(&sandbox, local.into(), &flags), 1);
    assert!(server.addresses[0].starts_with("https://127.0.0.1:"), "{:?}", server.addresses);
    assert_eq!(TlsClient::trusting(&authority).caller(server.address()).get("/token").status, 200);
}

#[test]
fn a_passed_descriptor_that_is_not_a_listening_stream_socket_is_an_error_that_names_it() {
    let sandbox = published();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = connect(listener.local_addr().unwrap());
    let (pair, _other) = UnixStream::pair().unwrap();
    for (what, descriptor) in [
        ("one connection, as with Accept=yes", OwnedFd::from(connected)),
        ("a pair", pair.into()),
        ("UDP", UdpSocket::bind("127.0.0.1:0").unwrap().into()),
        ("datagrams", UnixDatagram::unbound().unwrap().into()),
        ("a file", fs::File::open("/dev/null").unwrap().into()),
    ] {
        let mut command = passing(&sandbox, descriptor, &["--listen", "127.0.0.1:0"]);
        command.env("LISTEN_FDNAMES", "odd.socket");
        let ran = Run::new(command);
        assert_eq!(ran.status.code(), Some(2), "{what}: {ran:?}");
        ran.says(&["descriptor 3", "odd.socket", "ListenStream=", "Accept="]);
    }
    // LISTEN_FDS announces more descriptors than are passed.
    let mut command = passing(&sandbox, listener.try_clone().unwrap().into(), &[]);
    command.env("LISTEN_FDS", "2");
    Run::new(command).exits(2).says(&["descriptor 4"]);
    for invalid in ["many", "-1", "4000000000", "99999999999999999999"] {
        let mut command = passing(&sandbox, listener.try_clone().unwrap().into(), &[]);
        command.env("LISTEN_FDS", invalid);
        Run::new(command).exits(2).says(&["LISTEN_FDS"]);
    }
}

#[test]
fn listen_applies_if_the_passed_sockets_are_for_another_process_or_none() {
    let sandbox = published();
    for variables in [
        &[("LISTEN_FDS", "1"), ("LISTEN_PID", "1")][..],
        &[("LISTEN_FDS", "0")],
        &[("LISTEN_FDS", "")],
        &[("LISTEN_FDNAMES", "a:b")],
    ] {
        let mut command = sandbox.command(&["serve", "--listen", "127.0.0.1:0"]);
        command.envs(variables.iter().copied());
        let server = Server::start(command, 1);
        assert_eq!(server.get("/token").status, 200, "{variables:?}");
    }
}

#[needs(systemd)]
#[test]
fn systemd_socket_activate_passes_several_named_sockets() {
    let sandbox = published();
    let (first, second) = (sandbox.path("first"), sandbox.path("second"));
    let serve = sandbox.command(&["serve"]);
    let [at_first, at_second] =
        [&first, &second].map(|path| format!("--listen={}", path.display()));
    let names = "--fdname=api.socket:local.socket";
    let command = wrapped(&["systemd-socket-activate", &at_first, &at_second, names], &serve);
    // It starts the program at the first connection, which has to be answered, too.
    let (starting, at) = (std::thread::spawn(move || Server::start(command, 2)), second.clone());
    let mut early = None;
    eventually("a connection succeeds", || {
        early = UnixStream::connect(&at).ok();
        early.is_some()
    });
    let server = starting.join().unwrap();
    let shown = |path: &std::path::Path, name| format!("unix:{} ({name})", path.display());
    assert_eq!(server.addresses, [shown(&first, "api.socket"), shown(&second, "local.socket")]);
    let mut early = early.unwrap();
    early.write_all(b"GET /token HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!(Caller::new(early).answer().status, 200);
    for path in [&first, &second] {
        assert_eq!(Caller::new(UnixStream::connect(path).unwrap()).get("/token").status, 200);
    }
    server.signal("TERM");
    assert!(server.end().0.success());
    assert!(first.exists() && second.exists(), "systemd's sockets are not removed");
}

#[test]
fn a_reload_loads_the_new_certificate_before_it_notifies_ready() {
    let sandbox = published();
    let authority = Authority::new();
    authority.sign().write_to(&sandbox);
    let manager = Manager::in_sandbox(&sandbox);
    let mut command = sandbox.command(&["serve", "--listen", "127.0.0.1:0", "-v"]);
    command.args(Identity::flags(&sandbox)).env("NOTIFY_SOCKET", &manager.name);
    let server = Server::start(command, 1);
    assert!(manager.next().starts_with("READY=1"));
    let client = TlsClient::trusting(&authority).without_resumption();
    let certificate = || {
        let stream = client.try_connect(server.address()).expect("a handshake");
        stream.conn.peer_certificates().unwrap()[0].to_vec()
    };
    for _ in 0..5 {
        let before = certificate();
        authority.sign().write_to(&sandbox);
        server.signal("HUP");
        assert!(manager.next().starts_with("RELOADING=1\n"));
        assert_eq!(manager.next(), "READY=1");
        assert_ne!(certificate(), before);
    }
    // With an invalid certificate it keeps the old one and still notifies READY.
    write_with_mode(&sandbox.path("cert.pem"), "broken", 0o644);
    let before = certificate();
    server.signal("HUP");
    assert!(manager.next().starts_with("RELOADING=1\n"));
    assert_eq!(manager.next(), "READY=1");
    assert_eq!(certificate(), before);
    assert!(server.stop().contains("the last good certificates stay"));
}
