//! Large bodies pass in constant memory.

use std::io::{Read, Write};
use std::net::TcpListener;

use super::upstream::{Reply, Upstream};
use crate::support::*;

const MIB: usize = 1024 * 1024;

/// How much memory large bodies may take, whatever their size.
const MAX_GROWTH: usize = 12 * MIB;

/// Starts an upstream that answers calls of `/cgi-bin/media/get` with this many bytes and others with `{}`, and a gateway
/// before it.
fn start(size: usize) -> (WeChat, Upstream, Sandbox, Server) {
    let wechat = WeChat::start();
    let upstream = Upstream::new(&wechat, move |call| match call.path() {
        "/cgi-bin/media/get" => Reply::Large(size),
        _ => Reply::Json("{}".to_owned()),
    });
    let sandbox = Sandbox::with_base_url(&upstream.url());
    let server = sandbox.serve_refreshing(&["--gateway"]);
    assert_eq!(server.get("/cgi-bin/x").body, "{}");
    (wechat, upstream, sandbox, server)
}

/// Reads `size` bytes of a body. Fails if there are fewer.
fn read_exactly(stream: &mut impl Read, size: usize) {
    let mut buffer = vec![0; 64 * 1024];
    let mut left = size;
    while left > 0 {
        let wanted = buffer.len().min(left);
        let read = stream.read(&mut buffer[..wanted]).expect("more of the body");
        assert!(read > 0, "{left} bytes are missing");
        assert!(buffer[..read].iter().all(|byte| *byte == b'x'));
        left -= read;
    }
}

/// Sends `GET /cgi-bin/media/get` and reads the head of the answer.
fn begin_download(server: &Server, size: usize) -> std::net::TcpStream {
    let mut stream = connect(server.address());
    stream.write_all(b"GET /cgi-bin/media/get HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a head");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.contains(&format!("content-length: {size}\r\n")), "{head}");
    stream
}

#[test]
fn a_hundred_megabytes_go_up_and_down_in_constant_memory() {
    let size = 100 * MIB;
    let (_wechat, upstream, _sandbox, server) = start(size);
    let before = server.peak_memory();
    read_exactly(&mut begin_download(&server, size), size);

    let mut caller = server.caller();
    let head = "POST /cgi-bin/media/upload HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n";
    caller.send(format!("{head}Content-Length: {size}\r\n\r\n"));
    let piece = vec![b'x'; MIB];
    for _ in 0..100 {
        caller.send(&piece);
    }
    assert_eq!(caller.answer().body, "{}");
    let call = upstream.calls().pop().unwrap();
    assert_eq!((call.path(), call.length), ("/cgi-bin/media/upload", size));
    assert_eq!(call.header("content-length"), Some(&*size.to_string()));
    assert_eq!(call.header("content-type"), Some("multipart/form-data; boundary=b"));
    // The connection carries another call.
    assert_eq!(caller.get("/cgi-bin/x").body, "{}");
    let growth = server.peak_memory() - before;
    assert!(growth < MAX_GROWTH, "{growth}");
}

#[test]
fn clients_that_read_nothing_hold_wechat_back_and_cost_no_memory() {
    let size = 32 * MIB;
    let (_wechat, _upstream, _sandbox, server) = start(size);
    let before = server.peak_memory();
    let mut slow: Vec<_> = (0..8).map(|_| begin_download(&server, size)).collect();
    // Others are served meanwhile.
    for _ in 0..20 {
        assert_eq!(server.get("/cgi-bin/x").body, "{}");
    }
    let growth = server.peak_memory() - before;
    assert!(growth < MAX_GROWTH, "{growth}");
    read_exactly(&mut slow[3], size);
    read_exactly(&mut slow[0], size);
}

