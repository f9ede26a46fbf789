//! What admits clients is withdrawn in time, whatever is wrong with other files: each file is followed by itself, and its last
//! good state stays until it is good again.

use std::fs;
use std::process::Command;

use crate::support::home::Home;
use crate::support::tls::{Authority, Identity, TlsClient};
use crate::support::*;

/// Runs `wxtoken key NAME ACCOUNT…`. The line has its line end.
fn new_key(args: &[&str]) -> NewKey {
    let new = crate::support::new_key(args);
    NewKey { line: format!("{}\n", new.line), ..new }
}

const CONFIG: &str =
    "[account.shop]\nappid = 'wx1'\n[serve]\nkeys = 'keys'\nallow_file = 'allow'\n";

/// Mistakes in a config: one of syntax, and one of a value.
const BROKEN: [&str; 2] =
    ["[account.shop\n", "[account.shop]\nappid = 'wx1'\n[serve]\nkeyz = 'keys'\n"];

struct Setup {
    home: Home,
    php: NewKey,
    java: NewKey,
}

impl Setup {
    /// Two keys are good, and the addresses 127.0.0.1 and 127.0.0.2.
    fn new() -> Setup {
        let home = Home::new(CONFIG);
        home.publish("shop", "wx1", "T1", 0);
        let setup = Setup { home, php: new_key(&["php"]), java: new_key(&["java"]) };
        setup.reset();
        setup
    }

    fn reset(&self) {
        self.home.write(CONFIG);
        self.put("keys", &format!("{}{}", self.php.line, self.java.line));
        self.put("allow", "127.0.0.1\n127.0.0.2\n");
    }

    /// Replaces a file in one step.
    fn put(&self, name: &str, text: &str) {
        let new = self.home.path(&format!("{name}.new"));
        write_with_mode(&new, text, 0o644);
        fs::rename(new, self.home.path(name)).unwrap();
    }
}

/// Requests the token with a key from an address. Returns the status.
#[track_caller]
fn ask(server: &Server, source: &str, key: &NewKey) -> u16 {
    let request = format!(
        "GET /token HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\r\n",
        key.key
    );
    exchange_over(connect_from(source, server.address()), request.as_bytes()).status
}

#[test]
fn a_key_and_an_address_are_withdrawn_while_the_config_is_broken() {
    let setup = Setup::new();
    let Setup { home, php, java } = &setup;
    for (broken, is_by_hangup) in BROKEN.into_iter().zip([false, true]) {
        setup.reset();
        let server = home.serve_with_log(&[]);
        assert_eq!(ask(&server, "127.0.0.2", php), 200);
        home.write(broken);
        if is_by_hangup {
            server.signal("HUP");
        }
        eventually("the error is logged", || {
            home.has_logged("the last good accounts and access rules stay")
        });

        setup.put("keys", &java.line);
        setup.put("allow", "127.0.0.1\n");
        if is_by_hangup {
            server.signal("HUP");
        }
        eventually("the key is withdrawn", || ask(&server, "127.0.0.1", php) == 401);
        eventually("the address is withdrawn", || ask(&server, "127.0.0.2", java) == 403);
        assert_eq!(ask(&server, "127.0.0.1", java), 200);
        // What is good again counts again.
        setup.reset();
        eventually("the key is back", || ask(&server, "127.0.0.2", php) == 200);
        server.stop();
    }
}

#[test]
fn a_broken_list_holds_back_no_other_file() {
    let setup = Setup::new();
    let Setup { home, php, java } = &setup;
    let server = home.serve_with_log(&[]);
    // The keys file is broken, and the allow file and the config change.
    setup.put("keys", "nonsense\n");
    eventually("the error is logged", || home.has_logged("the last good keys stay"));
    setup.put("allow", "127.0.0.1\n");
    eventually("the address is withdrawn", || ask(&server, "127.0.0.2", php) == 403);
    home.write(&CONFIG.replace("[serve]", "[serve]\nallow = '127.0.0.3'"));
    eventually("an address is new", || ask(&server, "127.0.0.3", php) == 200);

    // The allow file is broken, too, and the keys file is good again.
    setup.put("allow", "127.0.0.1, nonsense\n");
    eventually("the error is logged", || {
        home.has_logged("the last good addresses of the allow file stay")
    });
    setup.put("keys", &java.line);
    eventually("the key is withdrawn", || ask(&server, "127.0.0.1", php) == 401);
    assert_eq!(ask(&server, "127.0.0.1", java), 200);
    home.write(CONFIG);
    eventually("the address of the config is withdrawn", || ask(&server, "127.0.0.3", java) == 403);
    assert_eq!(ask(&server, "127.0.0.1", java), 200, "the last good allow file stays");
    assert!(!home.has_logged("accounts and access rules stay"), "the config was good");
    server.stop();
}

