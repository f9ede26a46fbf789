//! `wxtoken serve` with all places for connections taken: which connection makes room, and how many one address can hold.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use crate::support::proxy::HoldingProxy;
use crate::support::tls::{Authority, Identity, TlsClient};
use crate::support::*;

const GET_TOKEN: &str = "GET /token HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A server whose requests for a token stay in flight, because its upstream holds the answer.
struct Busy {
    sandbox: Sandbox,
    _wechat: WeChat,
    upstream: HoldingProxy,
    server: Server,
}

impl Busy {
    /// Starts one with these flags.
    fn start(args: &[&str]) -> Busy {
        Busy::start_with(|_| args.iter().map(|arg| (*arg).to_owned()).collect())
    }

    /// Starts one with the flags that `prepare` returns.
    fn start_with(prepare: impl FnOnce(&Sandbox) -> Vec<String>) -> Busy {
        let wechat = WeChat::start();
        let upstream = HoldingProxy::new(wechat.address());
        upstream.hold();
        let sandbox = Sandbox::with_base_url(&upstream.url());
        let args = prepare(&sandbox);
        let (secret, url) = (sandbox.path("secret"), upstream.url());
        let mut command = sandbox.command(&["serve", "--refresh", "--base-url", &url]);
        command.arg("--secret-file").arg(secret).args(&args);
        if !args.iter().any(|arg| arg == "--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let server = Server::start_with_log(&command, &sandbox.path("log"));
        Busy { sandbox, _wechat: wechat, upstream, server }
    }

    /// Sends a request for the token.
    fn ask_over(&self, stream: TcpStream) -> Caller<TcpStream> {
        let mut caller = Caller::new(stream);
        caller.send(GET_TOKEN);
        caller
    }

    fn ask(&self) -> Caller<TcpStream> {
        self.ask_over(connect(self.server.address()))
    }

    /// Waits until the server has read all that was sent before. It has one thread.
    fn has_read(&self, observer: &mut Caller<TcpStream>) {
        assert_eq!(observer.get("/healthz").status, 200);
    }

    fn log(&self) -> String {
        fs::read_to_string(self.sandbox.path("log")).unwrap()
    }

    /// Lets WeChat answer, and checks that all these requests get an answer: the token, or after ten seconds that there is
    /// none yet.
    #[track_caller]
    fn answers(&self, in_flight: &mut [Caller<impl Read + Write>]) {
        self.upstream.release();
        for caller in in_flight {
            let status = caller.answer().status;
            assert!(status == 200 || status == 503, "{status}");
        }
    }
}

#[test]
fn newcomers_never_end_a_request_that_is_being_answered() {
    let busy = Busy::start(&["--max-connections", "4"]);
    let mut in_flight: Vec<_> = (0..3).map(|_| busy.ask()).collect();
    busy.has_read(&mut busy.server.caller());
    // Each takes the place of the one before, which is idle by now.
    let newcomers: Vec<_> = (0..10)
        .map(|_| {
            let mut newcomer = busy.server.caller();
            assert_eq!(newcomer.get("/healthz").status, 200);
            newcomer
        })
        .collect();
    busy.answers(&mut in_flight);
    drop(newcomers);
    let log = busy.log();
    assert!(log.contains("all 4 places") && log.contains("idle for longest"), "{log}");
}

#[test]
fn a_request_that_has_arrived_counts_before_a_newcomer_although_it_is_not_read_yet() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, 0);
    let server = sandbox.serve(&["--max-connections", "1"]);
    let mut kept = server.caller();
    for _ in 0..5 {
        assert_eq!(kept.get("/token").status, 200);
        // It may be evicted at once when the server goes on.
        sleep(Duration::from_millis(200));
        server.signal("STOP");
        let mut newcomer = server.caller();
        newcomer.send(GET_TOKEN);
        kept.send(GET_TOKEN);
        server.signal("CONT");
        assert_eq!(kept.answer().status, 200);
        assert_eq!(newcomer.answer().status, 200);
        kept = newcomer;
    }
}

#[test]
fn a_newcomer_waits_while_all_requests_are_being_answered() {
    let busy = Busy::start(&["--max-connections", "3"]);
    let mut in_flight: Vec<_> = (0..3).map(|_| busy.ask()).collect();
    let mut newcomer = busy.server.caller();
    newcomer.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    eventually("it is said that new connections wait", || busy.log().contains("new ones wait"));
    busy.answers(&mut in_flight);
    assert_eq!(newcomer.answer().status, 200);
}

