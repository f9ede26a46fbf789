//! Proxies: one in front of the mock that can hold answers, so that a test decides how long a call takes, and one for CONNECT.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;

/// Passes requests on at once, and answers only while they are not held.
pub(crate) struct HoldingProxy {
    address: SocketAddr,
    is_held: Arc<(Mutex<bool>, Condvar)>,
}

impl HoldingProxy {
    /// Starts one that holds nothing yet.
    pub(crate) fn new(backend: SocketAddr) -> HoldingProxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let is_held = Arc::new((Mutex::new(false), Condvar::new()));
        let proxy = HoldingProxy { address, is_held: is_held.clone() };
        thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let is_held = is_held.clone();
                thread::spawn(move || {
                    let answer = forward(&read_request(&mut client)?, backend)?;
                    let (is_held, changed) = &*is_held;
                    drop(changed.wait_while(is_held.lock().unwrap(), |is_held| *is_held).unwrap());
                    client.write_all(&answer).ok()
                });
            }
        });
        proxy
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Holds the answers from now on.
    pub(crate) fn hold(&self) {
        *self.is_held.0.lock().unwrap() = true;
    }

    /// Sends the held answers, and the following ones at once.
    pub(crate) fn release(&self) {
        *self.is_held.0.lock().unwrap() = false;
        self.is_held.1.notify_all();
    }
}

/// Reads a whole request. `None` if the client ends before.
pub(crate) fn read_request(client: &mut impl Read) -> Option<String> {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !is_whole(&request) {
        let read = client.read(&mut buffer).ok().filter(|read| *read > 0)?;
        request.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8(request).ok()
}

/// Sends a request to `backend` over a connection of its own. Returns the answer.
pub(crate) fn forward(request: &str, backend: SocketAddr) -> Option<Vec<u8>> {
    let mut backend = TcpStream::connect(backend).ok()?;
    backend.write_all(request.replacen("\r\n", "\r\nConnection: close\r\n", 1).as_bytes()).ok()?;
    let mut answer = Vec::new();
    backend.read_to_end(&mut answer).ok()?;
    Some(answer)
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head
        .lines()
        .find_map(|line| line.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    body.len() >= length.unwrap_or(0)
}

/// Starts a CONNECT proxy that connects every tunnel to `target`. Returns its address and the heads of requests.
pub(crate) fn proxy_to(target: SocketAddr) -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, heads) = mpsc::channel();
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).is_ok_and(|read| read == 1)
            {
                head.push(byte[0]);
            }
            let _ = sender.send(String::from_utf8_lossy(&head).into_owned());
            let _ = client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n");
            let server = TcpStream::connect(target).unwrap();
            let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut from, &mut to));
            let (mut from, mut to) = (server, client);
            thread::spawn(move || std::io::copy(&mut from, &mut to));
        }
    });
    (address, heads)
}

/// Returns an address that leads to the one that is sent later.
pub(crate) fn detour() -> (SocketAddr, mpsc::Sender<SocketAddr>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, target) = mpsc::channel();
    thread::spawn(move || {
        let target: SocketAddr = target.recv().unwrap();
        for mut client in listener.incoming().flatten() {
            let mut server = TcpStream::connect(target).unwrap();
            let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut from, &mut to));
            thread::spawn(move || std::io::copy(&mut server, &mut client));
        }
    });
    (address, sender)
}
