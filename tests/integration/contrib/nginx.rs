//! The sites in contrib/nginx, in a real nginx before a real wxtoken. The tests change only ports, paths and names.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use crate::support::tls::TlsFront;
use crate::support::*;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

const TOKEN: &str = "T0KEN_for_clients_of_nginx_0123456789abcdefghijklmnopqrstuvwxyz";
const NAME: &str = "wxtoken.example.com";

/// nginx, where there is one; Debian puts it where no user looks.
fn nginx() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin".into()])
        .map(|dir| dir.join("nginx"))
        .find(|program| program.is_file());
    found.expect("nginx")
}

/// A running nginx with one of the sites. Killed when dropped.
struct Nginx {
    child: Child,
    dir: TempDir,
    address: SocketAddr,
}

impl Nginx {
    /// Starts nginx with `contrib/nginx/SITE` and these replacements. Fails if the site does not contain a `from`.
    fn with(program: &Path, site: &str, changes: &[(&str, &str)]) -> Nginx {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().display();
        // nginx cannot choose a free port. It takes over a listening socket instead, as in an upgrade of its binary.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let site = fs::read_to_string(Path::new("contrib/nginx").join(site)).unwrap();
        let mut site = change(&site, "/var/log/nginx/", &format!("{at}/"));
        // The second port of the routing site: its platform is tried by the first one.
        site = site.replace("    listen 7281;", "").replace("    listen [::]:7281;", "");
        for port in ["443", "7280"] {
            site = site.replace(&format!("    listen [::]:{port}"), &format!("    #isten {port}"));
            site = site.replace(&format!("listen {port}"), &format!("listen {address}"));
        }
        for (from, to) in changes {
            site = change(&site, from, to);
        }
        site = site.replace("    7280 ", &format!("    {} ", address.port()));
        let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {at}/temp;\n"))
            .concat();
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let conf = format!(
            "{user} daemon off; worker_processes 1; pid {at}/pid; error_log {at}/error.log;\n\
             events {{}} http {{\naccess_log off;\n{temp}{site}}}\n"
        );
        fs::write(dir.path().join("nginx.conf"), conf).unwrap();
        let child = Command::new(program)
            .arg("-q")
            .arg("-p")
            .arg(dir.path())
            .arg("-c")
            .arg(dir.path().join("nginx.conf"))
            .env("NGINX", "0;")
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.path().join("stderr")).unwrap())
            .spawn()
            .expect("nginx starts");
        Nginx { child, dir, address }
    }

    /// Returns the contents of all its logs.
    fn logs(&self) -> String {
        let entries = fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let logs = entries.filter(|path| path.to_string_lossy().ends_with(".log"));
        logs.map(|path| fs::read_to_string(path).unwrap()).collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGKILL would leave the workers running.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let stderr = fs::read_to_string(self.dir.path().join("stderr")).unwrap_or_default();
            eprintln!("--- stderr of nginx\n{stderr}\n--- its logs\n{}", self.logs());
        }
    }
}

#[track_caller]
fn change(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from} is not in:\n{text}");
    text.replace(from, to)
}

/// wxtoken behind the TLS site.
struct Site {
    nginx: Nginx,
    wxtoken: Server,
    sandbox: Sandbox,
    certificate: CertificateDer<'static>,
}

/// The clients that are allowed.
const ALLOW: &str = "127.0.0.4,127.0.0.5";

impl Site {
    fn over_tcp(program: &Path, args: &[&str]) -> Site {
        Site::start(program, &["--trusted-proxy", "127.0.0.1"], args)
    }

    fn over_unix(program: &Path) -> Site {
        Site::start(program, &["--trusted-proxy", "unix", "--listen", "unix:"], &[])
    }