#[test]
fn a_client_that_never_ends_its_request_makes_room_for_others() {
    let busy = Busy::start(&["--max-connections", "4"]);
    let mut in_flight = [busy.ask()];
    let mut slow: Vec<_> = (0..3).map(|_| busy.server.caller()).collect();
    for caller in &mut slow {
        caller.send("GET /token HTTP/1.1\r\nHost: localhost\r\n");
    }
    for _ in 0..10 {
        let mut newcomer = busy.server.caller();
        // The others go on as slowly as they can.
        slow.iter().for_each(|it| drop(it.stream().write_all(b"X: y\r\n")));
        assert_eq!(newcomer.get("/healthz").status, 200);
    }
    busy.answers(&mut in_flight);
}

/// The limit that a shell sets with `ulimit -n 64`, and sixteen accounts: each needs descriptors to be refreshed.
#[test]
fn accounts_are_refreshed_while_all_descriptors_for_connections_are_taken() {
    let names: Vec<String> = (0..16).map(|n| format!("wx{n:016x}")).collect();
    let accounts: Vec<String> = names
        .iter()
        .flat_map(|name| ["--account".to_owned(), format!("{name}:{SECRET}")])
        .collect();
    let accounts: Vec<&str> = accounts.iter().map(String::as_str).collect();
    let wechat = WeChat::with(&[&accounts[..], &["--life", "8s", "--overlap", "1s"]].concat());
    let sandbox = Sandbox::new(&wechat);
    let mut config = "refresh_before = \"4s\"\n".to_owned();
    for name in &names {
        config += &format!(
            "[account.{name}]\nappid = \"{name}\"\nsecret_file = \"secret\"\nbase_url = \"{}\"\n\
             on_change = [\"true\"]\n",
            wechat.url()
        );
    }
    config += "[serve]\nrefresh = true\nlisten = [\"127.0.0.1:0\"]\n";
    write_with_mode(&sandbox.path("config"), &config, 0o600);
    let mut serve = wxtoken();
    serve.args(["serve", "-c"]).arg(sandbox.path("config")).arg("--dir").arg(sandbox.path("state"));
    let script = r#"ulimit -n 64; exec "$0" "$@""#;
    let server = Server::start(wrapped(&["bash", "-c", script], &serve), 1);
    let created = || names.iter().map(|name| created_at(&sandbox, name)).collect::<Vec<_>>();
    let full: Vec<_> = (0..64).map(|_| server.caller()).collect();
    eventually("all have a token", || created().iter().all(Option::is_some));
    let first = created();
    eventually("all have another one", || {
        created().iter().zip(&first).all(|(it, before)| it > before)
    });
    assert!(full.len() > 40);
    let stderr = server.stop();
    assert!(stderr.contains("ulimit -n is 64: that is enough for"), "{stderr}");
    assert!(stderr.contains("--max-connections is 1024") && stderr.contains("at once"), "{stderr}");
    assert!(!stderr.contains("descriptors") && !stderr.contains("open files"), "{stderr}");
}

