//! The bytes of an answer to a call through the gateway, as WeChat or a proxy before it sends them. The gateway is the real
//! server, in a thread; the other end of its connections sends the input, whatever it is asked.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use super::Scratch;
use super::request::{TOKEN, assert_well_formed, document, has, read_all, start_server};

/// A call that a client of this host may make without a key.
const CALL: &[u8] =
    b"GET /cgi-bin/menu/get?a=b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

struct Gateway {
    socket: PathBuf,
    /// What the other end sends.
    answer: Arc<Mutex<Vec<u8>>>,
    _scratch: Scratch,
}

thread_local! {
    static GATEWAY: Gateway = Gateway::start();
}

impl Gateway {
    fn start() -> Gateway {
        let scratch = Scratch::new();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let answer = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&answer);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let mut request = Vec::new();
                let mut bytes = [0; 4096];
                while !has(&request, "\r\n\r\n") {
                    match stream.read(&mut bytes) {
                        Ok(0) | Err(_) => break,
                        Ok(read) => request.extend_from_slice(&bytes[..read]),
                    }
                }
                let answer = shared.lock().map(|answer| answer.clone()).unwrap_or_default();
                let _ = stream.write_all(&answer);
                let _ = stream.shutdown(Shutdown::Write);
            }
        });
        let document = document(&scratch);
        let socket = scratch.path("gateway.sock");
        start_server(
            &socket,
            &[
                "--gateway",
                "--base-url",
                &format!("http://{address}"),
                "--config",
                &scratch.write("config", b"").display().to_string(),
                "--file",
                &document.display().to_string(),
            ],
        );
        Gateway { socket, answer, _scratch: scratch }
    }
}

pub fn check(data: &[u8]) {
    GATEWAY.with(|gateway| {
        if let Ok(mut answer) = gateway.answer.lock() {
            *answer = data.to_vec();
        }
        let mut stream = UnixStream::connect(&gateway.socket).expect("a server");
        // A client that ends its stream has left.
        stream.write_all(CALL).expect("a server that reads");
        let answered = read_all(stream);
        assert!(!answered.is_empty(), "a call without an answer");
        // libFuzzer sees what is compared, and puts it into inputs.
        assert!(
            has(data, TOKEN) || !has(&answered, TOKEN),
            "a client that is handed no token gets one"
        );
        // An answer that is cut off is passed on so.
        let lengths = assert_well_formed(&answered);
        assert!(lengths.is_none_or(|(said, sent)| sent <= said), "longer than it says");
    });
}