    fn start(program: &Path, trust: &[&str], args: &[&str]) -> Site {
        let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
        sandbox.publish(TOKEN, 7200, 0);
        let socket = format!("unix:{}", sandbox.path("socket").display());
        let trust: Vec<&str> =
            trust.iter().map(|flag| if *flag == "unix:" { &socket } else { *flag }).collect();
        let wxtoken = sandbox.serve(&[&trust[..], &["-v", "--allow", ALLOW], args].concat());

        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec![NAME.to_owned()]).unwrap().self_signed(&key).unwrap();
        let (cert_file, key_file) = (sandbox.path("cert.pem"), sandbox.path("key.pem"));
        fs::write(&cert_file, certificate.pem()).unwrap();
        fs::write(&key_file, key.serialize_pem()).unwrap();
        let upstream = match wxtoken.addresses[0].strip_prefix("http://") {
            Some(address) => format!("server {address};"),
            None => format!("server {socket};"),
        };
        let nginx = Nginx::with(
            program,
            "wxtoken.conf",
            &[
                ("server 127.0.0.1:7200;", &upstream),
                ("/etc/ssl/certs/wxtoken.pem", cert_file.to_str().unwrap()),
                ("/etc/ssl/private/wxtoken.key", key_file.to_str().unwrap()),
            ],
        );
        Site { nginx, wxtoken, sandbox, certificate: certificate.der().clone() }
    }

    /// Sends a request from `source` to nginx, over TLS.
    #[track_caller]
    fn send(&self, source: &str, request: &str) -> Response {
        let stream = connect_from(source, self.nginx.address);
        send_over_tls(stream, self.certificate.clone(), NAME, request)
    }

    #[track_caller]
    fn get(&self, source: &str, path: &str, headers: &str) -> Response {
        self.send(source, &request(path, headers))
    }
}

/// Sends a request over TLS to the server of this name, as a client that trusts `root`.
#[track_caller]
fn send_over_tls(
    stream: TcpStream,
    root: CertificateDer<'static>,
    name: &'static str,
    request: &str,
) -> Response {
    let mut roots = RootCertStore::empty();
    roots.add(root).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(name).unwrap();
    let tls = ClientConnection::new(Arc::new(config), name).unwrap();
    exchange_over(StreamOwned::new(tls, stream), request.as_bytes())
}

/// Returns a new key for a client of this name, and its line for the server's file.
fn new_key(name: &str) -> (String, String) {
    let mut command = wxtoken();
    command.args(["key", name]);
    let made = Run::new(command).exits(0).stdout;
    let part = |at: usize| made.lines().nth(at).unwrap()[5..].trim().to_owned();
    (part(0), part(1))
}

/// Returns a request with these headers; each has its line end.
fn request(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n{headers}\r\n")
}

const COMPATIBLE: &str = "/cgi-bin/token?grant_type=client_credential&appid=wx0123456789abcdef";

#[needs(nginx)]
#[test]
fn the_client_address_is_the_one_that_nginx_sees_whatever_headers_claim() {
    for site in [Site::over_tcp(&nginx(), &[]), Site::over_unix(&nginx())] {
        for headers in [
            "",
            "X-Forwarded-For: 127.0.0.4\r\n",
            "X-Forwarded-For: 127.0.0.6\r\n",
            "X-Forwarded-For: 127.0.0.4\r\nX-Forwarded-For: 127.0.0.5\r\n",
            "X-Forwarded-For: unknown\r\n",
            "x-forwarded-for: 127.0.0.4,\r\n",
            "X_Forwarded_For: 127.0.0.4\r\n",
            "Forwarded: for=127.0.0.4\r\n",
            "Forwarded: for=127.0.0.4\r\nforwarded: for=\"\r\n",
            "X-Real-IP: 127.0.0.4\r\nVia: 1.1 x\r\n",
            "X-Forwarded-Proto: http\r\nX-Forwarded-Host: localhost\r\n",
            "Connection: X-Forwarded-For\r\n",
            "Connection: close, X-Forwarded-For\r\nX-Forwarded-For: 127.0.0.4\r\n",
        ] {
            for client in ["127.0.0.4", "127.0.0.5"] {
                let response = site.get(client, "/token", headers);
                assert_eq!(response.status, 200, "{headers:?} {response:?}");
                assert_eq!(response.json()["access_token"], TOKEN);
            }
            // The address of the proxy itself is not allowed.
            for other in ["127.0.0.1", "127.0.0.6"] {
                let response = site.get(other, "/token", headers);
                assert_eq!(response.status, 403, "{headers:?} {response:?}");
                assert_eq!(response.json()["error"], "forbidden", "{headers:?}");
                let says = format!("your address {other} is not allowed here");
                assert!(response.body.contains(&says), "{headers:?} {response:?}");
                let response = site.get(other, &format!("{COMPATIBLE}&secret=x"), headers);
                assert_eq!(response.json()["errcode"], 40164, "{headers:?} {response:?}");
                let says = format!("invalid ip {other}, not in whitelist");
                assert!(response.body.contains(&says), "{headers:?} {response:?}");
            }
        }
        // A header that nginx passes on, and that contradicts what nginx says, is refused.
        for header in ["CF-Connecting-IP", "X-Client-IP"] {
            let response = site.get("127.0.0.4", "/token", &format!("{header}: 127.0.0.5\r\n"));
            assert_eq!(
                (response.status, response.json()["error"].as_str()),
                (403, Some("forwarded"))
            );
        }
    }
}