#[test]
fn calls_that_are_passed_on_have_descriptors_for_their_connections_to_wechat() {
    let wechat = WeChat::start();
    let upstream = HoldingProxy::new(wechat.address());
    let sandbox = Sandbox::with_base_url(&upstream.url());
    let mut serve =
        sandbox.command(&["serve", "--refresh", "--gateway", "--base-url", &upstream.url()]);
    serve.args(["--listen", "127.0.0.1:0", "--secret-file"]).arg(sandbox.path("secret"));
    let log = sandbox.path("log");
    let script = format!(r#"ulimit -n 128; exec "$0" "$@" 2>'{}'"#, log.display());
    let server = Server::start(wrapped(&["bash", "-c", &script], &serve), 1);
    eventually("a token is published", || sandbox.document_path().exists());
    upstream.hold();
    let call = format!(
        "GET /cgi-bin/get_api_domain_ip?access_token={} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        sandbox.token()
    );
    let mut clients: Vec<_> = (0..128).map(|_| server.caller()).collect();
    clients.iter_mut().for_each(|client| client.send(&call));
    let logged = || fs::read_to_string(&log).unwrap();
    // Three quarters of the connections are for calls; the calls of others are not made.
    let metrics = || server.get("/metrics").body;
    eventually("as many calls as can be are passed on", || metrics().contains("too_many_calls"));
    upstream.release();
    let (mut passed, mut refused) = (0, 0);
    for client in &mut clients {
        let answer = client.answer();
        let is_passed = answer.body.contains("ip_list");
        assert!(is_passed || answer.body.contains("too many calls"), "{answer:?} {}", logged());
        *if is_passed { &mut passed } else { &mut refused } += 1;
    }
    assert!(passed >= 8 && refused >= 1, "{passed} passed, {refused} refused");
}

/// Returns when the account's token was created, as its document says.
fn created_at(sandbox: &Sandbox, name: &str) -> Option<String> {
    let document = fs::read(sandbox.path(&format!("state/{name}.json"))).ok()?;
    let document: serde_json::Value = serde_json::from_slice(&document).expect("never torn");
    Some(document["created_at"].as_str().expect("a time").to_owned())
}

#[needs(network)]
#[test]
fn one_address_holds_a_quarter_of_the_connections_and_others_keep_theirs() {
    let outward = outward_address();
    let listen = ["--listen", "0.0.0.0:0", "--max-connections", "32"];
    let busy = Busy::start(&[&listen[..], &["--allow", &outward, "--allow", "127.0.0.1"]].concat());
    let port = busy.server.address().port();
    let at = SocketAddr::new(outward.parse().unwrap(), port);
    let mut bystander = Caller::new(connect(SocketAddr::from(([127, 0, 0, 1], port))));
    busy.has_read(&mut bystander);
    let mut in_flight: Vec<_> = (0..8).map(|_| busy.ask_over(connect_from(&outward, at))).collect();
    busy.has_read(&mut bystander);
    // Nothing of its own can make room, and nothing of others does.
    let refused = exchange_over(connect_from(&outward, at), GET_TOKEN.as_bytes());
    assert_eq!(refused.status, 503, "{refused:?}");
    assert_eq!(refused.json()["error"], "too_many_connections");
    assert!(refused.json()["message"].as_str().unwrap().contains(&outward), "{refused:?}");
    assert_eq!(refused.header("retry-after"), Some("1"));
    busy.answers(&mut in_flight);
    // The one that has been idle for longest makes room.
    let mut ninth = Caller::new(connect_from(&outward, at));
    assert_eq!(ninth.get("/healthz").status, 200);
    assert!(in_flight[0].is_closed());
    assert_eq!(bystander.get("/healthz").status, 200, "it was idle for longer");
    for line in
        [format!("refused {outward}: it has 8 connections"), format!("{outward} has 8 connections")]
    {
        eventually("it is logged", || busy.log().contains(&line));
    }
}

#[needs(network)]
#[test]
fn a_trusted_proxy_and_this_machine_may_hold_all_connections() {
    let outward = outward_address();
    let listen = ["--listen", "0.0.0.0:0", "--max-connections", "32", "--allow", "127.0.0.1"];
    let busy = Busy::start(&[&listen[..], &["--trusted-proxy", &outward]].concat());
    let port = busy.server.address().port();
    for source in [outward.as_str(), "127.0.0.1"] {
        let at = SocketAddr::new(source.parse().unwrap(), port);
        let mut kept: Vec<_> = (0..31).map(|_| Caller::new(connect_from(source, at))).collect();
        let forwarded = if source == outward { "X-Forwarded-For: 127.0.0.1\r\n" } else { "" };
        for caller in &mut kept {
            caller.send(format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{forwarded}\r\n"));
            assert_eq!(caller.answer().status, 200);
        }
        assert_eq!(busy.log(), "", "none had to make room");
    }
}

#[needs(network)]
#[test]
fn over_tls_an_address_that_holds_its_share_gets_an_alert() {
    let (authority, outward) = (Authority::new(), outward_address());
    let busy = Busy::start_with(|sandbox| {
        authority.sign().write_to(sandbox);
        let listen = ["--listen", "0.0.0.0:0", "--max-connections", "12"];
        let allow = ["--allow", &outward, "--allow", "127.0.0.1"];
        let flags = [&listen[..], &allow].concat().into_iter().map(str::to_owned);
        Identity::flags(sandbox).into_iter().chain(flags).collect()
    });
    let port = busy.server.address().port();
    let at = SocketAddr::new(outward.parse().unwrap(), port);
    let client = TlsClient::trusting(&authority);
    let connect = || Caller::new(client.over(connect_from(&outward, at)));
    let mut in_flight: Vec<_> = (0..8).map(|_| connect()).collect();
    in_flight.iter_mut().for_each(|caller| caller.send(GET_TOKEN));
    let mut observer = client.caller(SocketAddr::from(([127, 0, 0, 1], port)));
    assert_eq!(observer.get("/healthz").status, 200, "it has read the others");
    let mut received = Vec::new();
    connect_from(&outward, at).read_to_end(&mut received).expect("an end");
    assert_eq!(received, [0x15, 3, 3, 0, 2, 2, 80], "internal_error");
    busy.answers(&mut in_flight);
}
