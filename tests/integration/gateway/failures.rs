//! WeChat is down, slow, or breaks off; clients leave.

use std::io::Write;
use std::net::{Shutdown, TcpListener};

use serde_json::json;

use super::upstream::{Reply, Upstream};
use crate::support::home::Home;
use crate::support::*;

/// Returns a config with one account whose token is published, and whose API is at these base URLs.
fn home(base_urls: &[&str]) -> Home {
    let home = Home::new(&format!("[account.shop]\nappid = \"wx1\"\nbase_url = {base_urls:?}\n"));
    home.publish("shop", "wx1", "T0K3N", 0);
    home
}

#[test]
fn where_wechat_cannot_be_reached_it_is_said_in_wechats_form_and_nothing_was_sent() {
    let (_kept, address) = refusing_address();
    let home = home(&[&format!("http://{address}")]);
    let server = home.serve_with_log(&["--gateway"]);
    let answer = server.get("/cgi-bin/x?a=S3CR3T");
    assert_eq!((answer.status, &answer.json()["errcode"]), (200, &json!(-1)), "{answer:?}");
    assert!(answer.body.contains("nothing was sent"), "{}", answer.body);
    eventually("it is logged", || home.has_logged(": a call cannot be passed on to WeChat"));
    assert!(home.has_logged("refused") && !home.has_logged("T0K3N") && !home.has_logged("S3CR3T"));
    let metrics = server.get("/metrics").body;
    assert!(metrics.contains("result=\"unreachable\",errcode=\"0\"} 1"), "{metrics}");
}

/// A name is looked up in a thread.
#[needs(strace)]
#[test]
fn without_threads_a_call_is_answered_and_the_limit_is_named() {
    let (_kept, address) = refusing_address();
    let home = home(&[&format!("http://localhost:{}", address.port())]);
    let serve = home.command(&["serve", "--gateway", "--listen", "127.0.0.1:0"]);
    // The first is for the signals.
    let faults = ["-e", "trace=clone,clone3", "-e", "inject=clone,clone3:error=EAGAIN:when=2+"];
    let server = Server::start(with_faults(&faults, &home.path("trace"), &serve), 1);
    for _ in 0..2 {
        let answer = server.get("/cgi-bin/x");
        assert_eq!((answer.status, &answer.json()["errcode"]), (200, &json!(-1)), "{answer:?}");
    }
    end_traced(&server);
    let (_, stderr) = server.end();
    assert!(stderr.contains("ulimit -u") && !stderr.contains("a fault in wxtoken"), "{stderr}");
}

/// Whether in TCP, in the handshake, or never: nothing was sent, and the next server is asked.
#[test]
fn a_server_that_says_nothing_in_the_handshake_is_one_that_cannot_be_reached() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}", silent.local_addr().unwrap().port());
    let home = home(&[&url]);
    let server = home.serve_with_log(&["--gateway"]);
    let answer = server.get("/cgi-bin/x");
    assert_eq!((answer.status, &answer.json()["errcode"]), (200, &json!(-1)), "{answer:?}");
    eventually("it is logged", || home.has_logged("no connection in time"));

    let wechat = WeChat::start();
    let upstream = Upstream::new(&wechat, |_| Reply::Json("{}".to_owned()));
    let home = self::home(&[&url, &upstream.url()]);
    let server = home.serve(&["--gateway"]);
    assert_eq!(server.get("/cgi-bin/x").body, "{}");
}

#[test]
fn another_base_url_is_used_while_the_first_cannot_be_reached() {
    let wechat = WeChat::start();
    let upstream = Upstream::new(&wechat, |_| Reply::Json("{}".to_owned()));
    let (_kept, address) = refusing_address();
    let home = home(&[&format!("http://{address}"), &format!("{}/prefix", upstream.url())]);
    let server = home.serve(&["--gateway"]);
    assert_eq!(server.get("/cgi-bin/x?a=1").body, "{}");
    assert_eq!(server.get("/cgi-bin/x?a=1").body, "{}");
    let calls = upstream.calls();
    assert_eq!(calls[0].target(), "/prefix/cgi-bin/x?a=1&access_token=T0K3N");
    assert_eq!(calls[0].connection, calls[1].connection, "it is kept");
}

#[test]
fn an_answer_that_is_lost_is_no_answer_that_an_sdk_repeats() {
    for broken in [
        "",
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"a\":",
        "HTTP/1.1 200",
        "junk\r\n\r\n",
    ] {
        let wechat = WeChat::start();
        let upstream = Upstream::new(&wechat, move |_| Reply::Broken(broken.as_bytes().to_vec()));
        let home = home(&[&upstream.url()]);
        let server = home.serve(&["--gateway"]);
        let answer = server.post("/cgi-bin/message/send", "{}");
        assert_eq!((answer.status, &answer.json()["errcode"]), (502, &json!(-1)), "{broken:?}");
        assert!(answer.body.contains("may have carried the call out"), "{}", answer.body);
        assert_eq!(upstream.calls().len(), 1, "{broken:?}: it is not repeated");
    }
}