#[needs(nginx)]
#[test]
fn answers_pass_unchanged_and_other_paths_do_not_reach_wxtoken() {
    let site = Site::over_tcp(&nginx(), &[]);
    let response = site.get("127.0.0.4", "/token", "");
    for (name, value) in [
        ("content-type", "application/json"),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(response.header(name), Some(value), "{response:?}");
    }
    for (path, status) in [
        ("/token/default", 200),
        ("//token/", 200),
        ("/healthz/", 200),
        ("//cgi-bin//token/?grant_type=client_credential&appid=wx0123456789abcdef", 200),
        ("/token/unknown", 404),
        ("/ticket/jsapi", 404),
        ("/ticket/default/jsapi", 404),
        ("/jssdk?url=https%3A%2F%2Fshop.example%2F%3Fa%3D1%26b%3D2", 404),
        ("/jssdk/default?url=not-encoded&b=2", 400),
        ("/healthz", 200),
        ("/readyz", 200),
        ("/cgi-bin/ticket/getticket?type=jsapi", 200),
        ("/cgi-bin/gettoken?corpid=x", 200),
        (COMPATIBLE, 200),
    ] {
        let response = site.get("127.0.0.4", path, "");
        assert_eq!(response.status, status, "{path} {response:?}");
        assert_eq!(response.header("content-type"), Some("application/json"), "{path}");
    }
    let body = r#"{"grant_type":"client_credential","appid":"wx0123456789abcdef","secret":"x"}"#;
    let stable = format!(
        "POST /cgi-bin/stable_token HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(site.send("127.0.0.4", &stable).json()["access_token"], TOKEN);
    for path in
        ["/tokens", "/cgi-bin/clear_quota", "/cgi-bin/token/x", "/Token", "/metrics/x", "/x"]
    {
        let response = site.get("127.0.0.4", path, "");
        assert_eq!((response.status, response.header("content-type")), (404, Some("text/html")));
    }
    // wxtoken normalizes nothing but slashes.
    for path in ["/%74oken", "/x/../token"] {
        assert_eq!(site.get("127.0.0.4", path, "").json()["error"], "not_found", "{path}");
    }
    let stderr = site.wxtoken.stop();
    assert!(
        !stderr.contains("clear_quota") && stderr.contains("GET /token 200 127.0.0.4 "),
        "{stderr}"
    );
}

#[needs(nginx)]
#[test]
fn nginx_reuses_its_connection_to_wxtoken() {
    let site = Site::over_tcp(&nginx(), &[]);
    let before = site.wxtoken.descriptors();
    for _ in 0..5 {
        assert_eq!(site.get("127.0.0.4", "/token", "").status, 200);
    }
    assert_eq!(site.wxtoken.descriptors(), before + 1);
}

#[needs(nginx)]
#[test]
fn keys_are_forwarded_and_never_logged_by_nginx_also_with_wxtoken_down() {
    let (key, line) = new_key("php");
    let keys = tempfile::tempdir().unwrap();
    let file = keys.path().join("keys");
    write_with_mode(&file, &line, 0o600);
    let site = Site::over_tcp(&nginx(), &["--keys", file.to_str().unwrap()]);
    let bearer = format!("Authorization: Bearer {key}\r\n");
    let compatible = format!("{COMPATIBLE}&secret={key}");
    let ask = |path: &str, headers: &str| site.get("127.0.0.4", path, headers).status;
    assert_eq!((ask("/token", &bearer), ask("/token", "")), (200, 401));
    assert_eq!(site.get("127.0.0.4", &compatible, "").json()["access_token"], TOKEN);
    assert_eq!(ask(&format!("/token?key={key}"), ""), 401);
    assert_eq!(ask(&format!("/nowhere?key={key}"), &bearer), 404);
    assert_eq!(ask(&format!("{compatible}&{}", "x".repeat(20_000)), ""), 414);
    let post = |length: usize| {
        let body = format!("{{\"secret\":\"{key}\"}}");
        let request = format!(
            "POST /cgi-bin/stable_token?secret={key} HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: {length}\r\n\
             Connection: close\r\n{bearer}\r\n{body}{}",
            " ".repeat(length - body.len())
        );
        site.send("127.0.0.4", &request).status
    };
    assert_eq!((post(16_000), post(17_000)), (200, 413));
    site.wxtoken.signal("KILL");
    eventually("wxtoken is down", || ask("/healthz", "") == 502);
    assert_eq!((ask(&compatible, ""), ask("/token", &bearer), post(1000)), (502, 502, 502));
    let logs = site.nginx.logs();
    assert!(logs.contains("\"GET /cgi-bin/token\" 502"), "{logs}");
    assert!(logs.contains("127.0.0.4"), "{logs}");
    for hidden in ["wxk_", &key[4..], "secret", TOKEN] {
        assert!(!logs.contains(hidden), "{hidden} is in:\n{logs}");
    }
    drop(site.sandbox);
}

/// Starts a name server that resolves every name to 127.0.0.1.
fn name_server() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut query) {
            let question = &query[12..length];
            // Type and class are at the end; type 1 is A.
            let is_a = question[question.len() - 3] == 1;
            let mut answer = query[..2].to_vec();
            answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
            answer.extend(question);
            if is_a {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
            }
            let _ = socket.send_to(&answer, from); // nginx retries.
        }
    });
    address
}