#[test]
fn a_body_of_many_small_pieces_takes_no_more_memory_than_one_of_few() {
    let (_wechat, upstream, _sandbox, server) = start(1);
    let before = server.peak_memory();
    let mut caller = server.caller();
    let head = "POST /cgi-bin/media/upload HTTP/1.1\r\nHost: localhost\r\n";
    caller.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n"));
    // A byte a chunk, each of which had a record of its own.
    let chunks = "1\r\nx\r\n".repeat(1024);
    for _ in 0..256 {
        caller.send(&chunks);
    }
    caller.send("0\r\n\r\n");
    assert_eq!(caller.answer().body, "{}");
    assert_eq!(upstream.calls().pop().unwrap().length, MIB / 4);
    let growth = server.peak_memory() - before;
    assert!(growth < MAX_GROWTH, "{growth}");
}

/// WeChat refuses before it has the body, and the client may still be sending.
#[test]
fn an_early_answer_reaches_a_client_that_is_sending() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut begun = [0; 1024];
            let _ = client.read(&mut begun);
            let answer = b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 9\r\n\r\ntoo large";
            client.write_all(answer).unwrap();
            // It reads nothing more, and stays open until the gateway closes it.
            let _ = client.set_read_timeout(Some(PATIENCE));
            while client.read(&mut begun).is_ok_and(|read| read > 0) {}
        }
    });
    let server = sandbox.serve(&["--gateway", "--base-url", &url]);
    let mut caller = server.caller();
    let head = "POST /cgi-bin/media/upload HTTP/1.1\r\nHost: localhost\r\n";
    caller.send(format!("{head}Content-Length: {}\r\n\r\nxxx", 4 * MIB));
    let answer = caller.answer();
    assert_eq!((answer.status, &*answer.body), (413, "too large"));
    assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");
}

/// WeChat has the beginning of a large body before the client has sent the rest.
#[test]
fn an_upload_streams_as_it_comes() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = std::sync::mpsc::channel::<usize>();
    let size = 3 * MIB;
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let (mut received, mut buffer) = (Vec::new(), [0; 64 * 1024]);
        let mut body = 0;
        while body < size {
            let read = client.read(&mut buffer).unwrap();
            assert!(read > 0, "the body broke off");
            received.extend_from_slice(&buffer[..read]);
            let head = received.windows(4).position(|it| it == b"\r\n\r\n");
            body = head.map_or(0, |head| received.len() - head - 4);
            let _ = sender.send(body);
        }
        client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").unwrap();
        let _ = client.read(&mut [0]);
    });
    let server = sandbox.serve(&["--gateway", "--base-url", &url]);
    let mut caller = server.caller();
    let head = "POST /cgi-bin/media/upload HTTP/1.1\r\nHost: localhost\r\n";
    caller.send(format!("{head}Content-Length: {size}\r\n\r\n"));
    for sent in 1..=3 {
        caller.send(vec![b'x'; MIB]);
        let mut arrived = 0;
        while arrived < (sent - 1) * MIB + 1 {
            arrived = receiver.recv_timeout(PATIENCE).expect("more arrives at WeChat");
        }
    }
    assert_eq!(caller.answer().body, "{}");
}

/// What a program writes in small pieces arrives in small pieces.
#[test]
fn an_answer_streams_as_it_comes() {
    let wechat = WeChat::start();
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let receiver = std::sync::Mutex::new(receiver);
    let sandbox = Sandbox::new(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let _ = client.read(&mut [0; 4096]);
        client
            .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
            .unwrap();
        // Until the client has read the first piece.
        receiver.lock().unwrap().recv().unwrap();
        client.write_all(b"3\r\ntwo\r\n0\r\n\r\n").unwrap();
        let _ = client.read(&mut [0]);
    });
    let server = sandbox.serve(&["--gateway", "--base-url", &url]);
    let mut caller = server.caller();
    caller.send("GET /cgi-bin/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_eq!(caller.answer_to_head().status, 200);
    assert_eq!(caller.read_line(), "3\r\n");
    assert_eq!(caller.read_line(), "one\r\n");
    sender.send(()).unwrap();
    let mut rest = Vec::new();
    caller.read_all(&mut rest);
    assert_eq!(String::from_utf8(rest).unwrap(), "3\r\ntwo\r\n0\r\n\r\n");
}