/// The client notices by the length, or by the end of the chunks.
#[test]
fn an_answer_that_breaks_off_while_it_streams_breaks_off_for_the_client() {
    for framing in ["Content-Length: 100000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n2710\r\n"]
    {
        let wechat = WeChat::start();
        let upstream = Upstream::new(&wechat, move |_| {
            let begun = format!("HTTP/1.1 200 OK\r\n{framing}{}", "x".repeat(10_000));
            Reply::Broken(begun.into_bytes())
        });
        let home = home(&[&upstream.url()]);
        let server = home.serve(&["--gateway"]);
        let answer = server.get("/cgi-bin/media/get");
        assert_eq!(answer.status, 200);
        assert!(answer.body.len() < 100_000 && !answer.body.ends_with("0\r\n\r\n"), "{framing}");
        // The server goes on.
        assert_eq!(server.get("/healthz").status, 200);
    }
}

#[test]
fn a_client_that_leaves_ends_its_call_and_it_is_logged() {
    let wechat = WeChat::start();
    let upstream = Upstream::new(&wechat, |_| Reply::Silence);
    let home = home(&[&upstream.url()]);
    let server = home.serve_with_log(&["--gateway", "-v"]);
    let mut stream = connect(server.address());
    stream.write_all(post_request("/cgi-bin/message/send?a=S3CR3T", "{}").as_bytes()).unwrap();
    eventually("WeChat has the call", || upstream.calls().len() == 1);
    drop(stream);
    eventually("the connection to WeChat ends", || upstream.closed() == 1);
    eventually("it is logged", || {
        home.has_logged("a client left before WeChat answered its call of /cgi-bin/message/send")
    });
    assert!(!home.has_logged("S3CR3T") && !home.has_logged("T0K3N"));
}