/// Starts nginx with the site that routes by path to wxtoken and to WeChat behind `front`.
fn routing(program: &Path, wxtoken: &Server, front: &TlsFront, dir: &Sandbox) -> Nginx {
    routing_to("api.weixin.qq.com", program, wxtoken, front, dir)
}

/// The same at the port of the platform at `host`.
fn routing_to(
    host: &str,
    program: &Path,
    wxtoken: &Server,
    front: &TlsFront,
    dir: &Sandbox,
) -> Nginx {
    let ca_file = dir.path("ca.pem");
    fs::write(&ca_file, &front.ca_pem).unwrap();
    let upstream = format!("server {};", wxtoken.address());
    let resolver = format!("resolver {};", name_server());
    let to = format!("https://$wechat:{}", front.address.port());
    // Only the first port is listened on.
    let platform = match host {
        "api.weixin.qq.com" => ("    7281 qyapi.weixin.qq.com;\n", ""),
        _ => ("    7280 api.weixin.qq.com;\n    7281 ", "    7280 "),
    };
    Nginx::with(
        program,
        "wxtoken-path-routing.conf",
        &[
            ("server 127.0.0.1:7200;", &upstream),
            ("resolver 127.0.0.53;", &resolver),
            ("https://$wechat", &to),
            ("/etc/ssl/certs/ca-certificates.crt", ca_file.to_str().unwrap()),
            ("allow 127.0.0.0/8;", "allow 127.0.0.4;"),
            platform,
        ],
    )
}

