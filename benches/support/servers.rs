//! The servers that are compared: wxtoken, and nginx with the same JSON as a static file, one worker each. How they are
//! driven is not asked here.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Server, TOKEN};

/// How many connections nginx is told to hold: as many as `wxtoken serve` holds if it is not told.
pub const USUAL_CONNECTIONS: usize = 1024;

/// A certificate and its private key, in PEM files.
#[derive(Clone, Debug)]
pub struct Identity {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// One of the ports at which nginx answers.
pub struct Site<'a> {
    pub name: &'a str,
    /// What it is told about how to answer; `{ANSWER}` stands for the JSON.
    pub how: &'a str,
    pub tls: Option<&'a Identity>,
}

/// A server, and where it answers: one address for each of its ways to do so.
pub struct Running {
    pub ways: Vec<Way>,
    server: Server,
}

/// One of a server's ways to answer.
#[derive(Clone, Debug)]
pub struct Way {
    pub name: String,
    pub at: SocketAddr,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The process that answers.
    pub worker: u32,
    /// All processes of the server.
    pub processes: Vec<u32>,
}

impl Running {
    /// `wxtoken serve` with these arguments, handing out the document in `dir`.
    pub fn wxtoken(name: &str, dir: &Path, args: &[&str]) -> Running {
        let mut command = super::wxtoken();
        command.args(["serve", "--listen", "127.0.0.1:0", "--dir"]).arg(dir);
        command.args(args).stdout(Stdio::piped());
        let mut server = Server::start(command);
        let mut line = String::new();
        let stdout = server.child().stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let url = line.trim().strip_prefix("listening on ").and_then(|url| url.split_once("://"));
        let (scheme, at) = url.expect("a URL");
        let way = Way {
            name: name.to_owned(),
            at: at.parse().expect("an address"),
            scheme: if scheme == "https" { "https" } else { "http" },
            worker: server.pid(),
            processes: vec![server.pid()],
        };
        Running { ways: vec![way], server }
    }

    /// The same with this certificate.
    pub fn wxtoken_with(name: &str, dir: &Path, identity: &Identity, args: &[&str]) -> Running {
        let [cert, key] = [&identity.cert, &identity.key].map(|path| path.to_str().expect("text"));
        Running::wxtoken(name, dir, &[&["--tls-cert", cert, "--tls-key", key], args].concat())
    }

    pub fn nginx(nginx: &Path, dir: &Path, connections: usize, sites: &[Site<'_>]) -> Running {
        let home = dir.join("nginx");
        fs::create_dir_all(home.join("www")).expect("a directory");
        let answer = format!(r#"{{"access_token":"{TOKEN}","expires_in":7200}}"#);
        fs::write(home.join("www/token"), &answer).expect("a file");
        let at = free_addresses(sites.len());
        let servers = sites.iter().zip(&at).map(|(site, at)| {
            let how = site.how.replace("{ANSWER}", &answer);
            let (ssl, tls) = match site.tls {
                None => ("", String::new()),
                Some(Identity { cert, key }) => {
                    let (cert, key) = (cert.display(), key.display());
                    let files = format!("ssl_certificate {cert}; ssl_certificate_key {key};");
                    (" ssl", format!("{files} ssl_protocols TLSv1.2 TLSv1.3;"))
                }
            };
            format!(
                "server {{ listen {at}{ssl} backlog=1024; {tls} root www; location / {{ {how} }} }}\n"
            )
        });
        let config = format!(
            // As root it would become somebody who cannot read this directory.
            "user root; daemon off; worker_processes 1; pid pid; worker_rlimit_nofile {};\n\
             events {{ worker_connections {connections}; }}\n\
             http {{ access_log off; sendfile on; default_type application/json;\n\
             keepalive_timeout 300s; keepalive_requests 1000000000;\n\
             client_body_temp_path a; proxy_temp_path b; fastcgi_temp_path c; uwsgi_temp_path d; scgi_temp_path e;\n\
             {} }}\n",
            connections + 100,
            servers.collect::<String>(),
        );
        fs::write(home.join("nginx.conf"), config).expect("a file");
        let stderr = fs::File::create(home.join("stderr")).expect("a file");
        let mut command = Command::new(nginx);
        command.arg("-p").arg(&home).args(["-e", "errors", "-c", "nginx.conf"]);
        let server = Server::start({
            command.stdin(Stdio::null()).stderr(stderr);
            command
        });
        let begun = Instant::now();
        while TcpStream::connect(at[0]).is_err() {
            let errors = fs::read_to_string(home.join("stderr")).unwrap_or_default();
            assert!(begun.elapsed() < Duration::from_secs(10), "nginx does not start: {errors}");
            sleep(Duration::from_millis(10));
        }
        let processes = family(server.pid());
        let ways = sites.iter().zip(at).map(|(site, at)| Way {
            name: format!("nginx, {}", site.name),
            at,
            scheme: if site.tls.is_some() { "https" } else { "http" },
            worker: *processes.last().expect("there is one"),
            processes: processes.clone(),
        });
        Running { ways: ways.collect(), server }
    }
}

impl Way {
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.at)
    }

    /// What all processes of the server take.
    pub fn memory(&self, of: fn(u32) -> f64) -> f64 {
        self.processes.iter().copied().map(of).sum()
    }
}

/// A process and its children, of which nginx's master has one.
fn family(parent: u32) -> Vec<u32> {
    let children = format!("/proc/{parent}/task/{parent}/children");
    let children = fs::read_to_string(children).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    [parent].into_iter().chain(children).collect()
}

/// Where nobody listens: nginx has to be told its ports.
fn free_addresses(count: usize) -> Vec<SocketAddr> {
    let free = || TcpListener::bind("127.0.0.1:0").expect("a free port");
    let listeners: Vec<TcpListener> = (0..count).map(|_| free()).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("an address")).collect()
}

/// Sees to it that this process and those it starts can hold so many connections; a line says so if they cannot.
pub fn can_hold(connections: usize) -> bool {
    let limit = getrlimit(Resource::Nofile);
    let needed = (connections + 100) as u64;
    let raised = Rlimit { current: Some(needed.max(limit.current.unwrap_or(needed))), ..limit };
    let is_enough = limit.current.is_none_or(|soft| soft >= needed);
    let can = is_enough || setrlimit(Resource::Nofile, raised).is_ok();
    if !can {
        println!("\nnot here: {connections} idle connections need ulimit -Hn {needed}");
    }
    can
}

pub fn connect(at: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(at).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    stream
}

/// One request over a connection that stays; the answer's body.
pub fn ask(stream: &mut (impl Read + Write), path: &str) -> String {
    ask_with(stream, path, &[])
}

/// The same with these headers.
pub fn ask_with(stream: &mut (impl Read + Write), path: &str, headers: &[&str]) -> String {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        let n = stream.read(&mut buffer).expect("it answers");
        assert!(n > 0, "it hung up");
        answer.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&answer).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let head = head.to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if length.and_then(|length| length.parse().ok()) == Some(body.len()) {
            return body.to_owned();
        }
    }
}

/// The token in an answer.
pub fn token(body: &str) -> String {
    let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
    body["access_token"].as_str().expect("a token").to_owned()
}
