//! Starts the servers that are compared: wxtoken, and nginx with the same JSON as a static file, one worker each. Also
//! sends single requests to them. The load comes from `load`.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Server, TOKEN};

/// The limit of connections for nginx: the default of `wxtoken serve --max-connections`.
pub const USUAL_CONNECTIONS: usize = 1024;

/// A certificate and its private key, in PEM files.
#[derive(Clone, Debug)]
pub struct Identity {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// A port on which nginx answers.
pub struct Site<'a> {
    pub name: &'a str,
    /// Directives that determine how it answers; `{ANSWER}` stands for the JSON.
    pub directives: &'a str,
    pub tls: Option<&'a Identity>,
}

/// A running server with its endpoints.
pub struct Running {
    pub endpoints: Vec<Endpoint>,
    server: Server,
}

/// An address at which a server answers in a certain way.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub name: String,
    pub address: SocketAddr,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The process that answers.
    pub worker: u32,
    /// All processes of the server.
    pub processes: Vec<u32>,
}

impl Running {
    /// Starts `wxtoken serve` with these arguments and the document in `dir`.
    pub fn wxtoken(name: &str, dir: &Path, args: &[&str]) -> Running {
        let mut command = super::wxtoken();
        command.args(["serve", "--listen", "127.0.0.1:0", "--dir"]).arg(dir);
        command.args(args);
        Running::announced(name, command)
    }

    /// Starts a server that prints `listening on URL` once it listens.
    pub fn announced(name: &str, mut command: Command) -> Running {
        let mut server = Server::start({
            command.stdout(Stdio::piped());
            command
        });
        let mut line = String::new();
        let stdout = server.child().stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let url = line.trim().strip_prefix("listening on ").and_then(|url| url.split_once("://"));
        let (scheme, address) = url.expect("a URL");
        let endpoint = Endpoint {
            name: name.to_owned(),
            address: address.parse().expect("an address"),
            scheme: if scheme == "https" { "https" } else { "http" },
            worker: server.pid(),
            processes: vec![server.pid()],
        };
        Running { endpoints: vec![endpoint], server }
    }

    /// Starts a server that is told to listen on an address, and returns once it does.
    pub fn at(name: &str, address: SocketAddr, mut command: Command) -> Running {
        let server = Server::start({
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command
        });
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(started.elapsed() < Duration::from_secs(60), "{name} does not start");
            sleep(Duration::from_millis(10));
        }
        let endpoint = Endpoint {
            name: name.to_owned(),
            address,
            scheme: "http",
            worker: server.pid(),
            processes: vec![server.pid()],
        };
        Running { endpoints: vec![endpoint], server }
    }

    /// Starts `wxtoken serve` with this certificate.
    pub fn wxtoken_with_tls(name: &str, dir: &Path, identity: &Identity, args: &[&str]) -> Running {
        let [cert, key] = [&identity.cert, &identity.key].map(|path| path.to_str().expect("text"));
        Running::wxtoken(name, dir, &[&["--tls-cert", cert, "--tls-key", key], args].concat())
    }

    /// Starts nginx with a port for each of `sites`.
    pub fn nginx(nginx: &Path, dir: &Path, connections: usize, sites: &[Site<'_>]) -> Running {
        Running::nginx_with(nginx, dir, connections, sites, "")
    }

    /// Does the same with more directives in the `http` block.
    pub fn nginx_with(
        nginx: &Path,
        dir: &Path,
        connections: usize,
        sites: &[Site<'_>],
        directives: &str,
    ) -> Running {
        let home = dir.join("nginx");
        fs::create_dir_all(home.join("www")).expect("a directory");
        let answer = format!(r#"{{"access_token":"{TOKEN}","expires_in":7200}}"#);
        fs::write(home.join("www/token"), &answer).expect("a file");
        let addresses = free_addresses(sites.len());
        let servers = sites.iter().zip(&addresses).map(|(site, address)| {
            let directives = site.directives.replace("{ANSWER}", &answer);
            let (ssl, tls) = match site.tls {
                None => ("", String::new()),
                Some(Identity { cert, key }) => {
                    let (cert, key) = (cert.display(), key.display());
                    let files = format!("ssl_certificate {cert}; ssl_certificate_key {key};");
                    (" ssl", format!("{files} ssl_protocols TLSv1.2 TLSv1.3;"))
                }
            };
            format!(
                "server {{ listen {address}{ssl} backlog=1024; {tls} root www; location / {{ {directives} }} }}\n"
            )
        });
        let config = format!(
            // When started as root, nginx would switch to a user that cannot read this directory.
            "user root; daemon off; worker_processes 1; pid pid; worker_rlimit_nofile {};\n\
             events {{ worker_connections {connections}; }}\n\
             http {{ access_log off; sendfile on; default_type application/json;\n\
             keepalive_timeout 300s; keepalive_requests 1000000000;\n\
             client_body_temp_path a; proxy_temp_path b; fastcgi_temp_path c; uwsgi_temp_path d; scgi_temp_path e;\n\
             {directives} {} }}\n",
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
        let started = Instant::now();
        while TcpStream::connect(addresses[0]).is_err() {
            let errors = fs::read_to_string(home.join("stderr")).unwrap_or_default();
            assert!(started.elapsed() < Duration::from_secs(10), "nginx does not start: {errors}");
            sleep(Duration::from_millis(10));
        }
        let processes = process_tree(server.pid());
        let endpoints = sites.iter().zip(addresses).map(|(site, address)| Endpoint {
            name: format!("nginx, {}", site.name),
            address,
            scheme: if site.tls.is_some() { "https" } else { "http" },
            worker: *processes.last().expect("there is one"),
            processes: processes.clone(),
        });
        Running { endpoints: endpoints.collect(), server }
    }
}

impl Endpoint {
    /// Returns the URL of `path`.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// Returns the memory of all processes of the server.
    pub fn memory(&self, measure: fn(u32) -> f64) -> f64 {
        self.processes.iter().copied().map(measure).sum()
    }
}

/// Returns a process and its children; nginx's master has one.
fn process_tree(parent: u32) -> Vec<u32> {
    let children = format!("/proc/{parent}/task/{parent}/children");
    let children = fs::read_to_string(children).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    [parent].into_iter().chain(children).collect()
}

/// Returns unused addresses, for servers that cannot choose their ports themselves.
pub fn free_addresses(count: usize) -> Vec<SocketAddr> {
    let free = || TcpListener::bind("127.0.0.1:0").expect("a free port");
    let listeners: Vec<TcpListener> = (0..count).map(|_| free()).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("an address")).collect()
}

/// Raises the limit of descriptors for this process and its children. Prints a line and returns `false` if that fails.
pub fn can_hold_connections(connections: usize) -> bool {
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

/// Opens a connection.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    stream
}

/// Sends a GET over a kept-alive connection, and returns the body of the response.
pub fn get(stream: &mut (impl Read + Write), path: &str) -> String {
    get_with_headers(stream, path, &[])
}

/// Like [`get`], with additional headers.
pub fn get_with_headers(stream: &mut (impl Read + Write), path: &str, headers: &[&str]) -> String {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut response = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        let n = stream.read(&mut buffer).expect("it answers");
        assert!(n > 0, "it hung up");
        response.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&response).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let head = head.to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if length.and_then(|length| length.parse().ok()) == Some(body.len()) {
            return body.to_owned();
        }
    }
}

/// Returns the token in the body of a response.
pub fn token(body: &str) -> String {
    let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
    body["access_token"].as_str().expect("a token").to_owned()
}