#[test]
fn a_file_that_a_new_config_names_must_be_good_or_the_old_ones_are_followed_further() {
    let setup = Setup::new();
    let Setup { home, php, java } = &setup;
    let server = home.serve_with_log(&[]);
    home.write(&CONFIG.replace("'keys'", "'other-keys'"));
    eventually("the error is logged", || {
        home.has_logged("other-keys [No such file") || home.has_logged("[No such file")
    });
    assert_eq!(ask(&server, "127.0.0.1", php), 200);
    setup.put("keys", &java.line);
    eventually("the key is withdrawn", || ask(&server, "127.0.0.1", php) == 401);
    // The other file is there now, and the one before does not count any more.
    setup.put("other-keys", &php.line);
    home.write(&CONFIG.replace("'keys'", "'./other-keys'"));
    eventually("the key of the other file counts", || ask(&server, "127.0.0.1", php) == 200);
    assert_eq!(ask(&server, "127.0.0.1", java), 401);
    setup.put("other-keys", &java.line);
    eventually("the other file is followed", || ask(&server, "127.0.0.1", java) == 200);
    assert_eq!(ask(&server, "127.0.0.1", php), 401);
    // Without keys in the config none is needed, and without a file of addresses loopback is allowed.
    home.write("[account.shop]\nappid = 'wx1'\n");
    let keyless = NewKey { key: "none".to_owned(), line: String::new() };
    eventually("no key is needed", || ask(&server, "127.0.0.9", &keyless) == 200);
}

#[test]
fn a_new_account_and_its_key_are_taken_whichever_file_comes_first() {
    let setup = Setup::new();
    let home = &setup.home;
    home.publish("branch", "wx2", "T2", 0);
    let branch = new_key(&["branch", "branch"]);
    let with_branch = format!("[account.branch]\nappid = 'wx2'\n{CONFIG}");
    let keys = format!("{}{}", setup.php.line, branch.line);
    for order in [["keys", "config"], ["config", "keys"]] {
        setup.reset();
        let server = home.serve_with_log(&[]);
        for file in order {
            match file {
                "keys" => {
                    setup.put("keys", &keys);
                    if order[0] == "keys" {
                        let error = "is for an account that is not served here";
                        eventually("it is for no account yet", || home.has_logged(error));
                    }
                }
                _ => home.write(&with_branch),
            }
        }
        eventually("the key is for the new account", || ask(&server, "127.0.0.1", &branch) == 200);
        // The account goes, and its key opens nothing; the other keys are as good as before.
        home.write(CONFIG);
        eventually("the account is gone", || ask(&server, "127.0.0.1", &branch) == 404);
        assert_eq!(ask(&server, "127.0.0.1", &setup.php), 200);
        server.stop();
    }
}

