//! Connections of `wxtoken serve` whose first bytes are all there, in part or not at all when they are accepted.

use std::fs;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use socket2::SockRef;

use crate::support::*;

const LAST: &str = "GET /token HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
const KEPT: &str = "GET /token HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn published() -> Sandbox {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, 0);
    sandbox
}

/// Connects and sends this while the process of the server accepts nothing. Calls `then` with the connections before it does.
fn before_accept(
    server: &Server,
    pid: u32,
    sent: &[&str],
    then: impl FnOnce(&mut Vec<Caller<TcpStream>>),
) -> Vec<Caller<TcpStream>> {
    send("STOP", pid);
    let callers = sent.iter().map(|text| {
        let mut caller = server.caller();
        caller.send(text);
        caller
    });
    let mut callers = callers.collect();
    then(&mut callers);
    send("CONT", pid);
    callers
}

#[test]
fn a_connection_is_served_alike_whatever_of_its_requests_is_there_when_it_is_accepted() {
    let sandbox = published();
    let server = sandbox.serve(&[]);
    // Requests of the same bytes are parsed in the first round only.
    for _ in 0..3 {
        for (requests, answers) in [
            (vec![LAST], 1),
            (vec![KEPT, LAST], 2),
            (vec![KEPT, KEPT, KEPT, LAST], 4),
            // No answer follows the last one.
            (vec![LAST, LAST], 1),
            (vec![KEPT, LAST, KEPT], 2),
        ] {
            let all = requests.concat();
            for cut in [0, 1, requests[0].len() - 1, requests[0].len(), all.len()] {
                let mut callers = before_accept(&server, server.pid(), &[&all[..cut]], |_| {});
                let caller = &mut callers[0];
                // The server may have closed the connection after its last answer.
                let _ = caller.try_send(&all[cut..]);
                let mut received = Vec::new();
                caller.read_all(&mut received);
                let received = String::from_utf8(received).unwrap();
                let count = |text| received.matches(text).count();
                assert_eq!(count("HTTP/1.1 200 OK"), answers, "{cut} of {requests:?}: {received}");
                assert_eq!(count(r#""access_token":"T1""#), answers, "{received}");
                assert_eq!(count("connection: close"), 1, "{received}");
            }
        }
    }
}

#[test]
fn clients_that_have_left_before_they_are_accepted_keep_no_place() {
    let sandbox = published();
    let server = sandbox.serve(&[]);
    let mut observer = server.caller();
    for _ in 0..3 {
        let sent = [LAST, KEPT, KEPT, &KEPT[..9], "", LAST];
        let mut callers = before_accept(&server, server.pid(), &sent, |callers| {
            for caller in callers.drain(2..) {
                // Dropping it resets the connection.
                SockRef::from(caller.stream()).set_linger(Some(Duration::ZERO)).unwrap();
            }
            for caller in callers {
                caller.stream().shutdown(Shutdown::Write).unwrap();
            }
        });
        for caller in &mut callers {
            assert_eq!(caller.answer().status, 200, "it still reads");
            assert!(caller.is_closed());
        }
        eventually("no place is taken but the observer's", || {
            observer.get("/metrics").body.contains("\nwxtoken_connections 1\n")
        });
    }
}

#[needs(strace)]
#[test]
fn a_connection_whose_only_request_is_there_when_it_is_accepted_never_enters_the_event_loop() {
    const CONNECTIONS: usize = 60;
    let sandbox = published();
    let trace = sandbox.path("trace");
    let serve = sandbox.command(&["serve", "--listen", "127.0.0.1:0"]);
    let words =
        ["strace", "-f", "-qq", "-o", trace.to_str().unwrap(), "-e", "trace=epoll_ctl,accept4"];
    let server = Server::start(wrapped(&words, &serve), 1);
    let pid = traced(&server);
    assert_eq!(server.send(LAST).status, 200); // Parsed.
    for mut caller in before_accept(&server, pid, &[LAST; CONNECTIONS], |_| {}) {
        assert_eq!(caller.answer().status, 200);
        assert!(caller.is_closed());
    }
    send("TERM", pid);
    assert_eq!(server.end().0.code(), Some(0));
    let trace = fs::read_to_string(trace).unwrap();
    let accepted = trace.lines().filter(|it| it.contains("accept4(") && it.contains("AF_INET"));
    assert_eq!(accepted.count(), CONNECTIONS + 1, "{trace}");
    let entered = trace.matches("EPOLL_CTL_ADD").count();
    assert!(entered < CONNECTIONS / 2, "{entered}: {trace}");
}

/// `fs.epoll.max_user_watches` is used up.
#[needs(strace)]
#[test]
fn a_connection_that_the_event_loop_cannot_take_is_closed_and_logged() {
    let sandbox = published();
    let trace = sandbox.path("trace");
    let serve = sandbox.command(&["serve", "--listen", "127.0.0.1:0"]);
    let start = |first: usize| {
        let fault = format!("inject=epoll_ctl:error=ENOSPC:when={first}+");
        Server::start(with_faults(&["-e", "trace=epoll_ctl", "-e", &fault], &trace, &serve), 1)
    };
    let server = start(1000);
    end_traced(&server);
    server.end();
    // What a server has there itself.
    let own = fs::read_to_string(&trace).unwrap().matches("EPOLL_CTL_ADD").count();
    let server = start(own + 1);
    assert!(server.caller().is_closed());
    end_traced(&server);
    let (_, stderr) = server.end();
    assert!(stderr.contains("No space left on device"), "{stderr}");
}