/// Small bodies are read before the call is made, so WeChat never hears of it.
#[test]
fn a_body_that_breaks_off_is_never_sent_as_a_whole_one() {
    let wechat = WeChat::start();
    let upstream = Upstream::new(&wechat, |_| Reply::Json("{}".to_owned()));
    let home = home(&[&upstream.url()]);
    let server = home.serve(&["--gateway"]);
    let large = 2 * 1024 * 1024;
    for begun in [
        "POST /cgi-bin/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n12345".to_owned(),
        "POST /cgi-bin/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345".to_owned(),
        format!(
            "POST /cgi-bin/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: {large}\r\n\r\n{}",
            "x".repeat(1024 * 1024)
        ),
    ] {
        let mut stream = connect(server.address());
        stream.write_all(begun.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut caller = Caller::new(stream);
        caller.read_all(&mut Vec::new());
    }
    // The upstream notes only whole calls.
    assert_eq!(server.post("/cgi-bin/y", "{}").body, "{}");
    let paths: Vec<_> = upstream.calls().iter().map(|call| call.path().to_owned()).collect();
    assert_eq!(paths, ["/cgi-bin/y"]);
}

/// A connection that WeChat closed while it was idle carries no call.
#[test]
fn a_kept_connection_that_was_closed_is_replaced_and_no_call_fails() {
    let wechat = WeChat::start();
    let upstream = Upstream::new(&wechat, |call| match call.path() {
        "/cgi-bin/last" => {
            Reply::Closing(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".to_vec())
        }
        _ => Reply::Json("{}".to_owned()),
    });
    let home = home(&[&upstream.url()]);
    let server = home.serve(&["--gateway"]);
    for nth in 1..=10 {
        assert_eq!(server.post("/cgi-bin/x", "{}").body, "{}");
        assert_eq!(server.post("/cgi-bin/last", "{}").body, "{}");
        eventually("the gateway has noticed", || upstream.closed() == nth);
    }
    assert_eq!(upstream.calls().len(), 20);
}

/// WeChat would close it one day, perhaps just when a call goes out on it.
#[test]
fn a_kept_connection_is_closed_by_the_gateway_when_it_is_idle() {
    let wechat = WeChat::start();
    let upstream = Upstream::new(&wechat, |_| Reply::Json("{}".to_owned()));
    let home = home(&[&upstream.url()]);
    let server = home.serve(&["--gateway"]);
    assert_eq!(server.get("/cgi-bin/x").body, "{}");
    eventually("it is closed after 15 seconds", || upstream.closed() == 1);
    assert_eq!(server.get("/cgi-bin/x").body, "{}");
}

#[test]
fn without_a_token_a_call_is_not_made() {
    let wechat = WeChat::start();
    let upstream = Upstream::honest(&wechat);
    wechat.fault("token/errcode:40164");
    let sandbox = Sandbox::with_base_url(&upstream.url());
    let server = sandbox.serve_refreshing(&["--gateway"]);
    let answer = server.get("/cgi-bin/x");
    assert_eq!((answer.status, &answer.json()["errcode"]), (200, &json!(-1)), "{answer:?}");
    assert!(answer.body.contains("40164") && answer.body.contains("was not made"), "{answer:?}");
    assert_eq!(upstream.calls().len(), 0);
}

/// WeChat hangs, and each call waits for it for a minute.
#[test]
fn calls_that_wait_for_wechat_leave_connections_for_tokens_and_health_checks() {
    let wechat = WeChat::start();
    let upstream = Upstream::new(&wechat, |call| match call.path() {
        "/cgi-bin/hangs" => Reply::Silence,
        _ => Reply::Large(1024 * 1024 * 1024),
    });
    let home = home(&[&upstream.url()]);
    let server = home.serve(&["--gateway", "--max-connections", "16"]);
    let call = |path: &str| {
        let mut caller = server.caller();
        caller.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        caller
    };
    let mut waiting: Vec<_> = (0..8).map(|_| call("/cgi-bin/hangs")).collect();
    // Those whose answer streams count as well.
    waiting.extend((0..4).map(|_| call("/cgi-bin/streams")));
    eventually("all twelve are at WeChat", || upstream.calls().len() == 12);
    for _ in 0..8 {
        let answer = server.get("/cgi-bin/x");
        assert_eq!((answer.status, &answer.json()["errcode"]), (200, &json!(-1)), "{answer:?}");
        assert!(answer.body.contains("too many calls"), "{answer:?}");
        assert_eq!(server.get("/healthz").status, 200);
        assert_eq!(server.get("/token").status, 200);
    }
    assert_eq!(upstream.calls().len(), 12);
    for left in [11, 0] {
        drop(waiting.remove(left));
        let made = upstream.calls().len();
        eventually("another call is made", || {
            waiting.push(call("/cgi-bin/streams"));
            let answer = waiting.last_mut().unwrap().read_line();
            answer.contains("200") && upstream.calls().len() > made
        });
    }
}

#[test]
fn a_client_whose_bodies_never_end_or_whose_calls_wait_keeps_no_other_one_out() {
    let wechat = WeChat::start();
    let upstream = Upstream::new(&wechat, |call| match call.path() {
        "/cgi-bin/hangs" => Reply::Silence,
        _ => Reply::Json(r#"{"errcode":0}"#.to_owned()),
    });
    let home = home(&[&upstream.url()]);
    let (greedy, other) = (new_key(&["greedy"]), new_key(&["other"]));
    let keys = home.path("keys");
    write_with_mode(&keys, &format!("{}\n{}\n", greedy.line, other.line), 0o644);
    let flags = ["--gateway", "--max-connections", "16", "--keys", keys.to_str().unwrap()];
    let server = home.serve_with_log(&flags);
    let request = |key: &NewKey, path: &str, rest: &str| {
        let bearer = format!("Authorization: Bearer {}", key.key);
        format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{bearer}\r\n{rest}")
    };
    let errcode = |key| {
        let request = request(key, "/cgi-bin/x", "Connection: close\r\nContent-Length: 0\r\n\r\n");
        let answer = server.send(&request);
        (answer.json()["errcode"].as_i64().unwrap(), answer.body)
    };
    // More than there are connections: each makes room, as its request is still arriving.
    let unfinished: Vec<_> = (0..20)
        .map(|_| {
            let mut caller = server.caller();
            let _ = caller.try_send(request(&greedy, "/cgi-bin/x", "Content-Length: 9\r\n\r\n1"));
            caller
        })
        .collect();
    assert_eq!(errcode(&other).0, 0);
    drop(unfinished);
    let made = upstream.calls().len();
    let hangs = request(&greedy, "/cgi-bin/hangs", "Content-Length: 2\r\n\r\n{}");
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            let mut caller = server.caller();
            caller.send(&hangs);
            caller
        })
        .collect();
    eventually("all eight are at WeChat", || upstream.calls().len() == made + 8);
    let (code, body) = errcode(&greedy);
    assert!(code == -1 && body.contains("as many calls of this client as one may have"), "{body}");
    assert_eq!(errcode(&other).0, 0);
    eventually("it is logged", || home.has_logged("Let greedy make fewer calls at once"));
    drop(waiting);
    eventually("it may call again", || errcode(&greedy).0 == 0);
}

#[test]
fn an_answer_that_switches_protocols_is_no_answer() {
    let wechat = WeChat::start();
    let upstream = Upstream::new(&wechat, |_| {
        let switch =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        Reply::Closing(switch.as_bytes().to_vec())
    });
    let home = home(&[&upstream.url()]);
    let answer = home.serve(&["--gateway"]).get("/cgi-bin/x");
    assert_eq!((answer.status, &answer.json()["errcode"]), (502, &json!(-1)), "{answer:?}");
}

/// A connection that is closed without a head is one that some clients repeat their call on, which WeChat may have carried out.
#[test]
fn an_answer_that_breaks_off_has_a_head_at_least() {
    let wechat = WeChat::start();
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let long = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n";
    let upstream = Upstream::new(&wechat, move |call| match call.path() {
        "/cgi-bin/known" => {
            Reply::Closing(format!("{chunked}5\r\nhello\r\nno length").into_bytes())
        }
        "/cgi-bin/piece" => {
            let head = format!("{chunked}5\r\nhello\r\n").into_bytes();
            Reply::Pieces(vec![head, b"no length".to_vec()])
        }
        _ => Reply::Closing(long.as_bytes().to_vec()),
    });
    let home = home(&[&upstream.url()]);
    let server = home.serve(&["--gateway"]);
    let answer = server.get("/cgi-bin/known");
    assert_eq!((answer.status, &answer.json()["errcode"]), (502, &json!(-1)), "{answer:?}");
    // Chance decides whether the gateway sees the break before the head goes out.
    for path in ["/cgi-bin/piece", "/cgi-bin/long"] {
        let mut caller = server.caller();
        caller.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
        let mut all = Vec::new();
        caller.read_all(&mut all);
        let all = String::from_utf8_lossy(&all).into_owned();
        let is_cut_off = all.starts_with("HTTP/1.1 200 ") && !all.ends_with("0\r\n\r\n");
        assert!(is_cut_off || all.starts_with("HTTP/1.1 502 "), "{path}: {all}");
    }
}

#[test]
fn heads_that_announce_an_answer_without_end_are_no_answer() {
    let wechat = WeChat::start();
    let upstream = Upstream::new(&wechat, |call| match call.path() {
        "/cgi-bin/endless" => Reply::Endless(b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1000)),
        _ => {
            let announced = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n";
            Reply::Bytes(
                [&announced[..], b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"].concat(),
            )
        }
    });
    let home = home(&[&upstream.url()]);
    let server = home.serve(&["--gateway"]);
    for _ in 0..2 {
        assert_eq!(server.get("/cgi-bin/x").body, "{}", "a few are read over");
    }
    let answer = server.get("/cgi-bin/endless");
    assert_eq!((answer.status, &answer.json()["errcode"]), (502, &json!(-1)), "{answer:?}");
    eventually("the connection is closed", || upstream.closed() > 0);
    assert_eq!(server.get("/cgi-bin/x").body, "{}");
}

/// Takes a minute, which passes on the wire.
#[test]
fn a_side_that_stops_is_given_up() {
    let wechat = WeChat::start();
    let upstream = Upstream::new(&wechat, |call| match call.path() {
        "/cgi-bin/silent" => Reply::Silence,
        "/cgi-bin/small" => {
            Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{\"errcode\"".to_vec())
        }
        "/cgi-bin/large" => {
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n";
            Reply::Bytes([&head[..], &[b'x'; 5000]].concat())
        }
        _ => Reply::Json("{}".to_owned()),
    });
    let home = home(&[&upstream.url()]);
    let server = home.serve(&["--gateway"]);
    std::thread::scope(|scope| {
        for path in ["/cgi-bin/silent", "/cgi-bin/small"] {
            let server = &server;
            scope.spawn(move || {
                let answer = server.get(path);
                assert_eq!((answer.status, &answer.json()["errcode"]), (504, &json!(-1)), "{path}");
            });
        }
        scope.spawn(|| {
            let mut caller = server.caller();
            caller.send("GET /cgi-bin/large HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let mut all = Vec::new();
            caller.read_all(&mut all);
            assert!((5000..10_000).contains(&all.len()), "it breaks off: {}", all.len());
        });
        // A client that stops while it sends.
        let begun =
            "POST /cgi-bin/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n12345";
        let mut caller = server.caller();
        caller.send(begun);
        let mut all = Vec::new();
        caller.read_all(&mut all);
        let answer = Response::parse(&all);
        assert_eq!(answer.json()["errcode"], -1, "{answer:?}");
    });
    let calls = upstream.calls();
    assert!(calls.iter().all(|call| call.path() != "/cgi-bin/x"), "half a body is no call");
}