#[test]
fn a_config_that_hangs_holds_back_no_withdrawal() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let (config, pipe, keys) =
        (sandbox.path("wxtoken.toml"), sandbox.path("pipe"), sandbox.path("keys"));
    let secret = fs::read(sandbox.path("secret")).unwrap();
    assert!(Command::new("mkfifo").args(["-m", "600"]).arg(&pipe).status().unwrap().success());
    let (php, java) = (new_key(&["php"]), new_key(&["java"]));
    write_with_mode(&config, "refresh_before = '5m'\n", 0o644);
    write_with_mode(&keys, &format!("{}{}", php.line, java.line), 0o644);
    let mut command = sandbox.command(&["serve", "--refresh", "--listen", "127.0.0.1:0"]);
    command.args(["--base-url", &wechat.url()]).arg("--keys").arg(&keys);
    command.arg("--config").arg(&config).arg("--secret-file").arg(&pipe);
    let server = std::thread::scope(|scope| {
        let writer = scope.spawn(|| fs::write(&pipe, &secret).unwrap());
        let server = Server::start(command, 1);
        writer.join().unwrap();
        server
    });
    eventually("there is a token", || ask(&server, "127.0.0.1", &php) == 200);
    // The account is another one now, so its secret is read again, and the pipe has no writer.
    write_with_mode(&config, "refresh_before = '6m'\n", 0o644);
    server.signal("HUP");
    write_with_mode(&keys, &java.line, 0o644);
    eventually("the key is withdrawn", || ask(&server, "127.0.0.1", &php) == 401);
    assert_eq!(ask(&server, "127.0.0.1", &java), 200);
    write_with_mode(&keys, &php.line, 0o644);
    server.signal("HUP");
    eventually("the other key is withdrawn", || ask(&server, "127.0.0.1", &java) == 401);
    // The reader of the pipe ends with the process.
}

#[test]
fn a_client_ca_is_withdrawn_while_config_and_certificate_are_broken() {
    let authority = Authority::new();
    let [withdrawn, kept] = [Authority::new(), Authority::new()];
    let config = "[account.shop]\nappid = 'wx1'\n[serve]\ntls_cert = 'cert.pem'\ntls_key = 'key.pem'\ntls_client_ca = 'cas.pem'\n";
    for is_by_hangup in [false, true] {
        let home = Home::new(config);
        home.publish("shop", "wx1", "T1", 0);
        let put = |name: &str, text: &str, mode: u32| {
            write_with_mode(&home.path("put.new"), text, mode);
            fs::rename(home.path("put.new"), home.path(name)).unwrap();
        };
        let Identity { cert, key } = authority.sign();
        put("cert.pem", &cert, 0o644);
        put("key.pem", &key, 0o600);
        put("cas.pem", &format!("{}{}", withdrawn.pem, kept.pem), 0o644);
        let server = home.serve_with_log(&[]);
        let client = |ca: &Authority| {
            let identity = ca.sign_client();
            TlsClient::offering(&authority, rustls::ALL_VERSIONS, |_| true, Some(&identity))
        };
        let is_accepted = |client: &TlsClient| {
            let connected = client.try_connect(server.address()).map(Caller::new);
            connected.is_ok_and(|mut caller| {
                caller.send("GET /token HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
                let mut answer = Vec::new();
                caller.read_all(&mut answer);
                Response::parse(&answer).status == 200
            })
        };
        let (first, second) = (client(&withdrawn), client(&kept));
        let mut open = first.caller(server.address());
        assert_eq!(open.get("/token").status, 200);
        home.write("[account.shop\n");
        put("cert.pem", "nonsense", 0o644);
        put("cas.pem", &kept.pem, 0o644);
        if is_by_hangup {
            server.signal("HUP");
        }
        eventually("the CA is withdrawn", || !is_accepted(&first));
        assert!(is_accepted(&second), "with the last good certificate");
        assert_eq!(open.get("/token").status, 403);
        eventually("the error is logged", || home.has_logged("the last good certificates stay"));

        // The other way about: broken CAs hold back no new certificate, and the last good ones stay.
        put("cas.pem", "nonsense", 0o644);
        let Identity { cert, key } = authority.sign();
        put("cert.pem", &cert, 0o644);
        put("key.pem", &key, 0o600);
        if is_by_hangup {
            server.signal("HUP");
        }
        eventually("the error is logged", || home.has_logged("the last good client CAs stay"));
        let shown = || {
            let stream = client(&kept).without_resumption().try_connect(server.address()).unwrap();
            stream.conn.peer_certificates().unwrap()[0].to_vec()
        };
        let new = rustls::pki_types::pem::PemObject::from_pem_slice(cert.as_bytes());
        let new: rustls::pki_types::CertificateDer<'_> = new.unwrap();
        eventually("the certificate is new", || shown() == new.to_vec());
        assert!(is_accepted(&second) && !is_accepted(&first));
    }
}