#[needs(nginx)]
#[test]
fn token_routes_go_to_wxtoken_and_all_others_to_wechat() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    let token = sandbox.token();
    let wxtoken = sandbox.serve(&["--trusted-proxy", "127.0.0.1", "--allow", "127.0.0.4"]);
    let front = TlsFront::before(wechat.address(), "api.weixin.qq.com");
    let nginx = routing(&nginx(), &wxtoken, &front, &sandbox);
    let get = |source: &str, path: &str, headers: &str| {
        exchange_over(connect_from(source, nginx.address), request(path, headers).as_bytes())
    };
    let asked = wechat.asked();
    let forged = "X-Forwarded-For: 127.0.0.9\r\nForwarded: for=127.0.0.9\r\n";
    for headers in ["", forged] {
        let response = get("127.0.0.4", &format!("{COMPATIBLE}&secret=K3Y"), headers);
        assert_eq!(response.json()["access_token"], token.as_str(), "{response:?}");
    }
    let work = get("127.0.0.4", &format!("/cgi-bin/gettoken?corpid={APPID}&corpsecret=K3Y"), "");
    assert_eq!(work.json()["access_token"], token.as_str(), "{work:?}");
    let ticket =
        get("127.0.0.4", &format!("/cgi-bin/ticket/getticket?access_token={token}&type=jsapi"), "");
    assert_eq!(ticket.json()["errcode"], 48001, "no ticket is configured: {ticket:?}");
    assert!(ticket.body.contains("no jsapi tickets of the account default"), "{ticket:?}");
    assert_eq!(wechat.asked(), asked, "no token call reaches WeChat");
    assert_eq!(front.handshakes.load(std::sync::atomic::Ordering::Relaxed), 0);
    // Other calls go to WeChat with the token.
    for headers in ["", forged] {
        let path = format!("/cgi-bin/get_api_domain_ip?access_token={token}");
        let response = get("127.0.0.4", &path, headers);
        assert!(response.json()["ip_list"].is_array(), "{response:?}");
    }
    assert_eq!(front.handshakes.load(std::sync::atomic::Ordering::Relaxed), 2);
    for path in ["/cgi-bin/get_api_domain_ip", "/cgi-bin/token"] {
        assert_eq!(get("127.0.0.5", path, "X-Forwarded-For: 127.0.0.4\r\n").status, 403, "{path}");
    }
    drop(wxtoken);
    assert_eq!(get("127.0.0.4", &format!("{COMPATIBLE}&secret=K3Y"), "").status, 502);
    let logs = nginx.logs();
    assert!(logs.contains("\"GET /cgi-bin/get_api_domain_ip\" 200"), "{logs}");
    for hidden in ["K3Y", &token, "access_token"] {
        assert!(!logs.contains(hidden), "{hidden} is in:\n{logs}");
    }
}

#[needs(nginx)]
#[test]
fn each_platform_has_a_port_of_its_own() {
    for (host, other) in
        [("api.weixin.qq.com", "qyapi.weixin.qq.com"), ("qyapi.weixin.qq.com", "api.weixin.qq.com")]
    {
        let wechat = WeChat::start();
        let sandbox = Sandbox::new(&wechat);
        sandbox.run(&["fetch"]).exits(0);
        let wxtoken = sandbox.serve(&["--trusted-proxy", "127.0.0.1", "--allow", "127.0.0.4"]);
        for (name, status) in [(host, 200), (other, 502)] {
            let front = TlsFront::before(wechat.address(), name);
            let nginx = routing_to(host, &nginx(), &wxtoken, &front, &sandbox);
            let path = format!("/cgi-bin/get_api_domain_ip?access_token={}", sandbox.token());
            let stream = connect_from("127.0.0.4", nginx.address);
            let response = exchange_over(stream, request(&path, "").as_bytes());
            assert_eq!(response.status, status, "{host} {name} {response:?}");
        }
    }
}

/// As the site says: an SDK on nginx's own host may ask, and one that asks again after 40001 has a dead token replaced.
#[needs(nginx)]
#[test]
fn the_command_of_the_routing_site_serves_sdks_on_its_own_host_and_heals() {
    let site = fs::read_to_string("contrib/nginx/wxtoken-path-routing.conf").unwrap();
    let command =
        site.lines().find_map(|line| line.strip_prefix("#   wxtoken serve --refresh ")).unwrap();
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    let (key, line) = new_key("sdk");
    write_with_mode(&sandbox.path("keys"), &line, 0o600);
    let keys = sandbox.path("keys").display().to_string();
    let flags = command.replace("/etc/wxtoken/keys", &keys);
    let wxtoken = sandbox.serve_refreshing(&flags.split(' ').collect::<Vec<_>>());
    let front = TlsFront::before(wechat.address(), "api.weixin.qq.com");
    let nginx = routing(&nginx(), &wxtoken, &front, &sandbox);
    let ask = || {
        let path = format!("{COMPATIBLE}&secret={key}");
        exchange_over(connect_from("127.0.0.4", nginx.address), request(&path, "").as_bytes())
    };
    let first = ask();
    assert_eq!(first.json()["access_token"], sandbox.token().as_str(), "{first:?}");
    wechat.kill_tokens();
    let token = ask().json()["access_token"].as_str().unwrap().to_owned();
    assert_ne!(first.json()["access_token"], token.as_str());
    assert!(wechat.is_alive(&token));
}

#[needs(nginx)]
#[test]
fn a_server_with_a_certificate_of_another_name_gets_no_token() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    sandbox.publish(TOKEN, 7200, 0);
    let wxtoken = sandbox.serve(&["--trusted-proxy", "127.0.0.1", "--allow", "127.0.0.4"]);
    let front = TlsFront::before(wechat.address(), "evil.example");
    let nginx = routing(&nginx(), &wxtoken, &front, &sandbox);
    let request = request(&format!("/cgi-bin/get_api_domain_ip?access_token={TOKEN}"), "");
    let stream = connect_from("127.0.0.4", nginx.address);
    assert_eq!(exchange_over(stream, request.as_bytes()).status, 502);
    assert!(!nginx.logs().contains(TOKEN));
}

/// Clients whose hosts file leads WeChat's hosts to nginx, with the certificates and the command that the site names.
#[needs(nginx)]
#[test]
fn the_gateway_heals_behind_nginx() {
    let site = fs::read_to_string("contrib/nginx/wxtoken-gateway.conf").unwrap();
    let command =
        site.lines().find_map(|line| line.strip_prefix("#   wxtoken serve --refresh ")).unwrap();
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    let (key, line) = new_key("sdk");
    write_with_mode(&sandbox.path("keys"), &line, 0o600);
    let flags = command.replace("/etc/wxtoken/keys", sandbox.path("keys").to_str().unwrap());
    let server = sandbox.serve_refreshing(&flags.split(' ').collect::<Vec<_>>());
    let ca = sandbox.path("ca");
    let mut make_ca = wxtoken();
    make_ca.arg("ca").arg(&ca);
    Run::new(make_ca).exits(0);
    let upstream = format!("server {};", server.address());
    let nginx = Nginx::with(
        &nginx(),
        "wxtoken-gateway.conf",
        &[
            ("server 127.0.0.1:7200;", &upstream),
            ("/etc/wxtoken/ca/", &format!("{}/", ca.display())),
            ("allow 127.0.0.0/8;", "allow 127.0.0.4;"),
        ],
    );
    let root = CertificateDer::from_pem_file(ca.join("ca.pem")).unwrap();
    let send = |source: &str, host: &'static str, request: &str| {
        let request = request.replace("HOST", host).replace("KEY", &key);
        send_over_tls(connect_from(source, nginx.address), root.clone(), host, &request)
    };
    let host = "api.weixin.qq.com";
    let get = "GET /cgi-bin/get_api_domain_ip?access_token=TOKEN HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n";
    let with_token = get.replace("TOKEN", &sandbox.token());
    let with_key = get
        .replace("access_token=TOKEN", "")
        .replace("Connection", "Authorization: Bearer KEY\r\nConnection");
    for request in [&with_token, &with_key] {
        let answer = send("127.0.0.4", host, request);
        assert!(answer.json()["ip_list"].is_array(), "{answer:?}");
    }
    let mints = wechat.mints();
    wechat.kill_tokens();
    for request in [&with_token, &with_key] {
        let answer = send("127.0.0.4", host, request);
        assert!(answer.json()["ip_list"].is_array(), "{answer:?}");
    }
    assert_eq!(wechat.mints(), mints + 1);
    // The only account is no app of WeCom.
    assert!(send("127.0.0.4", "qyapi.weixin.qq.com", &with_key).json()["errcode"].is_i64());
    // What is not allowed gets no further than nginx.
    assert_eq!(send("127.0.0.5", host, &with_token).status, 403);
    drop(server);
    assert_eq!(send("127.0.0.4", host, &with_token).status, 502);
    let logs = nginx.logs();
    assert!(logs.contains("\"GET api.weixin.qq.com/cgi-bin/get_api_domain_ip\" 200"), "{logs}");
    for hidden in ["wxk_", &key[4..], &sandbox.token(), "access_token"] {
        assert!(!logs.contains(hidden), "{hidden} is in:\n{logs}");
    }
}
